"""A production server whose store and verifier no test may ask, and an application that it protects."""

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dpop_middleware import AccessToken, ResourceServer
from dpop_middleware.starlette import requires_dpop

__all__ = ["RESOURCE", "NeverAsked", "production", "protected"]

RESOURCE = "https://api.example.com"


class NeverAsked:
    """A production store and verifier that no test may call."""

    issuers: tuple[str, ...] = ("https://auth.example.com",)

    async def add(self, entry: object) -> bool:
        raise AssertionError("the production store was asked")

    async def verify(self, token: str) -> AccessToken:
        raise AssertionError("the production verifier was asked")


def production(**changes: Any) -> ResourceServer:
    arguments: dict[str, Any] = {
        "issuer": "https://auth.example.com",
        "resource": RESOURCE,
        "audience": ["https://audience.example.com"],
        "public_url": "https://gateway.example.com/v1",
        "replay_store": NeverAsked(),
    }
    return ResourceServer(**(arguments | changes))


def protected(api: ResourceServer) -> Starlette:
    @requires_dpop(api, "notes:read")
    async def notes(request: Request) -> JSONResponse:
        token = request.scope["dpop"].access_token
        return JSONResponse({"sub": token.identity, "scopes": sorted(token.scopes)})

    return Starlette(routes=[Route("/notes", notes)])
