"""The interface of a cluster for its writers, without servers."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.cluster import Cluster
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import Buckets, ServerError
from dpop_middleware.replay.redis.server import Server
from dpop_middleware.replay.redis.vitals import ServerInfo, identity_of
from dpop_middleware.replay.redis.writes import PendingWrite
from dpop_middleware.replay.store import ExchangeSink, StoreExchange
from tests.support.loop_clock import LoopClock
from tests.support.replay import ENDLESS, cluster_nodes, entry, standalone
from tests.support.scripted import Reporting, ScriptedServer, bulk, info
from tests.support.sleep import Sleep
from tests.support.valkey import HOST

BUCKETS = Buckets(b"dpop", spread=True)
# The identity of the data that a scripted server reports.
SCRIPTED = identity_of(ServerInfo(run_id="a" * 40, replication_id="b" * 40))


def cluster(port: int = 1, *, timeout: float = 0.25, on_exchange: ExchangeSink | None = None) -> Cluster:
    settings = Settings(timeout=timeout, on_exchange=on_exchange)
    return Cluster(cluster_nodes(f"redis+cluster://{HOST}:{port}"), settings, BUCKETS)


def shared_by(*servers: ScriptedServer) -> Callable[[tuple[bytes, ...]], bytes | None]:
    """A script that reports that `servers` own a part of the slots each."""
    size = 16384 // len(servers)
    rows = [
        b"*3\r\n:%d\r\n:%d\r\n*2\r\n$0\r\n\r\n:%d\r\n"
        % (size * number, 16383 if server is servers[-1] else size * (number + 1) - 1, server.port)
        for number, server in enumerate(servers)
    ]
    reply = b"*%d\r\n" % len(rows) + b"".join(rows)
    return lambda words: reply if words[0] == b"CLUSTER" else None


def asked(server: ScriptedServer, name: bytes) -> int:
    return len([words for words in server.commands if words[0] == name])


def reads(server: ScriptedServer) -> int:
    """How often an anchor was read."""
    return server.asked(b"GET", b"anchor")


def evicting() -> bytes:
    """What a scripted server reports of itself, and that it has evicted a key."""
    _, _, text = info().partition(b"\r\n")
    return bulk(text + b"evicted_keys:1\r\n")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def other() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


async def test_before_the_topology_is_known_no_master_owns_a_slot() -> None:
    made = cluster()
    assert made.buckets((HOST, 1)) == []
    unknown = frozenset({b"a.b"})
    assert await made.present(unknown, asker=(HOST, 1), patient=True, ahead=-math.inf) == frozenset()
    await made.aclose()


async def opened(
    *servers: ScriptedServer, timeout: float = 20.0, on_exchange: ExchangeSink | None = None
) -> Cluster:
    """A cluster whose masters were asked, and whose anchors were written and read."""
    servers[0].script = shared_by(*servers)
    made = cluster(servers[0].port, timeout=timeout, on_exchange=on_exchange)
    made.open()
    await until(lambda: sum(len(server.keys) for server in servers) == len(BUCKETS.anchors))
    sizes = [len(made.buckets((HOST, server.port))) for server in servers]
    # Once as the connection opens, and once after missing anchors were written.
    await until(lambda: [reads(server) for server in servers] == [2 * size for size in sizes])
    return made


async def test_where_one_server_has_other_data_the_others_are_read(
    scripted: ScriptedServer, other: ScriptedServer
) -> None:
    made = await opened(scripted, other)
    before = reads(scripted), reads(other)
    async with asyncio.timeout(60):
        # The last replies may still be under way, and count for that too.
        while reads(other) < before[1] + len(made.buckets((HOST, other.port))):
            made.look_around((HOST, scripted.port))
            await asyncio.sleep(0.01)
    assert reads(scripted) == before[0]
    await made.aclose()


async def test_a_request_just_after_an_answer_is_sent_with_those_that_waited(
    scripted: ScriptedServer,
) -> None:
    exchanges: list[StoreExchange] = []
    made, loop = await opened(scripted, on_exchange=exchanges.append), asyncio.get_running_loop()

    def ask() -> PendingWrite:
        write = PendingWrite(entry(), BUCKETS, Settings(timeout=20.0), loop)
        made.submit(write)
        return write

    scripted.hold(b"SET")
    before, first = len(scripted.commands), ask()
    await until(lambda: len(scripted.commands) > before)
    waiting = ask()
    scripted.release()
    assert await first.answer is True
    # As a task does that another master has answered.
    await asyncio.sleep(0)
    late = ask()
    assert await waiting.answer is await late.answer is True
    assert [exchange.entries for exchange in exchanges] == [1, 2]
    await made.aclose()


async def test_a_master_has_its_data_when_it_reports_them_again(scripted: ScriptedServer) -> None:
    made = await opened(scripted)
    asker, known = (HOST, 1), frozenset({SCRIPTED})
    before = asked(scripted, b"INFO")
    assert await made.present(known, asker=asker, patient=True, ahead=-math.inf) == known
    assert asked(scripted, b"INFO") == before + 1
    # A master is asked about others' data only if it wasn't asked for a second.
    assert await made.present(frozenset({b"a.b"}), asker=asker, patient=True, ahead=-math.inf) == frozenset()
    assert asked(scripted, b"INFO") == before + 1
    assert made.sights.changed_at == -math.inf
    await made.aclose()


async def test_a_master_that_does_not_report_may_have_lost_its_data(scripted: ScriptedServer) -> None:
    made = await opened(scripted, timeout=0.4)
    asker, known = (HOST, 1), frozenset({SCRIPTED})
    scripted.hold(b"INFO")
    before = asyncio.get_running_loop().time()
    assert await made.present(known, asker=asker, patient=True, ahead=-math.inf) is None
    assert made.sights.changed_at == -math.inf
    assert await made.present(known, asker=asker, patient=False, ahead=-math.inf) == frozenset()
    assert made.sights.changed_at > before
    scripted.release()
    async with asyncio.timeout(60):
        while await made.present(known, asker=asker, patient=True, ahead=-math.inf) != known:
            pass
    await made.aclose()


async def test_after_a_sleep_clocks_are_compared_by_moments_that_count_it(
    scripted: ScriptedServer, other: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other node owns no slot, and is asked about data that came from it."""
    made = await opened(scripted)
    other.script = Reporting()
    scripted.script = lambda words: (
        b"*1\r\n*4\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n*2\r\n$0\r\n\r\n:%d\r\n"
        % (scripted.port, other.port)
        if words[0] == b"CLUSTER"
        else bulk(b"role:master\r\nrun_id:" + b"c" * 40 + b"\r\nuptime_in_seconds:1\r\n")
        if words[0] == b"INFO"
        else None
    )
    await looks_again(made, scripted)
    ahead = time.time() - asyncio.get_running_loop().time()
    Sleep(monkeypatch)(600)
    known = frozenset({SCRIPTED})
    for beside, found in ((0.0, known), (2.0, frozenset[bytes]())):
        assert await made.present(known, asker=(HOST, 1), patient=False, ahead=ahead + beside) == found
    await made.aclose()


