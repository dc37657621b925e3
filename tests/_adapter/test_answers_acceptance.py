"""A request causes one event: its refusal, or its acceptance, even if several adapters judge it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Security
from fastapi.security import SecurityScopes
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocket

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.fastapi import DPoPHTTPException, DPoPSecurity, dpop_exception_handler
from dpop_middleware.starlette import requires_dpop
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import World, scope_of
from tests.support.asgi import call

API = "https://api.example.test"
ISSUER = TestIssuer(audience=API)


class Told:
    """A server, and its events."""

    def __init__(self, namespace: str = "") -> None:
        self.events: list[AuthenticationEvent] = []
        self.server = ResourceServer(
            issuer=ISSUER.issuer,
            resource=API,
            jwks=ISSUER.jwks(),
            replay_store=MemoryReplayStore(),
            replay_namespace=namespace,
            on_event=self.events.append,
        )

    @property
    def outcomes(self) -> list[tuple[str, str | None]]:
        return [(event.outcome, event.check) for event in self.events]


ACCEPTED, NO_SCOPE = ("accepted", None), ("refused", "scope")


@pytest.fixture
def told() -> Told:
    return Told()


def get(app: Any, *scopes: str) -> int:
    client = TestClient(app, base_url=API, raise_server_exceptions=False)
    return client.get("/notes", auth=ISSUER.auth(scopes=scopes)).status_code


def handshake(app: Any, *scopes: str) -> WebSocketTestSession:
    key = DPoPKey.generate()
    token = ISSUER.token(jkt=key.jkt, scopes=scopes)
    headers = {"Authorization": f"DPoP {token}", "DPoP": key.proof("GET", f"{API}/notes", access_token=token)}
    client = TestClient(app, base_url=API)
    return client.websocket_connect(f"{API}/notes".replace("https", "wss"), headers=headers)


def decorated(told: Told) -> Starlette:
    @requires_dpop(told.server, "read")
    @requires_dpop(told.server, "write")
    async def notes(request: Request) -> PlainTextResponse:
        return PlainTextResponse("notes")

    return Starlette(routes=[Route("/notes", notes)])


def decorated_class(told: Told) -> Starlette:
    @requires_dpop(told.server, "read")
    class Notes(HTTPEndpoint):
        @requires_dpop(told.server, "write")
        def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("notes")

    return Starlette(routes=[Route("/notes", Notes)])


def under_a_middleware(told: Told) -> DPoPMiddleware:
    dpop = DPoPSecurity(told.server)
    app = FastAPI(dependencies=[Security(dpop, scopes=["read"])])
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)

    @app.get("/notes")
    def notes(token: Annotated[Any, Security(DPoPSecurity(told.server), scopes=["write"])]) -> None:
        pass

    return DPoPMiddleware(app, told.server)


def dependencies_alone(told: Told) -> FastAPI:
    return under_a_middleware(told).app  # type: ignore[return-value] # the application that it was given


def under_a_middleware_that_requires_nothing(told: Told) -> DPoPMiddleware:
    return DPoPMiddleware(under_a_middleware(told).app, told.server, required=False)


APPS = [
    decorated,
    decorated_class,
    dependencies_alone,
    under_a_middleware,
    under_a_middleware_that_requires_nothing,
]


@pytest.mark.parametrize("app", APPS)
def test_a_request_that_an_inner_adapter_refuses_fires_its_refusal_alone(app: Any, told: Told) -> None:
    assert get(app(told), "read") == 403
    assert told.outcomes == [NO_SCOPE]
    assert told.events[0].client_id == "my_client"


@pytest.mark.parametrize("app", APPS)
def test_a_request_that_nobody_refuses_fires_one_acceptance(app: Any, told: Told) -> None:
    assert get(app(told), "read", "write") == 200
    assert told.outcomes == [ACCEPTED]


def test_an_acceptance_is_told_before_the_response_begins(told: Told) -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        assert told.outcomes == []
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert told.outcomes == [ACCEPTED]
        await send({"type": "http.response.body", "body": b""})

    assert get(DPoPMiddleware(endless, told.server)) == 200
    assert told.outcomes == [ACCEPTED]


def test_a_websocket_is_accepted_with_its_handshake_not_with_its_end(told: Told) -> None:
    @requires_dpop(told.server)
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(told.outcomes == [ACCEPTED]))
        await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/notes", echo)])
    with handshake(app) as socket:
        assert socket.receive_text() == "True"


@pytest.mark.parametrize("app", [decorated, under_a_middleware])
def test_a_handler_that_breaks_does_not_hide_that_its_request_was_accepted(app: Any, told: Told) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("bug")

    with contextlib.suppress(RuntimeError):
        get(DPoPMiddleware(broken, told.server))
    assert told.outcomes == [ACCEPTED]


async def test_a_request_whose_client_leaves_while_it_is_served_was_accepted(told: Told) -> None:
    reached, world = asyncio.Event(), World()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    server = world.server(on_event=told.events.append)
    app = DPoPMiddleware(waiting, server)
    serving = asyncio.create_task(call(app, scope_of("/notes", world.fields("/notes"))))
    await reached.wait()
    assert told.outcomes == []
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert told.outcomes == [ACCEPTED]


@pytest.mark.parametrize("app", APPS)
def test_a_listener_that_breaks_disturbs_no_response(app: Any, told: Told) -> None:
    class Broken(list[AuthenticationEvent]):
        def append(self, event: AuthenticationEvent) -> None:
            super().append(event)
            raise RuntimeError("bug")

    told.events = Broken()
    told.server = World().server(
        issuer=ISSUER.issuer, jwks=ISSUER.jwks(), resource=API, clock=time.time, on_event=told.events.append
    )
    assert get(app(told), "read", "write") == 200
    assert get(app(told), "read") == 403
    assert told.outcomes == [ACCEPTED, NO_SCOPE]


def test_two_servers_of_one_request_tell_each_their_own() -> None:
    outer, inner = Told("gateway"), Told()
    assert get(DPoPMiddleware(decorated(inner), outer.server), "read") == 403
    assert (outer.outcomes, inner.outcomes) == ([ACCEPTED], [NO_SCOPE])


def test_a_refusal_by_the_middleware_is_reported_at_once(told: Told) -> None:
    app = DPoPMiddleware(decorated(told), told.server, scopes=["admin"])
    assert get(app, "read", "write") == 403
    assert told.outcomes == [NO_SCOPE]


def test_an_acceptance_has_the_duration_of_its_verdict_not_of_the_handler(told: Told) -> None:
    arrived: list[float] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        arrived.append(time.perf_counter())
        await asyncio.sleep(0.05)
        await PlainTextResponse("notes")(scope, receive, send)

    begun = time.perf_counter()
    assert get(DPoPMiddleware(slow, told.server)) == 200
    assert 0 < told.events[0].duration <= arrived[0] - begun


def echoing(told: Told) -> FastAPI:
    """Two dependencies of a WebSocket, without a middleware."""
    app = FastAPI(dependencies=[Security(DPoPSecurity(told.server), scopes=["read"])])
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)

    @app.websocket("/notes")
    async def notes(
        websocket: WebSocket, token: Annotated[Any, Security(DPoPSecurity(told.server), scopes=["write"])]
    ) -> None:
        before = list(told.outcomes)
        await websocket.accept()
        await websocket.send_json([before, told.outcomes])
        await websocket.close()

    return app


def test_a_websocket_that_the_second_of_two_dependencies_refuses_fires_its_refusal_alone(told: Told) -> None:
    with pytest.raises(WebSocketDenialResponse) as denied, handshake(echoing(told), "read"):
        pass
    assert denied.value.status_code == 403
    assert told.outcomes == [NO_SCOPE]


def test_a_websocket_that_dependencies_accept_is_told_with_its_handshake(told: Told) -> None:
    with handshake(echoing(told), "read", "write") as socket:
        assert socket.receive_json() == [[], [["accepted", None]]]
    assert told.outcomes == [ACCEPTED]


def test_a_dependency_alone_tells_before_the_response_begins(told: Told) -> None:
    app = FastAPI()
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)

    async def stream() -> AsyncIterator[str]:
        yield str(told.outcomes == [ACCEPTED])

    @app.get("/notes", dependencies=[Depends(DPoPSecurity(told.server))])
    def notes() -> StreamingResponse:
        return StreamingResponse(stream())

    client = TestClient(app, base_url=API)
    assert client.get("/notes", auth=ISSUER.auth()).text == "True"


async def test_a_dependency_that_is_called_where_no_endpoint_follows_tells_at_once(told: Told) -> None:
    key = DPoPKey.generate()
    token = ISSUER.token(jkt=key.jkt)
    proof = key.proof("GET", f"{API}/notes", access_token=token)
    scope = scope_of("/notes", [("Authorization", f"DPoP {token}"), ("DPoP", proof)])
    await DPoPSecurity(told.server)(Request(scope), SecurityScopes())
    assert told.outcomes == [ACCEPTED]


@dataclass(frozen=True)
class Layer:
    """One adapter of a stack, and its requirements."""

    scopes: tuple[str, ...]
    required: bool


SCOPES = st.lists(st.sampled_from(["read", "write"]), unique=True).map(tuple)
LAYERS = st.lists(st.builds(Layer, SCOPES, st.booleans()), max_size=3)


def with_dependencies(server: ResourceServer, layers: list[Layer]) -> FastAPI:
    dependencies = [
        Security(DPoPSecurity(server, required=layer.required), scopes=layer.scopes) for layer in layers
    ]
    app = FastAPI(dependencies=dependencies[:1])
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)

    @app.get("/notes", dependencies=dependencies[1:])
    def notes() -> str:
        return "notes"

    return app


def with_decorators(server: ResourceServer, layers: list[Layer]) -> Starlette:
    async def notes(request: Request) -> PlainTextResponse:
        return PlainTextResponse("notes")

    for layer in layers:
        notes = requires_dpop(server, *layer.scopes, required=layer.required)(notes)
    return Starlette(routes=[Route("/notes", notes)])


@settings(max_examples=100)
@given(
    app=st.sampled_from([with_dependencies, with_decorators]),
    inside=LAYERS,
    around=LAYERS,
    granted=SCOPES,
    sent=st.sampled_from(["proof", "proof for another path", "nothing"]),
)
def test_a_request_is_one_event_with_its_answer_at_every_adapter(
    app: Any, inside: list[Layer], around: list[Layer], granted: tuple[str, ...], sent: str
) -> None:
    told, world = Told(), World()
    server = world.server(on_event=told.events.append)
    stack = app(server, inside)
    for layer in around:
        stack = DPoPMiddleware(stack, server, scopes=layer.scopes, required=layer.required)
    path = "/notes" if sent == "proof" else "/other"
    fields = [] if sent == "nothing" else world.fields(path, scopes=granted)
    answer = asyncio.run(call(stack, scope_of("/notes", fields)))
    nobody_judges = sent == "nothing" or not (inside or around)
    accepted = [] if nobody_judges else ["accepted"]
    expected = accepted if answer.status == 200 else ["refused"]
    assert [event.outcome for event in told.events] == expected
