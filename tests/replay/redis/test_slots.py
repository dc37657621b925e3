"""Slots of a cluster that move to another master, with their data or without, on real servers."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import redis

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay import RedisReplayStore, ReplayEntry
from dpop_middleware.replay.redis.anchors import Anchor
from dpop_middleware.replay.redis.endpoints import Standalone, endpoint_of_url
from dpop_middleware.replay.redis.fence import NewServer
from dpop_middleware.replay.redis.resp import Buckets, command
from tests.support.load import Load, eventually, stolen
from tests.support.replay import ENDLESS, answers
from tests.support.server_clock import can_have_clock, missing
from tests.support.slots import give_away_without_data, in_slots, migrate, slots_between
from tests.support.valkey import HOST, Cluster, Server, implementations, until

SHARE = 16384 // 3
FIRST = (0, SHARE - 1)
BUCKETS = Buckets(b"dpop", spread=True)


@pytest.fixture
def cluster(implementation: str) -> Iterator[Cluster]:
    """Three masters without replicas, for faults."""
    with Cluster(
        masters=3,
        replicas=0,
        implementation=implementation,
        options={"cluster-require-full-coverage": "no"},
    ) as cluster:
        yield cluster


def store_of(
    cluster: Cluster, *, timeout: float = ENDLESS, new_server: NewServer = "accept"
) -> RedisReplayStore:
    return RedisReplayStore.from_url(cluster.url, timeout=timeout, new_server=new_server)


def patient_store_of(cluster: Cluster) -> RedisReplayStore:
    """A store whose 503s have their cause in the store: no machine stands still for half of its timeout."""
    return store_of(cluster, timeout=30.0)


def after(items: list[ReplayEntry]) -> list[ReplayEntry]:
    """The same entries as a store can judge them that has just lost others."""
    return [item._replace(not_before=time.time() + WORKER_CLOCK_MARGIN + 5) for item in items]


def knows_as_master(server: Server, other: Server) -> bool:
    return any(row[2][1] == other.port for row in server.raw("CLUSTER SLOTS"))


def anchors_at(server: Server) -> int:
    return len(server.run("KEYS", "dpop:{*}::anchor"))


# Proofs that are answered 503 are remembered all the same, so that they are refused as used from then on.
async def test_slots_that_come_without_their_data_are_a_loss(cluster: Cluster) -> None:
    dead, heir, other = cluster.servers
    old, busy = store_of(cluster), store_of(cluster)
    lost, kept = in_slots(*FIRST, 150), in_slots(SHARE, 16383, 50)
    assert await answers(old, [*lost, *kept]) == {True: 200}
    assert await answers(busy, in_slots(0, 16383, 20)) == {True: 20}
    await asyncio.to_thread(dead.kill)
    await asyncio.to_thread(give_away_without_data, *FIRST, heir, [other])
    newcomer = store_of(cluster)
    for store in (old, busy, newcomer):
        await until_served(store)
        assert (await answers(store, stolen(lost)))[True] == 0
        assert await answers(store, stolen(kept)) == {False: 50}
        fresh = after(in_slots(*FIRST, 30))
        assert await answers(store, fresh) == {True: 30}
        assert await answers(store, fresh) == {False: 30}
        # Other slots are not affected.
        assert await answers(store, in_slots(SHARE, 16383, 30)) == {True: 30}
        await store.aclose()


async def until_served(store: RedisReplayStore) -> None:
    """Wait until `store` has found who has the first third of the slots now."""
    async with asyncio.timeout(60):
        while await answers(store, after(in_slots(*FIRST, 1))) != {True: 1}:
            await asyncio.sleep(0.02)


async def test_a_planned_migration_causes_no_refusal(cluster: Cluster) -> None:
    source, receiver, other = cluster.servers
    moving = slots_between(0, 500)
    busy, idle = patient_store_of(cluster), patient_store_of(cluster)
    used = in_slots(0, 500, 60)
    assert await answers(busy, used) == {True: 60}
    assert await answers(idle, in_slots(0, 16383, 30)) == {True: 30}
    async with Load(busy, clients=20, pause=0.01, slots=moving) as load:
        for slot in moving:
            await asyncio.to_thread(migrate, slot, source, receiver, [other])
        # A worker that opens right now finds nothing missing.
        newcomer = patient_store_of(cluster)
        for store in (newcomer, idle):
            assert await answers(store, stolen(used)) == {False: 60}
            assert await answers(store, in_slots(0, 500, 60)) == {True: 60}
        await load.until_accepted_by_all()
    assert load.accepted > 100
    assert load.replays_refused > 0
    assert not load.refusals
    for store in (busy, idle, newcomer):
        assert await answers(store, in_slots(0, 16383, 100)) == {True: 100}
        await store.aclose()


async def test_slots_that_a_server_itself_moves_cause_no_refusal(cluster: Cluster) -> None:
    source, receiver, _ = cluster.servers
    if source.implementation != "valkey":
        # Only Valkey 9 and newer can: elsewhere the tools move one key after the other.
        with pytest.raises(redis.ResponseError):
            source.raw("CLUSTER MIGRATESLOTS", "SLOTSRANGE", 0, 1500, "NODE", receiver.run("CLUSTER", "MYID"))
        return
    busy, idle = patient_store_of(cluster), patient_store_of(cluster)
    used = in_slots(0, 1500, 60)
    assert await answers(busy, used) == {True: 60}
    assert await answers(idle, in_slots(0, 16383, 30)) == {True: 30}
    async with Load(busy, clients=20, pause=0.01, slots=slots_between(0, 1500)) as load:
        source.raw("CLUSTER MIGRATESLOTS", "SLOTSRANGE", 0, 1500, "NODE", receiver.run("CLUSTER", "MYID"))
        await eventually(lambda: cluster.owner(0) is receiver and cluster.owner(1500) is receiver)
        await load.until_accepted_by_all()
        newcomer = patient_store_of(cluster)
        for store in (newcomer, idle):
            assert await answers(store, stolen(used)) == {False: 60}
            assert await answers(store, in_slots(0, 1500, 60)) == {True: 60}
    assert not load.refusals
    for store in (busy, idle, newcomer):
        await store.aclose()


@pytest.mark.parametrize("finish", [True, False], ids=["MOVED", "ASK"])
async def test_where_no_host_is_named_the_host_of_the_answering_master_is_used(
    implementation: str, finish: bool
) -> None:
    """As behind NAT: every master has the same host, and only ports are reported."""
    options: dict[str, object] = {"cluster-preferred-endpoint-type": "unknown-endpoint"}
    with Cluster(masters=3, replicas=0, implementation=implementation, options=options) as cluster:
        source, receiver, other = cluster.servers
        store, moving = patient_store_of(cluster), slots_between(0, 100)
        assert await answers(store, in_slots(0, 100, 20)) == {True: 20}
        for slot in moving:
            await asyncio.to_thread(migrate, slot, source, receiver, [other], finish=finish)
        used = in_slots(0, 100, 20)
        assert await answers(store, used) == {True: 20}
        assert await answers(store, stolen(used)) == {False: 20}
        await store.aclose()


async def test_masters_without_a_known_host_name_are_reached_by_their_ip_address(
    implementation: str,
) -> None:
    """As with a new node in the cluster: the others don't know its host name yet."""
    options: dict[str, object] = {"cluster-preferred-endpoint-type": "hostname"}
    with Cluster(masters=3, replicas=0, implementation=implementation, options=options) as cluster:
        source, receiver, other = cluster.servers
        store = patient_store_of(cluster)
        assert await answers(store, in_slots(0, 16383, 40)) == {True: 40}
        for slot in slots_between(0, 100):
            await asyncio.to_thread(migrate, slot, source, receiver, [other])
        async with asyncio.timeout(60):
            # Only the topology shows where a slot went.
            while await answers(store, in_slots(0, 100, 20)) != {True: 20}:
                await asyncio.sleep(0.05)
        await store.aclose()


