"""An example, served by uvicorn in a process of its own as its docstring says, and an issuer for it."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.support.issuer_server import IssuerServer

__all__ = ["RunningExample", "running_example"]

HOUSE = Path(__file__).parents[2]


@dataclass(frozen=True)
class RunningExample:
    """Where the example listens, and who issues tokens for it."""

    origin: str
    issuer: TestIssuer

    def auth(self, scopes: Iterable[str] = (), **claims: Any) -> DPoPAuth:
        key = DPoPKey.generate()
        arguments: dict[str, Any] = {"jkt": key.jkt, **claims}
        return DPoPAuth(key, self.issuer.token(scopes=scopes, **arguments))

    def fields(self, url: str, **claims: Any) -> dict[str, str]:
        """Return the header fields of one GET."""
        key = DPoPKey.generate()
        arguments: dict[str, Any] = {"jkt": key.jkt, **claims}
        token = self.issuer.token(**arguments)
        return {"Authorization": f"DPoP {token}", "DPoP": key.proof("GET", url, access_token=token)}


def documented_application(name: str) -> str:
    """Return the application that the example's docstring names, such as `examples.name.app:app`."""
    text = (HOUSE / "examples" / name / "app.py").read_text(encoding="utf-8")
    (application,) = re.findall(r"python -m uvicorn (\S+)", text)
    return str(application)


@contextmanager
def running_example(name: str) -> Generator[RunningExample]:
    """Run `examples/<name>` by its documented command on a free port."""
    with IssuerServer() as server, socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        issuer = TestIssuer(server.origin, audience=origin)
        server.publish(issuer.jwks())
        command = [sys.executable, "-m", "uvicorn", documented_application(name), "--log-level=warning"]
        process = subprocess.Popen(
            # The last entry of the path, so that an installed wheel comes before the checkout.
            [*command, f"--fd={listener.fileno()}", f"--app-dir={HOUSE / 'examples'}"],
            cwd=HOUSE,
            env={**os.environ, "ISSUER": server.origin, "RESOURCE": origin},
            pass_fds=[listener.fileno()],
        )
        try:
            _wait_until_it_answers(origin)
            yield RunningExample(origin, issuer)
        finally:
            process.terminate()
            assert process.wait(60) in (0, -15)


def _wait_until_it_answers(origin: str) -> None:
    # The socket already listens: a connection is answered when the server is up.
    host, _, port = origin.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert connection.recv(4) == b"HTTP"
