"""The decorator: on functions, classes and methods, alone and under the middleware."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio.from_thread
import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from dpop_middleware import DPoPMiddleware, DPoPPolicy, ResourceServer
from dpop_middleware._adapter import expiry
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, World, answers_to_handshake, scope_of
from tests.support.api import NOW, Api
from tests.support.asgi import call
from tests.support.virtual_time import let_time_be_virtual


@pytest.fixture
def world() -> World:
    return World()


def client_of(*routes: Any, middleware: Any = ()) -> TestClient:
    return TestClient(Starlette(routes=list(routes), middleware=list(middleware)), base_url=ORIGIN)


def kinds_of_endpoints(api: ResourceServer) -> dict[str, Any]:
    @requires_dpop(api, "notes:read")
    async def asynchronous(request: Request) -> Response:
        return PlainTextResponse(request.user.display_name)

    @requires_dpop(api, "notes:read")
    def synchronous(request: Request) -> Response:
        return PlainTextResponse(request.user.display_name)

    async def with_more(more: str, request: Request) -> Response:
        return PlainTextResponse(request.user.display_name)

    class CallableObject:
        async def __call__(self, request: Request) -> Response:
            return PlainTextResponse(request.user.display_name)

    @requires_dpop(api, "notes:read")
    class Endpoint(HTTPEndpoint):
        """An endpoint."""

        async def get(self, request: Request) -> Response:
            return PlainTextResponse(request.user.display_name)

    class Method(HTTPEndpoint):
        @requires_dpop(api, "notes:read")
        async def get(self, request: Request) -> Response:
            return PlainTextResponse(request.user.display_name)

    return {
        "async function": asynchronous,
        "sync function": synchronous,
        "partial": requires_dpop(api, "notes:read")(functools.partial(with_more, "more")),
        "callable object": requires_dpop(api, "notes:read")(CallableObject()),
        "class": Endpoint,
        "method": Method,
    }


KINDS = ["async function", "sync function", "partial", "callable object", "class", "method"]


@pytest.mark.parametrize("under_middleware", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_endpoint_is_protected(world: World, kind: str, under_middleware: bool) -> None:
    api = world.server()
    middleware = [Middleware(DPoPMiddleware, api)] if under_middleware else []
    client = client_of(Route("/a", kinds_of_endpoints(api)[kind]), middleware=middleware)
    headers = world.headers("/a", scopes=["notes:read", "more"])
    assert client.get("/a", headers=headers).text == "user123"
    assert world.store.asked == 1
    again = client.get("/a", headers=headers)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_dpop_proof")
    lacking = client.get("/a", headers=world.headers("/a", scopes=["more"]))
    assert lacking.status_code == 403
    assert 'error="insufficient_scope"' in lacking.headers["www-authenticate"]
    assert 'scope="notes:read"' in lacking.headers["www-authenticate"]
    missing = client.get("/a")
    assert missing.status_code == 401
    assert missing.headers["cache-control"] == "no-store"
    assert missing.json() == {"error_description": "an access token is required"}


def test_a_decorated_endpoint_keeps_its_name(world: World) -> None:
    kinds = kinds_of_endpoints(world.server())
    assert kinds["async function"].__name__ == "asynchronous"
    assert kinds["class"].__name__ == "Endpoint"
    assert kinds["class"].__doc__ == "An endpoint."
    assert kinds["class"].__module__ == __name__


def test_only_the_decorated_method_is_protected(world: World) -> None:
    api = world.server()

    class Notes(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("public")

        @requires_dpop(api, "notes:write")
        def post(self, request: Request) -> Response:
            return PlainTextResponse("written")

    client = client_of(Route("/notes", Notes))
    assert client.get("/notes").text == "public"
    assert client.post("/notes").status_code == 401
    assert client.delete("/notes").status_code == 405
    read = world.headers("/notes", method="GET", scopes=["notes:write"])
    assert client.post("/notes", headers=read).status_code == 401
    written = world.headers("/notes", method="POST", scopes=["notes:write"])
    assert client.post("/notes", headers=written).text == "written"


def test_both_challenges_are_sent_on_separate_lines(world: World) -> None:
    @requires_dpop(world.server().with_policy(accept_bearer=True))
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(request.user.display_name)

    client = client_of(Route("/a", endpoint))
    refused = client.get("/a")
    assert [challenge.split()[0] for challenge in refused.headers.get_list("www-authenticate")] == [
        "Bearer",
        "DPoP",
    ]
    assert client.get("/a", headers={"Authorization": f"Bearer {world.token(jkt=None)}"}).text == "user123"
    assert client.get("/a", headers={"Authorization": f"Bearer {world.token()}"}).status_code == 401


# --- routes do not lend each other a verdict


def test_one_application_may_have_two_audiences(world: World) -> None:
    audiences = {"notes": f"{ORIGIN}/notes", "files": f"{ORIGIN}/files"}
    servers = {
        name: world.server(resource=audience, public_url=ORIGIN, replay_namespace=name)
        for name, audience in audiences.items()
    }

    def endpoint(name: str) -> Callable[..., Any]:
        @requires_dpop(servers[name])
        async def answering(request: Request) -> Response:
            return PlainTextResponse(name)

        return answering

    @requires_dpop(servers["files"])
    @requires_dpop(servers["notes"])
    async def both(request: Request) -> Response:
        return PlainTextResponse("both")

    client = client_of(
        Route("/notes", endpoint("notes")), Route("/files", endpoint("files")), Route("/both", both)
    )
    for name, audience in audiences.items():
        other = next(other for other in audiences if other != name)
        assert client.get(f"/{name}", headers=world.headers(f"/{name}", audience=audience)).text == name
        assert (
            client.get(f"/{other}", headers=world.headers(f"/{other}", audience=audience)).status_code == 401
        )
        assert client.get("/both", headers=world.headers("/both", audience=audience)).status_code == 401
    assert client.get("/both", headers=world.headers("/both", audience=[*audiences.values()])).text == "both"


def test_a_route_tightens_what_the_middleware_allows(world: World) -> None:
    api = world.server(nonces=world.nonces()).with_policy(accept_bearer=True)

    def route(path: str, **policy: Any) -> Route:
        @requires_dpop(api.with_policy(**policy))
        async def endpoint(request: Request) -> Response:
            return PlainTextResponse("reached")

        return Route(path, endpoint)

    client = client_of(
        route("/any"),
        route("/bound", accept_bearer=False),
        route("/es384", algorithms=("ES384",)),
        route("/quick", proof_lifetime=1, clock_skew=0),
        route("/nonce", nonce="required"),
        middleware=[Middleware(DPoPMiddleware, api)],
    )

    def get(path: str, **arguments: Any) -> Any:
        return client.get(path, headers=world.headers(path, **arguments))

    bearer = {"Authorization": f"Bearer {world.token(jkt=None)}"}
    assert client.get("/any", headers=bearer).text == "reached"
    assert client.get("/bound", headers=bearer).status_code == 401
    assert get("/bound").text == "reached"
    assert get("/es384").json()["error"] == "invalid_dpop_proof"
    assert get("/quick").text == "reached"
    slow = world.headers("/quick")
    world.clock.now += 5
    assert client.get("/quick", headers=slow).status_code == 401
    needs_nonce = get("/nonce")
    assert needs_nonce.json()["error"] == "use_dpop_nonce"
    assert len(needs_nonce.headers.get_list("dpop-nonce")) == 1
    assert get("/nonce", nonce=needs_nonce.headers["dpop-nonce"]).text == "reached"


def test_a_route_is_loosened_by_a_public_path(world: World) -> None:
    api = world.server()

    @requires_dpop(api.with_policy(accept_bearer=True))
    async def old(request: Request) -> Response:
        return PlainTextResponse(request.user.display_name)

    client = client_of(
        Route("/old", old),
        Route(
            "/new",
            requires_dpop(api.with_policy(accept_bearer=True))(lambda request: PlainTextResponse("new")),
        ),
        middleware=[Middleware(DPoPMiddleware, api, public_paths=["/old"])],
    )
    bearer = {"Authorization": f"Bearer {world.token(jkt=None)}"}
    assert client.get("/old", headers=bearer).text == "user123"
    assert client.get("/old").status_code == 401
    assert client.get("/new", headers=bearer).status_code == 401


def test_a_mounted_application_is_protected_at_its_full_path(world: World) -> None:
    api = world.server()
    kinds = kinds_of_endpoints(api)
    inner = Starlette(routes=[Route("/a", kinds["async function"])])
    client = client_of(Mount("/v1", inner), Mount("/v2", routes=[Route("/a", kinds["class"])]))
    for mount in ("/v1", "/v2"):
        other = world.headers("/a", scopes=["notes:read"])
        assert client.get(f"{mount}/a", headers=other).status_code == 401
        own = world.headers(f"{mount}/a", scopes=["notes:read"])
        assert client.get(f"{mount}/a", headers=own).text == "user123"


def test_a_weak_or_old_login_is_asked_to_step_up(world: World) -> None:
    @requires_dpop(world.server(), acr_values=["gold", "silver"], max_age=60)
    async def pay(request: Request) -> Response:
        return PlainTextResponse("paid")

    client = client_of(Route("/pay", pay))

    def get(**claims: Any) -> Any:
        return client.get("/pay", headers=world.headers("/pay", **claims))

    now = int(world.clock())
    assert get(acr="silver", auth_time=now).text == "paid"
    for claims in (
        {},
        {"acr": "bronze", "auth_time": now},
        {"acr": "gold"},
        {"acr": "gold", "auth_time": now - 61},
    ):
        refused = get(**claims)
        assert refused.status_code == 401
        challenge = refused.headers["www-authenticate"]
        assert 'error="insufficient_user_authentication"' in challenge
        assert 'acr_values="gold silver"' in challenge
        assert 'max_age="60"' in challenge


# --- nonces without middleware


def test_nonces_are_sent_on_responses_and_exceptions(world: World) -> None:
    api = world.server(nonces=world.nonces()).with_policy(nonce="fallback")

    def failing(request: Request) -> Response:
        raise HTTPException(418, "no", {"X-App": "1", "dpop-NONCE": "application"})

    class Failing(HTTPEndpoint):
        @staticmethod
        async def get(request: Request) -> Response:
            raise HTTPException(418, "no")

    class Returning(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("reached", headers={"DPoP-Nonce": "application"})

    async def returning(request: Request) -> Response:
        return PlainTextResponse("reached", headers={"DPoP-Nonce": "application", "Cache-Control": "public"})

    protect = requires_dpop(api)
    endpoints: dict[str, Any] = {"/a": failing, "/b": Failing, "/c": Returning, "/d": returning}
    client = client_of(*(Route(path, protect(endpoint)) for path, endpoint in endpoints.items()))
    for path, status in (("/a", 418), ("/b", 418), ("/c", 200), ("/d", 200)):
        response = client.get(path, headers=world.headers(path))
        assert response.status_code == status
        (nonce,) = response.headers.get_list("dpop-nonce")
        assert nonce != "application"
        assert response.headers.get_list("cache-control") == ["no-store"]
        current = client.get(path, headers=world.headers(path, nonce=nonce))
        assert current.status_code == status
        assert current.headers.get("dpop-nonce") in (None, "application")
    assert client.get("/a", headers=world.headers("/a")).headers["x-app"] == "1"


def test_repeated_fields_of_an_exception_survive(world: World) -> None:
    from starlette.datastructures import Headers

    @requires_dpop(world.server(nonces=world.nonces()).with_policy(nonce="fallback"))
    async def endpoint(request: Request) -> Response:
        raise HTTPException(
            401, headers=Headers(raw=[(b"www-authenticate", b"A"), (b"www-authenticate", b"B")])
        )

    response = client_of(Route("/a", endpoint)).get("/a", headers=world.headers("/a"))
    assert response.headers.get_list("www-authenticate") == ["A", "B"]
    assert response.headers["dpop-nonce"]


async def test_a_result_that_is_no_response_is_returned_unchanged(world: World) -> None:
    @requires_dpop(world.server(nonces=world.nonces()).with_policy(nonce="fallback"))
    def endpoint(item: int, *, request: Request) -> dict[str, int]:
        return {"item": item}

    request = Request(scope_of("/a", world.fields("/a")))
    assert await endpoint(7, request=request) == {"item": 7}  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]


def test_background_tasks_run(world: World) -> None:
    done: list[bool] = []

    @requires_dpop(world.server())
    async def endpoint(request: Request) -> Response:
        return JSONResponse({}, background=BackgroundTask(done.append, True))

    client_of(Route("/a", endpoint)).get("/a", headers=world.headers("/a"))
    assert done == [True]


# --- WebSockets


def sockets(api: ResourceServer, **options: Any) -> list[WebSocketRoute]:
    @requires_dpop(api, "ws", **options)
    async def function(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.display_name)
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()

    async def with_more(more: str, websocket: WebSocket) -> None:
        await function(websocket=websocket)

    @requires_dpop(api, "ws", **options)
    class Endpoint(WebSocketEndpoint):
        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(websocket.user.display_name)

    return [
        WebSocketRoute("/function", function),
        WebSocketRoute("/keyword", functools.partial(with_more, "more")),
        WebSocketRoute("/class", Endpoint),
    ]


@pytest.mark.parametrize("with_credentials", [False, True])
async def test_no_message_gets_past_a_decorated_on_connect(world: World, with_credentials: bool) -> None:
    """uvicorn queues a frame that comes during the verdict, and delivers it after the refusal."""
    heard: list[str] = []

    class Endpoint(WebSocketEndpoint):
        encoding = "text"

        @requires_dpop(world.server())
        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept()

        async def on_receive(self, websocket: WebSocket, data: str) -> None:
            heard.append(data)

    messages: list[Message] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "delete everything"},
        {"type": "websocket.disconnect", "code": 1006},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    app = Starlette(routes=[WebSocketRoute("/ws", Endpoint)])
    fields = world.fields("/ws") if with_credentials else None
    with pytest.raises(ConfigurationError, match="on the whole WebSocketEndpoint"):
        await app(scope_of("/ws", fields, type="websocket", subprotocols=[]), receive, send)
    assert (heard, sent) == ([], [])


@pytest.mark.parametrize("under_middleware", [False, True])
@pytest.mark.parametrize("path", ["/function", "/keyword", "/class"])
def test_every_kind_of_websocket_endpoint_is_protected(
    world: World, path: str, under_middleware: bool
) -> None:
    api = world.server(nonces=world.nonces()).with_policy(nonce="fallback")
    client = client_of(
        *sockets(api), middleware=[Middleware(DPoPMiddleware, api)] if under_middleware else []
    )
    with client.websocket_connect(path, headers=world.headers(path, scopes=["ws"])) as websocket:
        assert websocket.receive_text() == "user123"
        assert websocket.extra_headers is not None
        assert [name for name, _ in websocket.extra_headers] == [b"dpop-nonce", b"cache-control"]
    assert world.store.asked == 1
    for headers, status in ((world.headers(path), 403), ({}, 401)):
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect(path, headers=headers),
        ):
            pass
        assert caught.value.status_code == status


@pytest.mark.parametrize("path", ["/function", "/keyword", "/class"])
async def test_without_the_denial_extension_a_websocket_is_closed(world: World, path: str) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    app = Starlette(routes=sockets(world.server()))
    await app(scope_of(path, type="websocket"), None, send)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


@pytest.mark.parametrize("path", ["/function", "/keyword", "/class"])
def test_websockets_end_with_their_token(world: World, path: str) -> None:
    client = client_of(*sockets(world.server(), close_at_expiry=True))
    headers = world.headers(path, scopes=["ws"], exp=world.clock() + 1.5)
    with client.websocket_connect(path, headers=headers) as websocket:
        assert websocket.receive_text() == "user123"
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    assert closed.value.code == 1008


async def run(app: Any, scope: dict[str, Any], sent: list[Message]) -> None:
    """Let `app` answer a client that never disconnects, with a server that never waits, into `sent`."""
    first = [{"type": "websocket.connect"}] if scope["type"] == "websocket" else []

    async def receive() -> Message:
        if first:
            return first.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)


async def _ticks(pause: float) -> AsyncIterator[str]:
    yield "data: 1\n\n"
    await asyncio.sleep(pause)
    yield "data: 2\n\n"


@pytest.mark.parametrize("kind", ["function", "class"])
async def test_an_endpoint_that_is_busy_when_its_websocket_ends_is_told_so_afterwards(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = world.server()
    sent: list[Message] = []
    told: list[int] = []

    async def busy(websocket: WebSocket) -> None:
        await websocket.accept()
        async with asyncio.timeout(60):
            while not any(message["type"] == "websocket.close" for message in sent):
                await asyncio.sleep(0.01)
        with pytest.raises(WebSocketDisconnect) as ended:
            await websocket.receive_text()
        told.append(ended.value.code)

    class Busy(WebSocketEndpoint):
        async def dispatch(self) -> None:
            await busy(WebSocket(self.scope, self.receive, self.send))

    decorate = requires_dpop(api, close_at_expiry=True)
    endpoint = decorate(busy) if kind == "function" else decorate(Busy)
    let_time_be_virtual(monkeypatch)
    fields = world.fields("/ws", exp=world.clock() + 0.3)
    scope = scope_of("/ws", fields, type="websocket", subprotocols=[])
    await run(Starlette(routes=[WebSocketRoute("/ws", endpoint)]), scope, sent)
    assert told == [1008]


@pytest.mark.parametrize("kind", ["function", "method", "class"])
@pytest.mark.parametrize(
    ("media_type", "close_at_expiry", "expires_in", "pause", "chunks"),
    [
        ("text/event-stream", True, 0.4, 60, 1),
        ("text/event-stream", False, 0.01, 0.05, 2),
        ("text/plain", True, 0.01, 0.05, 2),
    ],
)
async def test_event_streams_end_with_their_token(
    world: World,
    kind: str,
    media_type: str,
    close_at_expiry: bool,
    expires_in: float,
    pause: float,
    chunks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_time_be_virtual(monkeypatch)
    protect = requires_dpop(world.server(), close_at_expiry=close_at_expiry)

    @protect
    async def function(request: Request) -> Response:
        return StreamingResponse(_ticks(pause), media_type=media_type)

    class Method(HTTPEndpoint):
        @protect
        async def get(self, request: Request) -> Response:
            return StreamingResponse(_ticks(pause), media_type=media_type)

    @protect
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return StreamingResponse(_ticks(pause), media_type=media_type)

    endpoint: Any = {"function": function, "method": Method, "class": Endpoint}[kind]
    scope = scope_of("/a", world.fields("/a", exp=world.clock() + expires_in))
    sent: list[Message] = []
    await run(Starlette(routes=[Route("/a", endpoint)]), scope, sent)
    assert b"".join(message.get("body", b"") for message in sent).count(b"data:") == chunks
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("kind", ["async function", "sync function", "method", "class"])
async def test_the_time_before_the_stream_counts(world: World, kind: str) -> None:
    """A token of 0.3 seconds is over when an endpoint has worked for half a second."""
    protect = requires_dpop(world.server(), close_at_expiry=True)

    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.5)
        return StreamingResponse(_ticks(60), media_type="text/event-stream")

    def blocking(request: Request) -> Response:
        time.sleep(0.5)
        return StreamingResponse(_ticks(60), media_type="text/event-stream")

    class Method(HTTPEndpoint):
        @protect
        async def get(self, request: Request) -> Response:
            return await slow(request)

    @protect
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return await slow(request)

    endpoints: dict[str, Any] = {
        "async function": protect(slow),
        "sync function": protect(blocking),
        "method": Method,
        "class": Endpoint,
    }
    scope = scope_of("/a", world.fields("/a", exp=world.clock() + 0.3))
    sent: list[Message] = []
    async with asyncio.timeout(60):
        await run(Starlette(routes=[Route("/a", endpoints[kind])]), scope, sent)
    assert sent[0]["status"] == 200
    assert not any(message.get("body") for message in sent)
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("kind", ["function", "class"])
async def test_a_source_that_is_always_ready_ends_too(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_time_be_virtual(monkeypatch)
    protect = requires_dpop(world.server(), close_at_expiry=True)

    async def source() -> AsyncIterator[str]:
        for _ in range(1_000_000):
            yield "data: x\n\n"
        raise AssertionError("nobody ended it")

    @protect
    async def function(request: Request) -> Response:
        return StreamingResponse(source(), media_type="text/event-stream")

    @protect
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return StreamingResponse(source(), media_type="text/event-stream")

    endpoint: Any = {"function": function, "class": Endpoint}[kind]
    scope = scope_of("/a", world.fields("/a", exp=world.clock() + 0.1))
    sent: list[Message] = []
    await run(Starlette(routes=[Route("/a", endpoint)]), scope, sent)
    assert any(message.get("body") for message in sent)
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


# Virtual time would end an `asyncio.timeout` while a thread works.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["function", "sync function", "method", "class"])
async def test_a_client_that_reads_nothing_keeps_no_stream_beyond_the_expiry(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "_GRACE", 0.05)
    expires_in = 3.0
    if kind != "sync function":  # whose thread takes real time
        let_time_be_virtual(monkeypatch)
        expires_in = 0.3
    protect = requires_dpop(world.server(), close_at_expiry=True)
    done: list[str] = []

    def stream(request: Request) -> Response:
        after = BackgroundTask(done.append, "background task")
        return StreamingResponse(_ticks(0), media_type="text/event-stream", background=after)

    async def asynchronous(request: Request) -> Response:
        return stream(request)

    class Method(HTTPEndpoint):
        @protect
        async def get(self, request: Request) -> Response:
            return stream(request)

    @protect
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return stream(request)

    endpoints: dict[str, Any] = {
        "function": protect(asynchronous),
        "sync function": protect(stream),
        "method": Method,
        "class": Endpoint,
    }
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    app = Starlette(routes=[Route("/a", endpoints[kind])])
    scope = scope_of("/a", world.fields("/a", exp=world.clock() + expires_in))
    # As `receive`, an event that nobody sets never returns, so its type doesn't matter.
    await app(scope, asyncio.Event().wait, send)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert b"".join(message.get("body", b"") for message in sent) == b"data: 1\n\n"
    assert done == ["background task"]


@pytest.mark.parametrize("kind", ["function", "class"])
async def test_a_slow_handshake_is_refused_when_the_token_has_expired(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_time_be_virtual(monkeypatch)
    protect = requires_dpop(world.server(), close_at_expiry=True)

    @protect
    async def function(websocket: WebSocket) -> None:
        await asyncio.sleep(0.3)
        await websocket.accept()

    @protect
    class Endpoint(WebSocketEndpoint):
        async def on_connect(self, websocket: WebSocket) -> None:
            await asyncio.sleep(0.3)
            await websocket.accept()

    endpoint: Any = {"function": function, "class": Endpoint}[kind]
    scope = scope_of("/a", world.fields("/a", exp=world.clock() + 0.1), type="websocket")
    sent: list[Message] = []
    # What accepts at last is told that the client has gone, which Starlette says in its own way.
    with pytest.raises((OSError, RuntimeError)):
        await run(Starlette(routes=[WebSocketRoute("/a", endpoint)]), scope, sent)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "the access token has expired"}]


async def test_a_response_without_stream_is_left_alone(world: World) -> None:
    @requires_dpop(world.server(), close_at_expiry=True)
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("reached")

    answer = await call(Starlette(routes=[Route("/a", endpoint)]), scope_of("/a", world.fields("/a")))
    assert answer.body == b"reached"


# --- configuration


protect: Any = requires_dpop


def _generator(request: Request) -> Any:
    yield b""


async def _async_generator(request: Request) -> Any:
    yield b""


@pytest.mark.parametrize(
    ("apply", "sentence"),
    [
        (lambda api: protect("notes:read"), "takes a ResourceServer first"),
        (lambda api: protect(lambda request: None), "takes a ResourceServer first"),
        (lambda api: protect(api, ["notes:read"]), "scopes takes strings"),
        (lambda api: protect(api, "notes read"), "scopes takes strings"),
        (lambda api: protect(api, acr_values="gold"), "acr_values takes a sequence"),
        (lambda api: protect(api, max_age=-1), "max_age takes a whole number"),
        (lambda api: protect(api, close_at_expiry="yes"), "close_at_expiry takes True or False"),
        (lambda api: protect(api)(lambda req: None), "argument named request or websocket"),
        (lambda api: protect(api)(7), "goes on an endpoint"),
        (lambda api: protect(api)(dict), "goes on an HTTPEndpoint"),
        (lambda api: protect(api)(_generator), "returns a response"),
        (lambda api: protect(api)(_async_generator), "returns a response"),
    ],
)
def test_bad_configuration_is_refused(world: World, apply: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        apply(world.server())


async def test_no_other_object_passes_for_a_request(world: World) -> None:
    """It may be another framework's request, or a body that the client filled."""

    class Body:
        def __init__(self) -> None:
            self.scope = scope_of("/notes", world.fields("/notes"))

    @requires_dpop(world.server())
    async def create(request: Any) -> Any:
        raise AssertionError

    for arguments in ({"request": Body()}, {"request": None}, {}):
        with pytest.raises(ConfigurationError, match="is for Starlette and FastAPI: it takes a Request"):
            await create(**arguments)
    with pytest.raises(ConfigurationError, match=r"as request, not a .*Body of tests\."):
        await create(Body())


