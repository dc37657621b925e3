"""A machine that sleeps, by its clocks."""

import time

import pytest

__all__ = ["Sleep"]


class Sleep:
    """Lets the machine's clocks show that it slept; `time.monotonic` doesn't."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._slept, show, with_sleep = 0.0, time.time, time.clock_gettime
        monkeypatch.setattr(time, "time", lambda: show() + self._slept)
        monkeypatch.setattr(time, "clock_gettime", lambda clock: with_sleep(clock) + self._slept)

    def __call__(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._slept += seconds
