import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from redis.exceptions import BusyLoadingError, InvalidResponse
from redis.exceptions import ConnectionError as RedisConnectionError

from dpop_middleware.replay.redis.connection import Connection, inspect
from dpop_middleware.replay.redis.endpoints import endpoint_of_url
from dpop_middleware.replay.redis.resp import command
from tests.support.loop_clock import LoopClock
from tests.support.replay import standalone
from tests.support.scripted import ScriptedServer, bulk


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def opened(server: ScriptedServer) -> Connection:
    connection = await standalone(server.url).connect(5.0)
    assert await connection.ask(command(b"PING")) == b"OK"
    server.commands.clear()
    return connection


async def _sends_nothing_once_its_time_was_over() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        server.hold(b"PING")
        with pytest.raises(TimeoutError, match="did not answer in time"):
            await connection.replies(command(b"PING"), 1, deadline=soon(0.05))
        assert connection.has_ended
        server.commands.clear()
        with pytest.raises(TimeoutError, match="did not answer in time"):
            await connection.ask(command(b"PING"))
        assert server.commands == []
        await connection.disconnect()


async def _sends_nothing_once_disconnected() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        await connection.disconnect()
        with pytest.raises(RedisConnectionError):
            await connection.ask(command(b"PING"))
        assert server.commands == []


async def _ends_with_the_server() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        server.cut()
        async with asyncio.timeout(60):
            while not connection.has_ended:
                await asyncio.sleep(0.001)
        with pytest.raises((RedisConnectionError, OSError)):
            await connection.ask(command(b"PING"))
        await connection.disconnect()


async def _ends_when_the_server_speaks_unasked() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        server.push(b"+OK\r\n")
        async with asyncio.timeout(60):
            while not connection.has_ended:
                await asyncio.sleep(0.001)
        with pytest.raises(InvalidResponse):
            await connection.ask(command(b"PING"))
        assert server.commands == []
        await connection.disconnect()


async def _heeds_what_is_told_before_the_replies() -> None:
    push = b">2\r\n+invalidate\r\n_\r\n"
    async with ScriptedServer() as server:
        connection = await opened(server)
        server.push(push)
        told: list[object] = []
        connection.heed = told.append
        server.script = lambda words: push + b"+PONG\r\n"
        seen: list[int] = []
        arrived = asyncio.Event()

        def receive(replies: object) -> None:
            seen.append(len(told))
            arrived.set()

        async with asyncio.timeout(60):
            while not told:
                await asyncio.sleep(0.001)
            connection.exchange(command(b"PING"), 1, receive, deadline=math.inf)
            await arrived.wait()
        assert seen == [2]
        assert told == [[b"invalidate", None]] * 2
        await connection.disconnect()


async def _tells_who_waits_of_the_end() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        server.hold(b"PING")
        waiting = asyncio.ensure_future(connection.ask(command(b"PING")))
        async with asyncio.timeout(60):
            while not server.commands:
                await asyncio.sleep(0.001)
        server.cut()
        with pytest.raises((RedisConnectionError, OSError)):
            await waiting
        await connection.disconnect()


async def _is_dirty_before_its_first_use() -> None:
    async with ScriptedServer() as server:
        connection: Any = endpoint_of_url(server.url).connection(5.0)
        await connection.connect()
        server.push(b"+OK\r\n")
        async with asyncio.timeout(60):
            while not connection._reader._buffer:
                await asyncio.sleep(0.001)
        connection = Connection(connection)
        with pytest.raises(RedisConnectionError, match="before it was used"):
            await connection.ask(command(b"PING"))
        await connection.disconnect()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize(
    "check",
    [
        _sends_nothing_once_its_time_was_over,
        _sends_nothing_once_disconnected,
        _ends_with_the_server,
        _heeds_what_is_told_before_the_replies,
        _ends_when_the_server_speaks_unasked,
        _tells_who_waits_of_the_end,
        _is_dirty_before_its_first_use,
    ],
)
def test_a_connection_does_so_on_each_event_loop(
    run: Callable[..., None], check: Callable[[], object]
) -> None:
    run(check())


async def test_one_alarm_is_used_for_several_exchanges_each_with_its_own_deadline() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        begin = asyncio.get_running_loop().time()
        # The alarm of the first rings during the second, and has no effect.
        assert await connection.replies(command(b"PING"), 1, deadline=soon(0.05)) == [b"OK"]
        server.hold(b"PING")
        with pytest.raises(TimeoutError):
            await connection.replies(command(b"PING"), 1, deadline=soon(0.15))
        assert asyncio.get_running_loop().time() >= begin + 0.14
        await connection.disconnect()


async def test_an_earlier_deadline_is_not_delayed_by_a_later_alarm() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        assert await connection.replies(command(b"PING"), 1, deadline=soon(60)) == [b"OK"]
        server.hold(b"PING")
        async with asyncio.timeout(60):
            with pytest.raises(TimeoutError, match="did not answer in time"):
                await connection.replies(command(b"PING"), 1, deadline=soon(0.05))
        await connection.disconnect()


async def test_an_alarm_has_no_effect_where_nothing_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer() as server:
        connection, rung = await opened(server), asyncio.Event()
        with monkeypatch.context() as stopped:
            clock = LoopClock(stopped)
            assert await connection.replies(command(b"PING"), 1, deadline=soon(0.02)) == [b"OK"]
            asyncio.get_running_loop().call_later(0.03, rung.set)
            clock.now += 0.1
            await clock.until(rung.is_set)
        assert not connection.has_ended
        assert await connection.ask(command(b"PING")) == b"OK"
        await connection.disconnect()


async def test_there_is_one_exchange_at_a_time() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        server.hold(b"PING")
        waiting = asyncio.ensure_future(connection.ask(command(b"PING")))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="still awaited"):
            async with asyncio.timeout(60):
                await connection.ask(command(b"GET", b"nothing"))
        server.release()
        assert await waiting == b"OK"
        assert await connection.ask(command(b"GET", b"nothing")) is None
        await connection.disconnect()


async def test_a_cancelled_caller_gets_no_replies() -> None:
    async with ScriptedServer() as server:
        connection = await opened(server)
        server.hold(b"PING")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.ask(command(b"PING"))
        server.release()
        await asyncio.sleep(0.05)
        assert not connection.has_ended
        assert await connection.ask(command(b"GET", b"nothing")) is None
        await connection.disconnect()


async def test_a_server_that_loads_its_data_is_not_ready() -> None:
    loading = bulk(b"redis_version:7.2.0\r\nrole:master\r\nloading:1\r\n")
    async with ScriptedServer(lambda words: loading if words[0] == b"INFO" else None) as server:
        connection = await standalone(server.url).connect(5.0)
        with pytest.raises(BusyLoadingError):
            await inspect(connection)
        server.script = lambda words: None
        info = await inspect(connection)
        assert info is not None
        assert not info.loading
        await connection.disconnect()
