import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay import RedisReplayStore, ReplayEntry
from dpop_middleware.replay.redis.anchors import Anchor, Sights
from dpop_middleware.replay.redis.connection import Connection
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.server import Server as WatchedServer
from dpop_middleware.replay.redis.vitals import ServerInfo, identity_of
from dpop_middleware.replay.redis.writer import Writer
from tests.support.loop_clock import LoopClock
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.replay import ENDLESS, after_a_loss, answer, entry, standalone
from tests.support.scripted import ScriptedServer, bulk, info
from tests.support.valkey import HOST, Cluster, Server

BUCKETS = Buckets(b"dpop", spread=False)
# The smallest ACL of the store's chapter.
SMALLEST = "-@all +set +get +info +time +zadd +zrangebyscore"


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


def anchors(server: Server) -> list[str]:
    with server.client() as client:
        return [str(client.get(name)) for name in client.keys("dpop*::anchor")]


def reads(server: Server) -> int:
    """How often `server` was asked for a key."""
    stats = server.run("INFO", "commandstats")
    return int(stats["cmdstat_get"]["calls"]) if "cmdstat_get" in stats else 0


def again(item: ReplayEntry) -> ReplayEntry:
    """The same proof, presented later."""
    return item._replace(now=time.time())


async def opened(server: ScriptedServer) -> RedisReplayStore:
    """A store that has connected and asked for the anchor, without any entry."""
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    await store.open()
    async with asyncio.timeout(60):
        while not any(words[0] == b"GET" and b"anchor" in words[1] for words in server.commands):
            await asyncio.sleep(0.01)
    return store


async def test_an_idle_worker_that_was_opened_notices_a_flush(server: Server) -> None:
    busy, idle = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
    item = entry()
    assert await busy.add(item) is True
    await idle.open()
    async with asyncio.timeout(60):
        # The entry's, the survey's, the health check's.
        while reads(server) < 3:
            await asyncio.sleep(0.01)
    server.run("FLUSHALL")
    assert isinstance(await answer(idle, again(item)), Unavailable)
    assert await idle.add(after_a_loss()) is True
    await busy.aclose()
    await idle.aclose()


async def test_a_worker_that_could_not_judge_at_opening_reads_again_with_its_first_entry(
    server: Server,
) -> None:
    # "wait" writes no anchor without an entry, so nothing vouches for the time before that.
    busy, idle = (RedisReplayStore.from_url(server.url, timeout=ENDLESS, new_server="wait") for _ in "ab")
    await idle.open()
    async with asyncio.timeout(60):
        while reads(server) < 2:
            await asyncio.sleep(0.01)
    started = time.time()
    await asyncio.sleep(1.1)
    item = entry()._replace(not_before=started + 1)
    async with asyncio.timeout(60):
        while await answer(busy, item) is not False:
            await asyncio.sleep(0.1)
            item = item._replace(now=time.time())
    server.run("FLUSHALL")
    assert isinstance(await answer(idle, item._replace(now=time.time())), Unavailable)
    await busy.aclose()
    await idle.aclose()


async def test_a_worker_that_waited_for_its_server_does_not_take_a_flush_for_the_servers_start(
    server: Server,
) -> None:
    server.kill()
    idle = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    await idle.open()
    # The server reports its uptime in whole seconds, up to one too many.
    await asyncio.sleep(2.1)
    server.start()
    started = time.time()
    async with asyncio.timeout(60):
        while reads(server) < 1 or server.run("INFO", "server")["uptime_in_seconds"] < 4:
            await asyncio.sleep(0.05)
    busy = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    item = entry()._replace(not_before=started + WORKER_CLOCK_MARGIN + 2)
    assert await busy.add(item) is True
    server.run("FLUSHALL")
    assert isinstance(await answer(idle, again(item)), Unavailable)
    await busy.aclose()
    await idle.aclose()


async def test_a_worker_that_notices_a_flush_records_it_at_once(server: Server) -> None:
    old = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    lost, other = entry(), entry()
    assert await old.add(lost) is True
    assert await old.add(other) is True
    server.run("FLUSHALL")
    assert isinstance(await answer(old, again(lost)), Unavailable)
    async with asyncio.timeout(60):
        while not anchors(server):
            await asyncio.sleep(0.01)
    fresh = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    assert isinstance(await answer(fresh, again(other)), Unavailable)
    assert await fresh.add(after_a_loss()) is True
    await old.aclose()
    await fresh.aclose()