async def test_a_flush_before_a_planned_migration_is_noticed(cluster: Cluster) -> None:
    source, receiver, other = cluster.servers
    moving = slots_between(0, 800)
    old, newcomer = store_of(cluster), store_of(cluster)
    lost, kept = in_slots(0, 800, 60), in_slots(SHARE, 16383, 60)
    assert await answers(old, [*lost, *kept]) == {True: 120}
    source.run("FLUSHALL")
    for slot in moving:
        await asyncio.to_thread(migrate, slot, source, receiver, [other])
    for store in (old, newcomer):
        assert (await answers(store, stolen(lost)))[True] == 0
        assert await answers(store, stolen(kept)) == {False: 60}
        assert await answers(store, after(in_slots(0, 800, 30))) == {True: 30}
        await store.aclose()


async def test_a_lagging_replica_that_took_over_and_moved_a_slot_is_noticed(implementation: str) -> None:
    """The anchor that moves along is the dead master's, and no worker has read it in between."""
    options: dict[str, object] = {"cluster-require-full-coverage": "no"}
    with Cluster(masters=3, replicas=1, implementation=implementation, options=options) as cluster:
        dead, receiver = cluster.owner(0), cluster.owner(16383)
        replica, slot = cluster.replica_of(dead), slots_between(0, 800)[0]
        store = store_of(cluster)
        assert await answers(store, in_slots(slot, slot, 1)) == {True: 1}
        await eventually(lambda: anchors_at(replica) > 300)
        replica.pause()
        # Entries that the replica doesn't get.
        lost = in_slots(slot, slot, 20)
        dead.run("CLIENT", "KILL", "TYPE", "REPLICA")
        assert await answers(store, lost) == {True: 20}
        await asyncio.to_thread(dead.kill)
        replica.resume()
        await eventually(lambda: replica.run("ROLE")[0] == "master")
        living = [server for server in cluster.servers if server is not dead]
        await eventually(lambda: all(knows_as_master(server, replica) for server in living))
        await asyncio.to_thread(migrate, slot, replica, receiver, living)
        newcomer = store_of(cluster)
        for one in (store, newcomer):
            async with asyncio.timeout(60):
                while await answers(one, after(in_slots(slot, slot, 1))) != {True: 1}:
                    await asyncio.sleep(0.02)
            assert (await answers(one, stolen(lost)))[True] == 0
            await one.aclose()