async def test_no_other_request_is_judged_than_the_one_of_that_name(world: World) -> None:
    @requires_dpop(world.server())
    async def passed_on(upstream: Request, request: Request) -> str:
        return f"{request.user.identity} {'user' in upstream.scope}"

    upstream = Request(scope_of("/other"))
    request = Request(scope_of("/notes", world.fields("/notes")))
    assert await passed_on(upstream=upstream, request=request) == "user123 False"


@pytest.mark.parametrize("age", [0, 60])
async def test_a_refusal_of_the_decorator_carries_the_next_nonce(age: int) -> None:
    api = Api(nonce="required")

    @requires_dpop(api.server, "admin")
    async def endpoint(request: Request) -> Response:
        raise AssertionError("nobody has that scope")

    proof = api.proof(nonce=api.server_nonces.issue(NOW - age))
    fields = [("authorization", f"DPoP {api.token}"), ("dpop", proof)]
    answer = await call(Starlette(routes=[Route("/notes", endpoint)]), scope_of("/notes", fields))
    assert answer.status == 403
    assert answer.values("dpop-nonce") == ([api.server_nonces.issue(NOW)] if age else [])


def test_without_required_a_request_without_credentials_is_anonymous(world: World) -> None:
    def whoami(request: Request) -> Response:
        return PlainTextResponse(f"{request.user.is_authenticated} {'dpop' in request.scope}")

    @requires_dpop(world.server(), required=False)
    class Endpoint(HTTPEndpoint):
        def get(self, request: Request) -> Response:
            return whoami(request)

    function = requires_dpop(world.server(), required=False)(whoami)
    client = client_of(Route("/function", function), Route("/class", Endpoint))
    for path in ("/function", "/class"):
        assert client.get(path).text == "False False"
        assert client.get(path, headers=world.headers(path)).text == "True True"
        assert client.get(path, headers={"Authorization": "Basic x"}).status_code == 401
        assert client.get(path, headers={"Authorization": "DPoP x"}).status_code == 401


