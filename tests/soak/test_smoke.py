"""A few seconds of the soak: real servers and workers, two faults."""

from pathlib import Path

import pytest

from tests.soak.oracle import Kind
from tests.soak.run import Plan, Soak
from tests.support.valkey import implementations

pytestmark = pytest.mark.slow


def plan(tmp_path: Path, *faults: str) -> Plan:
    return Plan(
        topology="standalone",
        implementation=next(iter(implementations())),
        seed=7,
        minutes=0.25,
        directory=tmp_path,
        rate=60.0,
        faults=faults,
        warm_up=2.0,
    )


async def test_some_seconds_with_a_hang_and_a_flush(tmp_path: Path) -> None:
    said: list[str] = []
    soak = Soak(plan(tmp_path, "hang", "FLUSHALL"), said.append)
    assert await soak.run(), said[-1]
    assert {happening.name for happening in soak.journal.happenings} >= {"hang", "FLUSHALL"}
    assert soak.oracle.kinds[Kind.ACCEPTED] > 0
    assert soak.oracle.kinds[Kind.USED] > 0
    assert soak.oracle.kinds[Kind.LOST] > 0
    assert soak.oracle.kinds[Kind.OTHER] == 0
    assert "standalone on" in said[-1]


async def test_a_fault_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no fault 'earthquake' for standalone: there are hang, "):
        await Soak(plan(tmp_path, "earthquake")).run()