async def test_a_slot_that_is_moving_is_judged_at_both_masters(cluster: Cluster) -> None:
    source, receiver, other = cluster.servers
    slot = slots_between(0, 800)[0]
    store, newcomer = store_of(cluster), store_of(cluster)
    used = in_slots(slot, slot, 10)
    assert await answers(store, used) == {True: 10}
    await asyncio.to_thread(migrate, slot, source, receiver, finish=False)
    for one in (store, newcomer):
        fresh = in_slots(slot, slot, 10)
        # The anchor is still at the source.
        assert await answers(one, fresh) == {True: 10}
        assert await answers(one, stolen([*fresh, *used])) == {False: 20}
    anchor = next(name for name in source.raw("CLUSTER GETKEYSINSLOT", slot, 100) if b"anchor" in name)
    source.raw("MIGRATE", HOST, receiver.port, "", 0, 5000, "KEYS", anchor)
    for one in (store, newcomer):
        fresh = in_slots(slot, slot, 10)
        # The anchor has moved before the entries.
        assert await answers(one, fresh) == {True: 10}
        assert await answers(one, stolen([*fresh, *used])) == {False: 20}
    await asyncio.to_thread(migrate, slot, source, receiver, [other])
    for one in (store, newcomer):
        assert await answers(one, in_slots(slot, slot, 10)) == {True: 10}
        await one.aclose()


