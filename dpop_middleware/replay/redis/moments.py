"""Moments by the event loop's clock, and by how much that stood still while the machine slept."""

import time

__all__ = ["Moments"]


class Moments:
    """Counts the time since it was made, also that for which the machine slept, or a virtual one was paused.

    Most event loops' clocks stand still then, and the system's clock is set forward afterwards: what that
    gains is taken for sleep. Each second of it counts once, so that a clock which is set forward and back
    again and again hides one step of a server's clock at most, and none that is larger than its own.
    """

    def __init__(self) -> None:
        self._made = time.monotonic()
        self._least = self._most = time.time() - self._made

    def at(self, loop_time: float) -> float:
        """The moment at which an event loop's clock shows `loop_time`, if that is now."""
        # In this order: a process that is stopped in between must not take that for sleep.
        gained = time.time() - time.monotonic()
        if gained > self._most:  # noqa: PLR1730 - for each entry, and `max` takes longer than all the rest
            self._most = gained
        return loop_time + self._most - self._least

    def slept(self) -> float:
        """For how many seconds the machine slept."""
        return self.at(0.0)

    def lived(self) -> float:
        """For how many seconds this has counted."""
        return self.at(time.monotonic() - self._made)
