"""The result of each check of one request, as a row, and how the rows are printed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from dpop_middleware._judge.hints import hint_of
from dpop_middleware._log import escaped
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.checks import Check
from dpop_middleware.cli.console import Console, FindingState, printable
from dpop_middleware.errors import DPoPError, Unavailable
from dpop_middleware.jose import LATEST_TIME
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["MEANING", "Explanation", "Finding", "as_json", "findings_of", "print_explanation"]

_TIMES: Final = (Check.IAT, Check.TOKEN_TIME)
_AFTER: Final = "after the failure"
_IN_JSON: Final = ("check", "outcome", "expected", "actual", "hint", "after_failure")
MEANING: Final[Mapping[Check, str]] = MappingProxyType(
    {
        Check.AUTHORIZATION: "one Authorization field with one token",
        Check.TARGET: "a path that can be read in one way only",
        Check.ONE_HEADER: "exactly one DPoP field",
        Check.TOKEN_FORMAT: "the token is a signed JWT",
        Check.TOKEN_TYP: "the token's typ is that of an access token",
        Check.TOKEN_ALG: "the token's alg is allowed",
        Check.TOKEN_KEY: "the issuer has a key for it",
        Check.TOKEN_SIGNATURE: "the issuer signed the token",
        Check.TOKEN_ACTIVE: "the issuer calls the token active",
        Check.TOKEN_CLAIMS: "the token's claims are there and well-formed",
        Check.TOKEN_ISS: "it is from this issuer",
        Check.TOKEN_AUD: "it is for this audience",
        Check.TOKEN_TIME: "it is valid at this time",
        Check.BINDING: "it is bound to a key (cnf.jkt)",
        Check.FORMAT: "the proof is a signed JWT",
        Check.TYP: "the proof's typ is dpop+jwt",
        Check.CRIT: "no JOSE extension is in use",
        Check.ALG: "the proof's alg is allowed",
        Check.JWK: "its jwk is an acceptable public key",
        Check.JKT: "that key is the one the token is bound to",
        Check.CLAIMS: "the proof's claims are there and well-formed",
        Check.HTM: "the proof is for this method",
        Check.HTU: "the proof is for this URL",
        Check.ATH: "the proof is for this token",
        Check.SIGNATURE: "the key in jwk signed the proof",
        Check.IAT: "the proof is recent",
        Check.NONCE: "the proof has the server's nonce",
        Check.JTI: "the proof was not used before",
        Check.SCOPE: "the token has the route's scopes",
        Check.AUTHENTICATION: "the login was strong and recent enough",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check of one request.

    - `expected`, `actual`: the values that it compared, not escaped: escape them before you print them.
    - `hint`: the likely cause of a failure, or the reason why the check was not judged.
    - `reason`: of a failure, the server's description.
    - `after_failure`: whether the server doesn't reach this check, since an earlier one fails.
    """

    check: Check
    outcome: FindingState
    expected: object = None
    actual: object = None
    hint: str | None = None
    reason: str | None = None
    after_failure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Every check that the server makes, in order, and the answer that it would send.

    `error` is None for an accepted request; otherwise `status` is the HTTP status of the refusal.
    """

    findings: tuple[Finding, ...]
    error: DPoPError | None
    status: int | None


def findings_of(
    request: ResourceRequest,
    checks: tuple[Check, ...],
    error: DPoPError | None,
    *,
    reading: Mapping[Check, object],
    token: AccessToken | None,
    unknown: Mapping[Check, str],
    later: Mapping[Check, DPoPError | None],
) -> tuple[Finding, ...]:
    """Return one row for each of `checks`, in their order.

    - `error`: the refusal of the request, None if it is accepted.
    - `reading`: the values in its proof; `token`: its access token, None where that isn't known.
    - `unknown`: the checks that can't be made here, and why.
    - `later`: the results of the checks that the server doesn't reach: None or an error.
    """
    failed = None if error is None else error.check or Check.AUTHORIZATION
    if failed is not None and failed not in checks:
        checks = tuple(Check)
    end = len(checks) if failed is None else checks.index(failed)
    says = {**reading, **({} if token is None else _values_of(token))}
    findings = []
    for position, check in enumerate(checks):
        after = position > end
        fault = later.get(check) if after else error if check is failed else None
        if fault is not None:
            finding = Finding(
                check=check,
                outcome=FindingState.FAILED,
                expected=fault.expected,
                actual=fault.actual,
                hint=hint_of(fault, request),
                reason=fault.description,
                after_failure=after,
            )
        elif after and (check not in later or check in unknown):
            finding = Finding(check=check, outcome=FindingState.NOT_REACHED)
        elif check in unknown:
            finding = Finding(
                check=check, outcome=FindingState.NOT_JUDGED, actual=says.get(check), hint=unknown[check]
            )
        else:
            finding = Finding(
                check=check, outcome=FindingState.PASSED, actual=says.get(check), after_failure=after
            )
        findings.append(finding)
    return tuple(findings)


def _values_of(token: AccessToken) -> dict[Check, object]:
    return {
        Check.TOKEN_ISS: token.issuer,
        Check.TOKEN_AUD: token.claims.get("aud"),
        Check.TOKEN_TIME: token.expires_at,
        Check.BINDING: token.jkt,
        Check.SCOPE: tuple(sorted(token.scopes)),
    }


def _verdict(error: DPoPError | None) -> str:
    if error is None:
        return "accepted"
    return "unknown" if isinstance(error, Unavailable) else "refused"


def as_json(explanation: Explanation, now: float) -> dict[str, Any]:
    """Return what `--json` prints; `now` is the time of the request, in seconds since the epoch."""
    error = explanation.error
    return {
        "verdict": _verdict(error),
        "status": explanation.status,
        "error": None if error is None else error.code,
        "description": None if error is None else error.description,
        "check": None if error is None else error.check,
        "now": now,
        "checks": [{name: getattr(finding, name) for name in _IN_JSON} for finding in explanation.findings],
    }


def print_explanation(explanation: Explanation, console: Console, now: float) -> None:
    """Print a line for each check, and the details of each failure; `now` is as for `as_json`."""
    for finding in explanation.findings:
        _print_finding(finding, console, now)
        if finding.outcome is FindingState.FAILED:
            _print_failure(finding, console, now)
    console.line()
    if any(finding.after_failure for finding in explanation.findings):
        console.line(f"{_AFTER}: what the server would find if it got that far", style="dim")
    error = explanation.error
    if error is None:
        console.line("accepted, as far as it can be judged here", style="green")
        return
    answer = f"{explanation.status} {error.code or ''}".rstrip()
    console.line(f"{_verdict(error)}: {answer}, caught by {error.check}", style="red")


def _print_finding(finding: Finding, console: Console, now: float) -> None:
    end = ""
    if finding.outcome is FindingState.NOT_REACHED:
        end = "not reached"
    elif finding.outcome is FindingState.NOT_JUDGED:
        end = f"not judged: {finding.hint}"
    elif finding.outcome is FindingState.PASSED and finding.actual is not None:
        end = _formatted(finding.check, finding.actual, now)
    if finding.after_failure:
        end = f"({_AFTER}) {end}".rstrip()
    words = f"{finding.check:<16} {MEANING[finding.check]:<46} {console.styled(end, 'dim') if end else ''}"
    console.line(f"{console.mark(finding.outcome)} {words.rstrip()}")


def _print_failure(finding: Finding, console: Console, now: float) -> None:
    rows = [("reason", printable(finding.reason or ""))]
    if finding.expected is not None:
        rows.append(("expected", _formatted(finding.check, finding.expected, now)))
    if finding.actual is not None:
        rows.append(("actual", _formatted(finding.check, finding.actual, now)))
    if finding.hint is not None:
        rows.append(("hint", printable(finding.hint)))
    if finding.check is Check.IAT and isinstance(finding.expected, tuple):
        rows.append(("note", f"to judge an old capture at its own time, add --now {finding.actual:.0f}"))
    for name, text in rows:
        console.line(f"     {console.styled(f'{name:<9}', 'bold')} {text}")


def _formatted(check: Check, value: object, now: float) -> str:
    if check in _TIMES:
        if isinstance(value, tuple):
            return " to ".join(_formatted(check, end, now) for end in value)
        if isinstance(value, (int, float)) and 0 <= value <= LATEST_TIME:
            moment = datetime.fromtimestamp(value, UTC)
            return f"{value:.0f} ({moment:%Y-%m-%d %H:%M:%S} UTC, {_distance(value - now)})"
    return escaped(value)


def _distance(seconds: float) -> str:
    if abs(seconds) < 0.5:
        return "now"
    return f"in {seconds:.0f} s" if seconds > 0 else f"{-seconds:.0f} s ago"
