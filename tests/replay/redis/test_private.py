"""The private parts of redis-py that are used exist: a version without them is noticed here, by name."""

import asyncio
import importlib.metadata
from typing import Any

from dpop_middleware.replay.redis.endpoints import endpoint_of_url
from tests.support.scripted import ScriptedServer

VERSION = importlib.metadata.version("redis")


async def test_a_connection_has_its_two_streams_under_their_private_names() -> None:
    async with ScriptedServer() as server:
        connection: Any = endpoint_of_url(server.url).connection(5.0)
        closed = {name: getattr(connection, name, "missing") for name in ("_reader", "_writer")}
        assert closed == {"_reader": None, "_writer": None}, f"redis-py {VERSION} names its streams otherwise"
        await connection.connect()
        try:
            reader, writer = connection._reader, connection._writer
            assert isinstance(reader, asyncio.StreamReader), f"redis-py {VERSION} reads by {type(reader)}"
            assert isinstance(writer, asyncio.StreamWriter), f"redis-py {VERSION} writes by {type(writer)}"
            unread: Any = reader._buffer  # type: ignore[attr-defined]
            assert isinstance(unread, bytearray)
        finally:
            await connection.disconnect(nowait=True)


def test_the_version_is_one_whose_private_names_were_checked() -> None:
    assert int(VERSION.partition(".")[0]) in (6, 7, 8)
