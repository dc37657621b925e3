"""A stranger looks for an arrangement in which a decorated function's refusal is a value that is ignored.

A seeded generator puts decorators, middleware, mounts and hosts around functions and classes under
`requires_dpop`. A stranger and a thief are answered 401 with a challenge each time, an honest client is
served.
"""

import functools
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route
from starlette.types import Receive, Scope, Send

from dpop_middleware import DPoPMiddleware, ResourceServer
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import World, scope_of
from tests.support.asgi import call
from tests.support.seeds import first_seed

ARRANGEMENTS = 400

Function = Callable[..., Any]
Protect = Callable[[Any], Any]


def plain(protect: Protect) -> Any:
    async def notes(request: Request) -> Response:
        return PlainTextResponse("reached")

    return protect(notes)


def synchronous(protect: Protect) -> Any:
    def notes(request: Request) -> Response:
        return PlainTextResponse("reached")

    return protect(notes)


def streaming(protect: Protect) -> Any:
    async def events() -> AsyncIterator[str]:
        yield "reached"

    async def notes(request: Request) -> Response:
        return StreamingResponse(events(), media_type="text/event-stream")

    return protect(notes)


def calling(protect: Protect) -> Any:
    async def caller(request: Request) -> str:
        return str(request.user.identity)

    protected = protect(caller)

    async def notes(request: Request) -> Response:
        return PlainTextResponse(f"reached by {await protected(request)}")

    return notes


def of_an_object(protect: Protect) -> Any:
    class Notes:
        async def read(self, request: Request) -> Response:
            return PlainTextResponse("reached")

        read = protect(read)

    return Notes().read


def method_of_a_class(protect: Protect) -> Any:
    class Notes(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("reached")

        get = protect(get)

    return Notes


def whole_class(protect: Protect) -> Any:
    class Notes(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("reached")

    return protect(Notes)


def returning(function: Function) -> Function:
    @functools.wraps(function)
    async def outer(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return outer


def going_on(function: Function) -> Function:
    @functools.wraps(function)
    async def outer(*args: Any, **kwargs: Any) -> Response:
        return PlainTextResponse(f"reached with {await function(*args, **kwargs)}")

    return outer


def unnamed(function: Function) -> Function:
    async def outer(request: Request) -> Any:
        return await function(request)

    return outer


async def passing(request: Request, call_next: Any) -> Any:
    return await call_next(request)


def asking(protect: Protect) -> Function:
    """Return a `dispatch` that asks a decorated function, and answers whatever that returns."""

    async def nothing(request: Request, call_next: Any) -> None:
        return None

    check = protect(nothing)

    async def dispatch(request: Request, call_next: Any) -> Any:
        await check(request, call_next)
        return PlainTextResponse("reached")

    return dispatch


class Asking:
    """Calls the function of its route, and answers whatever that returns."""

    def __init__(self, app: Any, endpoint: Any) -> None:
        self.app, self.endpoint = app, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.endpoint
        function = endpoint(scope, receive, send).get if isinstance(endpoint, type) else endpoint
        await function(Request(scope, receive, send))
        await PlainTextResponse("reached")(scope, receive, send)


KINDS = [plain, synchronous, streaming, calling, of_an_object, method_of_a_class, whole_class]
DECORATORS: list[Any] = [returning, going_on, unnamed, functools.partial]
PLACES = ["application", "FastAPI", "route", "mount", "host"]


def around_routes(
    lots: random.Random, api: ResourceServer, protect: Protect, *, place: str
) -> list[Middleware]:
    kinds = [
        Middleware(BaseHTTPMiddleware, dispatch=passing),
        Middleware(BaseHTTPMiddleware, dispatch=protect(passing)),
        Middleware(GZipMiddleware),
        Middleware(DPoPMiddleware, api, required=False),
    ]
    if place in ("route", "mount"):
        # Around a whole application an exception would be a 500.
        kinds.append(Middleware(BaseHTTPMiddleware, dispatch=asking(protect)))
    return lots.choices(kinds, k=lots.randrange(3))


def arranged(lots: random.Random, world: World) -> tuple[Any, str]:
    """Return an application, and what it consists of."""
    policy = lots.choice([{}, {"nonces": world.nonces()}])
    api = world.server(**policy).with_policy(nonce="fallback" if policy else "off")
    protect = requires_dpop(api, close_at_expiry=lots.choice([False, True]))
    kind, place = lots.choice(KINDS), lots.choice(PLACES)
    endpoint, decorators = kind(protect), lots.choices([*DECORATORS, protect], k=lots.randrange(4))
    if isinstance(endpoint, type):
        decorators = []
    for decorator in decorators:
        endpoint = decorator(endpoint)
    middleware = around_routes(lots, api, protect, place=place)
    outside = [] if place in ("route", "mount") else middleware
    names = [each.__name__ for each in (kind, *decorators)] + [str(each) for each in middleware]
    if place == "FastAPI" and not isinstance(endpoint, (type, functools.partial)):
        app: Any = FastAPI(middleware=outside)
        app.get("/notes")(endpoint)
    else:
        asked = [Middleware(Asking, endpoint)] if kind is not whole_class and lots.randrange(4) == 0 else []
        here = middleware if place == "route" else []
        names += [str(each) for each in asked]
        route = Route("/notes", endpoint, middleware=[*here, *asked])
        app = Starlette(routes=[route], middleware=outside)
    if place == "mount":
        app = Starlette(routes=[Mount("", app, middleware=middleware)])
    elif place == "host":
        app = Starlette(routes=[Host("api.example.test", app)])
    return app, f"{place}: {' < '.join(names)}"


async def test_whatever_is_around_a_decorated_function_a_stranger_is_refused() -> None:
    lots, world = random.Random(first_seed()), World()
    for _ in range(ARRANGEMENTS):
        app, parts = arranged(lots, world)
        stolen = world.fields("/notes")[:1]
        for fields in ([], stolen):
            refused = await call(app, scope_of("/notes", fields))
            assert refused.status == 401, parts
            assert refused.challenges[0].startswith("DPoP "), parts
            assert b"reached" not in refused.body, parts
        served = await call(app, scope_of("/notes", world.fields("/notes")))
        assert (served.status, served.body[:7]) == (200, b"reached"), parts
