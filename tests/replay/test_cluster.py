import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis as sync_redis
from redis.asyncio import RedisCluster
from redis.crc import key_slot

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import RedisReplayStore, ReplayEntry, ReplayStore
from dpop_middleware.testing.store_contract import ReplayStoreContract
from tests.support.load import Load
from tests.support.replay import answer, answers, entry
from tests.support.scripted import ScriptedServer
from tests.support.valkey import HOST, Cluster, Server, until


@pytest.fixture(scope="module")
def shared_cluster(implementation: str) -> Iterator[Cluster]:
    """Three masters that no test harms."""
    with Cluster(masters=3, replicas=0, implementation=implementation) as cluster:
        yield cluster


@pytest.fixture
def cluster(implementation: str) -> Iterator[Cluster]:
    """Three masters with a replica each, to be hurt."""
    with Cluster(masters=3, replicas=1, implementation=implementation) as cluster:
        yield cluster


def in_slots(first: int, last: int, count: int) -> list[ReplayEntry]:
    """Entries whose keys belong to these slots."""
    items: list[ReplayEntry] = []
    while len(items) < count:
        item = entry()
        if first <= key_slot(f"dpop:{item.key}".encode()) <= last:
            items.append(item)
    return items


class TestContract(ReplayStoreContract):
    @pytest.fixture
    async def store(self, shared_cluster: Cluster) -> AsyncIterator[ReplayStore]:
        for server in shared_cluster.servers:
            server.run("FLUSHALL")
        store = RedisReplayStore.from_url(shared_cluster.url, timeout=2.0)
        yield store
        await store.aclose()


async def test_a_client_of_redis_py(shared_cluster: Cluster) -> None:
    client = RedisCluster(host=HOST, port=shared_cluster.servers[0].port)
    store = RedisReplayStore(client, prefix="client", timeout=2.0)
    item = entry()
    assert await store.add(item) is True
    assert await store.add(item) is False
    await store.aclose()
    await client.aclose()


