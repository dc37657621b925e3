"""An object that is returned or raised for many requests has nothing of another request."""

import traceback
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dpop_middleware import DPoPPolicy
from dpop_middleware._adapter.answers import response_with
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, World, scope_of
from tests.support.asgi import call


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("kind", ["function", "class"])
def test_an_exception_that_is_raised_again_carries_no_nonce_of_another_request(
    world: World, kind: str
) -> None:
    """A constant of a module may be raised by every route of an application."""

    class Gone(HTTPException):
        def __init__(self, *, since: str) -> None:
            super().__init__(410, headers={"X-Since": since})
            self.since = since

    gone = Gone(since="2026")
    protect = requires_dpop(world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="fallback")))
    cause = ValueError("why")

    async def endpoint(request: Request) -> Response:
        raise gone from cause

    @protect
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return await endpoint(request)

    seen: list[Any] = []

    async def handler(request: Request, error: Any) -> Response:
        seen.append((error.since, error.__cause__, traceback.extract_tb(error.__traceback__)[-1].name))
        return PlainTextResponse(error.detail, error.status_code, error.headers)

    kinds: dict[str, Any] = {"function": protect(endpoint), "class": Endpoint}
    app = Starlette(routes=[Route("/a", kinds[kind]), Route("/open", endpoint)])
    app.add_exception_handler(HTTPException, handler)
    client = TestClient(app, base_url=ORIGIN)
    protected = client.get("/a", headers=world.headers("/a"))
    assert gone.__traceback__ is None
    open_to_all = client.get("/open")
    for response in (protected, open_to_all):
        assert (response.status_code, response.text, response.headers["x-since"]) == (410, "Gone", "2026")
    assert ("dpop-nonce" in protected.headers, "dpop-nonce" in open_to_all.headers) == (True, False)
    assert seen == [("2026", cause, "endpoint")] * 2


async def test_a_response_that_is_returned_again_has_no_nonce_of_another_request(world: World) -> None:
    done = PlainTextResponse("done", headers={"X-App": "1"})
    assert done.headers["x-app"] == "1"

    async def endpoint(request: Request) -> Response:
        return done

    protect = requires_dpop(world.server(nonces=world.nonces()).with_policy(nonce="fallback"))
    app = Starlette(routes=[Route("/a", protect(endpoint)), Route("/open", endpoint)])
    protected, open_to_all = [await call(app, scope_of(path, world.fields(path))) for path in ("/a", "/open")]
    for answer in (protected, open_to_all):
        assert (answer.body, answer.values("x-app")) == (b"done", ["1"])
    assert (len(protected.values("dpop-nonce")), open_to_all.values("dpop-nonce")) == (1, [])


def test_a_stream_is_not_copied_nor_is_a_response_that_gets_nothing() -> None:
    stream, whole = StreamingResponse(["done"]), Response("done")
    assert response_with((("dpop-nonce", "n"),), stream) is stream
    assert stream.headers["dpop-nonce"] == "n"
    assert response_with((), whole) is whole


async def test_an_exception_that_gets_nothing_is_not_copied(world: World) -> None:
    gone = HTTPException(410)

    @requires_dpop(world.server())
    async def endpoint(request: Request) -> Response:
        raise gone

    with pytest.raises(HTTPException) as raised:
        await endpoint(Request(scope_of("/a", world.fields("/a"))))
    assert raised.value is gone
