"""What the writers of a cluster ask of it, without servers."""

import asyncio
import math
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.cluster import Cluster
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import Buckets, ServerError
from dpop_middleware.replay.redis.server import Server
from dpop_middleware.replay.redis.topology import Topology
from dpop_middleware.replay.redis.vitals import ServerInfo, identity_of
from tests.support.replay import cluster_nodes, standalone
from tests.support.scripted import ScriptedServer
from tests.support.valkey import HOST

BUCKETS = Buckets(b"dpop", spread=True)
# Whose data a scripted server says that it has.
SCRIPTED = identity_of(ServerInfo(run_id="a" * 40, replication_id="b" * 40))


def cluster(port: int = 1, *, timeout: float = 0.25) -> Any:
    return Cluster(cluster_nodes(f"redis+cluster://{HOST}:{port}"), Settings(timeout=timeout), BUCKETS)


async def test_before_the_topology_is_known_nobody_owns_anything() -> None:
    made = cluster()
    assert made.buckets((HOST, 1)) == []
    assert await made.present(frozenset({b"a.b"}), asker=(HOST, 1), patient=True) == frozenset()
    await made.aclose()


async def test_where_one_server_has_other_data_the_others_are_looked_at() -> None:
    made = cluster()
    changed, other = made._writer((HOST, 1)), made._writer((HOST, 2))
    changed.fence.standing.owned, other.fence.standing.owned = {1}, {2}
    made.look_around((HOST, 1))
    assert changed.fence.standing.unread == set()
    assert other.fence.standing.unread == {2}
    await made.aclose()


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


async def test_a_master_has_its_data_when_it_says_so_again(scripted: ScriptedServer) -> None:
    made = cluster(timeout=20.0)
    address, asker, known = (HOST, scripted.port), (HOST, 1), frozenset({SCRIPTED})
    made._writer(address)
    assert await made.present(known, asker=asker, patient=True) == known
    asked = len(scripted.commands)
    assert await made.present(known, asker=asker, patient=True) == known
    assert [words[0] for words in scripted.commands[asked:]] == [b"INFO"]
    # What is somebody else's is asked for only of one that was not asked for a second.
    assert await made.present(frozenset({b"a.b"}), asker=asker, patient=True) == frozenset()
    assert len(scripted.commands) == asked + 1
    assert made._sights.changed_at == -math.inf
    await made.aclose()


async def test_a_master_that_says_nothing_may_have_lost_its_data(scripted: ScriptedServer) -> None:
    made = cluster(timeout=0.4)
    address, asker, known = (HOST, scripted.port), (HOST, 1), frozenset({SCRIPTED})
    scripted.hold(b"INFO")
    writer = made._writer(address)
    before = asyncio.get_running_loop().time()
    assert await made.present(known, asker=asker, patient=True) is None
    assert made._sights.changed_at == -math.inf
    assert await made.present(known, asker=asker, patient=False) == frozenset()
    assert made._sights.changed_at > before
    scripted.release()
    assert await writer.has_told_since(before, patience=20.0)
    await made.aclose()


async def test_a_master_that_nobody_wrote_to_is_met_at_once(scripted: ScriptedServer) -> None:
    made = cluster(timeout=2.0)
    address = (HOST, scripted.port)
    await made._tidy(Topology((address,) * 16384, (address,)))
    async with asyncio.timeout(10):
        while not scripted.commands:
            await asyncio.sleep(0.01)
    assert scripted.opened == 1
    await made.aclose()


async def test_who_wants_the_topology_too_soon_gets_it_later(scripted: ScriptedServer) -> None:
    slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % scripted.port
    scripted.script = lambda words: slots if words[0] == b"CLUSTER" else None
    made = cluster(scripted.port, timeout=2.0)

    def looks() -> int:
        return len([words for words in scripted.commands if words[0] == b"CLUSTER"])

    async def looked(times: int) -> None:
        async with asyncio.timeout(10):
            while looks() < times or made._refreshing is not None:
                await asyncio.sleep(0.005)

    made.open()
    await looked(1)
    made._refreshed_at = asyncio.get_running_loop().time()
    for _ in range(3):
        made.look_again(TimeoutError())
    assert made._refreshing is None
    await looked(2)
    made._refreshed_at = asyncio.get_running_loop().time()
    made.look_again(TimeoutError())
    await made.aclose()
    await asyncio.sleep(0.15)
    assert looks() == 2


async def test_a_bucket_that_moved_before_it_was_looked_at_is_looked_for(scripted: ScriptedServer) -> None:
    moved: Any = Moving()
    connect = standalone(scripted.url).connect
    known = Server("here", connect, Settings(), Sights(BUCKETS), moved)
    await known.ready(deadline=math.inf, offset=None)
    scripted.script = lambda words: b"-MOVED 1 h:1\r\n" if words[0] == b"GET" else None
    known.fence.standing.unread |= {1, 2}
    await known.survey(deadline=math.inf)
    assert [str(error) for error in moved.told] == ["MOVED 1 h:1"]
    assert not known.fence.standing.unread
    await known.aclose()


class Moving:
    """A cluster that is told of a slot that has moved."""

    def __init__(self) -> None:
        self.told: list[Exception] = []

    def look_again(self, error: Exception) -> None:
        self.told.append(error)

    def tag(self) -> bytes:
        return b"{2}"

    def buckets(self) -> list[int]:
        return []


async def test_retentions_follow_to_another_slot() -> None:
    moved: Any = Moving()
    connect = standalone(f"redis://{HOST}:1").connect
    known = Server("here", connect, Settings(), Sights(BUCKETS), moved)
    known.tell()
    assert moved.told == []
    error = ServerError("MOVED 1 h:1")
    known.retentions.read(error, error, now=0.0)
    known.tell()
    assert moved.told == [error]
    assert known.retentions.elsewhere is None
    await asyncio.sleep(0)
    await known.aclose()


class Elsewhere(Moving):
    """A cluster that is asked to look at its other servers."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def look_around(self) -> None:
        self.looks += 1


async def test_a_server_that_comes_back_with_other_data_has_the_others_looked_at() -> None:
    others: Any = Elsewhere()
    connect = standalone(f"redis://{HOST}:1").connect
    known: Any = Server("here", connect, Settings(), Sights(BUCKETS), others)
    opening: asyncio.Future[Any]
    for looks, name in ((0, "a"), (0, "a"), (1, "b"), (1, "b")):
        info = ServerInfo(run_id=name, replication_id=name, role="master", uptime=99)
        opening = asyncio.get_running_loop().create_future()
        opening.set_result(SimpleNamespace(connection=None, info=info, anchors={}, asked=(0.0, 0.0)))
        known._opened(opening)
        assert others.looks == looks
    await known.aclose()