async def test_without_required_the_user_of_a_session_stays(world: World) -> None:
    seen: list[Any] = []

    async def endpoint(request: Request) -> Response:
        seen.append(request.user)
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", requires_dpop(world.server(), required=False)(endpoint))])
    await call(app, {**scope_of("/"), "user": "session", "auth": AuthCredentials(["session"])})
    await call(app, {**scope_of("/", fields=world.fields("/")), "user": "session"})
    assert seen[0] == "session"
    assert seen[1].identity == "user123"


async def test_without_required_a_websocket_is_anonymous(world: World) -> None:
    @requires_dpop(world.server(), required=False)
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.user.is_authenticated))
        await websocket.close()

    with client_of(WebSocketRoute("/ws", socket)).websocket_connect("/ws") as connection:
        assert connection.receive_text() == "False"


@pytest.mark.parametrize("kind", ["method", "class method", "partial"])
def test_a_decorated_method_that_serves_a_route_refuses_as_a_function_does(world: World, kind: str) -> None:
    """A router without an application has nothing that makes a response of an exception."""

    class Notes:
        @requires_dpop(world.server())
        async def read(self, request: Request) -> Response:
            return PlainTextResponse("read")

        @classmethod
        @requires_dpop(world.server())
        async def read_all(cls, request: Request) -> Response:
            return PlainTextResponse("read")

    endpoints: dict[str, Any] = {
        "method": Notes().read,
        "class method": Notes.read_all,
        "partial": functools.partial(Notes().read),
    }
    client = TestClient(Router([Route("/notes", endpoints[kind])]), base_url=ORIGIN)
    refused = client.get("/notes")
    assert refused.status_code == 401
    assert refused.json() == {"error_description": "an access token is required"}
    assert client.get("/notes", headers=world.headers("/notes")).text == "read"


