"""Reads a server's replies, RESP2 and RESP3, many at a time.

redis-py opens the connection (TLS, HELLO, AUTH) and owns it; only the replies to batches are read here, for a
coroutine for each of them would cost more than all the rest of a request.
"""

import asyncio
from collections.abc import Callable, Mapping

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

__all__ = ["FORBIDDEN", "ReplyReader", "ServerError"]

# The code of an error reply to what the user may not do.
FORBIDDEN = "NOPERM"

READ_SIZE = 65_536


class ServerError(RedisError):
    """An error reply; `code` is its first word, such as `OOM`, `rest` what follows."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code, _, self.rest = text.partition(" ")


class Incomplete(Exception):
    """The reply goes on in bytes that have not arrived."""


class ReplyReader:
    """The replies on one stream, in order. Pushes are left out: nothing here asks for any."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._data = b""

    async def read(self, count: int) -> list[object]:
        """The next `count` replies, errors among them as `ServerError`.

        Raises redis-py's `ConnectionError` when the stream ends first, `InvalidResponse` when it is not RESP
        or goes on after the last of them.
        """
        replies: list[object] = []
        position = 0
        while True:
            data = self._data
            try:
                while len(replies) < count:
                    kind, reply, position = _parse(data, position)
                    if kind not in b">|":
                        replies.append(reply)
            except Incomplete:
                pass
            except ValueError as error:
                raise InvalidResponse("the server's reply has a number that can't be read") from error
            self._data = data[position:]
            position = 0
            if len(replies) == count:
                if self._data:
                    # Who sends one too many may have sent it first: none of them is sure.
                    raise InvalidResponse("the server sent more replies than there were questions")
                return replies
            more = await self._stream.read(READ_SIZE)
            if not more:
                raise RedisConnectionError("the server closed the connection")
            self._data += more

    @property
    def is_clean(self) -> bool:
        """Whether the stream is open and every byte that came belonged to a reply that was asked for."""
        # No public method of a stream looks without taking.
        unread: bytearray = self._stream._buffer  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
        return not (self._data or unread or self._stream.at_eof() or self._stream.exception())


def _parse(data: bytes, position: int) -> tuple[bytes, object, int]:
    """One value from `position`: its type, itself, and where the next begins."""
    end = data.find(b"\r\n", position)
    if end < 0:
        raise Incomplete
    kind, line, after = data[position : position + 1], data[position + 1 : end], end + 2
    if kind in b"$=!":
        return _parse_bulk(kind, int(line), data, after)
    simple = SIMPLE.get(kind)
    if simple is not None:
        return kind, simple(line), after
    if kind not in b"*~>%|":
        raise InvalidResponse("the server's reply is not RESP")
    length = int(line)
    if length < 0:
        return kind, None, after
    items: list[object] = []
    for _ in range(length * 2 if kind in b"%|" else length):
        _, item, after = _parse(data, after)
        items.append(item)
    return kind, items, after


def _parse_bulk(kind: bytes, length: int, data: bytes, start: int) -> tuple[bytes, object, int]:
    if length < 0:
        return kind, None, start
    end = start + length
    if len(data) < end + 2:
        raise Incomplete
    text = data[start:end]
    if kind == b"!":
        return kind, ServerError(text.decode("utf-8", "replace")), end + 2
    # A verbatim string begins with its format, such as `txt:`.
    return kind, text[4:] if kind == b"=" else text, end + 2


SIMPLE: Mapping[bytes, Callable[[bytes], object]] = {
    b"_": lambda _: None,
    b"+": bytes,
    b"-": lambda line: ServerError(line.decode("utf-8", "replace")),
    b":": int,
    b"(": int,
    b",": float,
    b"#": lambda line: line == b"t",
}
