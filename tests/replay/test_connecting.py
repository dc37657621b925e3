import pytest
from redis.exceptions import BusyLoadingError

from dpop_middleware.replay.redis.connection import inspect
from dpop_middleware.replay.redis.endpoints import connector, target_of_url
from tests.support.scripted import ScriptedServer, bulk


async def test_a_server_that_loads_its_data_is_not_ready() -> None:
    loading = bulk(b"redis_version:7.2.0\r\nrole:master\r\nloading:1\r\n")
    async with ScriptedServer(lambda words: loading if words[0] == b"INFO" else None) as server:
        channel = await connector(target_of_url(server.url))(5.0)
        with pytest.raises(BusyLoadingError):
            await inspect(channel)
        server.script = lambda words: None
        info = await inspect(channel)
        assert info is not None
        assert not info.loading
        await channel.put_away()