async def looks_again(made: Cluster, scripted: ScriptedServer) -> None:
    """Wait until `made` has fetched its topology again."""
    before = asked(scripted, b"CLUSTER")
    made.look_again(TimeoutError(), by=(HOST, scripted.port))
    await until(lambda: asked(scripted, b"CLUSTER") > before)
    await made.topology()


async def test_a_master_that_evicts_has_lost_data_when_it_is_asked(scripted: ScriptedServer) -> None:
    """A slot that moved from there to another master is judged by that."""
    made = await opened(scripted)
    scripted.script = lambda words: evicting() if words[0] == b"INFO" else None
    before = asyncio.get_running_loop().time()
    known = frozenset({SCRIPTED})
    assert await made.present(known, asker=(HOST, 1), patient=True, ahead=-math.inf) == known
    assert made.sights.changed_at >= before
    await made.aclose()


async def test_a_master_without_writes_is_asked_at_once(
    scripted: ScriptedServer, other: ScriptedServer
) -> None:
    made = await opened(scripted)
    scripted.script = shared_by(scripted, other)
    made.look_again(TimeoutError(), by=(HOST, scripted.port))
    await until(lambda: reads(other) > 0)
    assert other.opened == 1
    await made.aclose()


async def test_a_topology_refresh_that_is_due_too_soon_is_made_later(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(monkeypatch)
    scripted.script = shared_by(scripted)
    made = cluster(scripted.port, timeout=ENDLESS)
    made.open()
    await clock.until(lambda: len(made.buckets((HOST, scripted.port))) == len(BUCKETS.anchors))
    # The next refresh may come a tenth of a second after the last one ended.
    await clock.until(lambda: len(scripted.keys) == len(BUCKETS.anchors))

    async def looked(times: int) -> None:
        await clock.until(lambda: asked(scripted, b"CLUSTER") == times)

    for looks in (2, 3):
        for _ in range(3):
            made.look_again(TimeoutError(), by=(HOST, scripted.port))
        clock.now += 0.09
        await asyncio.to_thread(time.sleep, 0.02)
        assert asked(scripted, b"CLUSTER") == looks - 1
        clock.now += 0.02
        await looked(looks)
        await asyncio.to_thread(time.sleep, 0.05)
    made.look_again(TimeoutError(), by=(HOST, scripted.port))
    await made.aclose()
    clock.now += 1
    await asyncio.to_thread(time.sleep, 0.02)
    assert asked(scripted, b"CLUSTER") == 3


async def test_a_bucket_that_moved_before_its_anchor_was_read_causes_a_refresh(
    scripted: ScriptedServer,
) -> None:
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
    """A cluster that gets the report of a moved slot."""

    def __init__(self) -> None:
        self.told: list[Exception] = []

    def look_again(self, error: Exception) -> None:
        self.told.append(error)

    def tag(self) -> bytes:
        return b"{2}"

    def buckets(self) -> list[int]:
        return []


async def test_reports_of_a_server_are_relied_on_for_one_second(scripted: ScriptedServer) -> None:
    around: Any = Moving()
    known = Server("here", standalone(scripted.url).connect, Settings(), Sights(BUCKETS), around)
    await known.ready(deadline=math.inf, offset=None)
    standing = known.fence.standing
    standing.watched |= {1, 2}
    standing.unread |= {2}
    standing.watches = True
    known.fence.vitals.looks.hurry()
    await known.survey(deadline=math.inf)
    assert standing.watched == {2}
    await known.aclose()


async def test_retentions_follow_to_another_slot() -> None:
    moved: Any = Moving()
    connect = standalone(f"redis://{HOST}:1").connect
    known = Server("here", connect, Settings(), Sights(BUCKETS), moved)
    known.tell_cluster()
    assert moved.told == []
    error = ServerError("MOVED 1 h:1")
    known.retentions.read(error, error, now=0.0)
    known.tell_cluster()
    assert moved.told == [error]
    assert known.retentions.elsewhere is None
    await asyncio.sleep(0)
    await known.aclose()


class Elsewhere(Moving):
    """A cluster that is asked to read its other servers."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def look_around(self) -> None:
        self.looks += 1


def with_data_of(name: str) -> Callable[[tuple[bytes, ...]], bytes | None]:
    said = f"run_id:{name}\r\nmaster_replid:{name}\r\nrole:master\r\nuptime_in_seconds:99\r\n"
    return lambda words: bulk(said.encode()) if words[0] == b"INFO" else None


async def test_after_a_server_returns_with_other_data_the_others_are_read(
    scripted: ScriptedServer,
) -> None:
    others: Any = Elsewhere()
    known = Server("here", standalone(scripted.url).connect, Settings(), Sights(BUCKETS), others)
    for looks, name in ((0, "a"), (0, "a"), (1, "b"), (1, "b")):
        scripted.script = with_data_of(name)
        await known.ready(deadline=math.inf, offset=None)
        assert others.looks == looks
        scripted.cut()
        await until(lambda: known.connection is None)
    await known.aclose()


@pytest.mark.parametrize(
    "where", [f"16384 {HOST}:1", f"-1 {HOST}:1", f"x {HOST}:1", f"99999 {HOST}:1", "1 a\x1b[2Jb:1"]
)
async def test_a_redirection_with_an_impossible_slot_or_host_moves_nothing(
    scripted: ScriptedServer, where: str
) -> None:
    made = await opened(scripted)
    made.look_again(ServerError(f"MOVED {where}"), by=(HOST, scripted.port))
    assert [made.tag((host, 1)) for host in (HOST, "a\x1b[2Jb")] == [None, None]
    assert len(made.buckets((HOST, scripted.port))) == len(BUCKETS.anchors)
    await made.aclose()


@pytest.mark.parametrize("told", ["MOVED 1 ?:1", f"MOVED 1 {HOST}:1", "READONLY"])
async def test_a_cluster_that_is_closed_does_not_look_again(scripted: ScriptedServer, told: str) -> None:
    """One of its masters may fail, or send a write elsewhere, while the others are closed."""
    made = await opened(scripted)
    await made.aclose()
    before, running = asked(scripted, b"CLUSTER"), asyncio.all_tasks()
    write = PendingWrite(entry(), BUCKETS, Settings(timeout=20.0), asyncio.get_running_loop())
    made.redirect(write, ServerError(told), by=(HOST, scripted.port))
    made.look_again(ServerError(told), by=(HOST, scripted.port))
    assert isinstance(await write.answer, Unavailable)
    assert asyncio.all_tasks() <= running
    await until(lambda: scripted.open == 0)
    assert asked(scripted, b"CLUSTER") == before


async def test_a_cluster_may_be_closed_while_it_closes_writers_without_slots(
    scripted: ScriptedServer, other: ScriptedServer
) -> None:
    async with ScriptedServer() as third:
        made = await opened(scripted, other, third)
        scripted.script = shared_by(scripted)
        made.look_again(TimeoutError(), by=(HOST, scripted.port))

        def running(name: object) -> list[asyncio.Task[object]]:
            return [task for task in asyncio.all_tasks() if task.get_name() == f"dpop replay store {name}"]

        async with asyncio.timeout(60):
            while not (look := running("topology")) or running(f"{HOST}:{other.port}"):
                await asyncio.sleep(0)
        # Between the one and the other.
        assert running(f"{HOST}:{third.port}")
        await made.aclose()
        await asyncio.gather(*look)
        await until(lambda: third.open == 0)


async def test_a_redirection_to_an_address_unknown_to_the_remap_is_not_followed(
    scripted: ScriptedServer,
) -> None:
    known = {(HOST, scripted.port): (HOST, scripted.port)}
    nodes = replace(cluster_nodes(scripted.url.replace("redis:", "redis+cluster:")), remap=known.__getitem__)
    scripted.script = shared_by(scripted)
    made = Cluster(nodes, Settings(timeout=20.0), BUCKETS)
    made.open()
    await until(lambda: made.tag((HOST, scripted.port)) is not None)
    write = PendingWrite(entry(), BUCKETS, Settings(timeout=20.0), asyncio.get_running_loop())
    made.redirect(write, ServerError("ASK 1 elsewhere:1"), by=(HOST, scripted.port))
    outcome = await write.answer
    assert isinstance(outcome, Unavailable)
    assert outcome.actual == "ASK"
    await made.aclose()


async def test_a_request_for_an_unreachable_master_refreshes_the_topology(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedServer() as away:
        made = await opened(scripted, away)
    clock = LoopClock(monkeypatch)

    async def refused() -> None:
        write = PendingWrite(entry(), BUCKETS, Settings(timeout=20.0), asyncio.get_running_loop())
        while write.bucket not in made.buckets((HOST, away.port)):
            write = PendingWrite(entry(), BUCKETS, Settings(timeout=20.0), asyncio.get_running_loop())
        made.submit(write)
        assert isinstance(await write.answer, Unavailable)

    async def looks() -> int:
        """The number of refreshes, once no more come: the clock stands still."""
        before = -1
        while before != asked(scripted, b"CLUSTER"):
            before = asked(scripted, b"CLUSTER")
            await asyncio.to_thread(time.sleep, 0.1)
        return before

    await refused()
    await looks()
    clock.now += 0.1
    await looks()
    # The second pause is longer than the time between two refreshes.
    clock.now += 0.15
    before = await looks()
    await refused()
    await clock.until(lambda: asked(scripted, b"CLUSTER") > before)
    await made.aclose()
