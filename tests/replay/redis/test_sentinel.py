import asyncio
from collections.abc import Iterator

import pytest

from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay import RedisReplayStore
from tests.support.load import AT_ONCE, RECOVERY, SLACK, Load, eventually, recovery
from tests.support.proxy import Proxy
from tests.support.replay import ENDLESS, after_a_loss, answer, answers, entry
from tests.support.running import running
from tests.support.valkey import HOST, Sentinels, Server, sentinel_client, until

pytestmark = pytest.mark.slow

# How often the Sentinels look at a server while its master is down, in seconds.
LOOK = 1.0


@pytest.fixture
def sentinels(implementation: str) -> Iterator[Sentinels]:
    with Sentinels(implementation=implementation) as sentinels:
        yield sentinels


async def assert_it_works(store: RedisReplayStore) -> None:
    item = entry()
    assert await store.add(item) is True
    assert await store.add(item) is False


async def test_a_failover_under_load_lets_no_replay_pass(sentinels: Sentinels) -> None:
    """By URL: one Sentinel hangs and the master dies.

    Two times are measured, both up to the first accepted proof. For clients of the Sentinels the server is up
    when one of them names the new master: from then on the store has its second. The Sentinels check their
    servers once a second, so the promotion itself may be a second older than that.
    """
    store = RedisReplayStore.from_url(sentinels.url, timeout=ENDLESS)
    await assert_it_works(store)
    assert (await store.health()).nodes[0].address == "sentinel proofs"
    (replica,) = sentinels.replicas

    def is_named() -> bool:
        masters = [
            sentinel.raw("SENTINEL GET-MASTER-ADDR-BY-NAME", sentinels.service)
            for sentinel in sentinels.sentinels[1:]
        ]
        return any(int(port) == replica.port for _, port in masters)

    async with Load(store, within=AT_ONCE) as load:
        await load.until_accepted_by_all()
        sentinels.sentinels[0].pause()
        await asyncio.to_thread(sentinels.master.kill)
        await eventually(lambda: replica.run("ROLE")[0] == "master")
        promoted, before = running(), load.accepted
        await eventually(is_named)
        named = running()
        await load.until(lambda: load.accepted > before)
        recovered = running()
        await load.until_accepted_by_all()
        await load.until_a_replay_is_refused()
    sentinels.sentinels[0].resume()
    # A proof of now is judged again when no worker's clock can have shown it before the promotion.
    assert recovered - named < WORKER_CLOCK_MARGIN + RECOVERY + SLACK
    assert recovered - promoted < WORKER_CLOCK_MARGIN + LOOK + RECOVERY + SLACK
    assert load.unavailable > 0
    assert (await store.health()).ok
    await store.aclose()


async def test_a_sentinel_client_of_redis_py_can_be_used(sentinels: Sentinels) -> None:
    sentinel = sentinel_client([(HOST, server.port) for server in sentinels.sentinels], socket_timeout=0.5)
    client = sentinel.master_for(sentinels.service)
    store = RedisReplayStore(client, new_server="accept", timeout=ENDLESS)
    await assert_it_works(store)
    assert (await store.health()).ok
    await store.aclose()
    await client.aclose()
    for each in sentinel.sentinels:
        await each.aclose()


async def test_an_unknown_service_is_503(sentinels: Sentinels) -> None:
    store = RedisReplayStore.from_url(sentinels.url.replace("/proofs", "/others"), timeout=ENDLESS)
    outcome = await answer(store, entry())
    assert isinstance(outcome, Unavailable)
    assert outcome.actual == "RedisError"
    assert not (await store.health()).ok
    await store.aclose()


async def test_a_promotion_that_lost_entries_is_noticed(implementation: str) -> None:
    """A replica that lags takes over: entries that only the master knew can't be judged."""
    with (
        Server({"repl-diskless-sync-delay": 0}, implementation=implementation) as master,
        Server({"replicaof": (HOST, master.port)}, implementation=implementation) as replica,
    ):
        until(lambda: replica.run("ROLE")[3] == "connected")
        store = RedisReplayStore.from_url(master.url, new_server="accept", timeout=ENDLESS)
        await assert_it_works(store)
        # From here on the replica gets no more data from the master.
        replica.run("REPLICAOF", "NO", "ONE")
        lost = [entry() for _ in range(200)]
        assert await answers(store, lost) == {True: 200}
        master.kill()
        # The address now leads to the promoted replica, as with a service or a virtual IP.
        async with Proxy(replica.port, port=master.port):
            assert await recovery(store, after_a_loss) < RECOVERY + SLACK
            assert await answers(store, lost) == {503: 200}
            assert await store.add(after_a_loss()) is True
            await store.aclose()
