import asyncio
from collections.abc import Callable

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from dpop_middleware.replay.channel import Channel
from dpop_middleware.replay.connecting import connector
from dpop_middleware.replay.target import target_of_url
from dpop_middleware.replay.wire import command
from tests.support.scripted import ScriptedServer


async def opened(server: ScriptedServer) -> Channel:
    channel = await connector(target_of_url(server.url))(5.0)
    assert await channel.ask(command(b"PING")) == b"OK"
    server.commands.clear()
    return channel


async def _sends_nothing_once_cut() -> None:
    async with ScriptedServer() as server:
        channel = await opened(server)
        channel.cut()
        channel.send(command(b"PING"))
        with pytest.raises(TimeoutError, match="did not answer in time"):
            await channel.receive(1)
        assert server.commands == []
        await channel.put_away()


async def _sends_nothing_once_put_away() -> None:
    async with ScriptedServer() as server:
        channel = await opened(server)
        await channel.put_away()
        channel.send(command(b"PING"))
        with pytest.raises(RedisConnectionError):
            await channel.receive(1)
        assert server.commands == []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("check", [_sends_nothing_once_cut, _sends_nothing_once_put_away])
def test_a_connection_that_has_ended_says_so_when_read(
    run: Callable[..., None], check: Callable[[], object]
) -> None:
    run(check())


async def test_what_is_being_received_ends_when_the_connection_is_cut() -> None:
    async with ScriptedServer() as server:
        channel = await opened(server)
        server.hold(b"PING")
        channel.send(command(b"PING"))
        receiving = asyncio.ensure_future(channel.receive(1))
        async with asyncio.timeout(5):
            while not server.commands:
                await asyncio.sleep(0.001)
        channel.cut()
        with pytest.raises(TimeoutError, match="did not answer in time"):
            await receiving
        await channel.put_away()
