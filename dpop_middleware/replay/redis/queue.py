"""The writes that wait for one server: how many are sent together, and what happens at their deadlines."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from dpop_middleware.replay.redis.connection import CLOCK_STEP
from dpop_middleware.replay.redis.writes import PendingWrite

__all__ = ["Queue"]

_MOST: Final = 512
_FEWEST_IN_HALF: Final = 16


class Queue:
    """`writes` in the order in which they came, each refused by `refuse` at its deadline.

    `by_halves` takes half of many: the server stores them while this process judges the next requests. Where
    replies take longer than that, a second batch costs more. Belongs to one event loop.
    """

    def __init__(self, refuse: Callable[[Iterable[PendingWrite]], None]) -> None:
        self.writes, self._refuse = deque[PendingWrite](), refuse
        self._loop, self._is_watched = asyncio.get_running_loop(), False
        self.by_halves = False

    def append(self, write: PendingWrite) -> None:
        """Put `write` behind those that came earlier."""
        self.writes.append(write)
        if not self._is_watched:
            self._watch_first()

    def put_back(self, write: PendingWrite) -> None:
        """Put `write`, for which `watch` was called, before those that came later.

        All of them are then taken together: they have less time.
        """
        self.by_halves = False
        self.writes.appendleft(write)

    def take(self, *, answered: int = 0) -> list[PendingWrite]:
        """Take a batch; late writes are refused, and those that nobody waits for are dropped.

        The requests of `answered` writes are about to go on, and will be followed by as many.
        """
        half = (answered + len(self.writes) + 1) // 2
        most = min(_MOST, max(_FEWEST_IN_HALF, half)) if self.by_halves else _MOST
        taken: list[PendingWrite] = []
        now = self._loop.time()
        while self.writes and len(taken) < most:
            write = self.writes.popleft()
            if write.deadline <= now:
                self._refuse((write,))
            elif not write.answer.done():
                taken.append(write)
        return taken

    def watch(self, write: PendingWrite) -> None:
        """Refuse `write` at its deadline, wherever it waits."""
        self._loop.call_at(write.deadline, self._refuse, (write,), context=contextvars.Context())

    def refuse_all(self) -> None:
        """Refuse every write that waits."""
        self._refuse(self.writes)
        self.writes.clear()

    def _watch_first(self) -> None:
        # One timer for all: deadlines are in order, except of those for which `watch` was called. Not in the
        # context of the current request.
        self._loop.call_at(self.writes[0].deadline, self._ring, context=contextvars.Context())
        self._is_watched = True

    def _ring(self) -> None:
        now, self._is_watched = self._loop.time() + CLOCK_STEP, False
        while self.writes and self.writes[0].deadline <= now:
            self._refuse((self.writes.popleft(),))
        if self.writes:
            self._watch_first()
