"""Runs the conformance suite for `dpop-middleware conformance` and prints the results; needs httpx2."""

import asyncio
from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import Final

import httpx2

from dpop_middleware.cli.console import CommandError, Console, plain
from dpop_middleware.cli.findings import FindingState
from dpop_middleware.testing.suite import CASES, Case, Outcome, run_case
from dpop_middleware.testing.target import Target

__all__ = ["drive"]

_FIRST: Final = "honest"
_MARKS: Final = MappingProxyType(
    {"passed": FindingState.PASSED, "failed": FindingState.FAILED, "skipped": FindingState.NOT_JUDGED}
)


async def drive(
    target: Target, console: Console, *, only: Collection[str], in_json: bool, patience: float
) -> int:
    """Run the cases that `only` names, by default all, the honest one first; return the exit status.

    `patience` are the seconds for one case, so that a server whose answers never end is one that gives none.

    Raises CommandError for a case that doesn't exist, and where `target` gives no answer.
    """
    cases = _chosen(only, leave_out=target.leave_out)
    try:
        outcomes = await _run_cases(cases, target, console, quiet=in_json, patience=patience)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(f"{target.url} gives no answer: {reason}", status=3) from error
    return _conclude(outcomes, console, in_json=in_json)


def _chosen(only: Collection[str], *, leave_out: Collection[str]) -> list[Case]:
    names = {case.name for case in CASES}
    for name in (*only, *leave_out):
        if name not in names:
            raise CommandError(f"there is no case {name}: choose from {', '.join(sorted(names))}")
    return [case for case in CASES if not only or case.name in (_FIRST, *only)]


async def _run_cases(
    cases: Sequence[Case], target: Target, console: Console, *, quiet: bool, patience: float
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for number, case in enumerate(cases, start=1):
        console.progress(f"{number} of {len(cases)}: {case.name}")
        try:
            async with asyncio.timeout(patience):
                outcome = await run_case(case, target)
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


def _print(outcome: Outcome, console: Console) -> None:
    skipped = f"  skipped: {plain(outcome.actual)}" if outcome.verdict == "skipped" else ""
    console.line(f"{console.mark(_MARKS[outcome.verdict])} {outcome.name}{console.styled(skipped, 'dim')}")
    if outcome.verdict == "failed":
        console.line(f"     {console.styled('expected ', 'bold')} {plain(outcome.expected)}")
        console.line(f"     {console.styled('actual   ', 'bold')} {plain(outcome.actual)}")


def _conclude(outcomes: Sequence[Outcome], console: Console, *, in_json: bool) -> int:
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
