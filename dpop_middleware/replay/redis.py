"""The replay store that several workers and machines share, on Redis or Valkey (RFC 9449 section 11.1)."""

import asyncio
import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from redis.exceptions import RedisError

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.cluster import Cluster
from dpop_middleware.replay.connecting import Connect, connector, inspect
from dpop_middleware.replay.fence import NewServer
from dpop_middleware.replay.health import NodeHealth, StoreHealth, examine, require_fit
from dpop_middleware.replay.link import Link
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.pending import Outcome, PendingWrite
from dpop_middleware.replay.sentinel import sentinel_connector
from dpop_middleware.replay.settings import OnUnavailable, Settings
from dpop_middleware.replay.store import ReplayEntry
from dpop_middleware.replay.target import Target, target_of_client, target_of_url

__all__ = ["RedisReplayStore"]


@dataclass(frozen=True, slots=True)
class Session:
    """The connections of one event loop of one process."""

    pid: int
    writer: Link | Cluster


class RedisReplayStore:
    """Remembers proofs for all workers and machines that share a Redis or Valkey server, or a cluster.

    `client` is a `redis.asyncio` client: `Redis`, `Sentinel.master_for()` or `RedisCluster`. Its settings
    are used, not its connections, and it stays the caller's to close. Connections are opened at the first
    request of each process and event loop.

    - `prefix`: put before each key, so that several services can share a server. No braces.
    - `timeout`: seconds that one `add` may take in all, a retry included.
    - `max_waiting`: requests that may wait for one server; more are refused.
    - `wait_replicas`: replicas that must have confirmed an entry (`WAIT`) before it counts.
    - `strict`: refuse a server whose `maxmemory-policy` is not `noeviction`, instead of warning.
    - `new_server`: what to think of a server that was there before this store and knows nothing of us.
      `"accept"` takes it for new. It costs what a restart of the server together with every worker costs: the
      proofs of the minute before it can come back once. `"wait"` takes it for one that lost its memory, so
      that a proof which could have been accepted before the server started is answered 503, at a true first
      start too. A server that started, or was flushed, while this store existed is never taken for new.
    - `on_unavailable`: `"refuse"` answers 503 while the server can't be asked. `"local"` judges by this
      process's own memory instead: the same proof is then accepted once by each process.

    Raises `ConfigurationError` for what can't work. Not checked: entries that the server evicts, and a
    master that a partition has cut off from its replicas (see the README).
    """

    def __init__(
        self,
        client: object,
        *,
        prefix: str = "dpop",
        timeout: float = 0.25,
        max_waiting: int = 10_000,
        wait_replicas: int = 0,
        strict: bool = False,
        new_server: NewServer = "accept",
        on_unavailable: OnUnavailable = "refuse",
    ) -> None:
        self._settings = Settings(
            prefix=prefix,
            timeout=timeout,
            max_waiting=max_waiting,
            wait_replicas=wait_replicas,
            strict=strict,
            new_server=new_server,
            on_unavailable=on_unavailable,
        )
        self._target = client if isinstance(client, Target) else target_of_client(client)
        self._prefix = prefix.encode()
        self._timeout = timeout
        self._local = MemoryReplayStore() if on_unavailable == "local" else None
        self._local_answers = 0
        self._unavailable_answers = 0
        self._sessions: dict[asyncio.AbstractEventLoop, Session] = {}
        self._inherited: list[Session] = []
        self._looks: set[asyncio.Task[None]] = set()

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "dpop",
        timeout: float = 0.25,
        max_waiting: int = 10_000,
        wait_replicas: int = 0,
        strict: bool = False,
        new_server: NewServer = "accept",
        on_unavailable: OnUnavailable = "refuse",
    ) -> Self:
        """The store at `url`; see the class for the rest.

        `redis://user:password@host:6379/0`, `rediss://` for TLS, `unix:///path?db=0`,
        `redis+sentinel://host:26379,host:26379/service-name/0`, `redis+cluster://host:6379,host:6379`, the
        last two also with `rediss`. Query options are redis-py's, such as `ssl_ca_certs`.
        """
        return cls(
            target_of_url(url),
            prefix=prefix,
            timeout=timeout,
            max_waiting=max_waiting,
            wait_replicas=wait_replicas,
            strict=strict,
            new_server=new_server,
            on_unavailable=on_unavailable,
        )

    async def add(self, entry: ReplayEntry) -> bool:
        """Remember `entry`; True the first time, False when its proof was presented before.

        Raises `Unavailable` when that can't be known within the timeout.
        """
        if self._local is not None:
            return await self._add_with_local(entry, self._local)
        outcome = await self._ask(entry)
        if isinstance(outcome, bool):
            return outcome
        self._unavailable_answers += 1
        raise outcome

    async def health(self) -> StoreHealth:
        """Ask every server that takes writes how it is, on connections of their own: for readiness probes."""
        try:
            async with asyncio.timeout(self._timeout * 2):
                connects = await self._connects()
                nodes = await asyncio.gather(
                    *(self._node(name, connect) for name, connect in connects.items())
                )
        except (RedisError, OSError, TimeoutError) as error:
            nodes = [NodeHealth(address=self._name(), error=type(error).__name__)]
        return StoreHealth(
            ok=all(node.error is None for node in nodes),
            nodes=tuple(nodes),
            local_answers=self._local_answers,
            unavailable_answers=self._unavailable_answers,
        )

    async def open(self) -> None:
        """Look at every server in the background, and log what is wrong before a request finds out."""
        look = asyncio.get_running_loop().create_task(self._warn(), name="dpop replay store check")
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def _warn(self) -> None:
        for node in (await self.health()).nodes:
            if node.error is not None:
                self._settings.notices.warn(f"{node.address}: the replay store can't be used ({node.error})")
            for sentence in node.warnings:
                self._settings.notices.warn(sentence)

    async def aclose(self) -> None:
        """Close this event loop's connections; requests still waiting are answered 503.

        Other event loops keep theirs, and a later `add` opens new ones.
        """
        loop = asyncio.get_running_loop()
        looks = [look for look in self._looks if look.get_loop() is loop]
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        session = self._sessions.pop(loop, None)
        if session is not None and session.pid == os.getpid():
            await session.writer.aclose()

    async def _ask(self, entry: ReplayEntry) -> Outcome:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.writer.closed or session.pid != os.getpid():
            session = self._new_session(loop)
        write = PendingWrite(entry, self._prefix, self._timeout, loop)
        session.writer.submit(write)
        return await write.answer

    async def _add_with_local(self, entry: ReplayEntry, local: MemoryReplayStore) -> bool:
        known: Outcome
        try:
            known = await local.add(entry)
        except Unavailable as full:
            known = full
        if known is False:
            return False
        outcome = await self._ask(entry)
        if isinstance(outcome, bool):
            return outcome
        self._unavailable_answers += 1
        if isinstance(known, Unavailable):
            raise known
        self._local_answers += 1
        self._settings.notices.warn(
            "the replay store can't be asked: this process judges replays by its own memory "
            "(on_unavailable='local')"
        )
        return known

    def _new_session(self, loop: asyncio.AbstractEventLoop) -> Session:
        pid = os.getpid()
        for old, session in list(self._sessions.items()):
            if session.pid != pid:
                # Sockets that a fork copied: the parent uses them. Kept, so that nothing closes them here.
                self._inherited.append(self._sessions.pop(old))
            elif old.is_closed():
                del self._sessions[old]
        writer: Link | Cluster
        if self._target.kind == "cluster":
            writer = Cluster(self._target, self._settings)
        else:
            writer = Link(self._name(), self._connect(), self._settings)
        session = self._sessions[loop] = Session(pid, writer)
        return session

    def _connect(self) -> Connect:
        return (
            sentinel_connector(self._target) if self._target.kind == "sentinel" else connector(self._target)
        )

    async def _connects(self) -> Mapping[str, Connect]:
        if self._target.kind != "cluster":
            return {self._name(): self._connect()}
        topology = await Cluster(self._target, self._settings).topology()
        return {f"{host}:{port}": connector(self._target, (host, port)) for host, port in topology.masters}

    async def _node(self, name: str, connect: Connect) -> NodeHealth:
        try:
            channel = await connect(self._timeout)
            try:
                info = await inspect(channel)
            finally:
                await channel.put_away()
        except (RedisError, OSError) as error:
            return NodeHealth(address=name, error=type(error).__name__)
        # The one place that reads a clock: nobody hands in the time of a health check.
        health = examine(name, info, time.time())
        try:
            require_fit(health, self._settings)
        except RedisError as error:
            return dataclasses.replace(health, error=type(error).__name__)
        return health

    def _name(self) -> str:
        options: Mapping[str, Any] = self._target.options
        if self._target.kind != "standalone":
            return f"{self._target.kind} {self._target.service}".strip()
        return options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
