"""Further requirements of a route, through every adapter: one of several scopes, and claims."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Security, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from dpop_middleware import AccessToken, DPoPMiddleware, ResourceServer
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.fastapi import DPoPSecurity
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, World, reached

ASKED: dict[str, Any] = {
    "any_of": ("notes:read", "notes:admin"),
    "claims": {"realm_access": lambda access: "staff" in access["roles"]},
}
STAFF = {"realm_access": {"roles": ["staff"]}}


@pytest.fixture
def world() -> World:
    return World()


def on_a_function(api: ResourceServer) -> Any:
    @requires_dpop(api, "api", **ASKED)
    async def notes(request: Request) -> Response:
        return PlainTextResponse("reached")

    return Starlette(routes=[Route("/notes", notes)])


def on_a_class(api: ResourceServer) -> Any:
    @requires_dpop(api, "api", **ASKED)
    class Notes(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("reached")

    return Starlette(routes=[Route("/notes", Notes)])


def on_a_method(api: ResourceServer) -> Any:
    class Notes(HTTPEndpoint):
        @requires_dpop(api, "api", **ASKED)
        def get(self, request: Request) -> Response:
            return PlainTextResponse("reached")

    return Starlette(routes=[Route("/notes", Notes)])


def on_a_function_under_the_middleware(api: ResourceServer) -> Any:
    return DPoPMiddleware(on_a_function(api), api)


def as_a_dependency(api: ResourceServer) -> Any:
    app = FastAPI()
    dpop = DPoPSecurity(api, **ASKED)

    @app.get("/notes")
    async def notes(token: Annotated[AccessToken, Security(dpop, scopes=["api"])]) -> str:
        return "reached"

    return app


def around_the_application(api: ResourceServer) -> Any:
    return DPoPMiddleware(reached, api, scopes=("api",), public_paths=["/health"], **ASKED)


ADAPTERS: list[Callable[[ResourceServer], Any]] = [
    on_a_function,
    on_a_class,
    on_a_method,
    on_a_function_under_the_middleware,
    as_a_dependency,
    around_the_application,
]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("scope", ["notes:read", "notes:admin"])
def test_one_of_the_scopes_and_the_claim_let_a_request_pass(
    world: World, adapter: Callable[[ResourceServer], Any], scope: str
) -> None:
    client = TestClient(adapter(world.server()), base_url=ORIGIN)
    answer = client.get("/notes", headers=world.headers("/notes", scopes=["api", scope], **STAFF))
    assert (answer.status_code, answer.text.strip('"')) == (200, "reached")


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("scopes", "claims", "check"),
    [
        (["api"], STAFF, "scope"),
        (["notes:read"], STAFF, "scope"),
        (["api", "notes:read"], {}, "scope"),
        (["api", "notes:read"], {"realm_access": {"roles": ["user"]}}, "scope"),
        # Values that the function doesn't expect: never accepted, and never a 500.
        (["api", "notes:read"], {"realm_access": None}, "scope"),
        (["api", "notes:read"], {"realm_access": {}}, "scope"),
        (["api", "notes:read"], {"realm_access": [["roles"]]}, "scope"),
        (["api", "notes:read"], {"realm_access": {"roles": 1}}, "scope"),
        (["api", "notes:read"], {"realm_access": "staff"}, "scope"),
    ],
)
def test_anything_missing_is_a_403_that_names_what_to_ask_for(
    world: World,
    adapter: Callable[[ResourceServer], Any],
    scopes: list[str],
    claims: dict[str, Any],
    check: str,
) -> None:
    events: list[AuthenticationEvent] = []
    client = TestClient(adapter(world.server(on_event=events.append)), base_url=ORIGIN)
    answer = client.get("/notes", headers=world.headers("/notes", scopes=scopes, **claims))
    assert answer.status_code == 403
    challenge = answer.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="api notes:read"' in challenge
    assert "realm_access" not in challenge + answer.text
    assert (events[-1].outcome, events[-1].check) == ("refused", check)


def test_the_middleware_asks_nothing_of_public_paths_and_of_anonymous_requests(world: World) -> None:
    client = TestClient(around_the_application(world.server()), base_url=ORIGIN)
    assert client.get("/health").status_code == 200
    app = DPoPMiddleware(reached, world.server(), required=False, **ASKED)
    client = TestClient(app, base_url=ORIGIN)
    assert client.get("/notes").status_code == 200
    assert client.get("/notes", headers=world.headers("/notes")).status_code == 403


def test_a_route_adds_to_what_the_middleware_asks(world: World) -> None:
    api = world.server()

    @requires_dpop(api, claims={"tier": lambda tier: tier == "gold"})
    async def notes(request: Request) -> Response:
        return PlainTextResponse(request.user.identity)

    app = DPoPMiddleware(Starlette(routes=[Route("/notes", notes)]), api, any_of=["a", "b"])
    client = TestClient(app, base_url=ORIGIN)
    for scopes, claims, status in (
        (["a"], {"tier": "gold"}, 200), (["a"], {}, 403), ([], {"tier": "gold"}, 403)
    ):  # fmt: skip
        headers = world.headers("/notes", scopes=scopes, **claims)
        assert client.get("/notes", headers=headers).status_code == status


def websocket_function(api: ResourceServer) -> Any:
    @requires_dpop(api, **ASKED)
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return Starlette(routes=[WebSocketRoute("/ws", socket)])


def websocket_class(api: ResourceServer) -> Any:
    @requires_dpop(api, **ASKED)
    class Socket(WebSocketEndpoint):
        async def on_connect(self, websocket: Any) -> None:
            await websocket.accept()
            await websocket.close()

    return Starlette(routes=[WebSocketRoute("/ws", Socket)])


@pytest.mark.parametrize("adapter", [websocket_function, websocket_class])
def test_websockets_are_asked_for_claims_too(world: World, adapter: Callable[[ResourceServer], Any]) -> None:
    client = TestClient(adapter(world.server()), base_url=ORIGIN)
    good = world.headers("/ws", scopes=["notes:admin"], **STAFF)
    with client.websocket_connect("/ws", headers=good) as websocket:
        assert websocket.receive()["type"] == "websocket.close"
    for claims in ({}, {"realm_access": 1}):
        bad = world.headers("/ws", scopes=["notes:admin"], **claims)
        with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/ws", headers=bad):
            pass
        assert caught.value.status_code == 403
