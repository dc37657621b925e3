"""Moments by the event loop's clock, and by how much that stood still while the machine slept."""

import math
import time

__all__ = ["Moments"]

# A clock that doesn't stand still then, where there is one. What the system's clock gains may be no sleep: it
# may be set forward and back, and a server's with it.
_WITH_SLEEP: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Moments:
    """Counts the time since it was made, also that for which the machine slept.

    Most event loops' clocks stand still then. Only Linux counts its sleep, and a virtual machine that is
    paused may not know that it was.
    """

    def __init__(self) -> None:
        self._made, self._least, self._most = time.monotonic(), 0.0, -math.inf
        self._least = self.at(0.0)

    def at(self, loop_time: float) -> float:
        """The moment at which an event loop's clock shows `loop_time`, if that is now."""
        # In this order: a process that is stopped in between must not take that for sleep.
        with_sleep = time.monotonic() if _WITH_SLEEP is None else time.clock_gettime(_WITH_SLEEP)
        gained = with_sleep - time.monotonic()
        if gained > self._most:  # noqa: PLR1730 - for each entry, and `max` takes longer than all the rest
            self._most = gained
        return loop_time + self._most - self._least

    def slept(self) -> float:
        """For how many seconds the machine slept."""
        return self.at(0.0)

    def lived(self) -> float:
        """For how many seconds this has counted."""
        return self.at(time.monotonic() - self._made)
