"""An event loop's clock that stands still until a test moves it."""

import asyncio
import time
from collections.abc import Callable

import pytest

__all__ = ["LoopClock"]

LONGEST = 60.0


class LoopClock:
    """The clock of the running loop: no pause and no deadline ends until a test sets `now`."""

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

    async def until_after(self, seconds: float, condition: Callable[[], bool]) -> None:
        """Let time pass: `condition` is met once `seconds` are over, and not 0.1 s before."""
        self.now += seconds - 0.1
        await asyncio.to_thread(time.sleep, 0.01)
        assert not condition()
        self.now += 0.2
        await self.until(condition)
