"""When to look at a server anew, and what two looks tell: evicted keys, a clock that stepped forward."""

import math

from dpop_middleware.replay.info import ServerInfo
from dpop_middleware.replay.wire import command

__all__ = ["ServerClock"]

_LOOK_EVERY = 1.0
_LARGEST_STEP = 1.0
# By how much two clocks that nobody sets may run apart.
_DRIFT = 0.001
_SECTIONS = (b"server", b"replication", b"stats")


class ServerClock:
    """The last look at one server: `asked` is when the question was sent that it answered last.

    Times given are of the event loop's clock.
    Between two looks no more time can pass at the server than from sending the first question to receiving
    the second answer: what exceeds that is a step, and an event loop that was blocked is none.
    """

    def __init__(self) -> None:
        self._sent = self._answered = self._due = -math.inf
        self.asked = -math.inf
        self._last: tuple[str, float, float] | None = None
        self._evicted: tuple[str, int] | None = None

    def look(self, at: float, info: ServerInfo) -> bytes:
        """The question, where it is time for one; `info` is what the server said when we connected."""
        if at < self._due:
            return b""
        self._sent = at
        # Before version 7.0 a server takes one section only.
        return command(b"INFO", *_SECTIONS) if info.answers_set_with_get else command(b"INFO")

    def hurry(self) -> None:
        """It is time for the question, however short ago the last one was."""
        self._due = -math.inf

    def connected(self, sent: float, answered: float) -> None:
        """A connection was opened, and with it the question was asked and answered."""
        self._sent = sent
        self.answered(answered)

    def answered(self, at: float) -> None:
        """The answer to the last question was received."""
        self._answered, self.asked = at, self._sent
        self._due = at + _LOOK_EVERY

    def note(self, info: ServerInfo) -> tuple[bool, bool]:
        """Whether the server has evicted keys since the last look, and whether its clock stepped forward."""
        evicted, self._evicted = self._evicted, (info.run_id, info.evicted_keys)
        # One that has evicted before we met it may have done so since we wrote to the one that it replaces.
        evicts = evicted is not None and info.evicted_keys > (evicted[1] if evicted[0] == info.run_id else 0)
        last = self._last
        self._last = None if info.time is None else (info.run_id, info.time, self._sent)
        if last is None or info.time is None or last[0] != info.run_id:
            return evicts, False
        passed = self._answered - last[2]
        return evicts, info.time - last[1] - passed > _LARGEST_STEP + passed * _DRIFT
