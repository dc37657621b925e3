"""The replay store that several workers and machines share, on Redis or Valkey (RFC 9449 section 11.1)."""

import asyncio
import dataclasses
import os
import time
from dataclasses import dataclass
from typing import Self, Unpack

from dpop_middleware._runtime import begin
from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.cluster import Cluster
from dpop_middleware.replay.redis.connection import Connect, inspect
from dpop_middleware.replay.redis.endpoints import (
    AnyEndpoint,
    ClusterNodes,
    endpoint_of_client,
    endpoint_of_url,
)
from dpop_middleware.replay.redis.health import (
    NodeHealth,
    StoreHealth,
    cause,
    examine,
    likely_cause,
    require_fit,
    try_out,
)
from dpop_middleware.replay.redis.options import Options, Settings, check_transport
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.topology import tag_of
from dpop_middleware.replay.redis.writer import Writer
from dpop_middleware.replay.redis.writes import Outcome, PendingWrite
from dpop_middleware.replay.store import ReplayEntry

__all__ = ["RedisReplayStore"]


@dataclass(frozen=True, slots=True)
class Session:
    """The connections of one event loop of one process."""

    pid: int
    writer: Writer | Cluster


class RedisReplayStore:
    """Remembers proofs for all workers and machines that share a Redis or Valkey server, or a cluster.

    `client` is a `redis.asyncio` client: `Redis`, `Sentinel.master_for()` or `RedisCluster`. Its settings are
    used, not its connections, and the caller must close it. Connections are opened by `open`, or at the first
    request of each process and event loop.

    - `prefix`: put before each key, so that several services can share a server. No braces. Default `"dpop"`.
    - `timeout`: seconds that one `add` may take in total, including a retry. Default 0.25.
    - `max_waiting`: requests that may wait for one server; more are refused. Default 10,000.
    - `wait_replicas`: replicas that must have confirmed an entry (`WAIT`) before it counts. Default 0.
    - `strict`: True refuses a server whose `maxmemory-policy` is not `noeviction`, or is unknown, when the
      store connects; False, the default, warns.
    - `new_server`: how to treat a server that started before this store and has no data of it. `"accept"`,
      the default, treats it as new. The cost: where a server has lost its entries and the first worker to
      write there afterwards started after the loss, the proofs of the minute before can be replayed at such
      workers, once each, until a worker writes that had started before the loss. `"wait"` treats it as a
      server that has just lost its data, so that a proof which could have been accepted before is answered
      503, also at a true first start. In a cluster, slots that had moved when this store was opened count as
      lost too, unless a worker that knew them has written there since. A server that started, or was
      flushed, after this store was opened (`open`, which the middleware's lifespan calls) or first used is
      never treated as new.
    - `on_unavailable`: `"refuse"`, the default, answers 503 while the server can't be asked. `"local"` uses
      this process's own memory instead: each process then accepts the same proof once.
    - `on_evictions`: `"refuse"`, the default, treats keys that the server evicts as lost entries: requests
      are answered 503 while that lasts. `"accept"` ignores it, and evicted proofs can be replayed.
    - `retention`: seconds for which each entry is kept at least, where the policies need less; a day at most.
      Before a change of policy that needs more, set the longer one in all workers: then no request is refused
      while the change is rolled out. The cost: memory at the server. Default 0.
    - `on_exchange`: called, synchronously, with an `events.StoreExchange` for each exchange with a server.
    - `unverified_tls`: True accepts TLS that verifies no certificate or no host name. The cost: an attacker
      between this process and the server can claim that no proof was used before, and read the password.

    Raises `ConfigurationError` for unusable options. Evicted keys, and data that was replaced and restored
    while a connection survived, are noticed within a second. Not detected: a master that a partition has cut
    off from its replicas (`wait_replicas` avoids it), and what else the chapter on the replay store lists.
    """

    def __init__(self, client: object, **options: Unpack[Options]) -> None:
        settings = self._settings = Settings.of(options)
        self._endpoint: AnyEndpoint = (
            client if isinstance(client, AnyEndpoint) else endpoint_of_client(client)
        )
        check_transport(self._endpoint, settings)
        is_cluster = isinstance(self._endpoint, ClusterNodes)
        self._buckets = Buckets(settings.prefix.encode(), spread=is_cluster)
        self._local = MemoryReplayStore() if settings.on_unavailable == "local" else None
        self._local_answers = 0
        self._unavailable_answers = 0
        self._sessions: dict[asyncio.AbstractEventLoop, Session] = {}
        self._inherited: list[Session] = []
        self._looks: set[asyncio.Task[None]] = set()

    @classmethod
    def from_url(cls, url: str, **options: Unpack[Options]) -> Self:
        """The store at `url`; the options are those of the class.

        `redis://user:password@host:6379/0`, `rediss://` for TLS, `unix:///path?db=0`,
        `redis+sentinel://host:26379,host:26379/service-name/0`, `redis+cluster://host:6379,host:6379`, the
        last two also with `rediss`. `valkey` and `valkeys` mean `redis` and `rediss`. Query options are
        redis-py's, such as `ssl_ca_certs`. Raises `ConfigurationError`.
        """
        return cls(endpoint_of_url(url), **options)

    async def add(self, entry: ReplayEntry) -> bool:
        """Remember `entry`; True the first time, False when its proof was presented before.

        Raises `Unavailable` when that can't be known within the timeout, ValueError or TypeError for an entry
        that can't be judged.
        """
        loop = asyncio.get_running_loop()
        write = PendingWrite(entry, self._buckets, self._settings, loop)
        known = None if self._local is None else await _known(self._local, entry)
        if known is False:
            return False
        self._session(loop).writer.submit(write)
        outcome = await write.answer
        if isinstance(outcome, bool):
            return outcome
        self._unavailable_answers += 1
        if known is not True:
            raise known or outcome
        self._local_answers += 1
        self._settings.notices.warn(
            "the replay store can't be asked: this process judges replays by its own memory "
            "(on_unavailable='local')",
            again_after=60,
        )
        return True

    async def health(self) -> StoreHealth:
        """Check every server that takes writes, and write a key there that lives for a second.

        For readiness probes: on separate connections, within twice the `timeout`.
        """
        try:
            async with asyncio.timeout(self._settings.timeout * 2):
                # In a task: the errors there have nothing of what the caller is handling.
                servers = await begin(self._servers(), name="dpop replay store servers")
                nodes = await asyncio.gather(*(self._node(*server) for server in servers))
        except Exception as error:  # noqa: BLE001 - as in `_node`
            nodes = [NodeHealth(address=self._endpoint.name, error=cause(error))]
        return StoreHealth(
            ok=all(node.error is None for node in nodes),
            nodes=tuple(nodes),
            local_answers=self._local_answers,
            unavailable_answers=self._unavailable_answers,
        )

    async def open(self) -> None:
        """Connect to every server in the background, and log errors before the first request.

        A worker that calls it notices losses of its servers from then on, otherwise from its first request
        on.
        """
        loop = asyncio.get_running_loop()
        self._session(loop).writer.open()
        look = begin(self._warn(), name="dpop replay store check")
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def _warn(self) -> None:
        for node in (await self.health()).nodes:
            if node.error is not None:
                error = f"({node.error}){likely_cause(node.error)}"
                self._settings.notices.warn(
                    f"{node.address}: the replay store can't be used {error}", again_after=60
                )
            for sentence in node.warnings:
                self._settings.notices.warn(sentence)

    async def aclose(self) -> None:
        """Close this event loop's connections; requests still waiting are answered 503.

        Other event loops keep theirs, and a later `add` opens new ones.
        """
        loop = asyncio.get_running_loop()
        looks = [look for look in self._looks.copy() if look.get_loop() is loop]
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        session = self._sessions.pop(loop, None)
        if session is not None and session.pid == os.getpid():
            await session.writer.aclose()

    def _session(self, loop: asyncio.AbstractEventLoop) -> Session:
        session = self._sessions.get(loop)
        if session is None or session.writer.closed or session.pid != os.getpid():
            return self._new_session(loop)
        return session

    def _new_session(self, loop: asyncio.AbstractEventLoop) -> Session:
        pid = os.getpid()
        for old, session in self._sessions.copy().items():
            if session.pid == pid and not old.is_closed():
                continue
            # Another thread may have done so.
            self._sessions.pop(old, None)
            if session.pid != pid:
                # Sockets that a fork copied belong to the parent. They are kept here so that nothing closes
                # them.
                self._inherited.append(session)
        writer: Writer | Cluster
        endpoint = self._endpoint
        if isinstance(endpoint, ClusterNodes):
            writer = Cluster(endpoint, self._settings, self._buckets)
        else:
            writer = Writer(endpoint.name, endpoint.connect, self._settings, Sights(self._buckets), None)
        session = self._sessions[loop] = Session(pid, writer)
        return session

    async def _servers(self) -> list[tuple[str, Connect, bytes]]:
        """Each server that takes writes: its name, how to connect, the hash tag of a slot that it owns."""
        endpoint = self._endpoint
        if not isinstance(endpoint, ClusterNodes):
            return [(endpoint.name, endpoint.connect, b"")]
        topology = await Cluster(endpoint, self._settings, self._buckets).topology()
        return [
            (f"{host}:{port}", endpoint.at((host, port)), tag_of(topology, (host, port)) or b"")
            for host, port in topology.masters
        ]

    async def _node(self, name: str, connect: Connect, tag: bytes) -> NodeHealth:
        health = NodeHealth(address=name)
        try:
            connection = await connect(self._settings.timeout)
            try:
                # The only clock that is read here: a health check isn't given the time.
                health = examine(name, await inspect(connection), time.time())
                require_fit(health, self._settings)
                return await try_out(connection, health, self._settings, tag)
            finally:
                await connection.disconnect()
        except Exception as error:  # noqa: BLE001 - a credential provider may raise anything; it is the verdict
            return dataclasses.replace(health, error=cause(error))


async def _known(local: MemoryReplayStore, entry: ReplayEntry) -> Outcome:
    """What this process's own memory says of `entry`; an error where it is full."""
    try:
        return await local.add(entry)
    except Unavailable as full:
        return full
