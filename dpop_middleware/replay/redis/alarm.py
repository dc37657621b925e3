"""The deadlines of the writes that wait to be sent: whatever is under way meanwhile may end later."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable

from dpop_middleware.replay.redis.connection import CLOCK_STEP
from dpop_middleware.replay.redis.writes import PendingWrite

__all__ = ["Alarm"]


class Alarm:
    """Has each write of `queue` refused by `refuse` at its deadline. Belongs to one event loop.

    Writes are in the order of their deadlines, but for those with a timer of their own. One timer serves all
    of them: a timer for each would cost every request more than this.
    """

    def __init__(self, queue: deque[PendingWrite], refuse: Callable[[Iterable[PendingWrite]], None]) -> None:
        self._queue, self._refuse = queue, refuse
        self._loop, self._is_set = asyncio.get_running_loop(), False

    def set(self) -> None:
        """Watch the queue, to whose end a write was put."""
        if not self._is_set:
            self._is_set = True
            # Not in the context of the current request.
            self._loop.call_at(self._queue[0].deadline, self._ring, context=contextvars.Context())

    def _ring(self) -> None:
        now, self._is_set = self._loop.time() + CLOCK_STEP, False
        while self._queue and self._queue[0].deadline <= now:
            self._refuse((self._queue.popleft(),))
        if self._queue:
            self.set()
