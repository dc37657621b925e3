"""Requests of many clients at once, some of them thieves: the answers, and whether they came in time."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import ReplayEntry, ReplayStore
from tests.support.replay import ENDLESS, after_a_loss, answer, entry
from tests.support.running import running
from tests.support.slots import entry_in
from tests.support.valkey import HANGS, until

__all__ = [
    "AT_ONCE",
    "CHANCES",
    "HANGS",
    "RECOVERY",
    "SLACK",
    "TIMEOUT",
    "Load",
    "eventually",
    "in_time",
    "judged",
    "recovery",
    "stolen",
]

T = TypeVar("T")

# A store is back within this number of seconds after its server.
RECOVERY = 1.0
# A store's default: the time that one request may take.
TIMEOUT = 0.25
# The time that a busy machine may add to a deadline before it counts as missed.
SLACK = 0.25
# Seconds within which a store whose timeout is `ENDLESS` answers a request that has nothing to wait for. No
# deadline ends so early.
AT_ONCE = ENDLESS / 4
# How often a test may try to see a store with the usual timeout back in a second. A busy machine may answer
# later than that timeout allows. A store that is late only now and then passes, too.
CHANCES = 5
# Turns of the event loop: more than requests take to begin, and more than one takes to end whose deadline has
# passed.
STARTS, TURNS = 5, 100

# Proofs that a thief would try again, the newest.
KEPT = 500


def stolen(items: Iterable[ReplayEntry]) -> list[ReplayEntry]:
    """The same proofs, presented now."""
    return [item._replace(now=time.time()) for item in items]


async def eventually(condition: Callable[[], object], *, within: float = HANGS) -> None:
    """As `until`, without holding up the event loop."""
    await asyncio.to_thread(until, condition, within=within)


async def in_time(asking: Awaitable[T], within: float | None = TIMEOUT + SLACK) -> T:
    """Return the result of a request; it must have come `within` seconds.

    A timer of the same event loop measures them, which comes due after the request's own. However late a busy
    machine is, the loop runs the earlier one first.
    """
    asked = asyncio.ensure_future(asking)
    try:
        # Its own timer is set first.
        await _turns(until=asked, at_most=STARTS)
        await asyncio.wait({asked}, timeout=within)
        await _turns(until=asked, at_most=TURNS)
        assert asked.done(), f"no answer within {within} seconds"
        return await asked
    finally:
        asked.cancel()


async def _turns(*, until: asyncio.Future[Any], at_most: int) -> None:
    for _ in range(at_most):
        if until.done():
            break
        await asyncio.sleep(0)


async def judged(store: ReplayStore, item: ReplayEntry) -> bool:
    """The verdict of a store with the usual timeout, in which a busy machine may not reach one at once."""
    async with asyncio.timeout(HANGS):
        while isinstance(outcome := await answer(store, item), Unavailable):
            await asyncio.sleep(0.01)
    return outcome


async def recovery(store: ReplayStore, fresh: Callable[[], ReplayEntry] = after_a_loss) -> float:
    """Seconds until a fresh proof is accepted again, asked for as often as a busy service would."""
    begin = running()
    async with asyncio.timeout(HANGS):
        while await answer(store, fresh()) is not True:
            await asyncio.sleep(0.01)
    return running() - begin


class Load:
    """Asks `store` for fresh proofs and for ones it accepted, from `clients` tasks, while it is entered.

    At its end it has checked the promise that holds whatever a test does to the servers: no proof was
    accepted twice, and no fresh one was called a replay.

    With `slots` each client asks in one of these slots of a cluster only, as many clients in each. With
    `within` each answer must come in that time, as `in_time` judges it.

    `refusals` counts the answers 503 by their description and cause, for tests that expect none.
    """

    def __init__(
        self,
        store: ReplayStore,
        *,
        clients: int = 20,
        pause: float = 0.005,
        slots: Sequence[int] = (),
        within: float | None = None,
    ) -> None:
        self._store = store
        self._within = within
        self._clients = clients
        self._pause = pause
        self._slots = slots
        self._tasks: list[asyncio.Task[None]] = []
        self._used: list[ReplayEntry] = []
        self._accepted_by = [0] * clients
        self.accepted = 0
        self.replays_refused = 0
        self._accepted_again = 0
        self._fresh_refused = 0
        self.refusals = Counter[tuple[str, object]]()

    @property
    def unavailable(self) -> int:
        """How many requests were answered 503."""
        return self.refusals.total()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` is true, which the answers to the clients make it."""
        async with asyncio.timeout(HANGS):
            while not condition():
                await asyncio.sleep(0.005)

    async def recovery(self) -> float:
        """Seconds until the next fresh proof is accepted."""
        begin, count = running(), self.accepted
        await self.until(lambda: self.accepted > count)
        return running() - begin

    async def until_accepted_by_all(self) -> None:
        """Wait until each client has had a fresh proof accepted from now on."""
        before = list(self._accepted_by)
        await self.until(lambda: all(map(int.__gt__, self._accepted_by, before)))

    async def until_a_replay_is_refused(self) -> None:
        """Wait until a proof that was accepted before is called a replay."""
        count = self.replays_refused
        await self.until(lambda: self.replays_refused > count)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.ensure_future(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        if error is None:
            assert self._accepted_again == 0, "a proof was accepted twice"
            assert self._fresh_refused == 0, "a fresh proof was called a replay"

    async def _client(self, number: int) -> None:
        while True:
            if self._used and random.random() < 0.5:
                await self._steal(random.choice(self._used))
            else:
                await self._ask(number)
            await asyncio.sleep(random.uniform(0, 2 * self._pause))

    async def _ask(self, number: int) -> None:
        item = self._fresh(number)
        outcome = await self._answer(item)
        if outcome is True:
            self.accepted += 1
            self._accepted_by[number] += 1
            self._used.append(item)
            del self._used[:-KEPT]
        elif outcome is False:
            self._fresh_refused += 1

    def _fresh(self, number: int) -> ReplayEntry:
        return entry_in(self._slots[number % len(self._slots)]) if self._slots else entry()

    async def _answer(self, item: ReplayEntry) -> bool | Unavailable:
        outcome = await in_time(answer(self._store, item), self._within)
        if isinstance(outcome, Unavailable):
            self.refusals[outcome.description, outcome.actual] += 1
        return outcome

    async def _steal(self, item: ReplayEntry) -> None:
        (again,) = stolen((item,))
        outcome = await self._answer(again)
        if outcome is True:
            self._accepted_again += 1
        elif outcome is False:
            self.replays_refused += 1
