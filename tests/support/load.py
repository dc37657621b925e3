"""Requests of many clients at once, some of them thieves: the answers, and how long they took."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import ReplayEntry, ReplayStore
from tests.support.replay import after_a_loss, answer, entry
from tests.support.running import running
from tests.support.slots import entry_in
from tests.support.valkey import until

__all__ = ["RECOVERY", "SLACK", "TIMEOUT", "Load", "eventually", "recovery", "stolen"]

# A store is back within this number of seconds after its server.
RECOVERY = 1.0
# A store's default: the time that one request may take.
TIMEOUT = 0.25
# The time that a busy machine may add to a deadline before it counts as missed.
SLACK = 0.25

# Proofs that a thief would try again, the newest.
KEPT = 500


def stolen(items: Iterable[ReplayEntry]) -> list[ReplayEntry]:
    """The same proofs, presented now."""
    return [item._replace(now=time.time()) for item in items]


async def eventually(condition: Callable[[], object], *, within: float = 20.0) -> None:
    """As `until`, without holding up the event loop."""
    await asyncio.to_thread(until, condition, within=within)


async def recovery(store: ReplayStore, fresh: Callable[[], ReplayEntry] = after_a_loss) -> float:
    """Seconds until a fresh proof is accepted again, asked for as often as a busy service would."""
    begin = running()
    while await answer(store, fresh()) is not True:
        await asyncio.sleep(0.01)
        assert running() - begin < 10
    return running() - begin


class Load:
    """Asks `store` for fresh proofs and for ones it accepted, from `clients` tasks, while it is entered.

    At its end it has checked the promise that holds whatever a test does to the servers: no proof was
    accepted twice, and no fresh one was called a replay.

    With `slots` each client asks in one of these slots of a cluster only, as many clients in each.

    `refusals` counts the answers 503 by their description and cause, for tests that expect none. The times
    are in seconds in which this process could run; `longest_wait` is the longest time of any request.
    """

    def __init__(
        self,
        store: ReplayStore,
        *,
        clients: int = 20,
        pause: float = 0.005,
        slots: Sequence[int] = (),
    ) -> None:
        self._store = store
        self._clients = clients
        self._pause = pause
        self._slots = slots
        self._tasks: list[asyncio.Task[None]] = []
        self._used: list[ReplayEntry] = []
        self._accepted_at = [0.0] * clients
        self.accepted = 0
        self.replays_refused = 0
        self._accepted_again = 0
        self._fresh_refused = 0
        self.refusals = Counter[tuple[str, object]]()
        self.last_acceptance = 0.0
        self.longest_wait = 0.0

    @property
    def unavailable(self) -> int:
        """How many requests were answered 503."""
        return self.refusals.total()

    async def until_accepted_after(self, moment: float) -> None:
        """Wait until a fresh proof was accepted after `moment` (of `running`)."""
        async with asyncio.timeout(30):
            while self.last_acceptance <= moment:
                await asyncio.sleep(0.005)

    async def until_a_replay_is_refused(self) -> None:
        """Wait until a proof that was accepted before is called a replay."""
        count = self.replays_refused
        async with asyncio.timeout(30):
            while self.replays_refused == count:
                await asyncio.sleep(0.005)

    async def until_accepted_by_all(self) -> None:
        """Wait until each client has had a fresh proof accepted from now on."""
        moment = running()
        async with asyncio.timeout(30):
            while min(self._accepted_at) <= moment:
                await asyncio.sleep(0.005)

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
            self.last_acceptance = self._accepted_at[number] = running()
            self._used.append(item)
            del self._used[:-KEPT]
        elif outcome is False:
            self._fresh_refused += 1

    def _fresh(self, number: int) -> ReplayEntry:
        return entry_in(self._slots[number % len(self._slots)]) if self._slots else entry()

    async def _answer(self, item: ReplayEntry) -> bool | Unavailable:
        begin = running()
        outcome = await answer(self._store, item)
        self.longest_wait = max(self.longest_wait, running() - begin)
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
