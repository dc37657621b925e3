"""Attacks on the adapters: reaching the application without credentials, or as another user."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.authentication import SimpleUser
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from dpop_middleware import AccessToken, DPoPMiddleware
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.fastapi import DPoPSecurity
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import World, reached, scope_of
from tests.support.asgi import Answer, call


@pytest.fixture
def world() -> World:
    return World()


def cutting_at_the_first(served: list[str]) -> Any:
    """Route as Litestar does: on what follows the first occurrence of the root path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope["path"].split(scope["root_path"] or "\0", maxsplit=1)[-1])
        await reached(scope, receive, send)

    return app


def cutting_a_prefix(served: list[str]) -> Any:
    """Route as Django does: on the rest without the root path, even within a segment."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope["path"].removeprefix(scope["root_path"]))
        await reached(scope, receive, send)

    return app


def comparing_what_was_sent(served: list[str]) -> Any:
    """Route as BlackSheep does: on the raw path, undecoded."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope["raw_path"].removeprefix(scope["root_path"].encode()).decode("latin-1"))
        await reached(scope, receive, send)

    return app


ROUTERS = [cutting_at_the_first, cutting_a_prefix, comparing_what_was_sent]


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize(
    ("path", "root_path"),
    [
        ("/static/api/secret", "/api"),
        ("/api/static/api/secret", "/api"),
        ("/static/API/secret", "/api"),
        ("/apix/static/a", "/api"),
        ("/%61pi/static/a", "/api"),
        ("/s%74atic/secret", ""),
        ("/static/secret", "/static"),
        ("/static/static/a", "/static"),
        ("/static/../secret", ""),
        ("/static/%2e%2e/secret", ""),
        ("/static/x%2f..%2f..%2fsecret", ""),
        ("//static/a", ""),
        ("/static/api/secret", "api"),
        ("/api/static/a", "/api/"),
        ("http://api.example.test/static/a", ""),
        ("http://api.example.test/static/a", "/static"),
        ("/apihttp://x/static/a", "/api"),
    ],
)
async def test_no_protected_path_is_reached_under_the_name_of_a_public_one(
    world: World, router: Any, path: str, root_path: str
) -> None:
    served: list[str] = []
    app = DPoPMiddleware(router(served), world.server(), public_paths=["/static/*"])
    answer = await call(app, scope_of(path, root_path=root_path))
    assert answer.status in (400, 401)
    assert served == []


@pytest.mark.parametrize("router", ROUTERS)
async def test_a_public_path_that_every_router_reads_alike_is_no_attack(world: World, router: Any) -> None:
    served: list[str] = []
    app = DPoPMiddleware(router(served), world.server(), public_paths=["/static/*"])
    assert (await call(app, scope_of("/api/static/a.js", root_path="/api"))).status == 200
    assert served == ["/static/a.js"]


class OwnRootPath(Starlette):
    """An application with a root path of its own, as FastAPI(root_path="/static") is."""

    root_path = "/static"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"] = self.root_path
        await super().__call__(scope, receive, send)


async def secret(request: Request) -> Response:
    return PlainTextResponse("secret")


async def test_no_protected_path_is_reached_through_a_root_path_of_the_application(
    world: World,
) -> None:
    inner = OwnRootPath(routes=[Route("/secret", secret)])
    app = DPoPMiddleware(inner, world.server(), public_paths=["/static/*"])
    assert (await call(app, scope_of("/static/secret"))).status == 401
    mounted = Starlette(routes=[Mount("/static", inner)])
    assert (
        await call(DPoPMiddleware(mounted, world.server(), public_paths=["/static/*"]), scope_of("/static/a"))
    ).status == 404


async def test_no_protected_path_is_reached_through_a_root_path_that_is_a_slash(world: World) -> None:
    """A client of daphne may choose it. A mount then looks for two slashes, and passes the whole path on."""
    inner = Starlette(routes=[Route("/{user}/static/{name}", secret)])
    app = DPoPMiddleware(
        Starlette(routes=[Mount("/v1", inner)]), world.server(), public_paths=["/v1/static/*"]
    )
    assert (await call(app, scope_of("/v1/static/secret", root_path="/"))).status == 401
    assert (await call(app, scope_of("/v1/static/secret"))).status == 404


async def test_no_protected_path_is_reached_through_an_opaque_wrapper(world: World) -> None:
    class Wrapper:
        """A layer with an attribute that fails until it is set up."""

        app = OwnRootPath(routes=[Route("/secret", secret)])

        @property
        def routes(self) -> list[Any]:
            raise RuntimeError("not set up")

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    app = DPoPMiddleware(Wrapper(), world.server(), public_paths=["/static/*"])
    for _ in range(2):
        assert (await call(app, scope_of("/static/secret"))).status == 401


async def test_no_protected_path_is_reached_while_the_inspection_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_app: object) -> list[tuple[str, str]]:
        raise RuntimeError("a layer that nobody thought of")

    monkeypatch.setattr("dpop_middleware.asgi.inner_root_paths", failing)
    inner = OwnRootPath(routes=[Route("/secret", secret)])
    app = DPoPMiddleware(inner, world.server(), public_paths=["/static/*"])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="nobody thought of"):
            await call(app, scope_of("/static/secret"))


