"""Real ASGI servers on loopback, each in a thread of its own that ends with its `with` block."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import hypercorn
import hypercorn.asyncio
import trustme
import uvicorn
from starlette.types import ASGIApp

__all__ = ["SERVERS", "Certificate", "ServerKind", "exchange", "serving"]

ServerKind = Literal["uvicorn-httptools", "uvicorn-h11", "hypercorn"]
SERVERS: tuple[ServerKind, ...] = ("uvicorn-httptools", "uvicorn-h11", "hypercorn")


@dataclass(frozen=True)
class Certificate:
    """Files of a server's certificate chain and key, and what a client needs to trust it."""

    chain: Path
    key: Path
    trust: ssl.SSLContext

    @classmethod
    def for_loopback(cls, folder: Path) -> Self:
        """Write those of a new authority's certificate for 127.0.0.1 and localhost into `folder`."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        chain, key = folder / "chain.pem", folder / "key.pem"
        key.write_bytes(issued.private_key_pem.bytes())
        chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        return cls(chain, key, trust)


@contextmanager
def serving(
    kind: ServerKind,
    app_at: Callable[[str], ASGIApp],
    *,
    host: str = "127.0.0.1",
    root_path: str = "",
    certificate: Certificate | None = None,
    unix_socket: Path | None = None,
) -> Generator[str]:
    """Serve `app_at(origin)` and yield the origin; on a free port, or else on a Unix socket."""
    listener = _listener(host, unix_socket)
    shown = f"[{host}]" if ":" in host else host
    origin = f"http{'s' if certificate else ''}://{shown}:{listener.getsockname()[1]}"
    app = app_at("http://localhost" if unix_socket else origin)
    run = _hypercorn if kind == "hypercorn" else _uvicorn
    with listener, run(app, listener, kind, root_path, certificate):
        yield origin


def _listener(host: str, unix_socket: Path | None) -> socket.socket:
    if unix_socket is not None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(unix_socket))
    else:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.bind((host, 0))
    listener.listen()
    return listener


@contextmanager
def _uvicorn(
    app: Any, listener: socket.socket, kind: str, root_path: str, certificate: Certificate | None
) -> Generator[None]:
    by_h11 = kind == "uvicorn-h11"
    config = uvicorn.Config(
        app,
        log_level="critical",
        lifespan="on",
        loop="asyncio" if by_h11 else "auto",
        http="h11" if by_h11 else "httptools",
        ws="wsproto" if by_h11 else "auto",
        root_path=root_path,
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate.chain if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            threading.Event().wait(0.005)
        assert server.started
        yield
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def _hypercorn(
    app: Any, listener: socket.socket, _kind: str, root_path: str, certificate: Certificate | None
) -> Generator[None]:
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]  # hypercorn closes it
    config.root_path = root_path
    config.errorlog = None
    config.graceful_timeout = config.shutdown_timeout = 1
    if certificate:
        config.certfile, config.keyfile = str(certificate.chain), str(certificate.key)
    started, loops, stop = threading.Event(), list[asyncio.AbstractEventLoop](), asyncio.Event()

    async def announced(scope: Any, receive: Any, send: Any) -> None:
        async def announcing(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                started.set()

        await app(scope, receive, announcing if scope["type"] == "lifespan" else send)

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        serve: Any = hypercorn.asyncio.serve
        await serve(announced, config, shutdown_trigger=stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    try:
        assert started.wait(60)
        yield
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive()


def exchange(origin: str, request: bytes, *, timeout: float = 60) -> bytes:
    """Send raw bytes to an http origin on an IPv4 loopback port; return all that comes until it closes."""
    host, _, port = origin.removeprefix("http://").rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        try:
            connection.sendall(request)
            while chunk := connection.recv(65536):
                received += chunk
        except (ConnectionError, TimeoutError):
            pass  # a server that refuses early closes while we still send
    return received
