"""The body of a refusal, of which only as much is read as an error has: a hostile server may never end it.

What httpx2 and httpx themselves read, of each response that isn't streamed, is not bounded here.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

from dpop_middleware.client.proofs import installed

__all__ = ["aread_a_little", "aread_or_drop", "read_a_little", "read_or_drop"]

# Much more than any error has; the same limit as for a token endpoint's answer.
_MOST: Final = 64 * 1024

if TYPE_CHECKING:
    _Stream = object
else:
    _Stream = type("_Stream", installed("SyncByteStream", "AsyncByteStream"), {})


class _Begun(_Stream):
    """A response's body: the parts that `takes` was given, and then `rest`."""

    def __init__(self, stream: Any, rest: Any) -> None:
        self.rest = rest
        self._stream = stream
        self._parts: list[bytes] = []
        self._left = _MOST

    def takes(self, part: bytes) -> bool:
        """Keep the part that was read next; return whether more may be read."""
        self._parts.append(part)
        self._left -= len(part) + 1
        return self._left > 0

    @property
    def elapsed(self) -> Any:
        """How long everything took; httpx2 asks the body for it."""
        return getattr(self._stream, "elapsed", None)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        yield from self.rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        async for part in self.rest:
            yield part

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Nothing:
    """An iterator that is at its end."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def __aiter__(self) -> "_Nothing":
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


def read_a_little(response: Any) -> bool:
    """Read the body of a sync client's response, and return True; a long one remains to be streamed."""
    if response.is_stream_consumed:
        return True
    rest = iter(response.stream)
    begun = response.stream = _Begun(response.stream, rest)
    for part in rest:
        if not begun.takes(part):
            return False
    response.read()
    return True


async def aread_a_little(response: Any) -> bool:
    """Read the body of an async client's response, as `read_a_little`."""
    if response.is_stream_consumed:
        return True
    rest = aiter(response.stream)
    begun = response.stream = _Begun(response.stream, rest)
    async for part in rest:
        if not begun.takes(part):
            return False
    await response.aread()
    return True


def read_or_drop(response: Any) -> None:
    """Read the body of a sync client's response, or drop the connection where it is long."""
    if not read_a_little(response):
        response.stream = _Begun(response.stream, _Nothing())
        response.read()


async def aread_or_drop(response: Any) -> None:
    """Read the body of an async client's response, as `read_or_drop`."""
    if not await aread_a_little(response):
        response.stream = _Begun(response.stream, _Nothing())
        await response.aread()
