"""Opening, examining and closing the connections that a link lives on."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from dpop_middleware.replay.info import ServerInfo, parse_info
from dpop_middleware.replay.target import Address, Target

__all__ = ["Connect", "ServerUnfit", "connector", "inspect", "opened", "put_away"]

Connect = Callable[[float], Awaitable[AbstractConnection]]


class ServerUnfit(RedisError):
    """The server answers, but may not be used as it is."""


def connector(target: Target, address: Address | None = None) -> Connect:
    """What connects to a standalone server, or to one node of a cluster."""

    async def connect(timeout: float) -> AbstractConnection:
        return await opened(target.connection(timeout, address))

    return connect


async def opened(connection: AbstractConnection) -> AbstractConnection:
    """Connect with redis-py's own handshake (TLS, HELLO, AUTH, SELECT); leaves nothing open on failure."""
    try:
        await connection.connect()
    except BaseException:
        await put_away(connection)
        raise
    return connection


async def put_away(connection: AbstractConnection) -> None:
    """Close without a word: for connections in doubt, whose peer may never answer."""
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        # An orderly TLS shutdown would wait half a minute for a peer that hangs.
        writer.transport.abort()
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


async def inspect(connection: AbstractConnection) -> ServerInfo | None:
    """What the server says about itself; None where the user may not ask."""
    await connection.send_command("INFO", "all", check_health=False)
    try:
        text = await connection.read_response(disable_decoding=True)
    except ResponseError:
        return None
    if not isinstance(text, bytes):
        return None
    info = parse_info(text)
    if info.loading:
        raise BusyLoadingError("the server is loading its data")
    return info


async def ask(connect: Connect, timeout: float, *words: str) -> object:
    """Open a connection for one command and close it; everything within `timeout` seconds."""
    async with asyncio.timeout(timeout):
        connection = await connect(timeout)
        try:
            await connection.send_command(*words, check_health=False)
            return await connection.read_response(disable_decoding=True)
        finally:
            await put_away(connection)
