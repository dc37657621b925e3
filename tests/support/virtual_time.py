"""An event loop whose time passes only while it waits, at once; and threads that take such time."""

import asyncio
import selectors
import threading
from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["Steps", "VirtualLoop", "let_time_be_virtual"]

_LONGEST = 60.0
# What one look at the clock takes: a program that never waits spends time, too.
_LOOK_TAKES = 1e-5


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen"
        self.now += max(timeout, 1e-6)  # Time passes in each turn of the loop.
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop of virtual time, for one thread."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def let_time_be_virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the running loop's time pass at once where it would wait, and a little with each look at it.

    A program that the machine stops for a while doesn't notice that.
    """
    loop: Any = asyncio.get_running_loop()
    now, select = loop.time(), loop._selector.select

    def look() -> float:
        nonlocal now
        now += _LOOK_TAKES
        return float(now)

    def wait(timeout: float | None = None) -> Any:
        nonlocal now
        now += timeout or 0.0
        return select(timeout and 0)

    monkeypatch.setattr(loop, "time", look)
    monkeypatch.setattr(loop._selector, "select", wait)


class Steps:
    """Makes threads that stop once, where they call `pause`, for some seconds of the loop's time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: Callable[[], float]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._paused = threading.Event()
        self._released = threading.Event()

    def pause(self) -> None:
        """Stop until the time has passed; one thread at once."""
        self._released.clear()
        self._paused.set()
        assert self._released.wait(_LONGEST)

    def thread(self, *, target: Callable[..., None], args: tuple[Any, ...], **_: object) -> "_Thread":
        """Make such a thread, as `threading.Thread` does; it is started by the loop's own thread."""
        return _Thread(self, threading.Thread(target=target, args=args, daemon=True))

    def begin(self, thread: threading.Thread) -> None:
        self._paused.clear()
        thread.start()
        while thread.is_alive() and not self._paused.wait(0.001):
            pass
        self._loop.call_later(self._seconds(), self._end, thread)

    def _end(self, thread: threading.Thread) -> None:
        self._released.set()
        thread.join(_LONGEST)


class _Thread:
    def __init__(self, steps: Steps, thread: threading.Thread) -> None:
        self._steps = steps
        self._thread = thread

    def start(self) -> None:
        self._steps.begin(self._thread)
