"""`dpop-middleware conformance`: the conformance suite against a running server."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dpop_middleware.cli.command import PRIVATE_KEY, Command
from dpop_middleware.cli.console import CommandError, Console, plain
from dpop_middleware.cli.inputs import Inputs, checked_method, checked_token
from dpop_middleware.client.target import origin_of
from dpop_middleware.explanation import Outcome
from dpop_middleware.secure_url import is_loopback
from dpop_middleware.uri import parse_base_url

if TYPE_CHECKING:
    from dpop_middleware.testing.suite import Case
    from dpop_middleware.testing.suite import Outcome as CaseOutcome
    from dpop_middleware.testing.target import Target

__all__ = ["COMMAND"]

_FIRST: Final = "honest"
_MARKS: Final = {"passed": Outcome.PASSED, "failed": Outcome.FAILED, "skipped": Outcome.NOT_JUDGED}


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="a protected resource, better one without side effects")
    parser.add_argument("--key", required=True, metavar="FILE", help=PRIVATE_KEY)
    parser.add_argument("--password", metavar="-|@FILE", help="what opens an encrypted PEM file")
    parser.add_argument(
        "--token",
        required=True,
        metavar="-|@FILE|TOKEN",
        help="an access token that is bound to the key and lets the request in",
    )
    parser.add_argument("--method", default="GET", metavar="METHOD", help="default: GET; there is no body")
    parser.add_argument("--only", action="append", metavar="CASE", help="run this case; repeatable")
    parser.add_argument("--leave-out", action="append", metavar="CASE", help="skip this case; repeatable")
    parser.add_argument(
        "--insecure-http", action="store_true", help="send the token by plain http to another machine"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(args: Namespace, console: Console) -> int:
    try:
        import httpx2

        from dpop_middleware.testing.suite import CASES
        from dpop_middleware.testing.target import Target
    except ModuleNotFoundError as error:
        raise CommandError("this command needs httpx2: pip install 'dpop_middleware[client]'") from error
    cases = _chosen(CASES, only=args.only or (), leave_out=args.leave_out or ())
    inputs = Inputs()
    key = inputs.key("--key", args.key, password=inputs.secret("--password", args.password))
    target = Target(
        url=args.url,
        method=checked_method(args.method),
        key=key,
        access_token=checked_token("--token", inputs.text("--token", args.token)),
        leave_out=args.leave_out or (),
        clock=time.time,
    )
    try:
        base = parse_base_url(origin_of(target.url))
    except ValueError as error:
        raise CommandError(f"the URL can't be used: {error}") from error
    if base.scheme != "https" and not is_loopback(base.host) and not args.insecure_http:
        raise CommandError("the token would travel in the clear: use https, or add --insecure-http")
    try:
        outcomes = asyncio.run(_drive(cases, target, console, quiet=args.json))
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(f"{target.url} gives no answer: {reason}", status=3) from error
    return _conclude(outcomes, console, in_json=args.json)


def _chosen(cases: Sequence["Case"], *, only: Sequence[str], leave_out: Sequence[str]) -> list["Case"]:
    names = {case.name for case in cases}
    for name in (*only, *leave_out):
        if name not in names:
            raise CommandError(f"there is no case {name}: choose from {', '.join(sorted(names))}")
    return [case for case in cases if not only or case.name in (_FIRST, *only)]


async def _drive(
    cases: Sequence["Case"], target: "Target", console: Console, *, quiet: bool
) -> list["CaseOutcome"]:
    from dpop_middleware.testing.suite import run_case

    outcomes: list[CaseOutcome] = []
    for case in cases:
        outcome = await run_case(case, target)
        outcomes.append(outcome)
        if not quiet:
            _print(outcome, console)
            console.flush()
        if case.name == _FIRST and outcome.verdict == "failed":
            console.note(
                "the honest request was refused, so nothing else can be told: "
                "is the token bound to this key, valid, and for this resource?"
            )
            break
    return outcomes


def _print(outcome: "CaseOutcome", console: Console) -> None:
    skipped = f"  skipped: {plain(outcome.actual)}" if outcome.verdict == "skipped" else ""
    console.line(f"{console.mark(_MARKS[outcome.verdict])} {outcome.name}{console.styled(skipped, 'dim')}")
    if outcome.verdict == "failed":
        console.line(f"     {console.styled('expected ', 'bold')} {plain(outcome.expected)}")
        console.line(f"     {console.styled('actual   ', 'bold')} {plain(outcome.actual)}")


def _conclude(outcomes: Sequence["CaseOutcome"], console: Console, *, in_json: bool) -> int:
    counts = {
        verdict: sum(outcome.verdict == verdict for outcome in outcomes)
        for verdict in ("passed", "failed", "skipped")
    }
    if in_json:
        told: list[dict[str, Any]] = [
            {"case": one.name, "verdict": one.verdict, "expected": one.expected, "actual": one.actual}
            for one in outcomes
        ]
        console.json({**counts, "cases": told})
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
  dpop-middleware conformance http://localhost:8000/notes --key client.jwk --token - --leave-out expired < token.txt

The cases that need tokens of other shapes are skipped: dpop_middleware.testing.conformance, in your own tests,
makes them with TestIssuer.

exit status: 0 every answer is right, 1 an answer is wrong, 2 wrong use, 3 no answer
""",
    add_arguments=_add_arguments,
    run=_run,
)
