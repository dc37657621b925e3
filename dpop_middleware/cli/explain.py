"""`dpop-middleware explain`: every check of one request, with the likely cause of a failure."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._log import escaped
from dpop_middleware._runtime import aclose_parts
from dpop_middleware.checks import Check
from dpop_middleware.cli.console import Command, CommandError, Console, printable
from dpop_middleware.cli.explanation import explain
from dpop_middleware.cli.findings import Explanation, Finding, FindingState
from dpop_middleware.cli.inputs import Inputs, checked_method, parse_captured, parse_time
from dpop_middleware.cli.token_judge import add_token_arguments, token_judge
from dpop_middleware.cli.verifiers import TokenJudge
from dpop_middleware.client.urls import target_of
from dpop_middleware.errors import DPoPError, Unavailable
from dpop_middleware.jose import LATEST_TIME
from dpop_middleware.nonces import Nonce
from dpop_middleware.policy import DPoPPolicy

__all__ = ["COMMAND", "MEANING"]

_POLICY: Final = DPoPPolicy()
_TIMES: Final = (Check.IAT, Check.TOKEN_TIME)
_AFTER: Final = "after the failure"
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


class _OneNonce:
    """Accepts one nonce: the one given with `--nonce`."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce

    def issue(self, now: float) -> str:  # noqa: ARG002 - the same at any time
        return self._nonce

    def check(self, nonce: str, now: float) -> Nonce | None:
        return Nonce(issued_at=now, expires_at=now, current=True) if nonce == self._nonce else None


def _add_arguments(parser: ArgumentParser) -> None:
    request = parser.add_argument_group("the request")
    request.add_argument(
        "--request",
        metavar="-|FILE",
        help="a captured request, raw or as curl -v or a browser shows it, instead of the next four options",
    )
    request.add_argument("--method", metavar="METHOD", help="the HTTP method, such as GET")
    request.add_argument(
        "--url", metavar="URL", help="the absolute URL, as clients call it; with --request where it differs"
    )
    request.add_argument(
        "--proof",
        action="append",
        metavar="-|@FILE|PROOF",
        help="the value of its DPoP field; repeat it for a second field",
    )
    request.add_argument(
        "--now", metavar="TIME", help="when it was made, in seconds since the epoch or ISO 8601; default: now"
    )
    add_token_arguments(parser)
    policy = parser.add_argument_group("the server's policy")
    policy.add_argument("--accept-bearer", action="store_true", help="it accepts Bearer tokens too")
    policy.add_argument("--nonce", metavar="NONCE", help="the nonce that the server requires")
    policy.add_argument("--iat-limit-with-nonce", type=float, metavar="SECONDS")
    policy.add_argument("--proof-lifetime", type=float, default=_POLICY.proof_lifetime, metavar="SECONDS")
    policy.add_argument("--clock-skew", type=float, default=_POLICY.clock_skew, metavar="SECONDS")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(args: Namespace, console: Console) -> int:
    inputs = Inputs()
    now = time.time() if args.now is None else parse_time(args.now)
    request = _request(args, inputs)
    if args.request is not None and request.authorization is None:
        console.note("judged as a token request: it has a grant_type, or authenticates a client with Basic")
    policy = DPoPPolicy(
        accept_bearer=args.accept_bearer,
        proof_lifetime=args.proof_lifetime,
        clock_skew=args.clock_skew,
        nonce="off" if args.nonce is None else "required",
        iat_limit_with_nonce=args.iat_limit_with_nonce,
    )
    token = None if not request.authorization else request.authorization[0].partition(" ")[2]
    judge = token_judge(args, inputs, token, now=now)
    explanation = asyncio.run(
        _explain(
            judge,
            **request._asdict(),
            nonces=None if args.nonce is None else _OneNonce(args.nonce),
            policy=policy,
            requirements=Requirements(scopes=tuple(args.scope or ())),
            now=now,
        )
    )
    if args.json:
        console.json(_as_json(explanation, now))
    else:
        _print(explanation, console, now)
    if explanation.error is None:
        return 0
    return 3 if isinstance(explanation.error, Unavailable) else 1


class _Request(NamedTuple):
    method: str
    url: str
    proofs: tuple[str, ...]
    authorization: tuple[str, ...] | None


def _request(args: Namespace, inputs: Inputs) -> _Request:
    """Return the request that the options describe, one by one or as a whole."""
    apart = {"--method": args.method, "--proof": args.proof, "--token": args.token}
    if args.request is None:
        needed = {"--method": args.method, "--url": args.url, "--proof": args.proof}
        missing = ", ".join(option for option, value in needed.items() if value is None)
        if missing:
            raise CommandError(
                f"name the request by --request, or by {missing}: see dpop-middleware explain --help"
            )
        token = None if args.token is None else inputs.text("--token", args.token)
        scheme = "Bearer" if args.bearer else "DPoP"
        fields = None if token is None else (f"{scheme} {token}",)
        proofs = tuple(inputs.text("--proof", value) for value in args.proof)
        return _Request(checked_method(args.method), _url(args.url), proofs, fields)
    for option, value in apart.items():
        if value is not None:
            raise CommandError(f"--request includes {option}: leave it out")
    # As in a header field: each octet is one character.
    captured = parse_captured(inputs.octets("--request", args.request.removeprefix("@")).decode("latin-1"))
    sent = None if captured.is_token_request else captured.authorization
    return _Request(captured.method, _url(args.url or captured.url()), captured.dpop, sent)


def _url(url: str) -> str:
    try:
        return target_of(url)
    except ValueError as error:
        raise CommandError(f"the URL can't be used: {error}") from error


async def _explain(judge: TokenJudge, **request: Any) -> Explanation:
    try:
        return await explain(judge=judge, **request)
    finally:
        await aclose_parts(judge.verifier)


def _verdict(error: DPoPError | None) -> str:
    if error is None:
        return "accepted"
    return "unknown" if isinstance(error, Unavailable) else "refused"


def _as_json(explanation: Explanation, now: float) -> dict[str, Any]:
    error = explanation.error
    return {
        "verdict": _verdict(error),
        "status": explanation.status,
        "error": None if error is None else error.code,
        "description": None if error is None else error.description,
        "check": None if error is None else error.check,
        "now": now,
        "checks": [
            {
                "check": finding.check,
                "outcome": finding.outcome,
                "expected": finding.expected,
                "actual": finding.actual,
                "hint": finding.hint,
                "after_failure": finding.after_failure,
            }
            for finding in explanation.findings
        ],
    }


def _print(explanation: Explanation, console: Console, now: float) -> None:
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


COMMAND = Command(
    name="explain",
    summary="judge one request and show every check",
    examples="""\
  dpop-middleware explain --method GET --url https://api.example.com/notes --proof @proof.txt --token @t.txt
  dpop-middleware explain --method GET --url https://api.example.com/notes --proof @proof.txt \\
      --token @t.txt --jwks jwks.json --issuer https://auth.example.com --audience https://api.example.com
  pbpaste | dpop-middleware explain --method POST --url https://auth.example.com/token --proof - --json
  curl -v ... 2>&1 | dpop-middleware explain --request - --jwks jwks.json --audience https://api.example.com

exit status: 0 accepted as far as it can be judged, 1 refused, 2 usage error,
3 the issuer can't be asked
""",
    add_arguments=_add_arguments,
    run=_run,
)
