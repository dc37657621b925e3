"""The result of each check of one request, as a row: passed, failed, not judged, or not reached."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from dpop_middleware._judge.hints import hint_of
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["Explanation", "Finding", "FindingState", "findings_of"]


class FindingState(StrEnum):
    """The result of one check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_REACHED = "not reached"
    NOT_JUDGED = "not judged"


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
        if error is not None and check is failed:
            finding = _failed(check, error, request)
        elif position > end:
            finding = _later(check, later, says, unknown, request)
        elif check in unknown:
            finding = Finding(
                check=check, outcome=FindingState.NOT_JUDGED, actual=says.get(check), hint=unknown[check]
            )
        else:
            finding = Finding(check=check, outcome=FindingState.PASSED, actual=says.get(check))
        findings.append(finding)
    return tuple(findings)


def _later(
    check: Check,
    later: Mapping[Check, DPoPError | None],
    says: Mapping[Check, object],
    unknown: Mapping[Check, str],
    request: ResourceRequest,
) -> Finding:
    error = later.get(check)
    if error is not None:
        return replace(_failed(check, error, request), after_failure=True)
    if check not in later or check in unknown:
        return Finding(check=check, outcome=FindingState.NOT_REACHED)
    return Finding(check=check, outcome=FindingState.PASSED, actual=says.get(check), after_failure=True)


def _failed(check: Check, error: DPoPError, request: ResourceRequest) -> Finding:
    return Finding(
        check=check,
        outcome=FindingState.FAILED,
        expected=error.expected,
        actual=error.actual,
        hint=hint_of(error, request),
        reason=error.description,
    )


def _values_of(token: AccessToken) -> dict[Check, object]:
    return {
        Check.TOKEN_ISS: token.issuer,
        Check.TOKEN_AUD: token.claims.get("aud"),
        Check.TOKEN_TIME: token.expires_at,
        Check.BINDING: token.jkt,
        Check.SCOPE: tuple(sorted(token.scopes)),
    }