async def test_an_anchor_that_is_lost_while_its_slot_moves_is_a_loss(cluster: Cluster) -> None:
    source, receiver, other = cluster.servers
    slot = slots_between(0, 800)[0]
    store = store_of(cluster)
    lost = in_slots(slot, slot, 10)
    assert await answers(store, lost) == {True: 10}
    await asyncio.to_thread(migrate, slot, source, receiver, finish=False)
    source.run("FLUSHALL")
    assert (await answers(store, stolen(lost)))[True] == 0
    assert await answers(store, after(in_slots(slot, slot, 10))) == {True: 10}
    await asyncio.to_thread(migrate, slot, source, receiver, [other])
    assert (await answers(store, stolen(lost)))[True] == 0
    await store.aclose()


@pytest.mark.parametrize("waits", [False, True], ids=["a newcomer is last", "one that waits is first"])
async def test_a_bucket_that_passed_through_a_master_that_lost_data_is_a_loss(
    cluster: Cluster, waits: bool
) -> None:
    """The anchor that arrives is that of the first master, which has lost nothing."""
    source, between, receiver = cluster.servers
    slot = slots_between(0, 800)[0]
    busy, idle = store_of(cluster), store_of(cluster)
    for store in (busy, idle):
        assert await answers(store, [*in_slots(slot, slot, 1), *in_slots(SHARE, 16383, 30)]) == {True: 31}
    await asyncio.to_thread(migrate, slot, source, between, [receiver])
    # As a replica that doesn't have the following entries yet.
    between.run("SAVE")
    lost = in_slots(slot, slot, 10)
    assert await answers(busy, lost) == {True: 10}
    await asyncio.to_thread(between.restart)
    await eventually(lambda: "cluster_state:ok" in between.raw("CLUSTER INFO").decode())
    await asyncio.to_thread(migrate, slot, between, receiver, [source])
    newcomer = store_of(cluster, new_server="wait" if waits else "accept")
    for store in (newcomer, idle, busy) if waits else (idle, busy, newcomer):
        async with asyncio.timeout(60):
            while await answers(store, after(in_slots(slot, slot, 1))) != {True: 1}:
                await asyncio.sleep(0.02)
        assert (await answers(store, stolen(lost)))[True] == 0
        await store.aclose()


async def test_many_workers_that_start_together_on_a_new_cluster_find_it_new(cluster: Cluster) -> None:
    # In one process, in which all of them share the event loop.
    stores = [RedisReplayStore.from_url(cluster.url, timeout=20.0) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores[:3]))
    outcomes = await asyncio.gather(*(answers(store, in_slots(0, 16383, 50)) for store in stores))
    assert outcomes == [{True: 50}] * 6
    await eventually(lambda: sum(map(anchors_at, cluster.servers)) == 1024)
    for store in stores:
        await store.aclose()


def date_back(server: Server) -> None:
    """Make `server`'s anchors those of a store whose workers began a minute earlier than they did."""
    for name in server.run("KEYS", "dpop:{*}::anchor"):
        anchor = Anchor.parse(server.raw("GET", name))
        assert anchor is not None
        server.run("SET", name, replace(anchor, mark=b"%08x" % (anchor.begun - 60) + anchor.mark[8:]).value)


async def test_a_worker_that_opens_long_after_slots_were_lost_to_an_empty_node_finds_the_others(
    cluster: Cluster,
) -> None:
    dead, one, other = cluster.servers
    old = store_of(cluster)
    lost = in_slots(*FIRST, 50)
    assert await answers(old, [*lost, *in_slots(SHARE, 16383, 50)]) == {True: 100}
    await eventually(lambda: anchors_at(one) + anchors_at(other) > 600)
    empty = await asyncio.to_thread(cluster.add_server)
    empty.run("CLUSTER", "MEET", HOST, one.port)
    await eventually(lambda: empty.run("CLUSTER", "MYID") in str(one.raw("CLUSTER NODES")))
    await asyncio.to_thread(dead.kill)
    await asyncio.to_thread(give_away_without_data, *FIRST, empty, [one, other])
    await old.aclose()
    for server in (one, other):
        await asyncio.to_thread(date_back, server)
    newcomer = store_of(cluster)
    assert (await answers(newcomer, stolen(lost)))[True] == 0
    await newcomer.aclose()


