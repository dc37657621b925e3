"""Keys that are fetched and kept fresh: by the clock, through outages, for many waiters, after a fork."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.tokens.jwks import KeySet
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource

LIFETIMES = Lifetimes(lifetime=300, max_age=86400, cooldown=10, timeout=5)


class World:
    """An issuer and two clocks.

    `answer` is what the issuer gives, or raises; while `open` is clear it keeps one waiting.
    """

    def __init__(self, lifetimes: Lifetimes = LIFETIMES) -> None:
        self.now = 1_800_000_000.0
        self.uptime = 5000.0
        self.answer: KeySet | Exception = KeySet(())
        self.fetches = 0
        self.open = threading.Event()
        self.open.set()
        self.source = self.new_source(lifetimes)

    def new_source(self, lifetimes: Lifetimes) -> RemoteKeySource:
        return RemoteKeySource(
            self.fetch, lifetimes=lifetimes, clock=lambda: self.now, monotonic=lambda: self.uptime
        )

    def fetch(self) -> KeySet:
        self.fetches += 1
        assert self.open.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.uptime += seconds

    async def settled(self) -> None:
        """Wait until no fetch is under way."""
        await self.source.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def refused(waiting: Awaitable[KeySet]) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await waiting
    return caught.value


async def test_the_first_use_waits_for_a_fetch() -> None:
    world = World()
    assert world.source.current() is None
    assert world.fetches == 0
    assert await world.source.load() is world.answer
    assert world.source.current() is world.answer
    assert await world.source.load() is world.answer
    assert world.fetches == 1


async def test_fresh_keys_are_used_and_old_ones_renewed_in_the_background() -> None:
    world = World()
    first = await world.source.load()
    world.passes(299)
    assert world.source.current() is first
    await world.settled()
    assert world.fetches == 1
    world.passes(1)
    world.answer = second = KeySet(())
    world.open.clear()
    # Nobody waits, and one fetch is enough.
    assert [world.source.current() for _ in range(100)] == [first] * 100
    assert await world.source.load() is first
    world.open.set()
    await world.settled()
    assert world.source.current() is second
    assert world.fetches == 2


async def test_after_idle_hours_the_fetch_is_waited_for() -> None:
    world = World()
    await world.source.load()
    world.passes(600)
    world.answer = second = KeySet(())
    assert world.source.current() is None
    assert await world.source.load() is second


async def test_after_idle_hours_and_without_an_answer_the_old_keys_serve() -> None:
    world = World()
    first = await world.source.load()
    world.passes(20 * 3600)
    world.answer = OSError("down")
    assert await world.source.load() is first
    assert world.source.current() is first


async def test_an_outage_of_a_day() -> None:
    world = World()
    first = await world.source.load()
    world.answer = OSError("down")
    for _ in range(24 * 12 - 1):
        world.passes(300)
        assert world.source.current() is first
        await world.settled()
    world.passes(299)
    assert await world.source.load() is first
    await world.settled()
    world.passes(1)
    assert world.source.current() is None
    error = await refused(world.source.load())
    assert (error.check, error.actual) == (Check.TOKEN_KEY, "down")
    assert 1 <= error.retry_after <= 60
    world.passes(60)
    world.answer = second = KeySet(())
    assert await world.source.load() is second


async def test_failures_with_keys_in_hand_space_the_attempts() -> None:
    world = World()
    await world.source.load()
    world.answer = OSError("down")
    world.passes(300)
    world.source.current()
    await world.settled()
    delays = []
    for _ in range(9):
        waited = 0
        attempts = world.fetches
        while world.fetches == attempts:
            waited += 1
            world.passes(1)
            world.source.current()
            await world.settled()
        delays.append(waited)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_without_keys_a_failure_is_remembered_for_seconds() -> None:
    world = World()
    world.answer = OSError("down")
    retries = []
    for attempt in range(1, 6):
        error = await refused(world.source.load())
        assert world.fetches == attempt
        assert str(error) == "the keys of the access token's issuer can't be had now"
        retries.append(error.retry_after)
        await refused(world.source.load())
        assert world.fetches == attempt
        world.passes(error.retry_after)
    assert retries == [1, 2, 4, 5, 5]
    world.answer = KeySet(())
    assert await world.source.load() is world.answer


async def test_many_failures_do_not_overflow() -> None:
    world = World()
    world.answer = OSError("down")
    for _ in range(1100):
        await refused(world.source.load())
        world.passes(5)
    assert world.fetches == 1100


async def test_an_exception_without_words_has_a_name() -> None:
    world = World()
    world.answer = ZeroDivisionError()
    assert (await refused(world.source.load())).actual == "ZeroDivisionError"


async def test_an_unknown_key_is_asked_for_once_in_a_while() -> None:
    world = World()
    first = await world.source.load()
    assert await world.source.newer_than(first) is first
    world.passes(9.9)
    assert await world.source.newer_than(first) is first
    assert world.fetches == 1
    world.passes(0.1)
    world.answer = second = KeySet(())
    assert await world.source.newer_than(first) is second
    assert world.fetches == 2
    assert await world.source.newer_than(first) is second
    assert await world.source.newer_than(second) is second
    assert world.fetches == 2


async def test_an_unknown_key_during_an_outage() -> None:
    world = World()
    first = await world.source.load()
    world.passes(10)
    world.answer = OSError("down")
    error = await refused(world.source.newer_than(first))
    assert (error.check, error.retry_after) == (Check.TOKEN_KEY, 1)
    await refused(world.source.newer_than(first))
    assert world.fetches == 2
    assert world.source.current() is first


async def test_a_wall_clock_set_back_makes_nothing_last_longer() -> None:
    world = World()
    first = await world.source.load()
    world.answer = OSError("down")
    world.now -= 10 * 86400
    assert world.source.current() is first
    world.uptime += 300
    assert world.source.current() is first
    await world.settled()
    assert world.fetches == 2
    world.uptime += 86100
    assert world.source.current() is None


async def test_a_wall_clock_set_back_during_back_off_delays_nothing() -> None:
    world = World()
    world.answer = OSError("down")
    await refused(world.source.load())
    world.now -= 10 * 86400
    world.uptime += 1
    world.answer = KeySet(())
    assert await world.source.load() is world.answer


def loops(count: int, work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run `work` on several event loops at once, each in its own thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(asyncio.wait_for(work(), 10))
        # The thread's failure is the test's: an assertion or anything else.
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert failures == []


def test_one_fetch_serves_hundreds_of_waiters_on_two_loops() -> None:
    world = World()
    world.open.clear()
    waiting = threading.Barrier(2, action=lambda: threading.Timer(0.05, world.open.set).start())
    got: list[KeySet] = []

    async def work() -> None:
        tasks = [asyncio.create_task(world.source.load()) for _ in range(300)]
        await asyncio.sleep(0)
        waiting.wait(5)
        got.extend(await asyncio.gather(*tasks))

    loops(2, work)
    assert world.fetches == 1
    assert got == [world.answer] * 600


async def test_a_cancelled_waiter_harms_nobody() -> None:
    world = World()
    world.open.clear()
    tasks = [asyncio.create_task(world.source.load()) for _ in range(10)]
    await until(lambda: world.fetches == 1)
    for task in tasks[:9]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks[:9], return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    world.open.set()
    assert await tasks[9] is world.answer
    assert world.fetches == 1


def test_a_loop_that_ends_during_a_fetch_harms_nobody() -> None:
    world = World()
    world.open.clear()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.source.load(), 0.05)

    loops(1, give_up)
    world.open.set()

    async def work() -> None:
        assert await world.source.load() is world.answer

    loops(1, work)
    assert world.fetches == 1


async def test_a_fetch_that_comes_late_is_not_waited_for() -> None:
    world = World(Lifetimes(timeout=0.1))
    world.open.clear()
    begun = time.monotonic()
    error = await refused(world.source.load())
    assert 1.0 < time.monotonic() - begun < 3
    assert (error.retry_after, error.actual) == (1, "the issuer has not answered yet")
    # The same fetch is still under way, and its time is over.
    world.passes(2)
    begun = time.monotonic()
    await refused(world.source.load())
    assert time.monotonic() - begun < 0.5
    world.open.set()
    await world.settled()
    assert world.fetches == 1
    assert world.source.current() is world.answer


async def test_two_who_saw_the_same_state_fetch_once() -> None:
    world = World()
    # As when another thread's fetch lands between the two steps of a request.
    seen = world.source._state  # pyright: ignore[reportPrivateUsage]
    await world.source.load()
    world.source._start(seen)  # pyright: ignore[reportPrivateUsage]
    await world.settled()
    assert world.fetches == 1


async def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        error = await refused(world.source.load())
    assert error.actual == "no thread could be started: can't start new thread"
    world.passes(1)
    assert await world.source.load() is world.answer


async def test_closing_waits_a_moment_and_leaves_the_source_usable() -> None:
    world = World()
    await world.source.aclose()
    await world.source.load()
    await world.source.aclose()
    world.passes(300)
    world.open.clear()
    world.source.current()
    world.answer = second = KeySet(())
    threading.Timer(0.05, world.open.set).start()
    await world.source.aclose()
    assert world.source.current() is second
    assert world.fetches == 2


async def test_closing_does_not_wait_for_a_slow_issuer() -> None:
    world = World()
    world.open.clear()
    load = asyncio.create_task(world.source.load())
    await until(lambda: world.fetches == 1)
    begun = time.monotonic()
    await world.source.aclose()
    assert time.monotonic() - begun < 3
    world.open.set()
    assert await load is world.answer


FORKING = """
import asyncio, os, sys, threading
sys.path.insert(0, sys.argv[1])
from dpop_middleware.tokens.jwks import KeySet
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource

parent = os.getpid()
started = threading.Event()

def fetch():
    started.set()
    if os.getpid() == parent:
        threading.Event().wait(20)
    return KeySet(())

source = RemoteKeySource(fetch, lifetimes=Lifetimes())

async def begin():
    task = asyncio.ensure_future(source.load())
    while not started.is_set():
        await asyncio.sleep(0.001)
    task.cancel()

asyncio.run(begin())
child = os.fork()
if child == 0:
    asyncio.run(asyncio.wait_for(source.load(), 5))
    os._exit(0)
_, status = os.waitpid(child, 0)
os._exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_does_not_wait_for_its_parents_fetch() -> None:
    root = str(Path(sys.modules["dpop_middleware"].__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, root], capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
