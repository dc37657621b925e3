"""`dpop-middleware conformance`: the conformance suite against a running server."""

import asyncio
import os
import ssl
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dpop_middleware._options import seconds
from dpop_middleware._runtime import Deferred, system_time
from dpop_middleware.cli.console import (
    PRIVATE_KEY,
    Command,
    CommandError,
    Console,
    FindingState,
    printable,
)
from dpop_middleware.cli.inputs import INSECURE_HTTP, Inputs, check_destination, checked_method, checked_token
from dpop_middleware.testing.target import Target

if TYPE_CHECKING:
    import httpx2

    from dpop_middleware.testing import suite
else:
    # Only this command needs httpx2, as the suite does.
    httpx2, suite = Deferred("httpx2"), Deferred("dpop_middleware.testing.suite")

__all__ = ["COMMAND"]

_FIRST: Final = "honest"
_MARKS: Final = MappingProxyType(
    {"passed": FindingState.PASSED, "failed": FindingState.FAILED, "skipped": FindingState.NOT_JUDGED}
)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="a protected resource, best without side effects")
    parser.add_argument("--key", required=True, metavar="FILE", help=PRIVATE_KEY)
    parser.add_argument("--password", metavar="-|@FILE", help="the password of an encrypted PEM file")
    parser.add_argument(
        "--token",
        required=True,
        metavar="-|@FILE|TOKEN",
        help="an access token that is bound to the key and valid for the resource",
    )
    parser.add_argument("--method", default="GET", metavar="METHOD", help="default: GET; without a body")
    parser.add_argument("--only", action="append", metavar="CASE", help="run this case; repeatable")
    parser.add_argument("--leave-out", action="append", metavar="CASE", help="skip this case; repeatable")
    parser.add_argument(
        "--ca", metavar="FILE", help="trust these CAs too, PEM; SSL_CERT_FILE and SSL_CERT_DIR are honoured"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="for one case, 0.1 to 600; default: 60"
    )
    parser.add_argument("--insecure-http", action="store_true", help=INSECURE_HTTP)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(args: Namespace, console: Console) -> int:
    try:
        import_module("httpx2")
    except ModuleNotFoundError as error:
        raise CommandError(
            "this command needs httpx2: in a checkout of dpop_middleware, python -m pip install '.[client]'"
        ) from error
    inputs = Inputs()
    check_destination(args.url, insecure_http=args.insecure_http)
    key = inputs.key("--key", args.key, password=inputs.secret("--password", args.password))
    trusted = _trusted(args.ca)
    target = Target(
        url=args.url,
        method=checked_method(args.method),
        key=key,
        access_token=checked_token("--token", inputs.text("--token", args.token)),
        leave_out=args.leave_out or (),
        clock=system_time,
        transport=None if trusted is None else lambda: _transport(trusted),
    )
    patience = seconds("--timeout", args.timeout, minimum=0.1, maximum=600)
    return asyncio.run(_drive(target, console, only=args.only or (), in_json=args.json, patience=patience))


def _trusted(ca: str | None) -> ssl.SSLContext | None:
    """Return the certificates that `--ca` and the environment name as trusted, None if they name none."""
    named = {"--ca": ca, "SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE")}
    if not any(named.values()) and not os.environ.get("SSL_CERT_DIR"):
        return None
    context = ssl.create_default_context()
    for option, file in named.items():
        if file:
            try:
                context.load_verify_locations(cafile=file)
            except (OSError, ValueError) as error:
                # A file without a certificate is an OSError too: an SSLError.
                raise CommandError(f"{option} names no readable file of certificates: {file}") from error
    return context


def _transport(trusted: ssl.SSLContext) -> "httpx2.AsyncHTTPTransport":
    return httpx2.AsyncHTTPTransport(verify=trusted, trust_env=False)


async def _drive(
    target: Target, console: Console, *, only: Collection[str], in_json: bool, patience: float
) -> int:
    """Run the cases that `only` names, by default all, the honest one first; return the exit status.

    `patience` is the number of seconds for one case, so that a response that never ends counts as none.

    Raises CommandError for a case that doesn't exist, and where `target` gives no answer.
    """
    cases = _chosen(only, leave_out=target.leave_out)
    try:
        outcomes = await _run_cases(cases, target, console, quiet=in_json, patience=patience)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(f"{target.url} gives no answer: {reason}", status=3) from error
    return _conclude(outcomes, console, in_json=in_json)


def _chosen(only: Collection[str], *, leave_out: Collection[str]) -> "list[suite.Case]":
    names = {case.name for case in suite.CASES}
    for name in (*only, *leave_out):
        if name not in names:
            raise CommandError(f"there is no case {name}: choose from {', '.join(sorted(names))}")
    return [case for case in suite.CASES if not only or case.name in (_FIRST, *only)]


async def _run_cases(
    cases: "Sequence[suite.Case]", target: Target, console: Console, *, quiet: bool, patience: float
) -> "list[suite.Outcome]":
    outcomes: list[suite.Outcome] = []
    for number, case in enumerate(cases, start=1):
        console.progress(f"{number} of {len(cases)}: {case.name}")
        try:
            async with asyncio.timeout(patience):
                outcome = await suite.run_case(case, target)
        finally:
            console.progress("")
        outcomes.append(outcome)
        if not quiet:
            _print(outcome, console)
            console.flush()
        if case.name == _FIRST and outcome.verdict == "failed":
            console.note(
                "the honest request was refused, so the other cases say nothing: "
                "is the token bound to this key, valid, and for this resource?"
            )
            break
    return outcomes


def _print(outcome: "suite.Outcome", console: Console) -> None:
    skipped = f"  skipped: {printable(outcome.actual)}" if outcome.verdict == "skipped" else ""
    console.line(f"{console.mark(_MARKS[outcome.verdict])} {outcome.name}{console.styled(skipped, 'dim')}")
    if outcome.verdict == "failed":
        console.line(f"     {console.styled('expected ', 'bold')} {printable(outcome.expected)}")
        console.line(f"     {console.styled('actual   ', 'bold')} {printable(outcome.actual)}")


def _conclude(outcomes: "Sequence[suite.Outcome]", console: Console, *, in_json: bool) -> int:
    counts = {
        verdict: sum(outcome.verdict == verdict for outcome in outcomes)
        for verdict in ("passed", "failed", "skipped")
    }
    if in_json:
        cases = [
            {"case": one.name, "verdict": one.verdict, "expected": one.expected, "actual": one.actual}
            for one in outcomes
        ]
        console.json({**counts, "cases": cases})
    else:
        console.line()
        summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        console.line(summary, style="red" if counts["failed"] else "green")
    return 1 if counts["failed"] else 0


COMMAND = Command(
    name="conformance",
    summary="send good and bad requests to a running server and judge its answers",
    examples="""\
  dpop-middleware conformance https://api.example.com/notes --key client.jwk --token @token.txt
  dpop-middleware conformance http://localhost:8000/notes --key client.jwk --token - < token.txt
  dpop-middleware conformance https://staging.example/notes --ca ca.pem --key client.jwk --token @token.txt

Cases that need other tokens, such as an expired one, are skipped. In your own tests,
dpop_middleware.testing.conformance runs them with the tokens of TestIssuer.

exit status: 0 every answer is right, 1 an answer is wrong, 2 usage error, 3 no answer
""",
    add_arguments=_add_arguments,
    run=_run,
)
