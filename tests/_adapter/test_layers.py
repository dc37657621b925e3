"""CORSMiddleware inside the protection is seen, wherever it is, unless only public paths are inside."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Host, Mount, Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from dpop_middleware import DPoPMiddleware
from tests.support.adapters import ORIGIN, World, reached, whoami


@pytest.fixture
def world() -> World:
    return World()


def warnings_of(app: Any, caplog: pytest.LogCaptureFixture, requests: int = 2) -> list[str]:
    caplog.clear()
    client = TestClient(app, base_url=ORIGIN)
    for _ in range(requests):
        client.get("/")
    return [message for message in caplog.messages if "CORSMiddleware is inside" in message]


class OwnCORS(CORSMiddleware):
    pass


CORS_INSIDE: list[Any] = [
    CORSMiddleware(reached),
    OwnCORS(reached),
    Starlette(middleware=[Middleware(CORSMiddleware)]),
    Starlette(middleware=[Middleware(OwnCORS)]),
    Starlette(routes=[Mount("/x", CORSMiddleware(reached))]),
    Starlette(routes=[Mount("/x", Starlette(middleware=[Middleware(CORSMiddleware)]))]),
    Starlette(routes=[Route("/x", whoami, middleware=[Middleware(CORSMiddleware)])]),
]


@pytest.mark.parametrize("inside", CORS_INSIDE)
def test_cors_inside_is_warned_of_once(world: World, caplog: pytest.LogCaptureFixture, inside: Any) -> None:
    assert len(warnings_of(DPoPMiddleware(inside, world.server()), caplog)) == 1


def cors(*routes: Any) -> Starlette:
    return Starlette(routes=list(routes), middleware=[Middleware(CORSMiddleware)])


ONLY_CORS = [Middleware(CORSMiddleware)]
INCLUDED = APIRouter(routes=[Route("/x", whoami)])
WITH_INCLUDED = FastAPI(middleware=ONLY_CORS, openapi_url=None)
WITH_INCLUDED.include_router(INCLUDED, prefix="/feed")


@pytest.mark.parametrize(
    ("inside", "public_paths", "warned"),
    [
        (Route("/feed", whoami, middleware=ONLY_CORS), ["/feed"], False),
        (Route("/feed", whoami, middleware=ONLY_CORS), ["/feed/*"], True),
        (Route("/feed/{name}", whoami, middleware=ONLY_CORS), ["/feed/*"], False),
        (Route("/feed-{name}", whoami, middleware=ONLY_CORS), ["/feed/*"], True),
        (Route("/{name}", whoami, middleware=ONLY_CORS), ["/name"], True),
        (Mount("/feed", CORSMiddleware(reached)), ["/feed/*"], False),
        (Mount("/feed", CORSMiddleware(reached)), ["/feed/a"], True),
        (Mount("/", CORSMiddleware(reached)), ["/feed/*"], True),
        (Mount("/feed/", CORSMiddleware(reached)), ["/feed/*"], False),
        (Mount("/feed/{name}", CORSMiddleware(reached)), ["/feed/*"], False),
        (Mount("/{name}", CORSMiddleware(reached)), ["/feed/*"], True),
        (Mount("/feed", cors(Route("/a", whoami), Route("/b", whoami))), ["/feed/a", "/feed/b"], False),
        (Mount("/feed", cors(Route("/a", whoami), Route("/b", whoami))), ["/feed/a"], True),
        (Mount("/v1", Starlette(routes=[Mount("/feed", cors())])), ["/v1/feed/*"], False),
        (Mount("/v1", Starlette(routes=[Mount("/feed", cors())])), ["/feed/*"], True),
        (Host("{name}.example.test", cors(Route("/feed", whoami))), ["/feed"], False),
        (Host("{name}.example.test", cors(Route("/feed", whoami))), [], True),
        (Mount("/v1", WITH_INCLUDED), ["/v1/feed/x"], False),
        (Mount("/v1", WITH_INCLUDED), ["/v1/feed/*"], False),
        (Mount("/v1", WITH_INCLUDED), ["/v1/x"], True),
    ],
)
def test_cors_around_what_is_public_is_not_warned_of(
    world: World, caplog: pytest.LogCaptureFixture, inside: Any, public_paths: list[str], warned: bool
) -> None:
    app = Starlette(routes=[Route("/", whoami), inside])
    messages = warnings_of(DPoPMiddleware(app, world.server(), public_paths=public_paths), caplog)
    assert len(messages) == warned


def test_where_preflights_pass_the_warning_names_what_still_fails(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (message,) = warnings_of(DPoPMiddleware(cors(), world.server(), required=False), caplog)
    assert "no page can read a refusal" in message
    assert "preflights" not in message


def test_cors_below_it_in_the_same_stack_is_warned_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(middleware=[Middleware(DPoPMiddleware, world.server()), Middleware(CORSMiddleware)])
    assert len(warnings_of(app, caplog)) == 1


class Strange:
    """An object of unknown kind must not prevent an answer."""

    routes = 7
    user_middleware = (object(),)

    def __init__(self) -> None:
        self.app = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await reached(scope, receive, send)


def test_cors_outside_or_absent_is_not_warned_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    api = world.server()
    outside = Starlette(middleware=[Middleware(CORSMiddleware), Middleware(DPoPMiddleware, api)])
    assert warnings_of(outside, caplog) == []
    assert warnings_of(CORSMiddleware(DPoPMiddleware(Starlette(), api)), caplog) == []
    assert warnings_of(DPoPMiddleware(Strange(), api), caplog) == []


def test_an_endless_application_is_looked_at_for_a_while_only(world: World) -> None:
    class Endless(Strange):
        def __getattribute__(self, name: str) -> Any:
            return Endless() if name == "app" else super().__getattribute__(name)

    assert TestClient(DPoPMiddleware(Endless(), world.server()), base_url=ORIGIN).get("/").status_code == 401


def test_a_mount_of_itself_is_looked_at_for_a_while_only(world: World) -> None:
    app = Starlette()
    app.routes.extend([Mount("/a", app), Mount("/b", app)])
    assert TestClient(DPoPMiddleware(app, world.server()), base_url=ORIGIN).get("/").status_code == 401