@pytest.mark.parametrize(
    "kind", ["function", "sync", "partial", "class", "method", "application", "mounted", "hidden"]
)
def test_no_endpoint_takes_the_refusal_of_a_decorated_function_for_a_value(world: World, kind: str) -> None:
    reached: list[str] = []

    @requires_dpop(world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="fallback")), "notes:write")
    async def caller(request: Request) -> str:
        return str(request.user.identity)

    async def endpoint(request: Request) -> Response:
        reached.append(await caller(request))
        return PlainTextResponse("deleted")

    def sync(request: Request) -> Response:
        reached.append(anyio.from_thread.run(caller, request))
        return PlainTextResponse("deleted")

    class Notes(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return await endpoint(request)

    class Bound:
        async def read(self, request: Request) -> Response:
            return await endpoint(request)

    class Application:
        """Asks for a context of its own making, as libraries for GraphQL do."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await (await endpoint(Request(scope, receive)))(scope, receive, send)

    async def hidden(request: Request) -> Any:
        return PlainTextResponse(await caller(request))

    endpoints: dict[str, Any] = {
        "function": endpoint,
        "sync": sync,
        "partial": functools.partial(endpoint),
        "class": Notes,
        "method": Bound().read,
        "application": Application(),
        "hidden": hidden,
    }
    mounted = Mount("/notes", Application())
    client = client_of(mounted if kind == "mounted" else Route("/notes", endpoints[kind]))
    path = "/notes/" if kind == "mounted" else "/notes"
    anonymous = client.get(path)
    assert (anonymous.status_code, anonymous.headers["www-authenticate"][:4]) == (401, "DPoP")
    unfit = client.get(path, headers=world.headers(path))
    assert (unfit.status_code, "dpop-nonce" in unfit.headers) == (403, True)
    assert reached == []
    assert client.get(path, headers=world.headers(path, scopes=["notes:write"])).status_code == 200


@pytest.mark.parametrize("where", ["application", "mounted application", "mount", "route"])
def test_the_dispatch_of_a_middleware_refuses_by_a_response_wherever_it_is(world: World, where: str) -> None:
    """Outside what makes a response of an exception, where the middleware of an application is."""

    @requires_dpop(world.server())
    async def dispatch(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("reached")

    here: Any = [Middleware(BaseHTTPMiddleware, dispatch=dispatch)]
    nothing: list[Middleware] = []
    route = Route("/notes", endpoint, middleware=here if where == "route" else nothing)
    inner = Starlette(routes=[route], middleware=here if where == "mounted application" else nothing)
    mount = Mount("/v1", inner, middleware=here if where == "mount" else nothing)
    client = client_of(mount, middleware=here if where == "application" else ())
    refused = client.get("/v1/notes")
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
    assert refused.json() == {"error_description": "an access token is required"}
    assert client.get("/v1/notes", headers=world.headers("/v1/notes")).text == "reached"


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_no_websocket_goes_on_after_the_refusal_of_a_decorated_function(
    world: World, extensions: dict[str, Any]
) -> None:
    @requires_dpop(world.server())
    async def caller(websocket: WebSocket) -> None:
        raise AssertionError

    async def endpoint(websocket: WebSocket) -> None:
        await caller(websocket)
        raise AssertionError

    first, *_ = await answers_to_handshake(Starlette(routes=[WebSocketRoute("/ws", endpoint)]), extensions)
    assert (first.get("status"), first.get("code")) == ((401, None) if extensions else (None, 1008))


def test_a_decorated_endpoint_that_gets_more_arguments_answers_with_the_usual_body(world: World) -> None:
    @requires_dpop(world.server())
    async def endpoint(name: str, request: Request, folder: str) -> Response:
        raise AssertionError

    served = functools.partial(functools.partial(endpoint, "a"), folder="b")
    response = client_of(Route("/notes", served)).get("/notes")
    assert response.json() == {"error_description": "an access token is required"}


def test_an_optional_call_next_makes_no_middleware_of_a_function(world: World) -> None:
    @requires_dpop(world.server())
    async def check(request: Request, call_next: Any = None) -> None:
        raise AssertionError

    async def endpoint(request: Request) -> Response:
        await check(request)
        raise AssertionError

    assert client_of(Route("/notes", endpoint)).get("/notes").status_code == 401


def test_a_middleware_of_a_mounted_application_answers_as_everywhere(world: World) -> None:
    @requires_dpop(world.server())
    async def guard(request: Request, go_on: Any) -> Response:
        raise AssertionError

    inner = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])
    refused = client_of(Mount("/v1", inner)).get("/v1/notes")
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