async def test_a_flush_while_every_worker_was_restarted_is_no_first_start(server: Server) -> None:
    before = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    used = [entry() for _ in range(30)]
    assert [await before.add(item) for item in used] == [True] * 30
    await before.aclose()
    for flush in ("FLUSHALL", "FLUSHDB"):
        server.run("CONFIG", "RESETSTAT")
        server.run(flush)
        after = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        await after.open()
        assert not [item for item in used if await answer(after, again(item)) is True]
        assert await after.add(after_a_loss()) is True
        await after.aclose()


@pytest.mark.parametrize("rules", ["+@all", SMALLEST], ids=["anything", "what the chapter says"])
async def test_a_worker_that_treated_a_flushed_server_as_new_is_corrected(server: Server, rules: str) -> None:
    server.run("ACL", "SETUSER", "api", "on", ">secret", "resetkeys", "~dpop:*", *rules.split())
    url = server.url.replace("://", "://api:secret@")
    old, fresh = (RedisReplayStore.from_url(url, timeout=ENDLESS) for _ in "ab")
    lost, other = entry(), entry()
    assert await old.add(lost) is True
    assert await old.add(other) is True
    server.run("FLUSHALL")
    server.run("CONFIG", "RESETSTAT")
    assert await fresh.add(entry()) is True
    assert anchors(server)[0].split("|")[1] == "-inf"
    assert isinstance(await answer(old, again(lost)), Unavailable)
    async with asyncio.timeout(60):
        while anchors(server)[0].split("|")[1] == "-inf":
            await asyncio.sleep(0.01)
    assert isinstance(await answer(fresh, again(other)), Unavailable)
    assert await fresh.add(after_a_loss()) is True
    await old.aclose()
    await fresh.aclose()


async def test_every_bucket_of_every_master_gets_its_anchor(implementation: str) -> None:
    with Cluster(masters=3, replicas=0, implementation=implementation) as cluster:
        store = RedisReplayStore.from_url(cluster.url, timeout=ENDLESS)
        await store.open()
        async with asyncio.timeout(60):
            while sum(len(anchors(server)) for server in cluster.servers) < 1024:
                await asyncio.sleep(0.1)
        await store.aclose()
        assert sum(len(anchors(server)) for server in cluster.servers) == 1024


async def test_opening_twice_connects_once(scripted: ScriptedServer) -> None:
    store = await opened(scripted)
    await store.open()
    assert await store.add(entry()) is True
    anchors = [words for words in scripted.commands if words[0] == b"SET" and b"anchor" in words[1]]
    assert len(anchors) == 1
    await store.aclose()


async def test_a_server_that_starts_later_is_found_by_the_first_request(implementation: str) -> None:
    server = Server(implementation=implementation)
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    await store.open()
    await asyncio.sleep(0.1)
    with server:
        async with asyncio.timeout(60):
            while await answer(store, entry()) is not True:
                await asyncio.sleep(0.01)
        assert len(anchors(server)) == 1
        await store.aclose()


async def test_a_request_does_not_wait_for_a_survey_without_an_answer(scripted: ScriptedServer) -> None:
    scripted.hold(b"GET")
    store = RedisReplayStore.from_url(scripted.url, timeout=1.0)
    await store.open()
    async with asyncio.timeout(60):
        while not any(words[0] == b"GET" for words in scripted.commands):
            await asyncio.sleep(0.01)
    asking = asyncio.ensure_future(answer(store, entry()))
    await asyncio.sleep(0.6)
    # The survey was cut off after half of a request's time; the request has the other half.
    scripted.release()
    assert await asking is True
    await store.aclose()


