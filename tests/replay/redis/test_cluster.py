import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest
from redis.asyncio import RedisCluster

from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay import RedisReplayStore, ReplayEntry, ReplayStore
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.vitals import ServerInfo, identity_of
from dpop_middleware.replay.redis.writes import CROWDED
from dpop_middleware.testing.store_contract import ReplayStoreContract
from tests.support.load import (
    AT_ONCE,
    CHANCES,
    RECOVERY,
    SLACK,
    TIMEOUT,
    Load,
    eventually,
    in_time,
    recovery,
    stolen,
)
from tests.support.replay import ENDLESS, answer, answers, entry
from tests.support.running import running
from tests.support.scripted import ScriptedServer
from tests.support.slots import in_slots, migrate, slots_between
from tests.support.valkey import HOST, Cluster, Server, until

OF_EACH_MASTER = ((0, 5000), (6000, 10000), (11000, 16383))


async def opened(cluster: Cluster, *, timeout: float = ENDLESS) -> RedisReplayStore:
    """A store that has judged an entry at each of three masters."""
    store = RedisReplayStore.from_url(cluster.url, timeout=timeout)
    for slots in OF_EACH_MASTER:
        await recovery(store, partial(_entry_in, *slots))
    return store


def _entry_in(first: int, last: int) -> ReplayEntry:
    return in_slots(first, last, 1)[0]


@pytest.fixture(scope="module")
def shared_cluster(implementation: str) -> Iterator[Cluster]:
    """Three masters that no test disturbs."""
    with Cluster(masters=3, replicas=0, implementation=implementation) as cluster:
        yield cluster


@pytest.fixture
def cluster(implementation: str) -> Iterator[Cluster]:
    """Three masters with a replica each, for faults."""
    with Cluster(masters=3, replicas=1, implementation=implementation) as cluster:
        yield cluster


async def promoted(server: Server) -> float:
    """Wait until `server` is a master and takes writes for its slots; return when that was (by `running`)."""
    await eventually(lambda: server.run("ROLE")[0] == "master")
    await eventually(lambda: "cluster_state:ok" in server.raw("CLUSTER INFO").decode())
    return running()


async def recovery_since_promotion_of(server: Server, store: RedisReplayStore) -> float:
    """Wait until `server` is a master and accepts a fresh proof; return the seconds between the two."""
    back = await promoted(server)
    await recovery(store, lambda: late(in_slots(0, 5000, 1))[0])
    return running() - back


LOW = (0, 99)


def forget(server: Server) -> None:
    """Empty `server`, so that it looks like one that nobody has used."""
    server.run("FLUSHALL")
    server.run("CONFIG", "RESETSTAT")


CLUSTER_SLOTS = (b"CLUSTER", b"SLOTS")


def sent(server: ScriptedServer, item: ReplayEntry) -> int:
    """How often `server` was asked to write `item`."""
    name = Buckets(b"dpop", spread=True).locate(item.key)[1]
    return len([words for words in server.commands if words[:2] == (b"SET", name)])


class TestContract(ReplayStoreContract):
    @pytest.fixture
    async def store(self, shared_cluster: Cluster) -> AsyncIterator[ReplayStore]:
        for server in shared_cluster.servers:
            forget(server)
        store = RedisReplayStore.from_url(shared_cluster.url, timeout=ENDLESS)
        yield store
        await store.aclose()


def late(items: list[ReplayEntry]) -> list[ReplayEntry]:
    """The same entries as a store can judge them that has just lost others."""
    return [item._replace(not_before=item.not_before + WORKER_CLOCK_MARGIN + 10.0) for item in items]


async def test_a_cluster_client_of_redis_py_can_be_used(shared_cluster: Cluster) -> None:
    client = RedisCluster(host=HOST, port=shared_cluster.servers[0].port)
    store = RedisReplayStore(client, prefix="client", timeout=ENDLESS)
    item = entry()
    assert await store.add(item) is True
    assert await store.add(item) is False
    await store.aclose()
    await client.aclose()


