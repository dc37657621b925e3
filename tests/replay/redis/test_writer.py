import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import uvloop

from dpop_middleware import RedisReplayStore
from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.redis.anchors import Anchor, Sights
from dpop_middleware.replay.redis.cluster import Cluster
from dpop_middleware.replay.redis.connection import Connection
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import Buckets, ServerError
from dpop_middleware.replay.redis.writer import Writer
from dpop_middleware.replay.redis.writes import CROWDED, PendingWrite
from tests.support.loop_clock import LoopClock
from tests.support.proxy import Proxy
from tests.support.replay import ENDLESS, cluster_nodes, entry, standalone
from tests.support.scripted import ScriptedServer, bulk
from tests.support.valkey import HOST, Server

BUCKETS = Buckets(b"dpop", spread=False)


def pending(timeout: float = ENDLESS, *, retention: float = 0.0, buckets: Buckets = BUCKETS) -> PendingWrite:
    told = entry()._replace(namespace="n", made_at=time.time(), retention=retention)
    made = PendingWrite(told, buckets, Settings(), asyncio.get_running_loop())
    made.deadline = asyncio.get_running_loop().time() + timeout
    return made


def writer() -> Writer:
    return Writer("gone", standalone(f"redis://{HOST}:1").connect, Settings(), Sights(BUCKETS), None)


def writer_to(server: ScriptedServer) -> Writer:
    return Writer(
        "scripted", standalone(server.url).connect, Settings(timeout=ENDLESS), Sights(BUCKETS), None
    )


def cluster() -> Cluster:
    return Cluster(cluster_nodes(f"redis+cluster://{HOST}:1"), Settings(), Buckets(b"dpop", spread=True))


@pytest.mark.parametrize("make", [writer, cluster])
async def test_a_closed_writer_or_cluster_refuses_writes(make: Callable[[], Writer | Cluster]) -> None:
    writer = make()
    await writer.aclose()
    assert writer.closed
    for submit in (writer.submit, writer.resubmit):
        write = pending()
        submit(write)
        assert isinstance(await write.answer, Unavailable)


async def test_more_requests_than_may_wait_are_refused_at_once() -> None:
    settings = Settings(timeout=ENDLESS, max_waiting=2)
    crowded = Writer("gone", standalone(f"redis://{HOST}:1").connect, settings, Sights(BUCKETS), None)
    writes = [pending() for _ in range(3)]
    for write in writes:
        crowded.submit(write)
    assert [write.answer.done() for write in writes] == [False, False, True]
    refused = await writes[-1].answer
    assert isinstance(refused, Unavailable)
    assert refused.description == CROWDED
    await crowded.aclose()


async def test_a_closed_cluster_follows_no_redirection() -> None:
    async with ScriptedServer() as server:
        writer = cluster()
        await writer.aclose()
        write = pending()
        writer.redirect(write, ServerError(f"ASK 1 {HOST}:{server.port}"), by=(HOST, 1))
        assert isinstance(await write.answer, Unavailable)
        await asyncio.sleep(0.05)
        assert server.opened == 0


async def test_a_writer_without_work_ends_quietly() -> None:
    idle = writer()
    await asyncio.sleep(0)
    assert idle.is_quiet
    assert idle.state == "opening"
    await idle.aclose()


async def test_a_writer_that_is_connected_opens_nothing() -> None:
    async with ScriptedServer() as server:
        connected = writer_to(server)
        write = pending()
        connected.submit(write)
        assert await write.answer is True
        connected.open()
        await asyncio.sleep(0.05)
        assert server.opened == 1
        await connected.aclose()


async def _assert_it_survives_a_reset(url_port: int) -> None:
    async with Proxy(url_port) as proxy:
        store = RedisReplayStore.from_url(proxy.url, timeout=ENDLESS)
        assert [await store.add(entry()) for _ in range(4)] == [True] * 4
        proxy.reset()
        await asyncio.sleep(0.2)
        assert [await store.add(entry()) for _ in range(4)] == [True] * 4
        await store.aclose()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_idle_connection_that_was_reset_is_replaced(
    shared_server: Server, run: Callable[..., None]
) -> None:
    run(_assert_it_survives_a_reset(shared_server.port))


async def test_a_write_that_a_transport_refuses_waits_for_the_task() -> None:
    refusals: Iterator[bool] = iter(())

    class Refusing(Connection):
        def exchange(self, *arguments: Any, **options: Any) -> None:
            if next(refusals, False):
                raise RuntimeError("unable to perform operation on a closed transport")
            super().exchange(*arguments, **options)

    async with ScriptedServer() as server:

        async def connect(timeout: float) -> Connection:
            connection: Any = standalone(server.url).connection(timeout)
            await connection.connect()
            return Refusing(connection)

        writer = Writer("scripted", connect, Settings(timeout=ENDLESS), Sights(BUCKETS), None)
        first = pending()
        writer.submit(first)
        assert await first.answer is True
        refusals = iter((True,))
        second = pending()
        writer.submit(second)
        assert await second.answer is True
        # A write that was not sent does not count as tried.
        assert second.tries == 1
        await writer.aclose()


