"""What this process runs under: its clock, its event loop, and parts that are opened and closed."""

import asyncio
import time
from contextlib import AsyncExitStack

from dpop_middleware.errors import ConfigurationError

__all__ = ["aclose_parts", "check_event_loop", "open_part", "system_time"]


def system_time() -> float:
    """Return seconds since the epoch by `time.time`, looked up now, so that a test may replace it."""
    return time.time()


def check_event_loop() -> None:
    """Raise ConfigurationError where the caller runs under another library than asyncio, such as trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "dpop_middleware runs under asyncio only: let the server use its asyncio worker, not trio "
            "(hypercorn --worker-class asyncio)"
        ) from None


async def open_part(part: object) -> None:
    """Await `part.open()`, if it has that: it then begins to connect, and doesn't wait for it."""
    check_event_loop()
    start = getattr(part, "open", None)
    if start is not None:
        await start()


async def aclose_parts(*parts: object) -> None:
    """Await `part.aclose()` of each part that has it, of all even if one fails."""
    async with AsyncExitStack() as stack:
        for part in reversed(parts):
            close = getattr(part, "aclose", None)
            if close is not None:
                stack.push_async_callback(close)
