"""What a resource server was given may have to be opened and closed, or may not know how."""

from contextlib import AsyncExitStack

__all__ = ["aclose_parts", "open_part"]


async def open_part(part: object) -> None:
    """Await `part.open()`, if it has that: it then begins to connect, and doesn't wait for it."""
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
