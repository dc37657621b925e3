"""What the caches of verified tokens and known clients weigh, and how long the collector looks through them.

    python -m tests.benchmarks.memory [--tokens 50000]

To be run in a process of its own, on Linux: memory is told from the growth of what is resident.
"""

import argparse
import asyncio
import gc
import resource
import time
from pathlib import Path

from dpop_middleware import JWTAccessTokenVerifier, ResourceRequest, ResourceServer
from tests.benchmarks.workload import RESOURCE, StubStore, Workload

CLIENTS = 4_000


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


async def weigh(tokens: int) -> None:
    """Fill the caches, and print what that cost."""
    workload = Workload()
    issuer, jkt = workload.issuer, workload.clients[0].key.jkt
    verifier = JWTAccessTokenVerifier(
        issuer=issuer.issuer, audience=RESOURCE, jwks=issuer.jwks(), max_cached_tokens=tokens + CLIENTS
    )
    for _ in range(200):
        await verifier.verify(issuer.token(jkt=jkt, scopes=("notes:read",)))
    before, empty = resident(), collection()
    for _ in range(tokens):
        await verifier.verify(issuer.token(jkt=jkt, scopes=("notes:read", "notes:write"), expires_in=3600))
    full = collection()
    print(f"a verified token: {(resident() - before) / tokens:,.0f} bytes")
    print(
        f"a full garbage collection: {full * 1e3:.1f} ms with {tokens:,} of them, {empty * 1e3:.1f} without"
    )

    server = ResourceServer(verifier=verifier, resource=RESOURCE, replay_store=StubStore())
    before = resident()
    for _ in range(CLIENTS):
        for scope in workload.unknown(1):
            await server.authenticate(ResourceRequest.from_scope(scope))
    print(
        f"a known client, with its key and its verified token: {(resident() - before) / CLIENTS:,.0f} bytes"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=50_000, help="verified tokens to keep")
    asyncio.run(weigh(parser.parse_args().tokens))


if __name__ == "__main__":
    main()