async def told_of(server: Server, name: bytes, change: Callable[[], object]) -> list[object]:
    """The reports of `server` about the key `name`, which was read, before its next answer after `change`."""
    server.run("SET", name, "a")
    # Before version 8, redis-py uses the older protocol by default, which has no pushes.
    endpoint, told = endpoint_of_url(f"{server.url}?protocol=3"), list[object]()
    assert isinstance(endpoint, Standalone)
    connection = await endpoint.connect(5.0)
    connection.heed = told.append
    data = [command(b"CLIENT", b"TRACKING", b"ON"), command(b"GET", name)]
    await connection.replies(b"".join(data), len(data))
    await asyncio.to_thread(change)
    await connection.ask(command(b"PING"))
    await connection.disconnect()
    return told


def claim(slot: int, heir: Server, former: Server, other: Server) -> None:
    """Let `heir` have a slot of a master that lives, without its data."""
    other.run("CLUSTER", "DELSLOTS", slot)
    with heir.client() as client:
        # At once: between the two the former master may tell that the slot is its own.
        transaction = client.pipeline()
        for name in ("DELSLOTS", "ADDSLOTS"):
            transaction.execute_command("CLUSTER", name, slot)
        transaction.execute_command("CLUSTER", "BUMPEPOCH")
        transaction.execute()
    until(lambda: all(slot not in range(row[0], row[1] + 1) for row in slots_of(former, former)))


def slots_of(asked: Server, owner: Server) -> list[list[int]]:
    return [row[:2] for row in asked.raw("CLUSTER SLOTS") if row[2][1] == owner.port]


def evict_all(server: Server) -> None:
    server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    server.run("CONFIG", "SET", "maxmemory", "1mb")
    with contextlib.suppress(redis.ResponseError):
        server.run("SET", "{0}", "full")
    until(lambda: server.run("DBSIZE") == 0)
    server.run("CONFIG", "SET", "maxmemory", "0")


def hand_over(slot: int, source: Server, receiver: Server) -> None:
    source.raw("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", receiver.run("CLUSTER", "MYID"))
    until(lambda: all(slot not in range(row[0], row[1] + 1) for row in slots_of(source, source)))


async def test_a_server_reports_every_change_of_an_anchor_that_was_read(cluster: Cluster) -> None:
    source, receiver, other = cluster.servers
    names = dict(zip(BUCKETS.slots, BUCKETS.anchors, strict=True))
    changes: list[Callable[[int], object]] = [
        lambda slot: source.run("SET", names[slot], "b"),
        lambda slot: source.run("DEL", names[slot]),
        lambda slot: migrate(slot, source, receiver, [other]),
        lambda slot: evict_all(source),
        lambda slot: source.run("FLUSHALL"),
    ]
    if source.implementation == "valkey":
        # Redis 7.0 reports nothing where it loses a slot: there it isn't relied on.
        changes += [
            lambda slot: claim(slot, receiver, source, other),
            lambda slot: hand_over(slot, source, receiver),
        ]
    for slot, change in zip(slots_between(*FIRST), changes, strict=False):
        told = await told_of(source, names[slot], partial(change, slot))
        assert told in ([[b"invalidate", [names[slot]]]], [[b"invalidate", None]])


async def test_a_server_reports_when_it_takes_over_the_data_of_another(implementation: str) -> None:
    with Server(implementation=implementation) as server, Server(implementation=implementation) as other:

        def take_over() -> None:
            server.run("REPLICAOF", HOST, other.port)
            until(lambda: server.run("ROLE")[3] == "connected")
            server.run("REPLICAOF", "NO", "ONE")

        assert await told_of(server, b"anchor", take_over) == [[b"invalidate", None]]


