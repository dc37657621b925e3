"""Requests of many clients at once, some of them thieves, and what they were told."""

import asyncio
import random
import time
from types import TracebackType
from typing import Self

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import ReplayEntry, ReplayStore
from tests.support.replay import answer, entry

__all__ = ["Load"]

# Proofs that a thief would try again, the newest.
KEPT = 500


class Load:
    """Asks `store` for fresh proofs and for ones it accepted, from `clients` tasks, while it is entered."""

    def __init__(self, store: ReplayStore, *, clients: int = 20, pause: float = 0.005) -> None:
        self._store = store
        self._clients = clients
        self._pause = pause
        self._tasks: list[asyncio.Task[None]] = []
        self._used: list[ReplayEntry] = []
        self.accepted = 0
        self.replays_refused = 0
        self.replays_accepted = 0
        self.fresh_called_replays = 0
        self.unavailable = 0
        self.last_acceptance = 0.0

    async def until_accepted_after(self, moment: float) -> None:
        """Wait until a fresh proof that was presented after `moment` (monotonic) has been accepted."""
        async with asyncio.timeout(30):
            while self.last_acceptance <= moment:
                await asyncio.sleep(0.005)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.ensure_future(self._client()) for _ in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _client(self) -> None:
        while True:
            if self._used and random.random() < 0.5:
                await self._steal(random.choice(self._used))
            else:
                await self._ask(entry())
            await asyncio.sleep(random.uniform(0, 2 * self._pause))

    async def _ask(self, item: ReplayEntry) -> None:
        outcome = await answer(self._store, item)
        if outcome is True:
            self.accepted += 1
            self.last_acceptance = time.monotonic()
            self._used.append(item)
            del self._used[:-KEPT]
        elif isinstance(outcome, Unavailable):
            self.unavailable += 1
        else:
            self.fresh_called_replays += 1

    async def _steal(self, item: ReplayEntry) -> None:
        stolen = ReplayEntry(
            key=item.key,
            jkt=item.jkt,
            now=time.time(),
            not_before=item.not_before,
            expires_at=item.expires_at,
        )
        outcome = await answer(self._store, stolen)
        if outcome is True:
            self.replays_accepted += 1
        elif isinstance(outcome, Unavailable):
            self.unavailable += 1
        else:
            self.replays_refused += 1
