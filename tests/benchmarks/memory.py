"""The memory of verified tokens with their clients, and how long the collector takes to traverse them.

    python -m tests.benchmarks.memory [--clients 50000]

Run it in a process of its own, on Linux: memory is measured as the growth of the resident set.
"""

import argparse
import asyncio
import gc
import resource
import time
from pathlib import Path

from dpop_middleware import ResourceRequest, ResourceServer
from tests.benchmarks.workload import RESOURCE, StubStore, Workload

WARM = 200


def resident() -> int:
    """Return how much memory the process has now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def collection() -> float:
    """Return the seconds that a full collection takes."""
    passes: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        gc.collect()
        passes.append(time.perf_counter() - started)
    return min(passes)


async def weigh(clients: int) -> None:
    """Let the server know this many clients, and print the cost."""
    workload = Workload()
    issuer = workload.issuer
    server = ResourceServer(
        issuer=issuer.issuer,
        resource=RESOURCE,
        jwks=issuer.jwks(),
        replay_store=StubStore(),
        max_cached_tokens=clients + WARM,
        max_cached_bytes=8192 * (clients + WARM),
    )

    async def known(count: int) -> None:
        for _ in range(count):
            for scope in workload.unknown(1):
                await server.authenticate(ResourceRequest.from_scope(scope))

    await known(WARM)
    before, empty = resident(), collection()
    await known(clients)
    weight, full = (resident() - before) / clients, collection()
    gc.freeze()
    print(f"a known client, with its key and its verified token: {weight:,.0f} bytes")
    print(
        f"a full garbage collection: {full * 1e3:.1f} ms with {clients:,} of them, "
        f"{empty * 1e3:.1f} without, {collection() * 1e3:.1f} after gc.freeze()"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=50_000, help="known clients to keep")
    asyncio.run(weigh(parser.parse_args().clients))


if __name__ == "__main__":
    main()
