"""One protected application of each framework, each protected as its users would, under one server.

The first segment of a path names the framework. Every one answers with the identity of the access token.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any

import django
import litestar
import quart
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from fastapi import FastAPI, Security
from litestar.handlers import get
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import AccessToken, DPoPMiddleware, DPoPPolicy, ResourceServer
from dpop_middleware import django as dpop_django
from dpop_middleware.fastapi import DPoPHTTPException, DPoPSecurity, dpop_exception_handler
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, World

__all__ = ["FRAMEWORKS", "every_framework"]


def by_plain_asgi(api: ResourceServer) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["user"].identity)(scope, receive, send)

    return DPoPMiddleware(app, api)


def by_starlette(api: ResourceServer) -> ASGIApp:
    @requires_dpop(api)
    async def whoami(request: Request) -> Response:
        return PlainTextResponse(request.user.identity)

    return Starlette(routes=[Route("/starlette", whoami)])


def by_fastapi(api: ResourceServer) -> ASGIApp:
    app = FastAPI()
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
    dpop = DPoPSecurity(api)

    @app.get("/fastapi")
    async def whoami(token: Annotated[AccessToken, Security(dpop)]) -> Response:
        return PlainTextResponse(token.identity)

    # A dependency alone can't put a nonce on every response.
    return app if api.policy.nonce == "off" else DPoPMiddleware(app, api)


def by_litestar(api: ResourceServer) -> ASGIApp:
    @get("/litestar", media_type="text/plain")
    async def whoami(request: litestar.Request[Any, Any, Any]) -> str:
        identity: str = request.scope["user"].identity
        return identity

    app: Any = litestar.Litestar([whoami], openapi_config=None)
    return DPoPMiddleware(app, api)


def by_quart(api: ResourceServer) -> ASGIApp:
    app = quart.Quart(__name__, static_folder=None)

    async def whoami() -> str:
        scope: Any = quart.request.scope
        identity: str = scope["user"].identity
        return identity

    app.add_url_rule("/quart", view_func=whoami)
    quarts: Any = app
    return DPoPMiddleware(quarts, api)


def by_django(api: ResourceServer) -> ASGIApp:
    @dpop_django.requires_dpop(api)
    async def whoami(request: Any) -> HttpResponse:
        return HttpResponse(request.user.username.encode())

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="-")
        django.setup()
    settings.ROOT_URLCONF = (path("django", whoami),)
    app: Any = get_asgi_application()
    return app  # type: ignore[no-any-return]


FRAMEWORKS: dict[str, Callable[[ResourceServer], ASGIApp]] = {
    "plain": by_plain_asgi,
    "starlette": by_starlette,
    "fastapi": by_fastapi,
    "litestar": by_litestar,
    "quart": by_quart,
    "django": by_django,
}


def every_framework(jwks: str, nonce: str) -> ASGIApp:
    """Return one application that holds one of each framework, for tokens signed by a key of `jwks`."""
    world = World()
    api = ResourceServer(
        issuer=world.issuer.issuer,
        resource=ORIGIN,
        jwks=json.loads(jwks),
        replay_store=world.store,
        nonces=world.nonces(),
        policy=DPoPPolicy(nonce=nonce),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    )
    built = {name: make(api) for name, make in FRAMEWORKS.items()}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        await built[scope["path"].split("/")[1]](scope, receive, send)

    return app
