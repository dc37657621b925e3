"""The conformance suite for every framework adapter, as a team runs it for its own application."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Security
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from dpop_middleware import (
    AccessToken,
    DPoPMiddleware,
    DPoPPolicy,
    HMACNonceProvider,
    MemoryReplayStore,
    ResourceServer,
)
from dpop_middleware.fastapi import DPoPHTTPException, DPoPSecurity, dpop_exception_handler
from dpop_middleware.starlette import requires_dpop
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.conformance import Target, test_dpop_conformance

# Named, so that no linter takes the imported tests for an unused import.
__all__ = ["test_dpop_conformance"]

ISSUER = TestIssuer(audience="https://api.example.com")


def api(**changes: Any) -> ResourceServer:
    return ResourceServer(
        issuer=ISSUER.issuer,
        resource="https://api.example.com",
        jwks=ISSUER.jwks(),
        replay_store=MemoryReplayStore(),
        nonces=HMACNonceProvider(b"x" * 32),
        policy=DPoPPolicy(**changes),
    )


async def notes(request: Request) -> PlainTextResponse:
    return PlainTextResponse("notes")


def plain_asgi(server: ResourceServer) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"notes"})

    return DPoPMiddleware(app, server)


def starlette(server: ResourceServer) -> Any:
    return DPoPMiddleware(Starlette(routes=[Route("/notes", notes)]), server)


def mounted(server: ResourceServer) -> Any:
    inner = DPoPMiddleware(Starlette(routes=[Route("/", notes)]), server)
    return Starlette(routes=[Mount("/notes", inner)])


def decorator(server: ResourceServer) -> Any:
    return Starlette(routes=[Route("/notes", requires_dpop(server, "notes:read")(notes))])


def endpoint_class(server: ResourceServer) -> Any:
    @requires_dpop(server, "notes:read")
    class Notes(HTTPEndpoint):
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("notes")

    return Starlette(routes=[Route("/notes", Notes)])


def fastapi(server: ResourceServer) -> Any:
    dpop = DPoPSecurity(server)
    app = FastAPI()

    @app.get("/notes")
    async def read(token: Annotated[AccessToken, Security(dpop, scopes=["notes:read"])]) -> str:
        return token.identity

    return app


def fastapi_with_the_handler(server: ResourceServer) -> Any:
    app = fastapi(server)
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
    return app


def fastapi_under_the_middleware(server: ResourceServer) -> Any:
    return DPoPMiddleware(fastapi(server), server)


ADAPTERS: tuple[Callable[[ResourceServer], Any], ...] = (
    plain_asgi,
    starlette,
    mounted,
    decorator,
    endpoint_class,
    fastapi,
    fastapi_with_the_handler,
    fastapi_under_the_middleware,
)
POLICIES: tuple[dict[str, Any], ...] = (
    {}, {"accept_bearer": True}, {"nonce": "required"}, {"nonce": "fallback"}
)  # fmt: skip
SERVED = [
    pytest.param(
        (adapter, policy), id=f"{adapter.__name__}-{'-'.join(map(str, policy.values())) or 'strict'}"
    )
    for adapter in ADAPTERS
    for policy in POLICIES
    # A dependency alone can't put nonces on every response, and says so.
    if adapter not in (fastapi, fastapi_with_the_handler) or "nonce" not in policy
    # When a nonce is wanted no adapter decides: what they do with one is the same.
    if adapter is plain_asgi or policy.get("nonce") != "fallback"
]


@pytest.fixture(params=SERVED)
def dpop_target(request: pytest.FixtureRequest) -> Target:
    adapter, policy = request.param
    url = "https://api.example.com/notes/" if adapter is mounted else "https://api.example.com/notes?page=1"
    return Target.of(ISSUER, app=adapter(api(**policy)), url=url, scopes=["notes:read"])
