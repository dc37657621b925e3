"""A decorated function that is called again while it runs, with another request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.testclient import TestClient
from starlette.types import Message

from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, World, scope_of
from tests.support.asgi import call


@pytest.fixture
def world() -> World:
    return World()


async def asks_again(request: Request, again: Callable[..., Any], *others: Any) -> Response:
    """Call `again` with a request of the same connection that has no credentials."""
    scope = {**request.scope, "method": "GET", "headers": [(b"host", b"api.example.test")]}
    await again(Request(scope), *others)
    return PlainTextResponse("went on")


@pytest.mark.parametrize("kind", ["once", "twice", "the inner one", "method", "another method"])
def test_no_endpoint_takes_its_own_refusal_of_another_request_for_a_value(world: World, kind: str) -> None:
    protect = requires_dpop(world.server())

    @protect
    async def once(request: Request) -> Response:
        return await asks_again(request, once)

    @protect
    @protect
    async def twice(request: Request) -> Response:
        return await asks_again(request, twice)

    class Notes(HTTPEndpoint):
        @protect
        async def get(self, request: Request) -> Response:
            return await asks_again(request, self.get)

        @protect
        async def post(self, request: Request) -> Response:
            return await asks_again(request, self.get)

    endpoints = {"once": once, "twice": twice, "the inner one": protect(once)}
    client = TestClient(Starlette(routes=[Route("/notes", endpoints.get(kind, Notes))]), base_url=ORIGIN)
    method = "POST" if kind == "another method" else "GET"
    answer = client.request(method, "/notes", headers=world.headers("/notes", method=method))
    assert (answer.status_code, answer.text) == (401, "an access token is required")
    refused = client.request(method, "/notes")
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/json")


def test_no_dispatch_takes_its_own_refusal_of_another_request_for_a_value(world: World) -> None:
    @requires_dpop(world.server())
    async def dispatch(request: Request, call_next: Any) -> Any:
        return await asks_again(request, dispatch, call_next)

    app = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)])
    client = TestClient(app, base_url=ORIGIN)
    with pytest.raises(HTTPException) as raised:
        client.get("/notes", headers=world.headers("/notes"))
    assert raised.value.status_code == 401
    assert client.get("/notes").status_code == 401


@pytest.mark.parametrize("where", ["stream", "task"])
async def test_what_sends_the_response_takes_no_refusal_of_another_request_for_a_value(
    world: World, where: str
) -> None:
    """The body of a stream and the task after a response run while the router waits for the response."""
    refused: list[int] = []

    async def again(request: Request) -> None:
        with pytest.raises(HTTPException) as raised:
            await asks_again(request, endpoint)
        refused.append(raised.value.status_code)

    async def body(request: Request) -> AsyncIterator[str]:
        await again(request)
        yield "sent"

    @requires_dpop(world.server())
    async def endpoint(request: Request) -> Response:
        if where == "stream":
            return StreamingResponse(body(request))
        return PlainTextResponse("sent", background=BackgroundTask(again, request))

    app = Starlette(routes=[Route("/notes", endpoint)])
    scope = scope_of("/notes", world.fields("/notes"))
    answer = await call(app, {**scope, "asgi": {"version": "3.0", "spec_version": "2.4"}})
    assert (answer.status, answer.body, refused) == (200, b"sent", [401])


def test_no_dispatch_takes_a_refusal_in_a_task_of_its_own_for_a_value(world: World) -> None:
    @requires_dpop(world.server())
    async def dispatch(request: Request, call_next: Any) -> Any:
        async def again(*others: Any) -> None:
            await asyncio.ensure_future(dispatch(*others))

        return await asks_again(request, again, call_next)

    app = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)])
    with pytest.raises(HTTPException) as raised:
        TestClient(app, base_url=ORIGIN).get("/notes", headers=world.headers("/notes"))
    assert raised.value.status_code == 401


async def test_a_router_that_a_decorated_function_asks_answers_with_the_refusal_of_that_function(
    world: World,
) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    @requires_dpop(world.server())
    async def function(request: Request) -> Response:
        await router(scope_of("/notes"), request.receive, send)
        return PlainTextResponse("went on")

    router = Router([Route("/notes", function)])
    answer = await call(router, scope_of("/notes", world.fields("/notes")))
    assert (answer.status, answer.body) == (200, b"went on")
    assert [message.get("status") for message in sent] == [401, None]
