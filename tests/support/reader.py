"""The environment of the code that a document shows: issuers, a server for its URLs, and the network."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import RedisReplayStore, ResourceServer, profiles
from dpop_middleware._request.secure_url import Endpoint
from dpop_middleware.client import DPoPAuth
from dpop_middleware.introspection._transport import BoundedTransport
from dpop_middleware.testing import TestIssuer
from dpop_middleware.tokens.fetch import Fetcher
from tests.support.readme import Block, blocks
from tests.support.valkey import HOST, Server, implementations

__all__ = [
    "API",
    "ISSUER",
    "PARTNER",
    "Scenario",
    "World",
    "ask",
    "driven",
    "follow",
    "opened",
    "readers_app",
    "replay",
    "world_of",
]

API = "https://api.example.com"
ISSUER = "https://auth.example.com"
PARTNER = "https://partner.okta.com/oauth2/default"


async def _who(request: Request) -> JSONResponse:
    """The reader's application: it answers with the user and the path."""
    verified = request.scope.get("dpop")
    subject = None if verified is None else verified.access_token.subject
    return JSONResponse({"subject": subject, "path": request.scope["raw_path"].decode()})


def readers_app() -> Starlette:
    return Starlette(routes=[Route("/{path:path}", _who, methods=["GET", "POST"])])


@dataclass
class World:
    """The environment of the reader's code: issuers, a server for its URLs, and the network."""

    patch: pytest.MonkeyPatch
    folder: Path
    stack: AsyncExitStack
    issuers: dict[str, TestIssuer] = field(default_factory=dict)
    stores: list[RedisReplayStore] = field(default_factory=list)
    server: Server | None = None
    opaque: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for issuer in (ISSUER, f"{ISSUER}/realms/main"):
            self.issuers[issuer] = TestIssuer(issuer, audience=API)
        self.issuers[PARTNER] = TestIssuer(PARTNER, audience="api://notes", profile=profiles.OKTA)
        self.patch.setattr(Fetcher, "get", self._fetched)
        self.patch.setattr(
            BoundedTransport, "handle_async_request", lambda _, request: self._introspected(request)
        )
        trustme.CA().cert_pem.write_to_path(str(self.folder / "ca.pem"))
        from_url = RedisReplayStore.from_url

        def redirected(url: str, **options: Any) -> RedisReplayStore:
            store = from_url(self.here(url), **options)
            self.stores.append(store)
            return store

        self.patch.setattr(RedisReplayStore, "from_url", redirected)

    def _fetched(self, endpoint: Endpoint, **_: object) -> dict[str, Any]:
        """The documents that the issuers publish."""
        for issuer, published in self.issuers.items():
            if endpoint.url == f"{issuer}/jwks":
                return published.jwks()
        issuer = endpoint.url.replace("/.well-known/oauth-authorization-server", "")
        return {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}

    async def _introspected(self, request: httpx2.Request) -> httpx2.Response:
        """The issuer's answers about its opaque tokens, and the endpoint to ask."""
        if request.method == "GET":
            found = {"issuer": ISSUER, "introspection_endpoint": f"{ISSUER}/introspect"}
            return httpx2.Response(200, json=found)
        assert str(request.url) == f"{ISSUER}/introspect"
        form = dict(parse_qsl((await request.aread()).decode()))
        return httpx2.Response(200, json=self.opaque.get(form["token"], {"active": False}))

    def here(self, url: str) -> str:
        """`url` with the address of our own server, and with a file that is there."""
        if self.server is None:
            self.server = self.stack.enter_context(Server())
        address = f"{HOST}:{self.server.port}"
        own = re.sub(r"localhost:6379|redis\.internal:6379", address, url)
        return own.replace("/etc/ssl/redis-ca.pem", str(self.folder / "ca.pem"))

    def auth(self, **arguments: Any) -> DPoPAuth:
        """Another client with a token of the issuer."""
        return self.issuers[ISSUER].auth(**arguments)

    async def run(self, snippet: Block) -> dict[str, Any]:
        """Execute `snippet` and return its names; what it opened is closed at the end."""
        names: dict[str, Any] = {
            "app": readers_app(),
            "__name__": f"{Path(snippet.document).parent.name}_line_{snippet.line}",
        }
        exec(compile("\n" * (snippet.line - 1) + snippet.text, snippet.document, "exec"), names)
        for value in names.values():
            if isinstance(value, ResourceServer):
                await self.stack.enter_async_context(value)
        return names


@asynccontextmanager
async def world_of(patch: pytest.MonkeyPatch, folder: Path) -> AsyncGenerator[World]:
    """Yield the world for one snippet."""
    async with AsyncExitStack() as stack:
        world = World(patch, folder, stack)
        yield world
        for store in world.stores:
            await store.aclose()


async def ask(app: ASGIApp, method: str, url: str, **options: Any) -> httpx2.Response:
    """Make one request to `app`; a path alone is asked of the API."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=API) as client:
        return await client.request(method, url, **options)


async def replay(app: ASGIApp, method: str, url: str, auth: DPoPAuth) -> list[int]:
    """The statuses of a request and of its replay by a thief."""
    honest = await ask(app, method, url, auth=auth)
    sent = {name: honest.request.headers[name] for name in ("Authorization", "DPoP")}
    return [honest.status_code, (await ask(app, method, url, headers=sent)).status_code]


Scenario = Callable[[dict[str, Any], World], Coroutine[Any, Any, None]]


def driven(document: str, scenarios: dict[str, list[Scenario]]) -> Iterator[Any]:
    """Each Python snippet of `document` that is no file of its own, with what drives it."""
    left = {heading: iter(all_of_them) for heading, all_of_them in scenarios.items()}
    for snippet in blocks("python", document):
        if snippet.file is None:
            scenario = next(left.get(snippet.heading, iter(())), None)
            yield pytest.param(snippet, scenario, id=f"{document} line {snippet.line}")


async def follow(snippet: Block, scenario: Scenario, world: World) -> None:
    """Run `snippet`, then its scenario, which asserts what the text says."""
    if "from_url" in snippet.text:
        if not implementations():
            pytest.skip("neither Valkey nor Redis is installed")
        world.here("")
    await scenario(await world.run(snippet), world)


async def opened(api: ResourceServer) -> None:
    """Wait for the store's first connection: on a busy machine a request may not wait long enough for it."""
    await api.open()
    async with asyncio.timeout(60):
        while not (await api.health()).replay_store.ok:
            await asyncio.sleep(0.05)
