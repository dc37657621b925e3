"""The issuer, the API's two servers of two workers each, and nginx in front of them."""

import contextlib
import json
import secrets
import shutil
import signal
import socket
import urllib.request
from typing import Any

from examples.production.files import Files
from examples.production.processes import HOST, Process, free_ports, until, uvicorn

SERVERS = (1, 2)
WORKERS = 2


def nginx() -> str | None:
    """Return Debian's nginx, None where there is none."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Service:
    """Starts, restarts and stops what serves; `change` writes what the next worker will read.

    Without nginx both servers listen on one socket, which we keep open, and TLS ends at them.
    """

    def __init__(self, files: Files, *, replay_store: str, front: str | None) -> None:
        self._files = files
        self._front = front
        *ports, at_front, at_issuer = free_ports(len(SERVERS) + 2)
        self.resource = f"https://localhost:{at_front}"
        self.issuer = f"https://localhost:{at_issuer}"
        self.client_secret = secrets.token_urlsafe(24)
        self.targets = files.directory("targets")
        self._ports = [at_front] * len(SERVERS) if front is None else ports
        self._listener = socket.create_server((HOST, at_front)) if front is None else None
        self._file = files.folder / "api.json"
        self._configuration: dict[str, Any] = {
            "issuer": self.issuer,
            "resource": self.resource,
            "replay_store": replay_store,
            "generation": 0,
        }
        self._servers = [self._server(number) for number in SERVERS]
        # Longer than its clients are silent: one that ends while a client uses it is a request lost.
        self._issuer = self._process("issuer", *self._tls(), f"--port={at_issuer}", "--timeout-keep-alive=60")
        self._nginx = Process(
            [front or "", "-c", str(files.folder / "nginx.conf"), "-e", str(files.folder / "nginx.log")],
            log=files.folder / "nginx.log",
        )

    @property
    def serves_alone(self) -> bool:
        """Whether there is no nginx in front."""
        return self._front is None

    def start(self) -> None:
        """Start all, and wait until every worker serves."""
        self._issuer.start(_port(self.issuer))
        for server, port in zip(self._servers, self._ports, strict=True):
            server.start(port)
        for number in SERVERS:
            self._wait_for_workers(number)
        if self._front is not None:
            first, second = self._ports
            values = {"PORT": _port(self.resource), "FIRST": first, "SECOND": second}
            self._files.configure("nginx.conf", values)
            self._nginx.start(_port(self.resource))

    def stop(self) -> None:
        """End every process."""
        for process in (self._nginx, *self._servers, self._issuer):
            process.stop()
        if self._listener is not None:
            self._listener.close()

    def change(self, **configuration: Any) -> None:
        """Write a changed configuration: workers that start from now on have it."""
        self._configuration |= {**configuration, "generation": self._configuration["generation"] + 1}
        self._file.touch(mode=0o600)
        self._file.write_text(json.dumps(self._configuration), encoding="utf-8")

    def restart(self, number: int) -> None:
        """Stop one server, start it again, and wait until its workers serve: the other one does meanwhile."""
        server = self._servers[number - 1]
        server.stop()
        server.start(self._ports[number - 1])
        self._wait_for_workers(number)

    def reload(self) -> None:
        """Let one server after the other replace its workers, and wait until the new ones serve."""
        for number in SERVERS:
            self._servers[number - 1].send(signal.SIGHUP)
            self._wait_for_workers(number)

    def rotate_keys(self) -> None:
        """Let the issuer sign with a new key."""
        self._issuer.send(signal.SIGUSR1)

    def withdraw_old_keys(self) -> None:
        """Let the issuer publish its newest key only."""
        self._issuer.send(signal.SIGUSR2)

    def ready(self) -> tuple[int, int]:
        """Ask each server whether it is ready, as an orchestrator would; return how many are, of how many."""
        ports = sorted(set(self._ports))
        return sum(map(self._is_ready, ports)), len(ports)

    def _wait_for_workers(self, number: int) -> None:
        wanted = [self._configuration["generation"]] * WORKERS
        until(lambda: self._workers(number) == wanted, f"the workers of server {number}")
        until(lambda: self._is_ready(self._ports[number - 1]), f"server {number} to be ready")

    def _workers(self, number: int) -> list[int]:
        """Return which configuration each worker of a server has, by its generation."""
        found: list[int] = []
        for file in self.targets.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # its worker ended between our two looks
                labels = json.loads(file.read_text(encoding="utf-8"))[0]["labels"]
                found += [int(labels["generation"])] * (labels["server"] == str(number))
        return found

    def _is_ready(self, port: int) -> bool:
        scheme, host = ("https", "localhost") if self._front is None else ("http", HOST)
        context = self._files.trust() if self._front is None else None
        try:
            with urllib.request.urlopen(f"{scheme}://{host}:{port}/ready", timeout=3, context=context):  # noqa: S310
                return True
        except OSError:
            return False

    def _server(self, number: int) -> Process:
        options = [f"--workers={WORKERS}", "--timeout-worker-healthcheck=60"]
        if self._listener is None:
            options.append(f"--port={self._ports[number - 1]}")
        else:
            options += [f"--fd={self._listener.fileno()}", *self._tls()]
        return self._process("api", *options, number=number)

    def _process(self, name: str, *options: str, number: int = 0) -> Process:
        environment = {
            "PRODUCTION_CONFIGURATION": str(self._file),
            "PRODUCTION_SERVER": str(number),
            "PRODUCTION_TARGETS": str(self.targets),
            "PRODUCTION_ISSUER": self.issuer,
            "PRODUCTION_RESOURCE": self.resource,
            "PRODUCTION_CLIENT_SECRET": self.client_secret,
            # How the API comes to trust a private CA when it fetches the issuer's keys.
            "SSL_CERT_FILE": str(self._files.authority),
        }
        return Process(
            uvicorn(f"production.{name}:create_app", *options),
            log=self._files.folder / f"{name}_{number}.log",
            environment=environment,
            descriptors=[] if self._listener is None else [self._listener.fileno()],
        )

    def _tls(self) -> list[str]:
        return [f"--ssl-certfile={self._files.certificate}", f"--ssl-keyfile={self._files.key}"]


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
