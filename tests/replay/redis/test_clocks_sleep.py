"""A machine that sleeps: only the event loop's clock stands still."""

import asyncio
import time

import pytest

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import RedisReplayStore, ReplayEntry
from dpop_middleware.replay.redis import clocks
from dpop_middleware.replay.redis.clocks import Moments
from dpop_middleware.replay.redis.writes import FENCED, FORGOTTEN
from tests.support.replay import ENDLESS, answer, answers, entry
from tests.support.scripted import Reporting, ScriptedServer
from tests.support.sleep import Sleep
from tests.support.valkey import Server

TEN_MINUTES = 600


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Sleep:
    return Sleep(monkeypatch)


def again(items: list[ReplayEntry]) -> list[ReplayEntry]:
    """The same proofs, presented now."""
    return [item._replace(now=time.time()) for item in items]


async def test_a_sleep_of_a_workers_machine_is_no_step_of_the_servers_clock(sleep: Sleep) -> None:
    async with ScriptedServer(Reporting()) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        assert await answers(store, [entry() for _ in range(5)]) == {True: 5}
        for _ in range(3):
            sleep(TEN_MINUTES)
            fresh = [entry() for _ in range(5)]
            assert await answers(store, fresh) == {True: 5}
            assert await answers(store, again(fresh)) == {False: 5}
        await store.aclose()


@pytest.mark.parametrize("is_counted", [True, False])
async def test_a_server_that_restarted_while_a_worker_slept_lost_its_entries_just_now(
    monkeypatch: pytest.MonkeyPatch, sleep: Sleep, is_counted: bool
) -> None:
    """Those that others wrote while it slept, too: even where a virtual machine doesn't know its pause."""
    if not is_counted:
        monkeypatch.setattr(clocks, "_WITH_SLEEP", None)
    reporting = Reporting()
    async with ScriptedServer(reporting) as server:
        sleeping, other = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
        assert await answers(sleeping, [entry()]) == {True: 1}
        sleep(TEN_MINUTES)
        used = [entry() for _ in range(5)]
        assert await answers(other, used) == {True: 5}
        sleep(10)
        reporting.run_id, reporting.replication_id, reporting.uptime = "c" * 40, "d" * 40, 5
        server.keys.clear()
        server.cut()
        async with asyncio.timeout(60):
            while server.open:
                await asyncio.sleep(0)
        assert await answers(sleeping, again(used)) == {503: 5}
        for store in (sleeping, other):
            await store.aclose()


async def test_what_a_server_took_over_while_a_worker_slept_is_noticed_by_the_first_request(
    sleep: Sleep,
) -> None:
    """The last look was less than a second ago by the event loop's clock."""
    reporting = Reporting()
    async with ScriptedServer(reporting) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        assert await answers(store, [entry()]) == {True: 1}
        sleep(TEN_MINUTES)
        reporting.replication_id, reporting.former_id = "c" * 40, "d" * 40
        error = await answer(store, entry())
        assert isinstance(error, Unavailable)
        assert error.description == FENCED
        await store.aclose()


async def test_a_policy_that_came_while_a_worker_slept_counts_from_its_first_request_on(
    server: Server, sleep: Sleep
) -> None:
    sleeping, other = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")

    def made(age: float, retention: float) -> ReplayEntry:
        now = time.time()
        return entry(age=-60.0)._replace(
            now=now, namespace="api", made_at=now - age, retention=retention, expires_at=now + 300
        )

    assert await sleeping.add(made(0, 300)) is True
    sleep(100)
    assert await other.add(made(0, 80)) is True
    error = await answer(sleeping, made(100, 300))
    assert isinstance(error, Unavailable)
    assert error.description == FORGOTTEN
    for store in (sleeping, other):
        await store.aclose()


async def test_a_server_that_started_while_a_worker_slept_is_younger_than_its_store(sleep: Sleep) -> None:
    """So what is missing there is a loss, and no first start."""
    reporting = Reporting()
    reporting.uptime = TEN_MINUTES - 10
    async with ScriptedServer(reporting) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        sleep(TEN_MINUTES)
        assert await answers(store, [entry(age=TEN_MINUTES)]) == {503: 1}
        await store.aclose()


@pytest.mark.slow
async def test_a_sleep_costs_nothing_at_a_real_server(sleep: Sleep, clocked: Server) -> None:
    store = RedisReplayStore.from_url(clocked.url, timeout=ENDLESS)
    assert await answers(store, [entry() for _ in range(5)]) == {True: 5}
    clocked.set_clock(TEN_MINUTES)
    sleep(TEN_MINUTES)
    fresh = [entry() for _ in range(5)]
    assert await answers(store, fresh) == {True: 5}
    assert await answers(store, again(fresh)) == {False: 5}
    await store.aclose()


async def test_a_machine_whose_clock_is_set_forward_and_back_did_not_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its server's clock is the same one: what expired in between is missing afterwards."""
    ahead, show = 0.0, time.time
    monkeypatch.setattr(time, "time", lambda: show() + ahead)
    async with ScriptedServer(Reporting()) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        used = [entry() for _ in range(5)]
        assert await answers(store, used) == {True: 5}
        ahead = 100.0
        server.expire()
        assert await answers(store, [entry()]) == {503: 1}
        ahead = 0.0
        assert await answers(store, again(used)) == {503: 5}
        await store.aclose()


def test_a_moment_counts_sleep(sleep: Sleep) -> None:
    seen, loop_time = Moments(), 1000.0
    for _ in range(2):
        sleep(100)
    assert round(seen.slept()) == round(seen.lived()) == 200
    assert round(seen.at(loop_time)) == 1200


def test_a_system_that_does_not_count_its_sleep_seems_never_to_sleep(
    monkeypatch: pytest.MonkeyPatch, sleep: Sleep
) -> None:
    monkeypatch.setattr(clocks, "_WITH_SLEEP", None)
    seen = Moments()
    sleep(TEN_MINUTES)
    assert seen.slept() < 1


def test_a_process_that_is_stopped_while_it_reads_the_clocks_has_not_slept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, show = Moments(), time.monotonic
    with monkeypatch.context() as stopped:
        stopped.setattr(time, "monotonic", lambda: show() + 5)
        assert seen.slept() == 0
    assert seen.slept() < 1


def test_the_whole_sleep_of_a_process_counts_that_was_stopped_when_it_began_to_count(
    monkeypatch: pytest.MonkeyPatch, sleep: Sleep
) -> None:
    show, with_sleep, stopped = time.monotonic, time.clock_gettime, 0.0

    def stopped_after_this() -> float:
        nonlocal stopped
        shown, stopped = show() + stopped, 5.0
        return shown

    monkeypatch.setattr(time, "monotonic", stopped_after_this)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: with_sleep(clock) + stopped)
    seen = Moments()
    sleep(100)
    assert round(seen.slept()) == 100
