"""The conformance suite as pytest tests of your own application.

    from dpop_middleware.testing.conformance import Target, test_dpop_conformance

    @pytest.fixture
    def dpop_target() -> Target:
        return Target.of(issuer, app=app, url="https://api.example.com/notes", scopes=["notes:read"])

The tests run wherever `test_dpop_conformance` is imported, against the fixture `dpop_target` of that place.
"""

import asyncio

import pytest

from dpop_middleware.testing.suite import CASES, Case, run_case
from dpop_middleware.testing.target import Target

__all__ = ["Target", "test_dpop_conformance"]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_dpop_conformance(case: Case, dpop_target: Target) -> None:
    """Each case gets the answer that RFC 9449 and the README's table of checks require."""
    outcome = asyncio.run(run_case(case, dpop_target))
    if outcome.verdict == "skipped":
        pytest.skip(outcome.actual)
    if outcome.verdict == "failed":
        pytest.fail(f"{outcome.name}: expected {outcome.expected}; got {outcome.actual}", pytrace=False)