@pytest.mark.parametrize("is_late", [True, False], ids=["its time is over", "it left"])
async def test_a_write_without_a_waiting_request_is_not_sent(is_late: bool) -> None:
    async with ScriptedServer() as server:
        writer = writer_to(server)
        gone, fresh = pending(timeout=-1.0 if is_late else 2.0), pending()
        writer.submit(gone)
        writer.submit(fresh)
        if not is_late:
            gone.answer.cancel()
        assert await fresh.answer is True
        assert not any(gone.name in words for words in server.commands)
        if is_late:
            assert isinstance(await gone.answer, Unavailable)
        await writer.aclose()


async def test_a_request_that_is_alone_does_not_wait_for_the_task() -> None:
    async with ScriptedServer() as server:
        writer = writer_to(server)
        first = pending()
        writer.submit(first)
        assert first.tries == 0
        assert await first.answer is True
        for _ in range(2):
            alone = pending()
            writer.submit(alone)
            assert not writer.is_quiet
            assert alone.tries == 1
            assert await alone.answer is True
            assert writer.is_quiet
        last = pending()
        writer.submit(last)
        # Sent, and closed before its answer came.
        await writer.aclose()
        assert isinstance(await last.answer, Unavailable)


async def test_a_request_with_less_time_than_its_batch_is_refused_while_the_batch_goes_on() -> None:
    async with ScriptedServer() as server:
        writer = writer_to(server)
        first, short, late = pending(), pending(), pending()
        writer.submit(first)
        assert await first.answer is True
        server.hold(b"SET")
        short.deadline = asyncio.get_running_loop().time() + 0.1
        writer.submit(short)
        assert short.tries == 1
        async with asyncio.timeout(60):
            assert isinstance(await short.answer, Unavailable)
        assert not writer.is_quiet
        server.release()
        writer.submit(late)
        assert await late.answer is True
        assert server.opened == 1
        await writer.aclose()


async def test_requests_that_come_together_are_sent_together() -> None:
    together: list[int] = []
    settings = Settings(timeout=ENDLESS, on_exchange=lambda exchange: together.append(exchange.entries))
    async with ScriptedServer() as server:
        writer = Writer("scripted", standalone(server.url).connect, settings, Sights(BUCKETS), None)
        # Of the last three one is sent before the others, since the one before it came alone.
        for size, batches in ((3, [3]), (4, [4]), (1, [1]), (1, [1]), (3, [1, 2])):
            writes = [pending() for _ in range(size)]
            for write in writes:
                writer.submit(write)
            assert [await write.answer for write in writes] == [True] * size
            assert together == batches
            together.clear()
        await writer.aclose()


