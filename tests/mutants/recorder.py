"""A plugin for the recording run: coverage knows of each line which tests ran it; and how long they took."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

DURATIONS = "MUTANTS_DURATIONS"

_took: dict[str, float] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Give the test its context: what runs outside of one was run by an import."""
    measured = coverage.Coverage.current()
    if measured is None:
        return (yield)
    measured.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        measured.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up set-up, call and tear-down."""
    _took[report.nodeid] = _took.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the durations, where it is not a worker of xdist's that ends."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ[DURATIONS]).write_text(json.dumps(_took), encoding="utf-8")
