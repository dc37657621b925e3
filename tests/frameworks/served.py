"""Applications under granian and daphne, which want a process of their own: it ends when its stdin does."""

import asyncio
import importlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from tests.support.ports import free_port

__all__ = ["main", "serving_apart"]

HOUSE = Path(__file__).parents[2]


@contextmanager
def serving_apart(
    kind: str,
    root_path: str,
    *,
    factory: str = "tests.frameworks.houses:every_house",
    arguments: tuple[str, ...] = (),
    certificate: tuple[str, str] | None = None,
) -> Generator[str]:
    """Serve what `factory(*arguments)` returns by `kind` at `root_path` in another process; yield the origin.

    `certificate` names the files of a chain and its key: granian serves https then.
    """
    code = (
        f"import sys; sys.path.append({str(HOUSE)!r}); from tests.frameworks.served import main; "
        f"main({kind!r}, {root_path!r}, {factory!r}, {arguments!r}, {certificate!r})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def main(
    kind: str, root_path: str, factory: str, arguments: tuple[str, ...], certificate: tuple[str, str] | None
) -> None:
    """Serve until stdin ends; say on which port."""
    module, _, name = factory.partition(":")
    app = getattr(importlib.import_module(module), name)(*arguments)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    if kind == "granian":
        _granian(app, root_path, certificate)
    else:
        _daphne(app, root_path)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def _say(port: int) -> None:
    print(port, flush=True)  # noqa: T201


def _granian(app: ASGIApp, root_path: str, certificate: tuple[str, str] | None) -> None:
    from granian.constants import Interfaces
    from granian.server.embed import Server

    port = free_port()

    async def serve() -> None:
        server = Server(
            app,
            port=port,
            interface=Interfaces.ASGI,
            url_path_prefix=root_path or None,
            log_enabled=False,
            ssl_cert=Path(certificate[0]) if certificate else None,
            ssl_key=Path(certificate[1]) if certificate else None,
        )
        serving = asyncio.create_task(server.serve())
        while not await asyncio.to_thread(_listens, port):
            await asyncio.sleep(0.02)
        _say(port)
        await serving

    asyncio.run(serve())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _daphne(app: ASGIApp, root_path: str) -> None:
    from daphne.server import Server

    server: Any = Server(app, endpoints=["tcp:port=0:interface=127.0.0.1"], root_path=root_path)
    server.ready_callable = lambda: _say(server.listening_addresses[0][1])
    server.run()