@pytest.mark.parametrize(
    ("is_near", "seconds", "batches"),
    [(True, 0.9, [20, 20]), (True, 1.1, [40]), (False, 0.0, [40])],
    ids=["near", "near, and slow now", "far"],
)
async def test_a_near_server_gets_the_next_batch_before_answered_requests_go_on(
    is_near: bool, seconds: float, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    settings = Settings(timeout=5.0, on_exchange=lambda exchange: together.append(exchange.entries))
    async with ScriptedServer() as server:
        with monkeypatch.context() as patch:
            clock = LoopClock(patch)
            writer = Writer("scripted", standalone(server.url).connect, settings, Sights(BUCKETS), None)

            def ask(number: int) -> list[PendingWrite]:
                together.clear()
                writes = [pending() for _ in range(number)]
                for write in writes:
                    writer.submit(write)
                return writes

            assert await ask(2)[1].answer is True
            writer.server.is_near = is_near
            server.hold(b"SET")
            _, last = ask(2)
            await clock.until(lambda: last.tries == 1)
            clock.now += seconds
            server.release()
            assert await last.answer is True
            writes = ask(40)
            assert await writes[0].answer is True
            assert [write.tries for write in writes] == [1] * 40
            assert await writes[-1].answer is True
            assert together == batches
            await writer.aclose()


class Moving:
    """A cluster that gets the report of a moved slot."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def look_again(self, error: Exception) -> None:
        self.told.append(str(error))

    def tag(self) -> bytes:
        return b"{2}"

    def buckets(self) -> list[int]:
        return []


async def test_a_batch_that_finds_the_slot_of_the_retentions_moved_tells_the_cluster_at_once() -> None:
    around: Any = Moving()
    async with ScriptedServer() as server:
        server.script = lambda words: b"-MOVED 2 h:1\r\n" if words[0].startswith(b"Z") else None
        writer = Writer(
            "moving", standalone(server.url).connect, Settings(timeout=ENDLESS), Sights(BUCKETS), around
        )
        first = pending(retention=95)
        writer.submit(first)
        assert await first.answer is True
        assert around.told == ["MOVED 2 h:1"]
        await writer.aclose()


async def test_an_attempt_that_fails_after_a_pause_has_the_cluster_look_again() -> None:
    """Another node may have the slots by now."""
    around: Any = Moving()

    async def fail(timeout: float) -> Connection:
        raise ConnectionRefusedError

    made = Writer("gone", fail, Settings(timeout=ENDLESS), Sights(Buckets(b"dpop", spread=True)), around)
    made.open()
    async with asyncio.timeout(60):
        while not around.told:
            await asyncio.sleep(0.01)
    assert made.state == "pausing"
    await made.aclose()


async def test_the_anchor_of_a_slot_that_a_server_gets_is_read_without_a_request() -> None:
    around, spread = cast(Any, Moving()), Buckets(b"dpop", spread=True)
    async with ScriptedServer() as server:
        connect = standalone(server.url).connect
        writer = Writer("heir", connect, Settings(timeout=ENDLESS), Sights(spread), around)
        first = pending(buckets=spread)
        writer.submit(first)
        assert await first.answer is True
        other = 7 if first.bucket != 7 else 8
        async with asyncio.timeout(60):
            while writer.fence.has_to_write:
                await asyncio.sleep(0.01)
            assert not server.asked(b"GET", spread.anchors[other])
            writer.own([other])
            while not server.asked(b"GET", spread.anchors[other]):
                await asyncio.sleep(0.01)
        await writer.aclose()


class Moved(Moving):
    """A cluster from one of whose servers another took a slot over."""

    def __init__(self) -> None:
        super().__init__()
        self.again = asyncio.Queue[PendingWrite]()

    async def present(self, identities: frozenset[bytes], **_: object) -> frozenset[bytes]:
        return identities

    def resubmit(self, write: PendingWrite) -> None:
        self.again.put_nowait(write)


async def test_a_write_beside_another_servers_anchor_is_tried_again_when_the_others_were_asked() -> None:
    around, spread = cast(Any, Moved()), Buckets(b"dpop", spread=True)
    said = bulk(b"run_id:a\r\nmaster_replid:a\r\nrole:master\r\nuptime_in_seconds:99\r\n")
    theirs = bulk(Anchor.new(b"b:b", time.time() - 1000, server_time=None).value)
    replies = {b"INFO": said, b"GET": theirs}
    async with ScriptedServer(lambda words: replies.get(words[0])) as server:
        connect = standalone(server.url).connect
        writer = Writer("moved", connect, Settings(timeout=ENDLESS), Sights(spread), around)
        first = pending(buckets=spread)
        writer.submit(first)
        assert await asyncio.wait_for(around.again.get(), 60) is first
        await writer.aclose()


async def test_a_connection_that_opens_late_is_used_by_later_requests() -> None:
    """An opening outlives the request that began it: over TLS and far away it may take longer."""
    delay = asyncio.Event()

    async with ScriptedServer() as server:
        connect = standalone(server.url).connect

        async def slowly(timeout: float) -> Any:
            await delay.wait()
            return await connect(timeout)

        writer = Writer("slow", slowly, Settings(timeout=0.2), Sights(BUCKETS), None)
        early = pending(timeout=0.2)
        writer.submit(early)
        outcome = await early.answer
        assert isinstance(outcome, Unavailable)
        assert outcome.actual == "TimeoutError"
        delay.set()
        late = pending()
        writer.submit(late)
        assert await late.answer is True
        await writer.aclose()


async def test_closing_cancels_an_opening() -> None:
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def never(timeout: float) -> Connection:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        raise AssertionError

    writer = Writer("silent", never, Settings(timeout=10.0), Sights(BUCKETS), None)
    write = pending(timeout=10.0)
    writer.submit(write)
    await begun.wait()
    await writer.aclose()
    assert isinstance(await write.answer, Unavailable)
    async with asyncio.timeout(60):
        await given_up.wait()


async def test_a_writer_that_watches_a_servers_clock_leaves_a_failure_to_the_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks again a second later: until then nobody needs a pause."""
    failures, made_known = 0, asyncio.Event()

    async def fail(*, deadline: float) -> None:
        nonlocal failures
        failures += 1
        if failures == 3:
            made_known.set()
        raise OSError(f"not until {deadline}")

    async with ScriptedServer() as server:
        made = writer_to(server)
        first, second = pending(), pending()
        made.submit(first)
        assert await first.answer is True
        monkeypatch.setattr(made.server, "survey", fail)
        monkeypatch.setattr(made.fence.vitals.looks, "patience", lambda *_: 0.005)
        made.survey()
        async with asyncio.timeout(60):
            await made_known.wait()
        assert made.state == "opening"
        made.submit(second)
        assert await second.answer is True
        await made.aclose()


async def test_a_write_is_sent_at_once_where_a_servers_clock_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ScriptedServer() as server:
        made: Any = writer_to(server)
        monkeypatch.setattr(made.fence.vitals.looks, "patience", lambda *_: 60.0)
        for number in range(3):
            write, before = pending(), len(server.commands)
            made.submit(write)
            # The first opens the connection; after that the task sleeps, with its timer.
            assert (made._batch is not None) is (number > 0)
            assert await write.answer is True
            assert len(server.commands) > before
        await made.aclose()
