"""One worker process: two protected applications over one Redis replay store, asked by lines of JSON.

The first line says how the worker is configured, each further one is a request; the answers go to the
standard output. The worker ends when its standard input does. Its clock is as far off as it is told.

    {"id": 7, "api": "plain", "token": "…", "proof": "…"}  ->  {"id": 7, "status": 200, "nonce": null, …}
    {"id": 8}                                              ->  {"id": 8, "rss": …, "fds": …, "stalls": […]}
"""

import asyncio
import base64
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from redis.asyncio.cluster import ClusterNode, RedisCluster

from dpop_middleware import DPoPMiddleware, DPoPPolicy, HMACNonceProvider, RedisReplayStore, ResourceServer
from tests.support.adapters import ORIGIN, reached, scope_of
from tests.support.asgi import Answer, call
from tests.support.valkey import HOST

# A request and its answer are one line.
LONGEST_LINE = 1 << 20
# An event loop that is blocked for longer is reported, in seconds.
STALL = 0.1
_TICK = 0.02


def servers(config: Mapping[str, Any], store: RedisReplayStore) -> dict[str, ResourceServer]:
    """The two resource servers: one that goes by `iat` alone, one that knows nonces too."""
    offset = float(config["offset"])

    def server(namespace: str, policy: DPoPPolicy, nonces: HMACNonceProvider | None) -> ResourceServer:
        return ResourceServer(
            issuer=config["issuer"],
            resource=ORIGIN,
            jwks=config["jwks"],
            replay_store=store,
            replay_namespace=namespace,
            policy=policy,
            nonces=nonces,
            clock=lambda: time.time() + offset,
        )

    secret = base64.b64decode(config["secret"])
    plain = DPoPPolicy(proof_lifetime=float(config["proof_lifetime"]))
    return {
        "plain": server("plain", plain, None),
        "nonces": server("nonces", DPoPPolicy(nonce="fallback"), HMACNonceProvider(secret)),
    }


def store_of(config: Mapping[str, Any]) -> RedisReplayStore:
    """The store at a URL, or of a cluster whose nodes are reached at other ports than they announce."""
    if "url" in config:
        return RedisReplayStore.from_url(config["url"])
    ports = {int(port): int(proxy) for port, proxy in config["ports"].items()}

    def remap(address: tuple[str, int]) -> tuple[str, int]:
        return HOST, ports.get(address[1], address[1])

    client = RedisCluster(
        startup_nodes=[ClusterNode(HOST, port) for port in ports.values()],
        username=config["username"],
        password=config["password"],
        address_remap=remap,
    )
    return RedisReplayStore(client)


class Worker:
    """Answers the requests of the parent."""

    def __init__(self, apis: Mapping[str, ResourceServer], write: Callable[[bytes], None]) -> None:
        self._apps = {name: DPoPMiddleware(reached, api) for name, api in apis.items()}
        self._write = write
        self._stalls: list[tuple[float, float]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, line: bytes) -> None:
        """Answer one line, while others are still being judged."""
        task = asyncio.create_task(self._answer(json.loads(line)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait until everything is answered."""
        await asyncio.gather(*self._tasks)

    async def watch(self) -> None:
        """Record for how long the event loop is blocked."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if now - before > STALL:
                self._stalls.append((now, now - before))
            before = now

    async def _answer(self, request: Mapping[str, Any]) -> None:
        if "proof" not in request:
            self._tell(request["id"], **self._measure())
            return
        fields = [("Authorization", f"DPoP {request['token']}"), ("DPoP", request["proof"])]
        answer = await call(self._apps[request["api"]], scope_of("/notes", fields))
        self._tell(request["id"], status=answer.status, **told(answer))

    def _measure(self) -> dict[str, Any]:
        stalls, self._stalls = self._stalls, []
        return {"rss": resident(), "fds": descriptors(), "stalls": stalls}

    def _tell(self, number: int, **values: Any) -> None:
        self._write(json.dumps({"id": number, **values}).encode() + b"\n")


def told(answer: Answer) -> dict[str, Any]:
    """The parts of an answer that a client reads."""
    nonce, *_ = (*answer.values("dpop-nonce"), None)
    if answer.status == 200:
        return {"nonce": nonce}
    body = json.loads(answer.body)
    return {
        "nonce": nonce,
        "error": body.get("error", ""),
        "description": body.get("error_description", ""),
    }


def resident() -> int:
    """The resident memory of this process in bytes; where that isn't told, the most it ever was."""
    import resource  # where there are servers to test with

    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


async def main() -> None:
    """Serve until the parent closes the pipe or is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    config = json.loads(await reader.readline())
    output = sys.stdout.buffer

    def write(line: bytes) -> None:
        output.write(line)
        output.flush()

    store = store_of(config)
    apis = servers(config, store)
    worker = Worker(apis, write)
    async with AsyncExitStack() as stack:
        for api in apis.values():
            await stack.enter_async_context(api)
        watch = asyncio.create_task(worker.watch())
        write(b'{"id": 0}\n')
        while line := await reader.readline():
            worker.receive(line)
        await worker.finish()
        watch.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main())