async def test_entries_spread_over_the_masters_and_each_is_watched(shared_cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(shared_cluster.url, prefix="spread", timeout=ENDLESS)
    assert await answers(store, [entry() for _ in range(300)]) == {True: 300}
    for server in shared_cluster.servers:
        names = server.run("KEYS", "spread:{*}:*")
        assert len([name for name in names if name.endswith("::anchor")]) > 300
        assert len([name for name in names if not name.endswith("::anchor")]) > 50
    health = await store.health()
    assert health.ok
    assert {node.address for node in health.nodes} == {
        f"{HOST}:{server.port}" for server in shared_cluster.servers
    }
    assert all(node.fenced for node in health.nodes)
    await store.aclose()


async def test_a_flush_of_one_master_closes_its_slots_only(shared_cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(shared_cluster.url, prefix="dpop", timeout=ENDLESS)
    lost, kept = in_slots(0, 5000, 30), in_slots(11000, 16383, 30)
    assert await answers(store, [*lost, *kept]) == {True: 60}
    shared_cluster.owner(0).run("FLUSHALL")
    assert await answers(store, [item._replace(now=time.time()) for item in lost]) == {503: 30}
    assert await answers(store, kept) == {False: 30}
    assert await answers(store, in_slots(11000, 16383, 30)) == {True: 30}
    await store.aclose()
    # The next store must find no trace of that.
    for server in shared_cluster.servers:
        forget(server)


async def test_a_flush_is_noticed_in_every_bucket_of_its_master_by_the_first_request(
    shared_cluster: Cluster,
) -> None:
    first = RedisReplayStore.from_url(shared_cluster.url, timeout=ENDLESS)
    assert await answer(first, _entry_in(0, 5000)) is True
    await first.aclose()
    # A worker that opens now has read every anchor before any entry.
    store = RedisReplayStore.from_url(shared_cluster.url, timeout=ENDLESS)
    assert await answer(store, _entry_in(11000, 16383)) is True
    server = shared_cluster.owner(0)
    anchors = len(server.run("KEYS", "*::anchor"))
    assert anchors > 300
    server.run("FLUSHALL")
    assert await answers(store, [_entry_in(0, 5000)]) == {503: 1}
    await eventually(lambda: len(server.run("KEYS", "*::anchor")) == anchors)
    await store.aclose()
    for each in shared_cluster.servers:
        forget(each)


class TestOddClusters:
    """One scripted node that reports the cluster that a test needs."""

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

    def store(
        self, server: ScriptedServer, *, timeout: float = ENDLESS, max_waiting: int = 10_000
    ) -> RedisReplayStore:
        url = server.url.replace("redis:", "redis+cluster:")
        return RedisReplayStore.from_url(url, timeout=timeout, max_waiting=max_waiting)

    async def test_a_slot_without_owner_is_503(self, scripted: ScriptedServer) -> None:
        scripted.script = self.slots(scripted, LOW)
        store = self.store(scripted)
        assert await answers(store, in_slots(*LOW, 1)) == {True: 1}
        assert await answers(store, in_slots(LOW[1] + 1, 16383, 3)) == {503: 3}
        scripted.script = self.slots(scripted, (0, 16383))
        async with asyncio.timeout(60):
            # The slots come without anchors to a store that was used before.
            while await answer(store, late(in_slots(LOW[1] + 1, 16383, 1))[0]) is not True:
                await asyncio.sleep(0.01)
        await store.aclose()

    async def test_a_cluster_without_slots_is_503(self, scripted: ScriptedServer) -> None:
        scripted.script = lambda words: b"*0\r\n" if words[0] == b"CLUSTER" else None
        store = self.store(scripted)
        assert await answers(store, [entry()]) == {503: 1}
        await store.aclose()

    async def test_redirections_that_never_end_are_503(self, scripted: ScriptedServer) -> None:
        slots = self.slots(scripted, (0, 16383))
        moved = b"-MOVED 1 127.0.0.1:%d\r\n" % scripted.port

        def script(words: tuple[bytes, ...]) -> bytes | None:
            return moved if words[0] == b"SET" and b"anchor" not in words[1] else slots(words)

        scripted.script = script
        store = self.store(scripted)
        outcome = await answer(store, entry())
        assert isinstance(outcome, Unavailable)
        assert outcome.actual == "MOVED"
        assert len([words for words in scripted.commands if words[0] == b"SET" and b"PX" in words]) < 10
        await store.aclose()

    @pytest.mark.parametrize(
        "redirection",
        [
            b"MOVED",
            b"MOVED x 127.0.0.1:1",
            b"MOVED 1 127.0.0.1:x",
            b"MOVED 1 127.0.0.1",
            b"MOVED 1 127.0.0.1:70000",
            b"MOVED 16384 127.0.0.1:1",
            b"MOVED 1 ?:1",
            b"ASK",
            b"ASK 1 127.0.0.1:",
        ],
    )
    async def test_a_redirection_to_nowhere_leaves_no_request_waiting(
        self, scripted: ScriptedServer, redirection: bytes
    ) -> None:
        slots = self.slots(scripted, (0, 16383))
        scripted.script = slots
        store = self.store(scripted)
        assert await answers(store, [entry()]) == {True: 1}
        replies = {b"SET": b"-%b\r\n" % redirection}
        scripted.script = lambda words: slots(words) or replies.get(words[0])
        async with asyncio.timeout(ENDLESS):
            # They are sent together.
            assert await answers(store, [entry() for _ in range(6)]) == {503: 6}
            scripted.script = slots
            while await answer(store, entry()) is not True:
                await asyncio.sleep(0.01)
        await store.aclose()

    @pytest.mark.slow
    async def test_a_redirected_write_is_answered_in_its_own_time(self, scripted: ScriptedServer) -> None:
        async with ScriptedServer() as busy:
            low = self.slots(scripted, (0, 8191))(CLUSTER_SLOTS)
            high = self.slots(busy, (8192, 16383))(CLUSTER_SLOTS)
            assert low is not None
            assert high is not None
            both = b"*2\r\n" + low.removeprefix(b"*1\r\n") + high.removeprefix(b"*1\r\n")
            ask = b"-ASK 1 127.0.0.1:%d\r\n" % busy.port
            replies = {b"CLUSTER": both}
            scripted.script = busy.script = lambda words: replies.get(words[0])
            store = self.store(scripted, timeout=1.0)
            assert await answers(store, [*in_slots(0, 8191, 1), *in_slots(8192, 16383, 1)]) == {True: 2}
            scripted.script = lambda words: ask if words[0] == b"SET" else None
            scripted.hold(b"SET")
            busy.hold(b"SET")
            answered: list[str] = []

            async def ask_for(name: str, item: ReplayEntry) -> None:
                assert isinstance(await answer(store, item), Unavailable)
                answered.append(name)

            redirected = asyncio.ensure_future(ask_for("redirected", in_slots(0, 8191, 1)[0]))
            await asyncio.sleep(0.4)
            others = [ask_for("other", item) for item in in_slots(8192, 16383, 2)]
            waiting = asyncio.gather(redirected, *others)
            await asyncio.sleep(0.05)
            scripted.release()
            await waiting
            # Those that the busy node kept waiting came later, and had as long.
            assert answered == ["redirected", "other", "other"]
            await store.aclose()

    async def test_more_waiting_for_the_topology_than_may(self, scripted: ScriptedServer) -> None:
        scripted.script = self.slots(scripted, (0, 16383))
        store = self.store(scripted, max_waiting=10)
        outcomes = [
            getattr(outcome, "description", outcome)
            for outcome in await asyncio.gather(*(answer(store, entry()) for _ in range(12)))
        ]
        assert outcomes == [True] * 10 + [CROWDED] * 2
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
        await store.aclose()
        assert isinstance(await asking, Unavailable)

    async def test_a_busy_writer_outlives_its_nodes_slots(self, scripted: ScriptedServer) -> None:
        async with ScriptedServer() as heir:
            scripted.script = self.slots(scripted, LOW)
            store = self.store(scripted, timeout=10.0)
            assert await store.add(in_slots(*LOW, 1)[0]) is True
            (item,) = late(in_slots(*LOW, 1))
            async with asyncio.timeout(60):
                # Each anchor is read as the connection opens, and after it was written.
                while scripted.asked(b"GET", b"anchor") < 2 * len(slots_between(*LOW)):
                    await asyncio.sleep(0.001)
            scripted.hold(b"SET")
            asking = asyncio.ensure_future(answer(store, item))
            async with asyncio.timeout(60):
                while not sent(scripted, item):
                    await asyncio.sleep(0.001)
            scripted.script = heir.script = self.slots(heir, (0, 8191))
            async with asyncio.timeout(60):
                # A slot without owner makes the store fetch the topology again.
                while await answer(store, late(in_slots(LOW[1] + 1, 8191, 1))[0]) is not True:
                    await asyncio.sleep(0.01)
            assert not asking.done()
            scripted.release()
            assert await asking is True
            assert (sent(scripted, item), sent(heir, item)) == (1, 0)
            async with asyncio.timeout(60):
                while scripted.open:
                    assert isinstance(await answer(store, in_slots(8192, 16383, 1)[0]), Unavailable)
                    await asyncio.sleep(0.01)
            # The report of the other node counts from here on.
            assert await store.add(item) is True
            assert (sent(scripted, item), sent(heir, item)) == (1, 1)
            await store.aclose()

    async def test_the_slots_of_a_failed_node_are_searched_elsewhere(self, scripted: ScriptedServer) -> None:
        async with ScriptedServer() as heir:
            scripted.script = slots = self.slots(scripted, (0, 16383))
            store = self.store(scripted)
            assert await store.add(entry()) is True

            def fail(words: tuple[bytes, ...]) -> bytes | None:
                if words[0] != b"SET":
                    return slots(words)
                scripted.cut()
                return b""

            scripted.script = fail
            item = entry()
            outcome = await answer(store, item)
            assert isinstance(outcome, Unavailable)
            assert outcome.actual == "ConnectionError"
            assert sent(scripted, item) == 2
            # Two failures in a row: the next is refused at once, but makes the store look for another owner.
            (item,) = late([entry()])
            assert isinstance(await answer(store, item), Unavailable)
            assert sent(scripted, item) == 0
            slots = heir.script = self.slots(heir, (0, 16383))
            async with asyncio.timeout(60):
                while await answer(store, item) is not True:
                    await asyncio.sleep(0.01)
            assert sent(heir, item) == 1
            await store.aclose()

    async def test_addresses_are_translated(self, scripted: ScriptedServer) -> None:
        scripted.script = self.slots(scripted, (0, 16383))
        asked: list[tuple[str, int]] = []

        def remap(address: tuple[str, int]) -> tuple[str, int]:
            asked.append(address)
            return HOST, scripted.port

        client = RedisCluster(host=HOST, port=scripted.port, protocol=2, address_remap=remap)
        store = RedisReplayStore(client, timeout=ENDLESS)
        assert await store.add(entry()) is True
        assert asked == [(HOST, scripted.port)]
        await store.aclose()


async def test_a_cluster_that_can_not_be_reached_is_503() -> None:
    store = RedisReplayStore.from_url(f"redis+cluster://{HOST}:1,{HOST}:2", timeout=ENDLESS)
    assert await in_time(answers(store, [entry() for _ in range(30)]), AT_ONCE) == {503: 30}
    assert isinstance(await in_time(answer(store, entry()), AT_ONCE), Unavailable)
    health = await store.health()
    assert not health.ok
    assert health.nodes[0].address == "cluster"
    await store.aclose()


async def test_one_node_of_the_url_is_enough(shared_cluster: Cluster) -> None:
    url = f"redis+cluster://{HOST}:1,{HOST}:{shared_cluster.servers[2].port}"
    store = RedisReplayStore.from_url(url, prefix="one", timeout=ENDLESS)
    assert await answers(store, [entry() for _ in range(100)]) == {True: 100}
    await store.aclose()


async def test_a_server_that_is_no_cluster_is_503(server: Server) -> None:
    store = RedisReplayStore.from_url(server.url.replace("redis:", "redis+cluster:"), timeout=ENDLESS)
    assert isinstance(await answer(store, entry()), Unavailable)
    await store.aclose()


async def test_a_single_server_url_for_a_cluster_is_503(shared_cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(shared_cluster.servers[0].url, timeout=ENDLESS)
    (elsewhere,) = in_slots(11000, 16383, 1)
    outcome = await answer(store, elsewhere)
    assert isinstance(outcome, Unavailable)
    assert outcome.actual == "MOVED"
    await store.aclose()


async def test_slots_move_under_load_without_a_replay(shared_cluster: Cluster) -> None:
    for server in shared_cluster.servers:
        forget(server)
    source, receiver = shared_cluster.owner(0), shared_cluster.owner(16383)
    store = RedisReplayStore.from_url(shared_cluster.url, timeout=ENDLESS)
    moving = slots_between(0, 16383)[:41]
    used = in_slots(0, moving[-1], 20)
    assert await answers(store, used) == {True: 20}
    # One client in each slot that moves: the test measures how long each of them is delayed.
    async with Load(store, clients=41, pause=0.02, slots=moving, within=AT_ONCE) as load:
        for number, slot in enumerate(moving):
            await asyncio.to_thread(migrate, slot, source, receiver, [], finish=number % 2 == 0)
        # Half of the slots stay in migration: keys not yet there are asked for at the other node.
        between = [item for slot in moving[1::2] for item in in_slots(slot, slot, 1)]
        assert await answers(store, between) == {True: 20}
        assert await answers(store, between) == {False: 20}
        assert await answers(store, stolen(used)) == {False: 20}
        for slot in moving[1::2]:
            await asyncio.to_thread(migrate, slot, source, receiver, shared_cluster.servers, finish=True)
        assert await answers(store, between) == {False: 20}
        await load.until_accepted_by_all()
    assert load.accepted > 41
    assert load.replays_refused > 0
    assert not load.refusals
    await store.aclose()


def vouches_itself(server: Server, slot: int) -> bool:
    """Whether the anchor in `slot` bears the identity of the server where it is now."""
    info = ServerInfo(
        run_id=server.run("INFO", "server")["run_id"],
        replication_id=server.run("INFO", "replication")["master_replid"],
    )
    (anchor,) = (name for name in server.raw("CLUSTER GETKEYSINSLOT", slot, 100) if b"::anchor" in name)
    return bytes(server.raw("GET", anchor)).startswith(identity_of(info))


async def test_slots_move_to_a_new_node_without_a_replay(implementation: str) -> None:
    with Cluster(masters=1, replicas=0, implementation=implementation) as cluster:
        store = RedisReplayStore.from_url(cluster.url, timeout=ENDLESS)
        slot = slots_between(0, 16383)[0]
        item = in_slots(slot, slot, 1)[0]
        assert await store.add(item) is True
        source, receiver = cluster.servers[0], cluster.add_server()
        receiver.run("CLUSTER", "MEET", HOST, source.port)
        until(lambda: receiver.run("CLUSTER", "MYID") in str(source.raw("CLUSTER NODES")))
        until(lambda: source.run("CLUSTER", "MYID") in str(receiver.raw("CLUSTER NODES")))
        until(lambda: "cluster_state:ok" in receiver.raw("CLUSTER INFO").decode())
        async with Load(store, clients=5, slots=[slot], within=AT_ONCE) as load:
            await asyncio.to_thread(migrate, slot, source, receiver, [], finish=False)
            # Asked for at a node that owns no slots, where the fence has no anchor.
            fresh = in_slots(slot, slot, 3)
            assert await answers(store, fresh) == {True: 3}
            assert await answers(store, [*fresh, item]) == {False: 4}
            await asyncio.to_thread(migrate, slot, source, receiver, [], finish=True)
            moved = running()
            assert await answers(store, [*fresh, item]) == {False: 4}
            # The fence has an anchor there, too, as soon as the store has fetched the slots again.
            await eventually(lambda: vouches_itself(receiver, slot))
            watched = running() - moved
            await load.until_accepted_by_all()
        assert watched < AT_ONCE
        assert load.replays_refused > 0
        assert not load.refusals
        await store.aclose()


@pytest.mark.slow
async def test_a_master_dies_under_load_without_a_replay(cluster: Cluster) -> None:
    store = await opened(cluster)
    victim = cluster.owner(0)
    replica = cluster.replica_of(victim)
    async with Load(store, within=AT_ONCE) as load:
        await load.until_accepted_by_all()
        await asyncio.to_thread(victim.kill)
        recovered = await recovery_since_promotion_of(replica, store)
        await load.until_accepted_by_all()
    assert recovered < RECOVERY + SLACK
    assert load.unavailable > 0
    await store.aclose()


@pytest.mark.slow
async def test_a_store_starts_while_the_owner_of_slot_0_is_down(implementation: str) -> None:
    """It starts and judges the entries of the other masters, and all entries after a replica took over."""
    options: dict[str, object] = {"cluster-require-full-coverage": "no"}
    with Cluster(implementation=implementation, options=options) as cluster:
        victim, living = cluster.owner(0), cluster.owner(16383)
        replica = cluster.replica_of(victim)
        replica.run("CONFIG", "SET", "cluster-replica-no-failover", "yes")
        early = RedisReplayStore.from_url(cluster.url, timeout=ENDLESS)
        used = [*in_slots(0, 5000, 30), *in_slots(6000, 16383, 30)]
        assert await answers(early, used) == {True: 60}
        victim.kill()

        async def does_what_it_can(store: RedisReplayStore) -> None:
            alive, dead = in_slots(6000, 16383, 30), in_slots(0, 5000, 30)
            # A refused connection must not cause a wait.
            for items, verdict in (([*alive, *dead], True), ([*alive, *dead], False), (stolen(used), False)):
                assert await in_time(answers(store, items), AT_ONCE) == {verdict: 30, 503: 30}

        client = RedisCluster(host=HOST, port=living.port)
        stores = [
            early,
            RedisReplayStore.from_url(cluster.url, timeout=ENDLESS),
            RedisReplayStore.from_url(
                f"redis+cluster://{HOST}:{victim.port},{HOST}:{living.port}", timeout=ENDLESS
            ),
            RedisReplayStore(client, timeout=ENDLESS),
        ]
        for store in stores:
            await does_what_it_can(store)
        await eventually(lambda: b"master,fail " in living.raw("CLUSTER NODES"))
        stores.append(RedisReplayStore.from_url(cluster.url, timeout=ENDLESS))
        for store in stores:
            await does_what_it_can(store)
        replica.run("CONFIG", "SET", "cluster-replica-no-failover", "no")
        back = await promoted(replica)
        await asyncio.gather(*(recovery(store, lambda: late(in_slots(0, 5000, 1))[0]) for store in stores))
        # Five stores of one process each ask several servers at the same time.
        assert running() - back < 2 * RECOVERY + SLACK
        for store in stores:
            fresh = late([*in_slots(0, 5000, 30), *in_slots(6000, 16383, 30)])
            assert await answers(store, fresh) == {True: 60}
            assert await answers(store, fresh) == {False: 60}
            outcomes = await answers(store, stolen(used))
            # The dead master's entries are known to the replica, or can't be judged.
            assert outcomes[True] == 0
            assert outcomes[False] >= 30
            await store.aclose()
        await client.aclose()


@pytest.mark.slow
async def test_a_master_hangs_and_another_steps_down_without_a_replay(cluster: Cluster) -> None:
    store, hurried = await opened(cluster), await opened(cluster, timeout=TIMEOUT)
    victim = cluster.owner(0)
    replica = cluster.replica_of(victim)
    used = in_slots(0, 5000, 20)
    assert await answers(store, used) == {True: 20}
    slowest = math.inf
    async with Load(hurried, within=TIMEOUT + SLACK) as load:
        for _ in range(CHANCES):
            await load.until_accepted_by_all()
            replica.run("CLUSTER", "FAILOVER")
            slowest = await recovery_since_promotion_of(replica, hurried)
            await asyncio.to_thread(cluster.until_agreed)
            replica.pause()
            slowest = max(slowest, await recovery_since_promotion_of(victim, hurried))
            replica.resume()
            if slowest < RECOVERY + SLACK:
                break
            await asyncio.to_thread(cluster.until_agreed)
    assert slowest < RECOVERY + SLACK
    for asked in (store, hurried):
        assert (await answers(asked, stolen(used)))[True] == 0
        await asked.aclose()
