"""Opening connections, and one question on a connection of its own."""

import asyncio
from collections.abc import Awaitable, Callable

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError

from dpop_middleware.replay.channel import Channel, put_away
from dpop_middleware.replay.info import ServerInfo, parse_info
from dpop_middleware.replay.replies import ServerError
from dpop_middleware.replay.target import Address, Target
from dpop_middleware.replay.wire import command

__all__ = ["Connect", "ask", "connector", "inspect", "opened"]

Connect = Callable[[float], Awaitable[Channel]]


def connector(target: Target, address: Address | None = None) -> Connect:
    """What connects to a standalone server, or to one node of a cluster, given the seconds it may take."""

    async def connect(timeout: float) -> Channel:
        return await opened(target.connection(timeout, address))

    return connect


async def opened(connection: AbstractConnection) -> Channel:
    """Connect with redis-py's own handshake (TLS, HELLO, AUTH, SELECT); leaves nothing open on failure."""
    try:
        # redis-py has not annotated it.
        await connection.connect()  # type: ignore[no-untyped-call]
        return Channel(connection)
    except BaseException:
        await put_away(connection)
        raise


async def inspect(channel: Channel) -> ServerInfo | None:
    """What the server says about itself; None where the user may not ask."""
    try:
        text = await channel.ask(command(b"INFO", b"all"))
    except ServerError:
        return None
    if not isinstance(text, bytes):
        return None
    info = parse_info(text)
    if info.loading:
        raise BusyLoadingError("the server is loading its data")
    return info


async def ask(connect: Connect, timeout: float, *words: bytes) -> object:
    """Open a connection for one command and close it, everything within `timeout` seconds."""
    async with asyncio.timeout(timeout):
        channel = await connect(timeout)
        try:
            return await channel.ask(command(*words))
        finally:
            await channel.put_away()
