"""Programs of others, as processes of their own on loopback."""

import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["listening"]


@contextmanager
def listening(
    command: Sequence[str], port: int, log: Path, *, environ: Mapping[str, str] | None = None
) -> Generator[None]:
    """Run a server until the block ends, which begins when it listens on `port`; its output goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
        try:
            _wait_for(process, port, log)
            yield
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until `process` listens on `port`; if it ends before, say what is in its `log`."""
    for _ in range(3000):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError(log.read_text())