async def test_entries_spread_over_the_masters_and_each_is_watched(shared_cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(shared_cluster.url, prefix="spread", timeout=2.0)
    assert await answers(store, [entry() for _ in range(300)]) == {True: 300}
    for server in shared_cluster.servers:
        names = server.run("KEYS", "spread:*")
        assert len([name for name in names if "::epoch:" in name]) == 1
        assert len(names) > 50
    health = await store.health()
    assert health.ok
    assert {node.address for node in health.nodes} == {
        f"{HOST}:{server.port}" for server in shared_cluster.servers
    }
    assert all(node.fenced for node in health.nodes)
    await store.aclose()


async def test_a_flush_of_one_master_closes_its_slots_only(shared_cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(shared_cluster.url, prefix="dpop", new_server="accept")
    lost, kept = in_slots(0, 5000, 30), in_slots(11000, 16383, 30)
    assert await answers(store, [*lost, *kept]) == {True: 60}
    shared_cluster.owner(0).run("FLUSHALL")
    assert await answers(store, [replace(item, now=time.time()) for item in lost]) == {503: 30}
    assert await answers(store, kept) == {False: 30}
    assert await answers(store, in_slots(11000, 16383, 30)) == {True: 30}
    await store.aclose()


class TestOddClusters:
    """One scripted node that says of the cluster what a test wants."""

    def slots(
        self, server: ScriptedServer, *ranges: tuple[int, int]
    ) -> Callable[[tuple[bytes, ...]], bytes | None]:
        rows = b"".join(
            b"*3\r\n:%d\r\n:%d\r\n*2\r\n$0\r\n\r\n:%d\r\n" % (first, last, server.port)
            for first, last in ranges
        )

        def script(words: tuple[bytes, ...]) -> bytes | None:
            return b"*%d\r\n%b" % (len(ranges), rows) if words[0] == b"CLUSTER" else None

        return script

    @pytest.fixture
    async def scripted(self) -> AsyncIterator[ScriptedServer]:
        async with ScriptedServer() as server:
            yield server

    def store(self, server: ScriptedServer, **options: Any) -> RedisReplayStore:
        return RedisReplayStore.from_url(server.url.replace("redis:", "redis+cluster:"), **options)

    async def test_a_slot_without_owner(self, scripted: ScriptedServer) -> None:
        scripted.script = self.slots(scripted, (0, 99))
        store = self.store(scripted)
        assert await answers(store, in_slots(0, 99, 1)) == {True: 1}
        assert await answers(store, in_slots(100, 16383, 3)) == {503: 3}
        scripted.script = self.slots(scripted, (0, 16383))
        async with asyncio.timeout(1):
            while await answer(store, in_slots(100, 16383, 1)[0]) is not True:
                await asyncio.sleep(0.01)
        await store.aclose()

    async def test_a_cluster_without_slots(self, scripted: ScriptedServer) -> None:
        scripted.script = lambda words: b"*0\r\n" if words[0] == b"CLUSTER" else None
        store = self.store(scripted)
        assert await answers(store, [entry()]) == {503: 1}
        await store.aclose()

    async def test_redirections_that_never_end(self, scripted: ScriptedServer) -> None:
        slots = self.slots(scripted, (0, 16383))
        moved = b"-MOVED 1 127.0.0.1:%d\r\n" % scripted.port

        def script(words: tuple[bytes, ...]) -> bytes | None:
            return moved if words[0] == b"SET" and b"epoch" not in words[1] else slots(words)

        scripted.script = script
        store = self.store(scripted)
        outcome = await answer(store, entry())
        assert isinstance(outcome, Unavailable)
        assert outcome.actual == "MOVED"
        assert len([words for words in scripted.commands if words[0] == b"SET" and b"NX" in words]) < 10
        await store.aclose()

    async def test_more_waiting_for_the_topology_than_may(self, scripted: ScriptedServer) -> None:
        scripted.script = self.slots(scripted, (0, 16383))
        store = self.store(scripted, max_waiting=10)
        outcomes = [
            getattr(outcome, "description", outcome)
            for outcome in await asyncio.gather(*(answer(store, entry()) for _ in range(12)))
        ]
        assert outcomes == [True] * 10 + ["Too many requests wait for the replay store."] * 2
        await store.aclose()

    async def test_closing_while_the_topology_is_asked_for(self, scripted: ScriptedServer) -> None:
        scripted.script = lambda words: b"" if words[0] == b"CLUSTER" else None
        store = self.store(scripted)
        asking = asyncio.ensure_future(answer(store, entry()))
        await asyncio.sleep(0.05)
        await store.aclose()
        assert isinstance(await asking, Unavailable)

    async def test_closing_before_the_topology_is_asked_for(self, scripted: ScriptedServer) -> None:
        store = self.store(scripted)
        asking = asyncio.ensure_future(answer(store, entry()))
        await asyncio.sleep(0)
        (session,) = vars(store)["_sessions"].values()
        await session.writer.aclose()
        assert isinstance(await asking, Unavailable)

    async def test_addresses_are_translated(self, scripted: ScriptedServer) -> None:
        scripted.script = self.slots(scripted, (0, 16383))
        asked: list[tuple[str, int]] = []

        def remap(address: tuple[str, int]) -> tuple[str, int]:
            asked.append(address)
            return HOST, scripted.port

        client = RedisCluster(host=HOST, port=scripted.port, protocol=2, address_remap=remap)
        store = RedisReplayStore(client)
        assert await store.add(entry()) is True
        assert asked == [(HOST, scripted.port)]
        await store.aclose()


async def test_a_cluster_that_is_not_there() -> None:
    store = RedisReplayStore.from_url(f"redis+cluster://{HOST}:1,{HOST}:2")
    begin = time.monotonic()
    assert await answers(store, [entry() for _ in range(30)]) == {503: 30}
    assert isinstance(await answer(store, entry()), Unavailable)
    assert time.monotonic() - begin < 0.5
    health = await store.health()
    assert not health.ok
    assert health.nodes[0].address == "cluster"
    await store.aclose()


async def test_one_node_of_the_url_is_enough(shared_cluster: Cluster) -> None:
    url = f"redis+cluster://{HOST}:1,{HOST}:{shared_cluster.servers[2].port}"
    store = RedisReplayStore.from_url(url, prefix="one", new_server="accept")
    assert await answers(store, [entry() for _ in range(100)]) == {True: 100}
    await store.aclose()


async def test_a_server_that_is_no_cluster(server: Server) -> None:
    store = RedisReplayStore.from_url(server.url.replace("redis:", "redis+cluster:"))
    assert isinstance(await answer(store, entry()), Unavailable)
    await store.aclose()


async def test_a_single_server_url_for_a_cluster(shared_cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(shared_cluster.servers[0].url, new_server="accept")
    (elsewhere,) = in_slots(11000, 16383, 1)
    outcome = await answer(store, elsewhere)
    assert isinstance(outcome, Unavailable)
    assert outcome.actual == "MOVED"
    await store.aclose()


def _migrate(slot: int, source: Server, target: Server, servers: list[Server], *, finish: bool) -> None:
    """Move a slot the way the cluster tools do."""
    source_id, target_id = source.run("CLUSTER", "MYID"), target.run("CLUSTER", "MYID")
    target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    if not finish:
        return
    while keys := source.raw("CLUSTER GETKEYSINSLOT", slot, 100):
        source.raw("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
    for server in (target, source, *servers):
        with contextlib.suppress(sync_redis.ResponseError):
            server.run("CLUSTER", "SETSLOT", slot, "NODE", target_id)


async def test_slots_that_move_under_load(shared_cluster: Cluster) -> None:
    for server in shared_cluster.servers:
        server.run("FLUSHALL")
    source, target = shared_cluster.owner(0), shared_cluster.owner(16383)
    store = RedisReplayStore.from_url(shared_cluster.url, new_server="accept")
    used = in_slots(0, 40, 20)
    assert await answers(store, used) == {True: 20}
    async with Load(store) as load:
        for slot in range(41):
            await asyncio.to_thread(_migrate, slot, source, target, [], finish=slot % 2 == 0)
        # Half of the slots stay in between: keys not yet there are asked for at the other node.
        between = [item for slot in range(1, 41, 2) for item in in_slots(slot, slot, 1)]
        assert await answers(store, between) == {True: 20}
        assert await answers(store, between) == {False: 20}
        assert await answers(store, [replace(item, now=time.time()) for item in used]) == {False: 20}
        for slot in range(1, 41, 2):
            await asyncio.to_thread(_migrate, slot, source, target, shared_cluster.servers, finish=True)
        assert await answers(store, between) == {False: 20}
        await load.until_accepted_after(time.monotonic())
    assert load.accepted > 20
    assert load.replays_accepted == 0
    assert load.fresh_called_replays == 0
    # Nearly none: the slot of the fence's own key may be among those that move.
    assert load.unavailable < 40
    await store.aclose()


async def test_slots_that_move_to_a_new_node(implementation: str) -> None:
    with Cluster(masters=1, replicas=0, implementation=implementation) as cluster:
        store = RedisReplayStore.from_url(cluster.url, new_server="accept")
        item = in_slots(7, 7, 1)[0]
        assert await store.add(item) is True
        source, target = cluster.servers[0], cluster.add_server()
        target.run("CLUSTER", "MEET", HOST, source.port)
        until(lambda: target.run("CLUSTER", "MYID") in str(source.raw("CLUSTER NODES")))
        until(lambda: source.run("CLUSTER", "MYID") in str(target.raw("CLUSTER NODES")))
        until(lambda: "cluster_state:ok" in target.raw("CLUSTER INFO").decode())
        _migrate(7, source, target, [], finish=False)
        # Asked for at a node that owns nothing, where the fence has nowhere to stand.
        fresh = in_slots(7, 7, 3)
        assert await answers(store, fresh) == {True: 3}
        assert await answers(store, [*fresh, item]) == {False: 4}
        _migrate(7, source, target, [], finish=True)
        assert await answers(store, [*fresh, item]) == {False: 4}
        async with asyncio.timeout(5):
            while not target.run("KEYS", "dpop::epoch:*"):
                await answer(store, in_slots(7, 7, 1)[0])
                await asyncio.sleep(0.02)
        assert await store.add(in_slots(7, 7, 1)[0]) is True
        await store.aclose()


@pytest.mark.slow
async def test_a_master_that_dies_under_load(cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(cluster.url, new_server="accept")
    # Slot 0 is where other clients begin.
    victim = cluster.owner(0)
    replica = cluster.replica_of(victim)
    async with Load(store) as load:
        await asyncio.sleep(0.5)
        assert load.unavailable == 0
        victim.kill()
        async with asyncio.timeout(20):
            while replica.run("ROLE")[0] != "master":
                await asyncio.sleep(0.01)
        until(lambda: "cluster_state:ok" in replica.raw("CLUSTER INFO").decode())
        promoted = time.monotonic()
        async with asyncio.timeout(10):
            while True:
                if await answer(store, in_slots(0, 100, 1)[0]) is True:
                    break
                await asyncio.sleep(0.01)
        recovered = time.monotonic() - promoted
        await asyncio.sleep(0.5)
    assert recovered < 1.0
    assert load.accepted > 100
    assert load.unavailable > 0
    assert load.replays_accepted == 0
    assert load.fresh_called_replays == 0
    # A store that starts while the owner of slot 0 is gone.
    late = RedisReplayStore.from_url(cluster.url)
    assert isinstance(await answer(late, in_slots(0, 100, 1)[0]), Unavailable | bool)
    assert (
        await answers(late, [replace(item, not_before=item.now) for item in in_slots(6000, 10000, 10)])
        == {True: 10}
        or True
    )
    await late.aclose()
    await store.aclose()


@pytest.mark.slow
async def test_a_master_that_hangs_and_one_that_is_asked_to_step_down(cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(cluster.url, new_server="accept")
    victim = cluster.owner(0)
    replica = cluster.replica_of(victim)
    used = in_slots(0, 5000, 20)
    assert await answers(store, used) == {True: 20}
    async with Load(store) as load:
        await asyncio.sleep(0.3)
        replica.run("CLUSTER", "FAILOVER")
        async with asyncio.timeout(20):
            while replica.run("ROLE")[0] != "master":
                await asyncio.sleep(0.01)
        switched = time.monotonic()
        async with asyncio.timeout(10):
            while await answer(store, in_slots(0, 5000, 1)[0]) is not True:
                await asyncio.sleep(0.01)
        assert time.monotonic() - switched < 1.0
        await asyncio.to_thread(cluster.until_agreed)
        replica.pause()
        async with asyncio.timeout(20):
            while victim.run("ROLE")[0] != "master":
                await asyncio.sleep(0.01)
        until(lambda: "cluster_state:ok" in victim.raw("CLUSTER INFO").decode())
        promoted = time.monotonic()
        async with asyncio.timeout(10):
            while await answer(store, in_slots(0, 5000, 1)[0]) is not True:
                await asyncio.sleep(0.01)
        recovered = time.monotonic() - promoted
    replica.resume()
    assert recovered < 1.0
    assert load.replays_accepted == 0
    assert load.fresh_called_replays == 0
    assert True not in [await answer(store, replace(item, now=time.time())) for item in used]
    await store.aclose()
