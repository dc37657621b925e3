"""One application of each framework, alone and mounted, each behind the middleware.

Every handler says whether it is one of those that are listed as public, or the one for all other paths.
"""

import asyncio
import json
from typing import Any

import blacksheep
import django
import litestar
import quart
from blacksheep.server.routing import Router
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from fastapi import FastAPI
from litestar.handlers import get
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpop_middleware import DPoPMiddleware
from tests.support.adapters import World

__all__ = ["LISTED", "MOUNT", "every_house"]

LISTED = ("/health", "/static/*")
MOUNT = "/mnt"


def by_starlette() -> ASGIApp:
    async def public(request: Request) -> Response:
        return PlainTextResponse("public")

    async def protected(request: Request) -> Response:
        return PlainTextResponse("protected")

    return Starlette(
        routes=[
            Route("/health", public),
            Route("/static/{rest:path}", public),
            Route("/{rest:path}", protected),
        ]
    )


def by_fastapi() -> ASGIApp:
    app = FastAPI(openapi_url=None)

    async def public() -> Response:
        return PlainTextResponse("public")

    async def protected() -> Response:
        return PlainTextResponse("protected")

    app.get("/health")(public)
    app.get("/static/{rest:path}")(public)
    app.get("/{rest:path}")(protected)
    return app


def by_litestar() -> ASGIApp:
    @get(["/health", "/static/{rest:path}"], media_type="text/plain")
    async def public() -> str:
        return "public"

    @get(["/", "/static", "/health/{rest:path}", "/{rest:path}"], media_type="text/plain")
    async def protected() -> str:
        return "protected"

    app: Any = litestar.Litestar([public, protected], openapi_config=None)
    return app  # type: ignore[no-any-return]


def by_quart() -> ASGIApp:
    app = quart.Quart(__name__, static_folder=None)

    async def public(rest: str = "") -> str:
        return "public"

    async def protected(rest: str = "") -> str:
        return "protected"

    app.add_url_rule("/health", view_func=public)
    app.add_url_rule("/static/<path:rest>", view_func=public)
    app.add_url_rule("/", view_func=protected)
    app.add_url_rule("/<path:rest>", view_func=protected)
    quarts: Any = app
    return quarts  # type: ignore[no-any-return]


def by_django() -> ASGIApp:
    async def public(request: HttpRequest, rest: str = "") -> HttpResponse:
        return HttpResponse(b"public")

    async def protected(request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"protected")

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="-")
        django.setup()
    # Another module of this folder may have left its own.
    settings.ROOT_URLCONF = (
        re_path("^health$", public),
        re_path("^static/(?P<rest>.+)$", public),
        re_path("(?s)^.*$", protected),
    )
    app: Any = get_asgi_application()
    return app  # type: ignore[no-any-return]


def by_blacksheep() -> ASGIApp:
    app = blacksheep.Application(router=Router())  # the default is one for all

    async def public(request: blacksheep.Request) -> blacksheep.Response:
        return blacksheep.text("public")

    async def protected(request: blacksheep.Request) -> blacksheep.Response:
        return blacksheep.text("protected")

    app.router.add_get("/health", public)
    app.router.add_get("/static/{path:rest}", public)
    app.router.add_get("/", protected)
    app.router.add_get("/{path:rest}", protected)
    sheep: Any = app
    return sheep  # type: ignore[no-any-return]


FRAMEWORKS = {
    "starlette": by_starlette,
    "fastapi": by_fastapi,
    "litestar": by_litestar,
    "quart": by_quart,
    "django": by_django,
    "blacksheep": by_blacksheep,
}


def houses() -> dict[str, ASGIApp]:
    """Return every framework's application behind the middleware: alone, inside a mount, around a mount."""
    api = World().server()
    built: dict[str, ASGIApp] = {}
    for name, make in FRAMEWORKS.items():
        built[f"{name} alone"] = DPoPMiddleware(make(), api, public_paths=LISTED)
        mounted = DPoPMiddleware(make(), api, public_paths=LISTED)
        built[f"{name} inside a mount"] = Starlette(routes=[Mount(MOUNT, mounted)])
        around = Starlette(routes=[Mount(MOUNT, make())])
        listed = [MOUNT + path for path in LISTED]
        built[f"{name} around a mount"] = DPoPMiddleware(around, api, public_paths=listed)
    return built


async def _ask(app: ASGIApp, scope: Scope) -> str:
    messages: list[Message] = []
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not asked:
            await asyncio.Event().wait()
        return asked.pop()

    async def send(message: Message) -> None:
        messages.append(message)

    await app({**scope, "headers": list(scope["headers"]), "state": {}}, receive, send)
    body = b"".join(message.get("body", b"") for message in messages)
    return f"{messages[0]['status']} {body.decode() if messages[0]['status'] == 200 else ''}"


def every_house() -> ASGIApp:
    """Return one application that asks all of them and answers with what each has answered."""
    built = houses()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        answers = await asyncio.gather(
            *(_ask(house, scope) for house in built.values()), return_exceptions=True
        )
        told = {name: str(answer) for name, answer in zip(built, answers, strict=True)}
        seen = {"path": scope["path"], "root_path": scope.get("root_path", ""), "answers": told}
        body = json.dumps(seen).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
