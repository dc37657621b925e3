"""When a server is asked how it is, and what two of its answers tell: it evicted keys, or its clock stepped.

A clock that steps forward lets entries expire that should have lived on.
"""

import math
from typing import TYPE_CHECKING

from dpop_middleware.replay.redis.resp import command

if TYPE_CHECKING:
    from dpop_middleware.replay.redis.vitals import ServerInfo

__all__ = ["Looks"]

_LOOK_EVERY = 1.0
_LARGEST_STEP = 1.0
# By how much two clocks that nobody sets may run apart.
_DRIFT = 0.001
_SECTIONS = (b"server", b"replication", b"stats")


class Looks:
    """The looks at one server: `asked` and `answered_at` are of the last `INFO` that it answered.

    Times given are of the event loop's clock, but for what the server's own clock showed.
    """

    def __init__(self) -> None:
        self._sent = self._due = -math.inf
        self.asked = self.answered_at = -math.inf
        self._clock: tuple[str, float, float] | None = None
        self._evicted: tuple[str, int] | None = None

    def question(self, at: float, info: "ServerInfo") -> bytes:
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
        self.answered_at, self.asked = at, self._sent
        self._due = at + _LOOK_EVERY

    def note(self, info: "ServerInfo") -> tuple[bool, bool]:
        """Whether the server has evicted keys since the last look, and whether its clock stepped forward."""
        evicted, self._evicted = self._evicted, (info.run_id, info.evicted_keys)
        # One that has evicted before we met it may have done so since we wrote to the one that it replaces.
        evicts = evicted is not None and info.evicted_keys > (evicted[1] if evicted[0] == info.run_id else 0)
        steps = info.time is not None and self.steps(
            info.run_id, info.time, sent=self._sent, received=self.answered_at
        )
        return evicts, steps

    def steps(self, run_id: str, shown: float, *, sent: float, received: float) -> bool:
        """Whether the clock of the server process `run_id` stepped forward before it showed this moment.

        Between two looks no more time can pass at the server than from sending the first question to
        receiving the second answer: what exceeds that is a step, and an event loop that was blocked is none.
        """
        if self._clock is not None and self._clock[0] == run_id:
            _, shown_before, sent_before = self._clock
            passed = received - sent_before
            has_stepped = shown - shown_before - passed > _LARGEST_STEP + passed * _DRIFT
            if not has_stepped and passed < _LOOK_EVERY:
                return False
        else:
            has_stepped = False
        self._clock = run_id, shown, sent
        return has_stepped
