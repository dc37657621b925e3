"""Time in which the processes of a test could run, for tests that judge how long something took.

If the machine stops for a second, or gives its cores to others while this process or one of its servers wants
one, the second doesn't count. The time that an event loop loses by its own work counts.

Linux says how long a thread has waited for a core. Elsewhere only a stop of the whole process is noticed.
"""

import contextlib
import threading
import time
from pathlib import Path

__all__ = ["Waits", "leave_out", "running", "watch"]

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


class Waits:
    """How long the main threads of this process and of its servers have waited for a core, in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = 0.0
        self._living: dict[int | str, float] = {"self": 0.0}

    def total(self) -> float:
        """The seconds up to now, also of the servers that were left out since."""
        with self._lock:
            for process in self._living:
                self._look_at(process)
            return self._ended + sum(self._living.values())

    def watch(self, process: int) -> None:
        """Count the waits of this process, too, which has just been started."""
        with self._lock:
            self._living[process] = 0.0

    def leave_out(self, process: int) -> None:
        """Count no more waits of this process, which is about to end."""
        with self._lock:
            self._look_at(process)
            self._ended += self._living.pop(process)

    def _look_at(self, process: int | str) -> None:
        # A process may have ended by itself, and not every system has such a file.
        with contextlib.suppress(OSError):
            _, nanoseconds, _ = Path(f"/proc/{process}/schedstat").read_text().split()
            self._living[process] = int(nanoseconds) / 1e9


_pulse: list[Pulse] = []
_waits = Waits()
watch, leave_out = _waits.watch, _waits.leave_out


def running() -> float:
    """A time as from `time.monotonic`, without the time that the machine withholds.

    It is for durations, and doesn't say which of two moments came first: where two processes wait at the same
    time, it goes back.
    """
    if not _pulse:
        _pulse.append(Pulse())
    return _pulse[0].beat() - _waits.total()
