import asyncio
import time
from collections.abc import Iterator

import pytest

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import RedisReplayStore
from tests.support.load import Load
from tests.support.proxy import Proxy
from tests.support.replay import answer, answers, entry
from tests.support.valkey import HOST, Sentinels, Server, sentinel_client, until

pytestmark = pytest.mark.slow


@pytest.fixture
def sentinels(implementation: str) -> Iterator[Sentinels]:
    with Sentinels(implementation=implementation) as sentinels:
        yield sentinels


async def works(store: RedisReplayStore) -> None:
    item = entry()
    assert await store.add(item) is True
    assert await store.add(item) is False


async def test_failover_under_load(sentinels: Sentinels) -> None:
    """By URL: one Sentinel hangs and the master dies."""
    store = RedisReplayStore.from_url(sentinels.url, new_server="accept")
    await works(store)
    assert (await store.health()).nodes[0].address == "sentinel proofs"
    (replica,) = sentinels.replicas
    async with Load(store) as load:
        await asyncio.sleep(0.5)
        before = load.accepted
        sentinels.sentinels[0].pause()
        sentinels.master.kill()
        async with asyncio.timeout(20):
            while replica.run("ROLE")[0] != "master":
                await asyncio.sleep(0.01)
        promoted = time.monotonic()
        await load.until_accepted_after(promoted)
        recovered = load.last_acceptance - promoted
        await asyncio.sleep(0.5)
    sentinels.sentinels[0].resume()
    assert before > 50
    assert load.unavailable > 0
    assert load.replays_accepted == 0
    assert load.fresh_called_replays == 0
    # The Sentinels tell of the promotion when they have seen it themselves, up to a second later.
    assert recovered < 2.0
    assert (await store.health()).ok
    await store.aclose()


async def test_a_client_of_redis_py(sentinels: Sentinels) -> None:
    sentinel = sentinel_client([(HOST, server.port) for server in sentinels.sentinels], socket_timeout=0.5)
    client = sentinel.master_for(sentinels.service)
    store = RedisReplayStore(client, new_server="accept")
    await works(store)
    await store.aclose()
    await client.aclose()
    for each in sentinel.sentinels:
        await each.aclose()


async def test_an_unknown_service_is_503(sentinels: Sentinels) -> None:
    store = RedisReplayStore.from_url(sentinels.url.replace("/proofs", "/others"))
    outcome = await answer(store, entry())
    assert isinstance(outcome, Unavailable)
    assert outcome.actual == "RedisError"
    assert not (await store.health()).ok
    await store.aclose()


async def test_a_promotion_that_lost_entries_is_noticed(implementation: str) -> None:
    """A replica that lags takes over: what the master alone knew can't be judged."""
    with (
        Server({"repl-diskless-sync-delay": 0}, implementation=implementation) as master,
        Server({"replicaof": (HOST, master.port)}, implementation=implementation) as replica,
    ):
        until(lambda: replica.run("ROLE")[3] == "connected")
        store = RedisReplayStore.from_url(master.url, new_server="accept")
        await works(store)
        # From here on the replica hears no more of the master.
        replica.run("REPLICAOF", "NO", "ONE")
        lost = [entry() for _ in range(200)]
        assert await answers(store, lost) == {True: 200}
        master.kill()
        # The address now leads to the promoted replica, as a service or a virtual IP would have it.
        async with Proxy(replica.port, port=master.port):
            async with asyncio.timeout(1):
                while await answer(store, entry(age=-1.0)) is not True:
                    await asyncio.sleep(0.01)
            assert await answers(store, lost) == {503: 200}
            assert await store.add(entry(age=-1.0)) is True
            await store.aclose()
