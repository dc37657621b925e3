"""Time in which this process could run, for tests that judge how long something took.

If the machine stops for a second, or gives that second to another process, the second doesn't count. The time
that an event loop loses by its own work counts.
"""

import threading
import time

__all__ = ["running"]

# Seconds between two beats of the pulse; a longer time without a beat counts as this much.
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
    """A time as from `time.monotonic`, without the time that the machine withholds."""
    if not _pulse:
        _pulse.append(Pulse())
    return _pulse[0].beat()
