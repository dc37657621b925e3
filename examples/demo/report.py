"""The table that a person reads: what was sent, what was answered, and which check caught it."""

import os
import sys
import textwrap
from collections.abc import Iterable

from examples.demo.walk import Step, Verdict

WIDTH = 99
ROW = "{number:>2}  {title:<42} {request:<16} {answer:<22} {check:<8} {mark}"
HEAD = ROW.format(number="", title="what happens", request="request", answer="answer", check="check", mark="")
RULE = "-" * WIDTH
GREEN, RED, DIM, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


def print_steps(steps: Iterable[Step]) -> bool:
    """Print each step as it happens; return whether every verdict was the right one."""
    print(HEAD.rstrip(), RULE, sep="\n")
    right = [_print_step(number, step) for number, step in enumerate(steps, start=1)]
    print(RULE, f"{sum(right)} of {len(right)} verdicts are right", sep="\n")
    return all(right)


def _print_step(number: int, step: Step) -> bool:
    right = step.actual == step.expected
    row = ROW.format(
        number=number,
        title=step.title,
        request=step.request,
        answer=_answer(step.actual),
        check=step.actual.check or "-",
        mark=_coloured(GREEN, "ok") if right else _coloured(RED, "WRONG"),
    )
    print(row)
    for note in filter(None, (step.reason, step.details)):
        print(_coloured(DIM, _indented(note)))
    if not right:
        expected = f"expected: {_answer(step.expected)}, caught by {step.expected.check or '-'}"
        print(_coloured(RED, _indented(expected)))
    return right


def _answer(verdict: Verdict) -> str:
    return f"{verdict.status} {verdict.error or ''}".rstrip()


def _indented(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _coloured(colour: str, text: str) -> str:
    return f"{colour}{text}{PLAIN}" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
