"""Processes of ours: each has a log, and ends by its id."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HOST = "127.0.0.1"
# Below the ports that the system lends out: what restarts must find its port free.
PORTS = range(28_000, 32_000)
WITHIN = 120.0


class Process:
    """One program and those that it starts; it may be started again after it ended."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self._command = command
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._descriptors = descriptors
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, port: int) -> None:
        """Start it, and wait until it listens on `port`."""
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=log,
                stderr=log,
                pass_fds=self._descriptors,
                start_new_session=True,
            )
        until(lambda: self._listens(port), f"{Path(self._command[0]).name} to listen on port {port}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self._running is not None:
            self._running.send_signal(number)

    def stop(self) -> None:
        """Let it finish what it does; after a minute without success, kill it."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._running is not None:
                self._running.wait(WITHIN)
        self.kill()

    def kill(self) -> None:
        """End it as a power cut would, with what it started."""
        running, self._running = self._running, None
        if running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()

    def _listens(self, port: int) -> bool:
        if self._running is None or self._running.poll() is not None:
            raise RuntimeError(f"{self._command[0]} ended:\n{self._log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        return False


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` is true, and raise TimeoutError that names `what` after a minute."""
    end = time.monotonic() + WITHIN
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Return unused ports of 127.0.0.1."""
    found: list[int] = []
    start = secrets.randbelow(len(PORTS))
    for port in (*PORTS[start:], *PORTS[:start]):
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def uvicorn(application: str, *options: str) -> list[str]:
    """Return the command that serves an application factory of the examples."""
    examples = Path(__file__).parents[1]
    command = [sys.executable, "-m", "uvicorn", application, "--factory", f"--app-dir={examples}"]
    return [*command, "--log-level=warning", "--timeout-graceful-shutdown=10", *options]
