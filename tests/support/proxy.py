"""A TCP proxy in front of a server that causes the faults of a network."""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

from tests.support.valkey import HOST

__all__ = ["Proxy"]


class Proxy:
    """Forwards from `port`, any free one by default, to `to`; see the attributes for what it does to it.

    Replies go in pieces of at most `piece` bytes if that is set. While `swallow_replies` is true, what the
    server says is thrown away, and counted; `lose_next_reply` does it to one piece and then cuts the
    connection. `hold` stops both directions. `reply_delay` is in seconds.
    """

    def __init__(self, to: int, *, port: int = 0) -> None:
        self._target = to
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.swallow_replies = False
        self.lose_next_reply = False
        self.reply_delay = 0.0
        self.piece: int | None = None
        self.connections = self.swallowed = 0
        self.port = port

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def hold(self) -> None:
        """From now on nothing passes."""
        self._open.clear()

    def release(self) -> None:
        """Everything passes again, what was held first."""
        self._open.set()

    def reset(self) -> None:
        """Break every connection by RST, as a firewall does."""
        for writer in tuple(self._writers):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    def cut(self) -> None:
        """Break every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
            self._writers.add(server_writer)
            pumps = [
                asyncio.ensure_future(self._pump(reader, server_writer, replies=False)),
                asyncio.ensure_future(self._pump(server_reader, writer, replies=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
                server_writer.transport.abort()
                self._writers.discard(server_writer)
        writer.transport.abort()
        self._writers.discard(writer)
        self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                if replies and self.reply_delay:
                    await asyncio.sleep(self.reply_delay)
                if replies and self.swallow_replies:
                    self.swallowed += 1
                    continue
                if replies and self.lose_next_reply:
                    self.lose_next_reply = False
                    return
                while data:
                    size = self.piece if replies and self.piece else len(data)
                    piece, data = data[:size], data[size:]
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
