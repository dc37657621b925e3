"""Keys that are fetched and kept fresh: by the clock, through outages, for many waiters, after a fork."""

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.health import IssuerKeysHealth
from dpop_middleware.tokens.admission import MAX_WAITING
from dpop_middleware.tokens.jwks import KeySet, parse_key_set
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource
from tests.support.issuer_tokens import issuer_key, key_set
from tests.support.loop_clock import LoopClock

LIFETIMES = Lifetimes(lifetime=300, max_age=86400, cooldown=10, timeout=5)
KEY = "a key that is wanted"


class World:
    """An issuer and two clocks.

    `answer` is what the issuer returns, or raises, after each of `answers`; while `open` is clear it doesn't
    answer. `at_a_look` is called whenever the source reads the clock.
    """

    def __init__(self, lifetimes: Lifetimes = LIFETIMES) -> None:
        self.now = 1_800_000_000.0
        self.uptime = 5000.0
        self.answer: KeySet | Exception = KeySet(())
        self.answers: list[KeySet] = []
        self.fetches = 0
        self.open = threading.Event()
        self.open.set()
        self.at_a_look: Callable[[], None] = lambda: None
        self.source = self.new_source(lifetimes)

    def new_source(self, lifetimes: Lifetimes) -> RemoteKeySource:
        return RemoteKeySource(
            self.fetch, lifetimes=lifetimes, clock=self.clock, monotonic=lambda: self.uptime
        )

    def clock(self) -> float:
        self.at_a_look()
        return self.now

    def fetch(self, _loop: asyncio.AbstractEventLoop) -> KeySet:
        self.fetches += 1
        assert self.open.wait(60)
        if self.answers:
            return self.answers.pop(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.uptime += seconds

    async def newer_than(self, keys: KeySet, *, wanted: str = KEY) -> KeySet:
        """Ask for the key that a request needs which comes a moment after the last fetch."""
        self.uptime += 1e-6
        return await searched(self.source, keys, since=self.uptime, wanted=wanted)

    async def settled(self) -> None:
        """Wait until no fetch is under way."""
        await self.source.aclose()


async def held_for_a_second(clock: LoopClock, waiting: asyncio.Task[Any]) -> None:
    """Check that `waiting` waits until a second has passed, and no longer."""
    await asyncio.sleep(0)  # It begins.
    clock.now += 0.9
    await asyncio.to_thread(time.sleep, 0.01)
    assert not waiting.done()
    clock.now += 0.2
    await clock.until(waiting.done)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def searched(source: RemoteKeySource, keys: KeySet, *, since: float, wanted: str) -> KeySet:
    """The newest set that a request gets which finds `wanted` in no set."""
    while (newer := await source.newer_than(keys, since=since, wanted=wanted)) is not keys:
        keys = newer
    return keys


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
    # No request waits, and one fetch is enough.
    assert [world.source.current() for _ in range(100)] == [first] * 100
    assert await world.source.load() is first
    world.open.set()
    await world.settled()
    assert world.source.current() is second
    assert world.fetches == 2


async def test_after_idle_hours_requests_wait_for_the_fetch() -> None:
    world = World()
    await world.source.load()
    world.passes(600)
    world.answer = second = KeySet(())
    assert world.source.current() is None
    assert await world.source.load() is second


async def test_after_idle_hours_and_without_an_answer_the_old_keys_are_used() -> None:
    world = World()
    first = await world.source.load()
    world.passes(20 * 3600)
    world.answer = OSError("down")
    assert await world.source.load() is first
    assert world.source.current() is first


async def test_keys_are_used_through_an_outage_of_a_day() -> None:
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


async def test_failures_delay_the_next_attempts_while_there_are_keys() -> None:
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
        assert str(error) == "the keys of the access token's issuer can't be fetched now"
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


async def test_an_exception_without_a_message_is_reported_by_its_name() -> None:
    world = World()
    world.answer = ZeroDivisionError()
    assert (await refused(world.source.load())).actual == "ZeroDivisionError"


async def test_a_set_that_was_fetched_after_the_request_came_is_new_enough() -> None:
    world = World()
    since = world.uptime
    first = await world.source.load()
    assert await world.source.newer_than(first, since=since, wanted=KEY) is first
    assert world.fetches == 1


async def test_an_unknown_key_causes_a_fetch_at_once() -> None:
    world = World()
    first = await world.source.load()
    world.passes(0.1)
    world.answer = second = KeySet(())
    assert await world.newer_than(first) is second
    assert world.fetches == 2
    # That fetch is enough for a request that came before it, but not for one that came after it.
    assert await searched(world.source, first, since=world.uptime - 0.1, wanted="other") is second
    assert world.fetches == 2
    world.passes(5)
    world.answer = third = KeySet(())
    assert await world.newer_than(second, wanted="third") is third
    assert world.fetches == 3


async def test_a_key_that_a_fresh_set_lacked_is_remembered_for_half_the_cooldown() -> None:
    world = World()
    first = await world.source.load()
    world.passes(100)
    world.answer = second = KeySet(())
    assert await world.newer_than(first) is second
    world.passes(4.9)
    for _ in range(100):
        assert await world.newer_than(second) is second
    assert world.fetches == 2
    world.passes(0.1)
    world.answer = third = KeySet(())
    assert await world.newer_than(second) is third
    assert world.fetches == 3


async def test_a_newer_set_is_searched_for_a_key_that_an_older_one_lacked() -> None:
    world = World()
    await world.source.load()
    world.passes(100)
    first = await world.source.load()
    world.answer = KeySet(())
    second = await world.newer_than(first)
    world.passes(5)
    world.answer = third = KeySet(())
    assert await world.newer_than(second, wanted="another") is third
    # As if the key that the second set lacked had been published in the meantime.
    world.passes(5)
    world.answer = fourth = KeySet(())
    assert await world.newer_than(third) is fourth


async def test_fetches_for_unknown_keys_begin_half_a_cooldown_apart() -> None:
    world = World(Lifetimes(cooldown=1))
    keys = await world.source.load()
    for number in range(20):
        world.passes(0.1)
        task = asyncio.create_task(world.newer_than(keys, wanted=str(number)))
        await asyncio.sleep(0)
        await world.settled()
        task.cancel()
    assert world.fetches == 1 + 4


async def test_a_request_waits_for_the_next_fetch() -> None:
    world = World()
    source = RemoteKeySource(world.fetch, lifetimes=Lifetimes(cooldown=0.2))
    keys = await source.load()
    for number in range(3):
        world.answer = newer = KeySet(())
        wanted = str(number)
        assert await searched(source, keys, since=time.monotonic(), wanted=wanted) is newer
        keys = newer
    assert world.fetches == 4


async def test_requests_that_come_during_a_fetch_wait_for_the_one_after_it() -> None:
    world = World()
    source = RemoteKeySource(world.fetch, lifetimes=Lifetimes(cooldown=0.1))
    first = await source.load()
    world.open.clear()
    early = asyncio.create_task(searched(source, first, since=time.monotonic(), wanted=KEY))
    await until(lambda: world.fetches == 2)
    late = [
        asyncio.create_task(searched(source, first, since=time.monotonic(), wanted="late")) for _ in range(50)
    ]
    await asyncio.sleep(0)
    second, third = KeySet(()), KeySet(())
    world.answers = [second, third]
    world.open.set()
    assert await early is second
    assert {await task for task in late} == {third}
    assert world.fetches == 3


async def test_a_request_during_a_fetch_is_served_by_it_if_it_brings_the_key() -> None:
    world = World()
    first = await world.source.load()
    world.passes(100)
    world.open.clear()
    world.source.current()
    early = asyncio.create_task(world.newer_than(first))
    await until(lambda: world.fetches == 2)
    late = asyncio.create_task(world.source.newer_than(first, since=world.uptime + 1, wanted=KEY))
    await asyncio.sleep(0)
    world.answer = second = KeySet(())
    world.open.set()
    assert await late is await early is second
    assert world.fetches == 2


async def test_an_unknown_key_during_an_outage_is_503() -> None:
    world = World()
    first = await world.source.load()
    world.passes(10)
    world.answer = OSError("down")
    error = await refused(world.newer_than(first))
    assert (error.check, error.retry_after, error.actual) == (Check.TOKEN_KEY, 1, "down")
    await refused(world.newer_than(first))
    assert world.fetches == 2
    assert world.source.current() is first
    # The longer it is down, the longer until the next attempt, but never longer than five seconds.
    for _ in range(10):
        world.passes((await refused(world.newer_than(first))).retry_after)
    assert (await refused(world.newer_than(first))).retry_after == 5
    world.passes(5)
    world.answer = second = KeySet(())
    assert await world.newer_than(first) is second


async def test_answers_503_during_an_outage_are_bounded() -> None:
    world = World()
    first = await world.source.load()
    world.passes(10)
    world.answer = OSError("down")
    outcomes = [
        await asyncio.gather(world.newer_than(first, wanted=str(number)), return_exceptions=True)
        for number in range(500)
    ]
    assert [isinstance(outcome, Unavailable) for (outcome,) in outcomes] == [True] * 100 + [False] * 400
    assert outcomes[-1][0] is first
    assert world.fetches == 2


async def test_an_issuer_that_hangs_delays_a_request_for_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, clock = World(), LoopClock(monkeypatch)
    first = await world.source.load()
    world.passes(10)
    world.open.clear()
    waiting = asyncio.create_task(refused(world.newer_than(first)))
    await clock.until(lambda: world.fetches == 2)
    await held_for_a_second(clock, waiting)
    assert waiting.result().retry_after == 1
    assert world.source.current() is first
    world.answer = second = KeySet(())
    world.open.set()
    await world.settled()
    # The fetch continued, and the next request finds its result.
    assert world.source.current() is second
    assert world.fetches == 2


async def test_a_cancelled_wait_for_an_unknown_key_affects_no_other() -> None:
    world = World()
    first = await world.source.load()
    world.passes(10)
    world.open.clear()
    tasks = [
        asyncio.create_task(searched(world.source, first, since=world.uptime, wanted=KEY)) for _ in range(10)
    ]
    await until(lambda: world.fetches == 2)
    for task in tasks[:9]:
        task.cancel()
    world.answer = second = KeySet(())
    world.open.set()
    assert await tasks[9] is second
    assert world.fetches == 2


async def test_opening_fetches_once_in_the_background() -> None:
    world = World()
    world.open.clear()
    for _ in range(3):
        world.source.open()
    assert world.source.current() is None
    world.open.set()
    await world.settled()
    assert world.source.current() is world.answer
    world.source.open()
    await world.settled()
    assert world.fetches == 1


async def test_opening_does_not_ask_an_issuer_that_has_just_failed() -> None:
    world = World()
    world.answer = OSError("down")
    for _ in range(3):
        world.source.open()
        await world.settled()
    assert world.fetches == 1


async def test_health_changes_with_the_first_answer() -> None:
    world = World()
    world.answer = OSError("down")
    unwell = IssuerKeysHealth(ok=False, keys=0, error="down")
    assert [await world.source.health() for _ in range(100)] == [unwell] * 100
    assert world.fetches == 1
    world.passes(1)
    world.answer = parse_key_set(key_set(issuer_key(), issuer_key("ES256", kid="b")))
    assert await world.source.health() == IssuerKeysHealth(ok=True, keys=2, age=0)


async def test_cached_keys_stay_ready_while_the_issuer_is_down() -> None:
    world = World()
    document: dict[str, Any] = {"keys": [issuer_key().jwk, {"kty": "x", "kid": "odd"}, {"use": "enc"}]}
    world.answer = parse_key_set(document)
    await world.source.load()
    odd = "key 1 of the JWK Set, kid 'odd', is left out: its kty 'x' is not supported"
    world.answer = OSError("down")
    world.passes(300)
    await world.source.health()
    await world.settled()
    assert await world.source.health() == IssuerKeysHealth(
        ok=True, keys=1, age=300, error="down", warnings=(odd,)
    )
    world.passes(86099)
    assert (await world.source.health()).ok
    await world.settled()
    world.passes(1)
    assert await world.source.health() == IssuerKeysHealth(ok=False, keys=0, error="down")


async def test_health_waits_a_second_for_an_issuer_that_hangs() -> None:
    world = World()
    world.open.clear()
    healths = await asyncio.gather(*(world.source.health() for _ in range(100)))
    assert set(healths) == {IssuerKeysHealth(ok=False, keys=0, error="the issuer has not answered yet")}
    assert world.fetches == 1
    world.open.set()
    await world.settled()


async def test_after_idle_hours_an_issuer_that_hangs_delays_requests_for_a_second() -> None:
    world = World()
    first = await world.source.load()
    world.passes(600)
    world.open.clear()
    assert world.source.current() is None
    assert await world.source.load() is first
    world.passes(1)
    # Later requests don't wait for the same fetch.
    assert world.source.current() is first
    world.open.set()
    await world.settled()
    assert world.fetches == 2


async def test_nothing_lasts_longer_when_the_wall_clock_is_set_back() -> None:
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


def test_one_fetch_serves_hundreds_of_waiters_on_two_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.open.clear()
    waiting = threading.Barrier(2, action=lambda: threading.Timer(0.05, world.open.set).start())
    got: list[KeySet] = []

    async def work() -> None:
        LoopClock(monkeypatch)  # A busy machine may take more than a second for them.
        tasks = [asyncio.create_task(world.source.load()) for _ in range(300)]
        await asyncio.sleep(0)
        waiting.wait(5)
        got.extend(await asyncio.gather(*tasks))

    loops(2, work)
    assert world.fetches == 1
    assert got == [world.answer] * 600


async def test_a_cancelled_waiter_affects_no_other() -> None:
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


def test_a_loop_that_ends_during_a_fetch_affects_no_other() -> None:
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


async def test_an_issuer_that_hangs_from_the_beginning_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    world, clock = World(), LoopClock(monkeypatch)
    world.open.clear()
    for _ in range(2):
        waiting = asyncio.create_task(refused(world.source.load()))
        await clock.until(lambda: world.fetches == 1)
        await held_for_a_second(clock, waiting)
        error = waiting.result()
        assert (error.retry_after, error.actual) == (1, "the issuer has not answered yet")
    world.open.set()
    await world.settled()
    assert world.fetches == 1
    assert world.source.current() is world.answer


async def test_the_requests_that_wait_for_the_first_answer_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    LoopClock(monkeypatch)
    world.open.clear()
    waiting = [asyncio.create_task(world.source.load()) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    # Answered at once, without a turn of the event loop.
    with pytest.raises(Unavailable):
        world.source.load().send(None)
    world.open.set()
    assert set(await asyncio.gather(*waiting)) == {world.answer}
    assert world.fetches == 1


async def test_two_requests_that_saw_the_same_state_fetch_once() -> None:
    world = World()
    world.answer = ValueError("not now")
    await refused(world.source.load())
    world.passes(1)
    world.answer = KeySet(())
    looks, others = itertools.count(1), list[KeySet]()

    async def other() -> None:
        others.append(await world.source.load())

    def at_a_look() -> None:
        # Another thread fetches while this request reads the age of the failure that it saw.
        if next(looks) == 1:
            loops(1, other)

    world.at_a_look = at_a_look
    assert await world.source.load() is world.answer
    assert others == [world.answer]
    assert world.fetches == 2


async def test_a_thread_that_can_not_be_started_is_a_failed_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        error = await refused(world.source.load())
    assert error.actual == "no thread could be started: can't start new thread"
    world.passes(1)
    assert await world.source.load() is world.answer


async def test_closing_waits_a_moment_and_leaves_the_source_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await world.source.aclose()
    await world.source.load()
    await world.source.aclose()
    world.passes(300)
    world.open.clear()
    world.source.current()
    world.answer = second = KeySet(())
    # The moment doesn't end by itself.
    LoopClock(monkeypatch)
    threading.Timer(0.05, world.open.set).start()
    await world.source.aclose()
    assert world.source.current() is second
    assert world.fetches == 2


async def test_closing_does_not_wait_for_a_slow_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    world, clock = World(), LoopClock(monkeypatch)
    world.open.clear()
    load = asyncio.create_task(world.source.load())
    await clock.until(lambda: world.fetches == 1)
    await held_for_a_second(clock, asyncio.create_task(world.source.aclose()))
    world.open.set()
    await asyncio.gather(load, return_exceptions=True)
    await world.settled()
    assert world.source.current() is world.answer


FORKING = """
import asyncio, os, sys, threading
sys.path.insert(0, sys.argv[1])
from dpop_middleware.tokens.jwks import KeySet
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource

parent = os.getpid()
started = threading.Event()

def fetch(loop):
    started.set()
    if os.getpid() == parent:
        threading.Event().wait(600)
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
    asyncio.run(asyncio.wait_for(source.load(), 60))
    os._exit(0)
_, status = os.waitpid(child, 0)
os._exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_does_not_wait_for_its_parents_fetch() -> None:
    root = str(Path(sys.modules["dpop_middleware"].__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, root], capture_output=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
