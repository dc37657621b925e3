"""One open connection to one server: a batch goes out, its replies come back."""

# redis-py opens the connection, and has no public way to its two streams.
# pyright: reportPrivateUsage=false

import asyncio
import contextlib
from typing import cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from dpop_middleware.replay.replies import ReplyReader, ServerError

__all__ = ["Channel", "put_away"]


class Channel:
    """A connection that redis-py has opened and authenticated."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._replies = ReplyReader(cast(asyncio.StreamReader, connection._reader))
        self._writer = cast(asyncio.StreamWriter, connection._writer)
        self._was_cut = False

    def send(self, data: bytes) -> None:
        """Send `data` at once; if the connection is gone, `receive` tells."""
        # uvloop raises RuntimeError from a write after the connection's end; `receive` tells it better.
        if not self._writer.transport.is_closing():
            self._writer.write(data)

    async def receive(self, count: int) -> list[object]:
        """Read the `count` replies to what was sent; after any exception the channel is in doubt."""
        try:
            return await self._replies.read(count)
        except (RedisError, OSError) as error:
            if self._was_cut:
                raise TimeoutError("the server did not answer in time") from error
            raise

    def cut(self) -> None:
        """Break the connection: what is being received ends with `TimeoutError`."""
        self._was_cut = True
        abort(self._connection)

    async def ask(self, data: bytes) -> object:
        """One command's reply; raises it when it is an error."""
        self.send(data)
        (reply,) = await self.receive(1)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    @property
    def is_stale(self) -> bool:
        """Whether there is something to read although nothing was asked: the connection's end, or dirt."""
        return not self._replies.is_clean

    async def put_away(self) -> None:
        """Close without a word."""
        await put_away(self._connection)


async def put_away(connection: AbstractConnection) -> None:
    """Close without a word: for connections in doubt, whose peer may never answer."""
    abort(connection)
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def abort(connection: AbstractConnection) -> None:
    """Drop the socket at once: an orderly TLS shutdown would wait half a minute for a peer that hangs."""
    writer = connection._writer
    if writer is not None:
        writer.transport.abort()
