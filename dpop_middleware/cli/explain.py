"""`dpop-middleware explain`: every check of one request, with the likely cause of a failure."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from typing import Any, Final, NamedTuple

from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._runtime import aclose_parts
from dpop_middleware.cli.console import Command, CommandError, Console
from dpop_middleware.cli.explanation import explain
from dpop_middleware.cli.findings import Explanation, as_json, print_explanation
from dpop_middleware.cli.inputs import Inputs, checked_method, parse_captured, parse_time
from dpop_middleware.cli.token_judge import TokenJudge, token_judge
from dpop_middleware.client.urls import target_of
from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import Nonce
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.profiles import KNOWN
from dpop_middleware.tokens.access_token import TOKEN_CLOCK_SKEW

__all__ = ["COMMAND"]

_POLICY: Final = DPoPPolicy()


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
    _add_token_arguments(parser)
    policy = parser.add_argument_group("the server's policy")
    policy.add_argument("--accept-bearer", action="store_true", help="it accepts Bearer tokens too")
    policy.add_argument("--nonce", metavar="NONCE", help="the nonce that the server requires")
    policy.add_argument("--iat-limit-with-nonce", type=float, metavar="SECONDS")
    policy.add_argument("--proof-lifetime", type=float, default=_POLICY.proof_lifetime, metavar="SECONDS")
    policy.add_argument("--clock-skew", type=float, default=_POLICY.clock_skew, metavar="SECONDS")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_token_arguments(parser: ArgumentParser) -> None:
    """Add the options that say how a server verifies access tokens."""
    group = parser.add_argument_group("the access token")
    group.add_argument("--token", metavar="-|@FILE|TOKEN", help="without it, this is a token request")
    group.add_argument("--bearer", action="store_true", help="it came with the scheme Bearer")
    group.add_argument(
        "--jwks", metavar="FILE|URL", help="the issuer's keys: a file, - for standard input, or an https URL"
    )
    group.add_argument("--issuer", metavar="URL", help="its iss; without --jwks its metadata is fetched")
    group.add_argument("--audience", action="append", metavar="AUD", help="the server's audience; repeatable")
    group.add_argument("--scope", action="append", metavar="SCOPE", help="a scope that the route asks for")
    group.add_argument(
        "--token-clock-skew",
        type=float,
        default=TOKEN_CLOCK_SKEW,
        metavar="SECONDS",
        help="how far the issuer's clock may differ (default: %(default)g)",
    )
    differs = parser.add_argument_group("tokens that differ from RFC 9068, each but --profile repeatable")
    differs.add_argument(
        "--profile", choices=[known.name for known in KNOWN], help="the form of an issuer's tokens"
    )
    differs.add_argument(
        "--token-type", action="append", metavar="TYP", help="another typ, or none for no typ"
    )
    differs.add_argument(
        "--scope-claim", action="append", metavar="NAME", help="a claim with scopes, such as scp"
    )
    differs.add_argument("--client-id-claim", action="append", metavar="NAME", help="such as azp or cid")
    differs.add_argument(
        "--required-claim",
        action="append",
        metavar="NAME",
        help="a claim that a token must have, instead of those of RFC 9068; iss, exp and aud stay required",
    )
    differs.add_argument(
        "--insecure-http-host",
        action="append",
        metavar="HOST",
        help="a host to reach by plain http",
    )
    _add_opaque_arguments(parser)


def _add_opaque_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("an opaque access token")
    group.add_argument(
        "--introspection",
        metavar="FILE|URL|issuer",
        help="what the issuer says of it: a saved answer, - for standard input, or the https URL of the "
        "endpoint to ask, or the word issuer to find that by the metadata of --issuer",
    )
    group.add_argument("--client-id", metavar="ID", help="the client that asks the endpoint")
    group.add_argument("--client-secret", metavar="-|@FILE", help="the secret of that client")
    group.add_argument("--client-secret-post", action="store_true", help="send it in the form")


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
        console.json(as_json(explanation, now))
    else:
        print_explanation(explanation, console, now)
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
