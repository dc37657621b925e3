"""An event loop's clock that stands still until a test moves it."""

import asyncio
import time
from collections.abc import Callable

import pytest

__all__ = ["LoopClock"]

LONGEST = 10.0


class LoopClock:
    """The clock of the running loop: no pause and no deadline is over by itself. A test sets `now`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self.now)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for `condition`, by a clock that goes on."""
        last = time.monotonic() + LONGEST
        while not condition():
            assert time.monotonic() < last, "it never came to that"
            await asyncio.to_thread(time.sleep, 0.001)
