"""Request methods: only HTTP's own reach a decorated handler, with every version of Starlette."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dpop_middleware import ResourceServer
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import Fields, World, scope_of
from tests.support.asgi import Answer, call


class EarlyEndpoint(HTTPEndpoint):
    """Dispatches as Starlette before 1.1: to any attribute that has the method's name."""

    async def dispatch(self) -> None:
        request = Request(self.scope, receive=self.receive)
        name = "get" if request.method == "HEAD" and not hasattr(self, "head") else request.method.lower()
        handler: Any = getattr(self, name, self.method_not_allowed)
        if inspect.iscoroutinefunction(handler):
            response = await handler(request)
        else:
            response = await run_in_threadpool(handler, request)
        await response(self.scope, self.receive, self.send)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def reached() -> list[str]:
    return []


async def ask(endpoint: Any, method: str, fields: Fields | None = None, *, alone: bool = False) -> Answer:
    app = endpoint if alone else Starlette(routes=[Route("/notes", endpoint)])
    return await call(app, scope_of("/notes", fields, method=method))


Made = Callable[[ResourceServer, list[str], type[HTTPEndpoint]], Any]


def with_a_decorated_method(api: ResourceServer, reached: list[str], base: type[HTTPEndpoint]) -> Any:
    class Notes(base):  # type: ignore[valid-type, misc]
        @requires_dpop(api)
        async def get(self, request: Request) -> Response:
            reached.append("get")
            return await self.render(request)

        async def render(self, request: Request) -> Response:
            reached.append("render")
            return PlainTextResponse("secret")

        def search(self, request: Request) -> Response:
            reached.append("search")
            return PlainTextResponse("secret")

        @requires_dpop(api)
        def propfind(self, request: Request) -> Response:
            reached.append("propfind")
            return PlainTextResponse("properties")

        @requires_dpop(api)
        def listing(self, request: Request) -> Response:
            reached.append("listing")
            return PlainTextResponse("secret")

    return Notes


def with_a_decorated_class(api: ResourceServer, reached: list[str], base: type[HTTPEndpoint]) -> Any:
    @requires_dpop(api)
    class Notes(base):  # type: ignore[valid-type, misc]
        def get(self, request: Request) -> Response:
            reached.append("get")
            return PlainTextResponse("secret")

        async def render(self, request: Request) -> Response:
            reached.append("render")
            return PlainTextResponse("secret")

        def propfind(self, request: Request) -> Response:
            reached.append("propfind")
            return PlainTextResponse("properties")

    return Notes


def with_both(api: ResourceServer, reached: list[str], base: type[HTTPEndpoint]) -> Any:
    return requires_dpop(api)(with_a_decorated_method(api, reached, base))


def as_a_subclass(api: ResourceServer, reached: list[str], base: type[HTTPEndpoint]) -> Any:
    class More(with_a_decorated_method(api, reached, base)):  # type: ignore[misc]
        def more(self, request: Request) -> Response:
            reached.append("more")
            return PlainTextResponse("secret")

    return More


def as_a_mixin(api: ResourceServer, reached: list[str], base: type[HTTPEndpoint]) -> Any:
    class Reading:
        @requires_dpop(api)
        async def get(self, request: Request) -> Response:
            reached.append("get")
            return PlainTextResponse("secret")

        @requires_dpop(api)
        async def propfind(self, request: Request) -> Response:
            reached.append("propfind")
            return PlainTextResponse("properties")

        async def render(self, request: Request) -> Response:
            reached.append("render")
            return PlainTextResponse("secret")

    class Notes(Reading, base):  # type: ignore[valid-type, misc]
        pass

    return Notes