async def test_without_permission_to_read_anchors_entries_are_still_judged(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: b"-NOPERM no\r\n" if words[0] == b"GET" else None
    store = await opened(scripted)
    item = entry()
    assert await store.add(item) is True
    assert await store.add(item) is False
    await store.aclose()


async def test_a_user_who_may_not_ask_info_does_so_once_a_connection(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: b"-NOPERM no\r\n" if words[0] == b"INFO" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await store.add(entry(age=60)) is True
    await asyncio.sleep(1.1)
    assert await store.add(entry(age=60)) is True
    asked = [words[0] for words in scripted.commands]
    assert asked.count(b"INFO") == scripted.opened
    # What it can't report about itself, its anchors show.
    assert asked.count(b"GET") >= 2
    await store.aclose()


async def test_a_request_waits_for_an_opening_until_its_deadline(scripted: ScriptedServer) -> None:
    scripted.hold(b"INFO")
    server = WatchedServer("here", standalone(scripted.url).connect, Settings(), Sights(BUCKETS), None)
    with pytest.raises(TimeoutError, match="the connection is not yet open"):
        await server.ready(deadline=asyncio.get_running_loop().time() + 0.01, offset=None)
    await server.aclose()


class Instant:
    """A connection that answers at once, without any server."""

    def __init__(self) -> None:
        self.is_open = True
        self.heed: object = None
        self.has_ended = False

    async def ask(self, data: bytes) -> bytes:
        return b"redis_version:7.2.0\r\n"

    async def replies(self, data: bytes, count: int) -> list[None]:
        return [None] * count

    async def disconnect(self) -> None:
        self.is_open = False


async def test_an_opening_that_does_not_end_gets_a_second_attempt_beside_it(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, limits, given_up = LoopClock(monkeypatch), list[float](), list[float]()
    connect = standalone(scripted.url).connect

    async def as_if_away_at_first(timeout: float) -> Connection:
        limits.append(timeout)
        if len(limits) > 1:
            return await connect(60.0)
        try:
            return await asyncio.Future()
        finally:
            given_up.append(timeout)

    server = WatchedServer("here", as_if_away_at_first, Settings(), Sights(BUCKETS), None)
    waiting = asyncio.ensure_future(server.ready(deadline=math.inf, offset=None))
    await clock.until(lambda: limits == [1.0])
    await clock.until_after(0.5, lambda: limits == [1.0, 0.5])
    assert await waiting is server.connection
    assert given_up == [1.0]
    assert scripted.opened == 1
    await server.aclose()


async def test_of_two_openings_that_succeed_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made, second = LoopClock(monkeypatch), list[Any](), asyncio.Event()

    async def both_at_once(timeout: float) -> Any:
        made.append(Instant())
        mine = made[-1]
        if len(made) > 1:
            second.set()
        await second.wait()
        return mine

    server = WatchedServer("here", both_at_once, Settings(), Sights(BUCKETS), None)
    waiting = asyncio.ensure_future(server.ready(deadline=math.inf, offset=None))
    await clock.until(lambda: len(made) == 1)
    clock.now += 0.6
    assert await waiting is made[0]
    assert [one.is_open for one in made] == [True, False]
    await server.aclose()


@pytest.mark.parametrize(("on_evictions", "loses"), [("refuse", True), ("accept", False)])
async def test_evictions_are_a_loss_unless_they_are_accepted(on_evictions: Any, loses: bool) -> None:
    connect, settings = standalone(f"redis://{HOST}:1").connect, Settings(on_evictions=on_evictions)
    vitals = WatchedServer("here", connect, settings, Sights(BUCKETS), None).fence.vitals
    for evicted in (0, 1):
        info = ServerInfo(run_id="a", uptime=100, evicted_keys=evicted)
        vitals.connected(info, lived=0, asked=(evicted, evicted))
    assert vitals.has_lost is loses


async def test_an_opening_ends_in_its_time_whatever_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, begun = LoopClock(monkeypatch), list[float]()

    async def never(timeout: float) -> Connection:
        begun.append(timeout)
        return await asyncio.Future()

    server = WatchedServer("here", never, Settings(), Sights(BUCKETS), None)
    waiting = asyncio.ensure_future(server.ready(deadline=math.inf, offset=None))
    await clock.until(lambda: len(begun) == 1)
    await clock.until_after(0.5, lambda: len(begun) == 2)
    await clock.until_after(0.5, waiting.done)
    assert isinstance(waiting.exception(), TimeoutError)
    await server.aclose()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_server_far_away_is_reached(server: Server, protocol: int) -> None:
    """With RESP2 an opening ends just before the deadline of its request, and the entry comes too late."""
    async with Proxy(server.port) as far:
        far.reply_delay = 0.15
        store = RedisReplayStore.from_url(f"{far.url}?protocol={protocol}", timeout=0.5)
        async with asyncio.timeout(60):
            while (reached := await answer(store, entry())) is not True:
                await asyncio.sleep(0.01)
        assert reached
        await store.aclose()


class OneNode:
    """A cluster whose only node has the bucket of these tests."""

    def tag(self) -> bytes:
        return b""

    def buckets(self) -> list[int]:
        return [0]


@pytest.mark.parametrize(
    ("milliseconds", "wait_replicas", "in_cluster", "is_near"),
    [
        (0, 0, False, True),
        (1.9, 0, False, True),
        (2.1, 0, False, False),
        (0, 1, False, False),
        (0, 0, True, False),
    ],
)
async def test_a_server_is_near_whose_replies_come_within_two_milliseconds(
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    milliseconds: float,
    wait_replicas: int,
    in_cluster: bool,
    is_near: bool,
) -> None:
    """Where a batch takes longer for another reason, such as a replica, it doesn't count as near."""
    clock = LoopClock(monkeypatch)

    def answered_later(words: tuple[bytes, ...]) -> None:
        if words[0] in {b"INFO", b"GET"}:
            clock.now += milliseconds / 1000

    scripted.script = answered_later
    settings, around = Settings(timeout=ENDLESS, wait_replicas=wait_replicas), cast(Any, OneNode())
    connect = standalone(scripted.url).connect
    known = WatchedServer("scripted", connect, settings, Sights(BUCKETS), around if in_cluster else None)
    assert not known.is_near
    await known.ready(deadline=math.inf, offset=None)
    assert known.is_near is is_near
    await known.aclose()


async def test_a_server_too_far_away_for_the_timeout_is_logged_once_with_a_timeout_to_set(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with Proxy(server.port) as far:
        far.reply_delay = 0.15
        store = RedisReplayStore.from_url(far.url, timeout=0.6)
        with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
            for _ in "ab":
                async with asyncio.timeout(60):
                    while await answer(store, entry()) is not True:
                        await asyncio.sleep(0.01)
                far.reset()
        (told,) = [record.getMessage() for record in caplog.records if "set timeout=" in record.getMessage()]
        suggested = float(told.partition("set timeout=")[2].split()[0])
        assert suggested >= 5 * far.reply_delay
        caplog.clear()
        near = RedisReplayStore.from_url(server.url, timeout=20.0)
        with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
            assert await answer(near, entry(age=60)) is True
        assert "set timeout=" not in caplog.text
        await store.aclose()
        await near.aclose()


async def test_closing_cancels_an_opening() -> None:
    store = RedisReplayStore.from_url(f"redis://{HOST}:{free_port()}", timeout=ENDLESS)
    await store.open()
    await store.aclose()
    assert isinstance(await answer(store, entry()), Unavailable)
    await store.aclose()


async def test_an_opening_for_which_nothing_waits_any_more_is_closed(scripted: ScriptedServer) -> None:
    scripted.hold(b"INFO")
    store = RedisReplayStore.from_url(scripted.url, timeout=0.05)
    assert isinstance(await answer(store, entry()), Unavailable)
    scripted.release()
    async with asyncio.timeout(60):
        while scripted.open != 1:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    await store.aclose()
    async with asyncio.timeout(60):
        while scripted.open:
            await asyncio.sleep(0.01)


async def test_closing_at_once_leaves_nothing_open(scripted: ScriptedServer) -> None:
    writer = Writer("here", standalone(scripted.url).connect, Settings(), Sights(BUCKETS), None)
    writer.open()
    await writer.aclose()
    await asyncio.sleep(0.05)
    assert scripted.open == 0


@pytest.mark.parametrize("is_new", [True, False])
async def test_an_id_that_changes_during_an_opening_is_asked_for_before_it_is_judged(
    scripted: ScriptedServer, is_new: bool
) -> None:
    """Another worker, which learned the new id, may have stored it before this one reads the anchor."""

    def told(name: bytes) -> bytes:
        former = b"master_replid2:" + b"d" * 40
        text = info().partition(b"\r\n")[2].removesuffix(b"\r\n").replace(b"b" * 40, name * 40) + former
        return bulk(text)

    def known_as(name: str) -> bytes:
        return identity_of(ServerInfo(run_id="a" * 40, replication_id=name * 40))

    written = Anchor.new(known_as("b"), -math.inf, server_time=None)
    ids = [b"b", b"b", b"c" if is_new else b"b"]
    scripted.keys[b"dpop::anchor"] = written.value
    scripted.script = lambda words: (
        told(ids.pop(0) if len(ids) > 1 else ids[0]) if words[0] == b"INFO" else None
    )
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await store.add(entry()) is True
    scripted.keys[b"dpop::anchor"] = written.under(known_as("c")).value
    scripted.cut()
    outcome = await answer(store, entry())
    assert outcome is True if is_new else isinstance(outcome, Unavailable)
    assert (scripted.opened, len(ids)) == (2, 1)
    await store.aclose()