async def test_anchors_are_read_once_a_second_where_the_server_reports_changes(cluster: Cluster) -> None:
    store = RedisReplayStore.from_url(f"{cluster.url}?protocol=3", timeout=30.0)
    clock, slot = asyncio.get_running_loop().time, slots_between(*FIRST)[0]
    assert await answers(store, in_slots(slot, slot, 1)) == {True: 1}
    server, began, entries = cluster.owner(slot), clock(), 300
    await eventually(lambda: sum(map(anchors_at, cluster.servers)) == 1024)
    before = reads_at(server)
    for _ in range(entries):
        assert await answers(store, in_slots(slot, slot, 1)) == {True: 1}
    read = reads_at(server) - before
    if server.implementation == "valkey":
        assert read <= 2 + (clock() - began) * 2
    else:
        assert read >= entries
    await store.aclose()


def reads_at(server: Server) -> int:
    return int(server.run("INFO", "commandstats")["cmdstat_get"]["calls"])


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_worker_with_the_older_protocol_reads_anchors_each_time(
    cluster: Cluster, protocol: int
) -> None:
    """That protocol has no pushes with which a server could report changes."""
    store = RedisReplayStore.from_url(f"{cluster.url}?protocol={protocol}", timeout=30.0)
    slot = slots_between(*FIRST)[0]
    used = in_slots(slot, slot, 5)
    assert await answers(store, used) == {True: 5}
    cluster.owner(slot).run("FLUSHALL")
    assert (await answers(store, stolen(used)))[True] == 0
    await store.aclose()


@pytest.mark.slow
async def test_slots_that_a_server_itself_moves_to_one_whose_clock_is_ahead_lost_entries() -> None:
    """Their entries expire there at the moment at which they would have expired before, by another clock."""
    if not can_have_clock(implementations()["valkey"]):
        missing()
    with Cluster(replicas=0, implementation="valkey", with_clocks=True) as cluster:
        source, target, _ = cluster.servers
        store = store_of(cluster)
        await asyncio.to_thread(target.set_clock, 60)
        used = [item._replace(expires_at=item.now + 40) for item in in_slots(0, 100, 10)]
        assert await answers(store, used) == {True: 10}
        source.raw("CLUSTER MIGRATESLOTS", "SLOTSRANGE", 0, 100, "NODE", target.run("CLUSTER", "MYID"))
        await asyncio.to_thread(until, lambda: cluster.owner(0) is target)
        assert (await answers(store, stolen(used)))[True] == 0
        # Others stay as they were.
        assert await answers(store, in_slots(2 * SHARE, 16383, 10)) == {True: 10}
        await store.aclose()


@pytest.mark.slow
async def test_a_slot_that_moved_after_its_masters_clock_was_set_forward_lost_entries() -> None:
    """The worker has sent the master nothing in between, and asks it about the anchor that moved."""
    if not can_have_clock(implementations()["valkey"]):
        missing()
    # With a shorter timeout the master would take its own step for a failure of the others.
    with Cluster(replicas=0, implementation="valkey", node_timeout=300.0, with_clocks=True) as cluster:
        source, target, other = cluster.servers
        moved, informant = slots_between(0, 800)[0], slots_between(SHARE, 2 * SHARE)[0]
        store = store_of(cluster)
        assert await answers(store, in_slots(0, 16383, 60)) == {True: 60}
        used = in_slots(moved, moved, 10)
        assert await answers(store, used) == {True: 10}
        await asyncio.to_thread(source.set_clock, 100)
        await asyncio.to_thread(migrate, moved, source, other, [target])
        # By the move of this one the worker learns of both.
        await asyncio.to_thread(migrate, informant, target, other, [source])
        assert (await answers(store, in_slots(informant, informant, 1)))[False] == 0
        await asyncio.sleep(1.0)
        assert (await answers(store, stolen(used)))[True] == 0
        await store.aclose()