def below_another_decorator(api: ResourceServer, reached: list[str], base: type[HTTPEndpoint]) -> Any:
    def other(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            assert inspect.iscoroutinefunction(function)
            return await function(*args, **kwargs)

        return wrapper

    def both(function: Any) -> Any:
        return other(requires_dpop(api)(function))

    class Notes(base):  # type: ignore[valid-type, misc]
        @both
        async def get(self, request: Request) -> Response:
            reached.append("get")
            return PlainTextResponse("secret")

        @both
        async def propfind(self, request: Request) -> Response:
            reached.append("propfind")
            return PlainTextResponse("properties")

        @other
        async def render(self, request: Request) -> Response:
            reached.append("render")
            return PlainTextResponse("secret")

    return Notes


KINDS: list[Made] = [
    with_a_decorated_method,
    with_a_decorated_class,
    with_both,
    as_a_subclass,
    as_a_mixin,
    below_another_decorator,
]
BASES = [HTTPEndpoint, EarlyEndpoint]
NO_METHODS = [
    "RENDER",
    "render",
    "get",
    "Get",
    "LISTING",
    "MORE",
    "DISPATCH",
    "METHOD_NOT_ALLOWED",
    "__INIT__",
    "__CLASS__",
    "__AWAIT__",
    "_ALLOWED_METHODS",
    "SCOPE",
    "RECEIVE",
    "SEND",
    "",
]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("alone", [True, False])
async def test_no_attribute_is_reached_by_its_name(
    world: World, reached: list[str], made: Made, base: type[HTTPEndpoint], alone: bool
) -> None:
    endpoint = made(world.server(), reached, base)
    for method in NO_METHODS:
        assert (await ask(endpoint, method, alone=alone)).status in (401, 405), method
        good = world.fields("/notes", method=method)
        assert (await ask(endpoint, method, good, alone=alone)).status in (401, 405), method
        assert reached == [], method


@pytest.mark.parametrize("base", BASES)
async def test_a_helper_that_is_called_like_a_registered_method_is_none(
    world: World, reached: list[str], base: type[HTTPEndpoint]
) -> None:
    endpoint = with_a_decorated_method(world.server(), reached, base)
    assert (await ask(endpoint, "SEARCH", world.fields("/notes", method="SEARCH"))).status == 405
    assert reached == []


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_http_methods_are_reached_with_credentials(
    world: World, reached: list[str], made: Made, base: type[HTTPEndpoint], method: str
) -> None:
    endpoint = made(world.server(), reached, base)
    assert (await ask(endpoint, method)).status == 401
    assert reached == []
    assert (await ask(endpoint, method, world.fields("/notes", method=method))).status == 200
    assert reached[0] == "get"


@pytest.mark.parametrize("made", KINDS)
async def test_a_protected_handler_of_a_registered_method_is_reached(
    world: World, reached: list[str], made: Made
) -> None:
    endpoint = made(world.server(), reached, EarlyEndpoint)
    assert (await ask(endpoint, "PROPFIND")).status == 401
    good = world.fields("/notes", method="PROPFIND")
    assert (await ask(endpoint, "PROPFIND", good)).body == b"properties"
    assert reached == ["propfind"]


# Those of the HTTP Method Registry's whose names can be those of a Python method.
REGISTERED = re.findall(
    r"\w+",
    """
    ACL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL
    MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT QUERY REBIND REPORT
    SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF
""",
)


@pytest.mark.parametrize("method", REGISTERED)
async def test_every_registered_method_may_have_a_protected_handler(world: World, method: str) -> None:
    @requires_dpop(world.server())
    async def handler(self: HTTPEndpoint, request: Request) -> Response:
        return PlainTextResponse(request.method)

    endpoint = type("Endpoint", (EarlyEndpoint,), {method.lower(): handler})
    good = world.fields("/notes", method=method)
    assert (await ask(endpoint, method, good, alone=True)).body.decode() == method


async def test_methods_that_a_class_adds_to_starlettes_list_are_reached(world: World) -> None:
    class Cache(EarlyEndpoint):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._allowed_methods.append("PURGE")

        @requires_dpop(world.server())
        async def purge(self, request: Request) -> Response:
            return PlainTextResponse("purged")

    assert (await ask(Cache, "PURGE")).status == 401
    assert (await ask(Cache, "PURGE", world.fields("/notes", method="PURGE"))).body == b"purged"


async def test_a_dispatch_of_its_own_is_guarded_too(world: World, reached: list[str]) -> None:
    class Own(HTTPEndpoint):
        @requires_dpop(world.server())
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("secret")

        async def dispatch(self) -> None:
            reached.append(self.scope["method"])
            await super().dispatch()

    assert (await ask(Own, "RENDER")).status == 405
    assert (await ask(Own, "GET")).status == 401
    assert reached == ["GET"]


async def test_a_class_that_is_made_by_hand_keeps_its_decorated_methods(
    world: World, reached: list[str]
) -> None:
    async def listing(self: Any, request: Request) -> Response:
        reached.append("listing")
        return PlainTextResponse("secret")

    made = type("Notes", (EarlyEndpoint,), {"listing": requires_dpop(world.server())(listing)})
    assert (await ask(made, "LISTING", world.fields("/notes", method="LISTING"))).status == 405
    assert reached == []


async def test_the_classs_own_answer_is_given(world: World) -> None:
    class Notes(HTTPEndpoint):
        @requires_dpop(world.server())
        def get(self, request: Request) -> Response:
            return PlainTextResponse("secret")

        def method_not_allowed(self, request: Request) -> Response:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
            return PlainTextResponse("no", 418)

    assert (await ask(Notes, "RENDER")).status == 418


async def test_a_view_that_is_no_endpoint_is_left_alone(world: World) -> None:
    class Views:
        @requires_dpop(world.server())
        async def notes(self, request: Request) -> Response:
            return PlainTextResponse("notes")

        async def dispatch(self, request: Request, more: int) -> int:
            return more

    views = Views()
    assert await views.dispatch(Request(scope_of("/")), 7) == 7
    app = Starlette(routes=[Route("/notes", views.notes, methods=["RENDER"])])
    assert (await call(app, scope_of("/notes", method="RENDER"))).status == 401
    good = world.fields("/notes", method="RENDER")
    assert (await call(app, scope_of("/notes", good, method="RENDER"))).body == b"notes"


async def test_a_method_that_is_decorated_after_its_class_was_made(world: World, reached: list[str]) -> None:
    class Notes(EarlyEndpoint):
        async def listing(self, request: Request) -> Response:
            reached.append("listing")
            return PlainTextResponse("secret")

    Notes.listing = requires_dpop(world.server())(Notes.listing)  # type: ignore[method-assign]
    assert (await ask(Notes, "LISTING", world.fields("/notes", method="LISTING"))).status == 405
    assert reached == []


def test_nothing_is_left_in_the_class(world: World) -> None:
    made = with_a_decorated_method(world.server(), [], HTTPEndpoint)
    assert not [name for name in vars(made) if "guard" in name]