async def test_no_helper_of_a_class_runs_as_a_request_method(world: World) -> None:
    class Notes(HTTPEndpoint):
        @requires_dpop(world.server())
        async def get(self, request: Request) -> Response:
            return self.render("notes")

        def render(self, what: Any) -> Response:
            return PlainTextResponse(f"secret {what}")

    app = Starlette(routes=[Route("/notes", Notes)])
    for method in ("RENDER", "render", "DISPATCH", "METHOD_NOT_ALLOWED", "__INIT__", "SEND"):
        assert (await call(app, scope_of("/notes", method=method))).status == 405
    assert (await call(app, scope_of("/notes", world.fields("/notes")))).body == b"secret notes"


async def never_reached(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the application is not to be reached")


async def no_receive() -> Message:
    raise AssertionError("no message is to be read")


async def no_send(message: Message) -> None:
    raise AssertionError("no message is to be sent")


OTHER_TYPES = ["webtransport", "http.request", "HTTP", "Lifespan", "", None, "x\r\n\x1b[2J"]


@pytest.mark.parametrize("kind", OTHER_TYPES)
@pytest.mark.parametrize("options", [{}, {"required": False}, {"public_paths": ["/"]}])
async def test_no_unknown_scope_type_passes_the_middleware(
    world: World, kind: Any, options: dict[str, Any]
) -> None:
    app = DPoPMiddleware(never_reached, world.server(), **options)
    with pytest.raises(ConfigurationError) as refused:
        await app(scope_of("/", world.fields("/"), type=kind), no_receive, no_send)
    assert ascii(kind) in str(refused.value)


def kinds_of_adapters(world: World) -> dict[str, Any]:
    api = world.server()

    @requires_dpop(api)
    async def function(request: HTTPConnection) -> Response:
        raise AssertionError

    @requires_dpop(api)
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            raise AssertionError

    @requires_dpop(api)
    class Socket(WebSocketEndpoint):
        async def on_connect(self, websocket: WebSocket) -> None:
            raise AssertionError

    async def by_class(kind: Any, connection: HTTPConnection) -> None:
        first = {**connection.scope, "type": "http" if kind is Endpoint else "websocket"}
        made = kind(first, no_receive, no_send)
        made.scope = connection.scope
        await made.dispatch()

    security: Any = DPoPSecurity(api)
    optional: Any = DPoPSecurity(api, required=False)
    scopes: Any = type("Scopes", (), {"scopes": []})
    return {
        "function": function,
        "endpoint": lambda connection: by_class(Endpoint, connection),
        "socket": lambda connection: by_class(Socket, connection),
        "dependency": lambda connection: security(connection, scopes),
        "optional dependency": lambda connection: optional(connection, scopes),
    }


@pytest.mark.parametrize("adapter", ["function", "endpoint", "socket", "dependency", "optional dependency"])
@pytest.mark.parametrize("kind", OTHER_TYPES)
async def test_no_unknown_scope_type_passes_a_route(world: World, adapter: str, kind: Any) -> None:
    connection = HTTPConnection(scope_of("/"))
    connection.scope["type"] = kind
    with pytest.raises(ConfigurationError, match="scope type"):
        await kinds_of_adapters(world)[adapter](connection)


async def ask(app: Any, path: str, world: World | None = None, **changes: Any) -> Answer:
    return await call(app, scope_of(path, world.fields(path) if world else None, **changes))


async def test_nobody_passes_as_a_client_that_an_outer_layer_authenticated(world: World) -> None:
    proved = scope_of("/", world.fields("/"))
    await call(DPoPMiddleware(reached, world.server()), proved)
    for options in ({"required": False}, {"public_paths": ["/"]}):
        kept: Any = options
        scope = scope_of("/", None)
        scope.update({name: proved[name] for name in ("user", "auth", "dpop")})
        assert (await call(DPoPMiddleware(reached, world.server(), **kept), scope)).status == 200
        assert "dpop" not in scope
        assert not scope["user"].is_authenticated


async def test_a_session_does_not_replace_credentials(world: World) -> None:
    app = DPoPMiddleware(reached, world.server(), public_paths=["/health"])
    assert (await ask(app, "/private", user=SimpleUser("alice"))).status == 401


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "TRACE", "CONNECT", "get", ""])
async def test_no_preflight_or_other_method_reaches_the_application(world: World, method: str) -> None:
    fields = [("Origin", "https://evil.test"), ("Access-Control-Request-Method", "GET")]
    app = DPoPMiddleware(never_reached, world.server())
    assert (await call(app, scope_of("/", fields, method=method))).status == 401


async def test_the_authorization_field_can_not_be_hidden_from_the_optional_middleware(world: World) -> None:
    app = DPoPMiddleware(never_reached, world.server(), required=False)
    for name in (b"authorization", b"Authorization", b"AUTHORIZATION"):
        scope = scope_of("/")
        scope["headers"] = [(name, b"DPoP stolen")]
        assert (await call(app, scope)).status == 401


async def test_one_proof_is_not_accepted_for_two_paths_of_one_connection(world: World) -> None:
    api = world.server()
    inner = DPoPMiddleware(never_reached, api)

    async def rewriting(scope: Scope, receive: Receive, send: Send) -> None:
        await inner({**scope, "path": "/admin"}, receive, send)

    assert (await ask(DPoPMiddleware(rewriting, api), "/notes", world)).status == 401


async def test_an_optional_dependency_opens_no_way_past_a_required_one(world: World) -> None:
    app = FastAPI()
    required, optional = DPoPSecurity(world.server()), DPoPSecurity(world.server(), required=False)

    @app.get("/notes")
    async def notes(
        maybe: Annotated[AccessToken | None, Depends(optional)],
        surely: Annotated[AccessToken, Depends(required)],
    ) -> str:
        raise AssertionError

    assert (await ask(app, "/notes")).status == 401
