"""Bodies of answers that a hostile server may never end, and that may decode to far more than was sent.

Of a refusal, and of an authorization server's answer, only as much is read as an honest one has. What httpx2
and httpx themselves read, of each response that isn't streamed, is not bounded here.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

from dpop_middleware._runtime import installed

__all__ = ["MOST", "aread_a_little", "aread_or_drop", "read_a_little", "read_or_drop"]

MOST: Final = 64 * 1024
"""Much more octets than any error or token response has."""

# The decoders of httpx2 and httpx have no limit: what they return at once depends on what they get at once.
_PIECE: Final = 16
_EMPTY: Final = installed("ByteStream")[0](b"")
_NOT_DECODED: Final = installed("DecodingError")

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
        self._left = MOST

    def takes(self, part: bytes) -> bool:
        """Keep the part that was read next; return whether more may be read."""
        self._parts.append(part)
        self._left -= len(part) + 1
        return self._left > 0

    @property
    def elapsed(self) -> Any:
        """How long everything took; httpx2 asks the body for it."""
        return getattr(self._stream, "elapsed", None)

    def decodes_to_a_little(self, response: Any) -> bool:
        """Whether the parts can be decoded, as the body of `response`, and are few octets then."""
        named = response.headers.get_list("Content-Encoding", split_commas=True)
        codings = [coding for coding in named if coding.lower() != "identity"]
        if len(codings) > 1:  # the second decoder gets at once what the first one makes of a piece
            return False
        probe = type(response)(200, headers=response.headers, stream=_Pieces(b"".join(self._parts)))
        left = MOST
        try:
            for decoded in probe.iter_bytes() if codings else ():
                left -= len(decoded)
                if left <= 0:
                    return False
        except _NOT_DECODED:
            return False
        return True

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


class _Pieces(_Stream):
    """A body in small pieces."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._body), _PIECE):
            yield self._body[start : start + _PIECE]


def read_a_little(response: Any) -> bool:
    """Read the body of a sync client's response, and return True; a long or invalid one is to be streamed."""
    if response.is_stream_consumed:
        return True
    rest = iter(response.stream)
    begun = response.stream = _Begun(response.stream, rest)
    for part in rest:
        if not begun.takes(part):
            return False
    if not begun.decodes_to_a_little(response):
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
    if not begun.decodes_to_a_little(response):
        return False
    await response.aread()
    return True


def read_or_drop(response: Any) -> None:
    """Read the body of a sync client's response, or drop it where it is long or can't be decoded."""
    if not read_a_little(response):
        response.stream = _Begun(response.stream, _EMPTY)
        response.read()


async def aread_or_drop(response: Any) -> None:
    """Read the body of an async client's response, as `read_or_drop`."""
    if not await aread_a_little(response):
        response.stream = _Begun(response.stream, _EMPTY)
        await response.aread()
