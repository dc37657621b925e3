"""An object that is returned or raised for many requests has nothing of another request."""

import traceback
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from dpop_middleware import DPoPPolicy
from dpop_middleware._adapter.results import response_with
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


@pytest.mark.parametrize("kind", [PlainTextResponse, FileResponse])
async def test_a_response_that_is_returned_again_has_no_nonce_of_another_request(
    world: World, kind: type[Response], tmp_path: Path
) -> None:
    file = tmp_path / "done.txt"
    file.write_text("done", encoding="utf-8")
    done = kind("done" if kind is PlainTextResponse else file, headers={"X-App": "1"})
    assert done.headers["x-app"] == "1"

    async def endpoint(request: Request) -> Response:
        return done

    protect = requires_dpop(world.server(nonces=world.nonces()).with_policy(nonce="fallback"))
    app = Starlette(routes=[Route("/a", protect(endpoint)), Route("/open", endpoint)])
    protected, open_to_all = [await call(app, scope_of(path, world.fields(path))) for path in ("/a", "/open")]
    for answer in (protected, open_to_all):
        assert (answer.body, answer.values("x-app")) == (b"done", ["1"])
    assert (len(protected.values("dpop-nonce")), open_to_all.values("dpop-nonce")) == (1, [])


class WithSlots(HTTPException):
    __slots__ = ("since", "until")

    def __init__(self, since: str) -> None:
        super().__init__(410)
        self.since = since


class WithItsOwnNew(HTTPException):
    def __new__(cls, *, since: str) -> Any:
        return super().__new__(cls)

    def __init__(self, *, since: str) -> None:
        super().__init__(410)
        self.since = since


class ThatDoesNotChange(HTTPException):
    def __init__(self, since: str) -> None:
        vars(self).update(status_code=410, detail="Gone", headers=None, since=since)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("__"):
            raise AttributeError(name)
        super().__setattr__(name, value)


class WithAProperty(HTTPException):
    def __init__(self, since: str) -> None:
        super().__init__(410)
        vars(self)["since"] = since

    @property
    def since(self) -> object:
        return vars(self)["since"]


class AlsoOfAnotherKind(HTTPException, PermissionError):
    def __init__(self, since: str) -> None:
        HTTPException.__init__(self, 410)
        self.since = since


@pytest.mark.parametrize(
    "error",
    [
        WithSlots("2026"),
        WithItsOwnNew(since="2026"),
        ThatDoesNotChange("2026"),
        WithAProperty("2026"),
        AlsoOfAnotherKind("2026"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_whatever_class_gets_the_nonce(world: World, error: HTTPException) -> None:
    protect = requires_dpop(world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="fallback")))

    async def endpoint(request: Request) -> Response:
        raise error

    async def handler(request: Request, raised: Any) -> Response:
        text = f"{raised.since} {raised.args == error.args}"
        return PlainTextResponse(text, raised.status_code, raised.headers)

    app = Starlette(routes=[Route("/a", protect(endpoint)), Route("/open", endpoint)])
    app.add_exception_handler(HTTPException, handler)
    client = TestClient(app, base_url=ORIGIN)
    protected, open_to_all = client.get("/a", headers=world.headers("/a")), client.get("/open")
    for response in (protected, open_to_all):
        assert (response.status_code, response.text) == (410, "2026 True")
    assert ("dpop-nonce" in protected.headers, "dpop-nonce" in open_to_all.headers) == (True, False)


@pytest.mark.parametrize("kind", ["refusal", "error"])
def test_an_exception_handler_may_add_fields_to_those_of_an_exception(world: World, kind: str) -> None:
    protect = requires_dpop(world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="fallback")))

    @protect
    async def check(request: Request) -> None:
        raise HTTPException(410, headers={"X-Since": "2026"})

    async def endpoint(request: Request) -> Response:
        await check(request)
        raise AssertionError

    async def handler(request: Request, error: Any) -> Response:
        error.headers["X-Request-ID"] = "7"
        return PlainTextResponse("", error.status_code, error.headers)

    app = Starlette(routes=[Route("/a", endpoint)], exception_handlers={HTTPException: handler})
    client = TestClient(app, base_url=ORIGIN)
    response = client.get("/a", headers=world.headers("/a") if kind == "error" else {})
    ours, status = ({"x-since", "dpop-nonce"}, 410) if kind == "error" else ({"www-authenticate"}, 401)
    assert response.status_code == status
    assert ours | {"x-request-id"} <= set(response.headers)


class Feed(Response):
    """Sends until its owner, who knows it, says that it is done."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError


@pytest.mark.parametrize("stream", [StreamingResponse(["done"]), Feed()], ids=lambda one: type(one).__name__)
def test_a_stream_is_not_copied_nor_is_a_response_that_gets_nothing(stream: Response) -> None:
    whole = Response("done")
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
