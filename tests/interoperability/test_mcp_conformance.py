"""The public conformance suite of the Model Context Protocol judges the SDK's client with our transport."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.node import mcp_conformance

pytestmark = pytest.mark.slow

CLIENT = f'"{sys.executable}" -m tests.support.mcp_conformance_client'


def passed(said: str) -> tuple[int, int]:
    """How many checks passed, and of how many."""
    found = re.search(r"Passed: (\d+)/(\d+), (\d+) failed", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


@pytest.mark.parametrize(("scenario", "checks"), [("auth/dpop", 12), ("auth/dpop-nonce", 14)])
def test_every_check_of_a_client_passes(
    pytestconfig: pytest.Config, tmp_path: Path, scenario: str, checks: int
) -> None:
    said = mcp_conformance(pytestconfig, scenario, client=CLIENT, results=tmp_path)
    assert passed(said) == (checks, checks), said


def test_the_suite_notices_where_the_transport_is_missing(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    said = mcp_conformance(pytestconfig, "auth/dpop", client=f"{CLIENT} --alone", results=tmp_path)
    right, checks = passed(said)
    assert right < checks, said
