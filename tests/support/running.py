"""Time in which this machine let us run, for tests that judge how long something took.

A machine that stands still for a second, or gives that second to somebody else, takes it from nobody here.
What an event loop loses by what itself does counts.
"""

import threading
import time

__all__ = ["running"]

# Seconds between two beats of the pulse, and what counts of a longer time in which none came.
BEAT = 0.01
LONGEST = 0.1


class Pulse:
    """A thread that beats as long as this process runs at all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sum = 0.0
        self._last = time.monotonic()
        threading.Thread(target=self._beat_for_ever, name="pulse", daemon=True).start()

    def beat(self) -> float:
        """The seconds that counted up to now."""
        with self._lock:
            now = time.monotonic()
            self._sum += min(now - self._last, LONGEST)
            self._last = now
            return self._sum

    def _beat_for_ever(self) -> None:
        while True:
            time.sleep(BEAT)
            self.beat()


_pulse: list[Pulse] = []


def running() -> float:
    """A moment as `time.monotonic` tells it, but that what the machine withholds takes no time."""
    if not _pulse:
        _pulse.append(Pulse())
    return _pulse[0].beat()
