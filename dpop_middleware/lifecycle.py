"""What a resource server was given may have to be opened and closed, or may not know how."""

__all__ = ["aclose_part", "open_part"]


async def open_part(part: object) -> None:
    """Await `part.open()`, if it has that: it then begins to connect, and doesn't wait for it."""
    start = getattr(part, "open", None)
    if start is not None:
        await start()


async def aclose_part(part: object) -> None:
    """Await `part.aclose()`, if it has that."""
    close = getattr(part, "aclose", None)
    if close is not None:
        await close()
