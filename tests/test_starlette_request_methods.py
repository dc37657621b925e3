"""Request methods: in a class that is decorated, or has something decorated, they reach no other attribute.

Starlette sees to that (`HTTPEndpoint.dispatch`), from our lower bound on: `tox -e lowest` shows it there.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dpop_middleware import ResourceServer
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import Fields, World, scope_of
from tests.support.asgi import Answer, call


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def reached() -> list[str]:
    return []


async def ask(endpoint: Any, method: str, fields: Fields | None = None, *, alone: bool = False) -> Answer:
    app = endpoint if alone else Starlette(routes=[Route("/notes", endpoint)])
    return await call(app, scope_of("/notes", fields, method=method))


Made = Callable[[ResourceServer, list[str]], Any]


def with_a_decorated_method(api: ResourceServer, reached: list[str]) -> Any:
    class Notes(HTTPEndpoint):
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
        def listing(self, request: Request) -> Response:
            reached.append("listing")
            return PlainTextResponse("secret")

    return Notes


def with_a_decorated_class(api: ResourceServer, reached: list[str]) -> Any:
    @requires_dpop(api)
    class Notes(HTTPEndpoint):
        def get(self, request: Request) -> Response:
            reached.append("get")
            return PlainTextResponse("secret")

        async def render(self, request: Request) -> Response:
            reached.append("render")
            return PlainTextResponse("secret")

    return Notes


def with_both(api: ResourceServer, reached: list[str]) -> Any:
    return requires_dpop(api)(with_a_decorated_method(api, reached))


def as_a_subclass(api: ResourceServer, reached: list[str]) -> Any:
    class More(with_a_decorated_method(api, reached)):  # type: ignore[misc]
        def more(self, request: Request) -> Response:
            reached.append("more")
            return PlainTextResponse("secret")

    return More


def as_a_mixin(api: ResourceServer, reached: list[str]) -> Any:
    class Reading:
        @requires_dpop(api)
        async def get(self, request: Request) -> Response:
            reached.append("get")
            return PlainTextResponse("secret")

        async def render(self, request: Request) -> Response:
            reached.append("render")
            return PlainTextResponse("secret")

    class Notes(Reading, HTTPEndpoint):
        pass

    return Notes


def below_another_decorator(api: ResourceServer, reached: list[str]) -> Any:
    def other(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            assert inspect.iscoroutinefunction(function)
            return await function(*args, **kwargs)

        return wrapper

    class Notes(HTTPEndpoint):
        @other
        @requires_dpop(api)
        async def get(self, request: Request) -> Response:
            reached.append("get")
            return PlainTextResponse("secret")

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
NO_METHODS = [
    "RENDER",
    "render",
    "get",
    "Get",
    "SEARCH",
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


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("alone", [True, False])
async def test_no_attribute_is_reached_by_its_name(
    world: World, reached: list[str], made: Made, alone: bool
) -> None:
    endpoint = made(world.server(), reached)
    for method in NO_METHODS:
        assert (await ask(endpoint, method, alone=alone)).status in (401, 405), method
        good = world.fields("/notes", method=method)
        assert (await ask(endpoint, method, good, alone=alone)).status in (401, 405), method
        assert reached == [], method


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_http_methods_are_reached_with_credentials(
    world: World, reached: list[str], made: Made, method: str
) -> None:
    endpoint = made(world.server(), reached)
    assert (await ask(endpoint, method)).status == 401
    assert reached == []
    assert (await ask(endpoint, method, world.fields("/notes", method=method))).status == 200
    assert reached[0] == "get"


async def test_methods_that_a_class_adds_to_starlettes_list_are_reached(world: World) -> None:
    class Cache(HTTPEndpoint):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._allowed_methods.append("PURGE")

        @requires_dpop(world.server())
        async def purge(self, request: Request) -> Response:
            return PlainTextResponse("purged")

    assert (await ask(Cache, "PURGE")).status == 401
    assert (await ask(Cache, "PURGE", world.fields("/notes", method="PURGE"))).body == b"purged"


async def test_a_dispatch_of_its_own_is_the_classs(world: World, reached: list[str]) -> None:
    class Own(HTTPEndpoint):
        @requires_dpop(world.server())
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("secret")

        async def dispatch(self) -> None:
            reached.append(self.scope["method"])
            await super().dispatch()

    assert (await ask(Own, "RENDER")).status == 405
    assert (await ask(Own, "GET")).status == 401
    assert reached == ["RENDER", "GET"]


@pytest.mark.parametrize("decorated", [True, False])
async def test_the_classs_own_answer_is_given(world: World, decorated: bool) -> None:
    class Notes(HTTPEndpoint):
        @requires_dpop(world.server())
        def get(self, request: Request) -> Response:
            return PlainTextResponse("secret")

        def method_not_allowed(self, request: Request) -> Response:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
            return PlainTextResponse("no", 418)

    endpoint = requires_dpop(world.server())(Notes) if decorated else Notes
    assert (await ask(endpoint, "RENDER", world.fields("/notes", method="RENDER"))).status == 418


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
