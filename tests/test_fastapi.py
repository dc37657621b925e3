"""The FastAPI dependency: scopes, OpenAPI, refusals with and without the handler, mixtures of adapters."""

import functools
import importlib
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security, WebSocket
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message

from dpop_middleware import AccessToken, DPoPMiddleware, DPoPPolicy, HMACNonceProvider, ResourceServer
from dpop_middleware.errors import ConfigurationError, InvalidDPoPProof, MissingCredentials
from dpop_middleware.fastapi import (
    DPoPHTTPException,
    DPoPSecurity,
    dpop_exception_handler,
    refusal_responses,
)
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, World, answers_to_handshake, scope_of
from tests.support.asgi import call


@pytest.fixture
def world() -> World:
    return World()


def notes_app(api: ResourceServer, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    dpop = DPoPSecurity(api)

    @app.get("/notes")
    async def notes(token: Annotated[AccessToken, Security(dpop, scopes=["notes:read"])]) -> dict[str, str]:
        return {"user": token.identity}

    @app.post("/notes")
    def write(token: Annotated[AccessToken, Security(dpop, scopes=["notes:write"])]) -> dict[str, str]:
        return {"user": token.identity}

    @app.get("/me")
    def me(request: Request, token: Annotated[AccessToken, Depends(dpop)]) -> dict[str, Any]:
        return {"user": request.user.identity, "same": request.scope["dpop"].access_token is token}

    return app


def browser(app: Any) -> TestClient:
    return TestClient(app, base_url=ORIGIN)


def test_the_dependency_returns_the_access_token(world: World) -> None:
    client = browser(notes_app(world.server()))
    headers = world.headers("/notes", scopes=["notes:read"])
    assert client.get("/notes", headers=headers).json() == {"user": "user123"}
    assert client.get("/notes", headers=headers).status_code == 401
    assert client.get("/me", headers=world.headers("/me")).json() == {"user": "user123", "same": True}
    post = world.headers("/notes", method="POST", scopes=["notes:write"])
    assert client.post("/notes", headers=post).json() == {"user": "user123"}


def test_openapi_shows_the_scheme_and_the_scopes(world: World) -> None:
    app = FastAPI()
    dpop = DPoPSecurity(world.server(), scheme_name="Ours", description="Ask us for a token.")

    @app.get("/notes")
    async def notes(token: Annotated[AccessToken, Security(dpop, scopes=["notes:read"])]) -> None: ...

    document = app.openapi()
    assert document["components"]["securitySchemes"] == {
        "Ours": {"type": "http", "scheme": "dpop", "description": "Ask us for a token."}
    }
    ((name, scopes),) = document["paths"]["/notes"]["get"]["security"][0].items()
    assert name == "Ours"
    assert scopes in (["notes:read"], []), "older FastAPI lists the scopes of OAuth 2 schemes only"
    assert "parameters" not in document["paths"]["/notes"]["get"]


def test_openapi_has_a_default_scheme(world: World) -> None:
    document = notes_app(world.server()).openapi()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "dpop")
    assert document["paths"]["/me"]["get"]["security"] == [{"DPoP": []}]


def test_dependency_overrides_replace_the_dependency(world: World) -> None:
    app = FastAPI()
    dpop = DPoPSecurity(world.server())

    @app.get("/me")
    async def me(token: Annotated[AccessToken, Security(dpop, scopes=["me"])]) -> str:
        return token.identity

    somebody = AccessToken(
        claims={}, issuer="i", subject="tester", client_id="c", scopes=frozenset(), expires_at=0, jkt=None
    )
    app.dependency_overrides[dpop] = lambda: somebody
    assert browser(app).get("/me").json() == "tester"
    app.dependency_overrides.clear()
    assert browser(app).get("/me").status_code == 401


# --- refusals


def refusals(world: World) -> list[dict[str, str]]:
    replayed = world.headers("/notes", scopes=["notes:read"])
    return [
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": "DPoP"},
        {"Authorization": f"DPoP {world.token()}"},
        world.headers("/notes"),
        world.headers("/other", scopes=["notes:read"]),
        replayed,
        replayed,
    ]


def test_the_exception_handler_answers_as_the_middleware_does(world: World) -> None:
    api = world.server().with_policy(accept_bearer=True)
    app = notes_app(api)
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
    protected = requires_dpop(api, "notes:read")

    reference = FastAPI()

    @reference.get("/notes")
    @protected
    async def notes(request: Request) -> JSONResponse:
        return JSONResponse({"user": request.user.identity})

    def answers(each: FastAPI) -> list[Any]:
        responses = [browser(each).get("/notes", headers=headers) for headers in refusals(world)]
        return [(answer.status_code, answer.headers.multi_items(), answer.json()) for answer in responses]

    assert answers(app) == answers(reference)
    assert [status for status, _, _ in answers(app)] == [401, 401, 400, 401, 403, 401, 200, 401]


def test_without_the_handler_status_and_challenges_are_right(world: World) -> None:
    client = browser(notes_app(world.server().with_policy(accept_bearer=True)))
    for headers in refusals(world)[:-2]:
        response = client.get("/notes", headers=headers)
        assert response.status_code in (400, 401, 403)
        schemes = [challenge.split()[0] for challenge in response.headers.get_list("www-authenticate")]
        assert sorted(schemes) == ["Bearer", "DPoP"]
        assert response.headers.get_list("cache-control") == ["no-store"]
        assert response.headers["content-type"] == "application/json"
        assert list(response.json()) == ["detail"]


def test_the_exception_names_its_cause(world: World) -> None:
    app = notes_app(world.server())
    causes: list[Any] = []

    async def handler(request: Request, exception: Exception) -> PlainTextResponse:
        assert isinstance(exception, DPoPHTTPException)
        causes.append(exception.error)
        assert exception.response.status == exception.status_code
        return PlainTextResponse("no", 400, headers=exception.headers)

    app.add_exception_handler(DPoPHTTPException, handler)
    client = browser(app)
    answer = client.get("/notes")
    # An application with its own body describes it.
    assert (answer.status_code, answer.text) == (400, "no")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    client.get("/notes", headers=world.headers("/other"))
    assert [type(cause) for cause in causes] == [MissingCredentials, InvalidDPoPProof]


async def test_the_handler_is_for_our_exceptions_only(world: World) -> None:
    with pytest.raises(LookupError):
        await dpop_exception_handler(Request(scope_of("/")), LookupError())


# --- one request is authenticated once


def mixed(api: ResourceServer) -> FastAPI:
    dpop = DPoPSecurity(api)
    strict = DPoPSecurity(api.with_policy(algorithms=("ES256",)))

    async def user(token: Annotated[AccessToken, Security(dpop, scopes=["b"])]) -> str:
        return token.identity

    router = APIRouter(prefix="/v1", dependencies=[Security(dpop, scopes=["a"])])

    @router.get("/mixed", dependencies=[Security(strict)])
    @requires_dpop(api, "c")
    async def endpoint(
        request: Request,
        name: Annotated[str, Depends(user)],
        token: Annotated[AccessToken, Security(dpop, scopes=["d"])],
    ) -> str:
        return name

    app = FastAPI(dependencies=[Security(dpop)])
    app.include_router(router)
    return app


@pytest.mark.parametrize("under_middleware", [False, True])
def test_any_mixture_asks_the_store_once(world: World, under_middleware: bool) -> None:
    api = world.server()
    app = mixed(api)
    client = browser(DPoPMiddleware(app, api) if under_middleware else app)
    assert (
        client.get("/v1/mixed", headers=world.headers("/v1/mixed", scopes=["a", "b", "c", "d"])).json()
        == "user123"
    )
    assert world.store.asked == 1
    for missing in "abcd":
        scopes = set("abcd") - {missing}
        refused = client.get("/v1/mixed", headers=world.headers("/v1/mixed", scopes=scopes))
        assert refused.status_code == 403
        assert f'scope="{missing}' in refused.headers["www-authenticate"]


def test_concurrent_dependencies_ask_once(world: World) -> None:
    app = FastAPI()
    dpop = DPoPSecurity(world.server())

    async def gather(request: Request) -> list[str]:
        import asyncio

        from fastapi.security import SecurityScopes

        tokens = await asyncio.gather(*(dpop(request, SecurityScopes([])) for _ in range(5)))
        return [token.identity for token in tokens if token]

    @app.get("/")
    async def endpoint(names: Annotated[list[str], Depends(gather)]) -> list[str]:
        return names

    assert browser(app).get("/", headers=world.headers("/")).json() == ["user123"] * 5
    assert world.store.asked == 1


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
def test_fastapis_own_root_path_is_no_other_request(world: World) -> None:
    api = world.server(public_url=f"{ORIGIN}/api")
    app = DPoPMiddleware(notes_app(api, root_path="/api"), api)
    assert browser(app).get("/me", headers=world.headers("/api/me")).status_code == 200
    assert world.store.asked == 1


@pytest.mark.parametrize("where", ["value", "route", "router", "included", "application"])
def test_a_decorated_dependency_lets_no_stranger_reach_the_endpoint(world: World, where: str) -> None:
    api = world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="fallback"))

    @requires_dpop(api, "notes:write")
    async def writer(request: Request) -> str:
        return str(request.user.identity)

    def depends(here: str) -> list[Any]:
        return [Depends(writer)] if where == here else []

    reached: list[str] = []
    router = APIRouter(dependencies=depends("router"))

    async def nobody() -> str:
        return "nobody"

    asked = Depends(writer if where == "value" else nobody)

    @router.delete("/notes", dependencies=depends("route"))
    @requires_dpop(api)
    async def delete(by: Annotated[str, asked], request: Request) -> str:
        reached.append(by)
        return str(request.user.display_name)

    app = FastAPI(dependencies=depends("application"))
    app.include_router(router, prefix="/v1", dependencies=depends("included"))
    client = browser(app)
    anonymous = client.delete("/v1/notes")
    assert (anonymous.status_code, anonymous.headers["www-authenticate"][:4]) == (401, "DPoP")
    unfit = client.delete("/v1/notes", headers=world.headers("/v1/notes", method="DELETE"))
    assert (unfit.status_code, "dpop-nonce" in unfit.headers) == (403, True)
    assert reached == []
    fit = world.headers("/v1/notes", method="DELETE", scopes=["notes:write"])
    assert client.delete("/v1/notes", headers=fit).json() == "user123"


def test_a_decorated_dependency_refuses_where_the_scope_names_no_route(world: World) -> None:
    """FastAPI serves the files of `app.frontend` by a route that it doesn't put into the scope."""

    class Unnamed(APIRoute):
        def matches(self, scope: Any) -> Any:
            match, child = super().matches(scope)
            return match, {name: child[name] for name in child if name not in ("route", "endpoint")}

    @requires_dpop(world.server())
    async def caller(request: Request) -> str:
        return str(request.user.identity)

    app = FastAPI(dependencies=[Depends(caller)])
    app.router.route_class = Unnamed

    @app.get("/index.html")
    async def page() -> str:
        return "a secret"

    client = browser(app)
    assert client.get("/index.html").status_code == 401
    assert client.get("/index.html", headers=world.headers("/index.html")).json() == "a secret"


def test_a_decorated_dependency_that_looks_like_a_middleware_lets_no_stranger_through(world: World) -> None:
    @requires_dpop(world.server())
    async def caller(request: Request, call_next: str = "") -> str:
        return str(request.user.identity) + call_next

    app = FastAPI()

    @app.get("/notes")
    async def notes(by: Annotated[Any, Depends(caller)]) -> str:
        return str(by)

    assert browser(app).get("/notes").status_code == 401
    assert browser(app).get("/notes", headers=world.headers("/notes")).json() == "user123"


def test_a_function_that_a_decorated_dependency_depends_on_makes_no_middleware_of_it(world: World) -> None:
    async def following() -> Any:
        return following

    @requires_dpop(world.server())
    async def caller(request: Request, call_next: Annotated[Any, Depends(following)]) -> str:
        return str(request.user.identity)

    app = FastAPI()

    @app.get("/notes", dependencies=[Depends(caller)])
    async def notes() -> str:
        return "a secret"

    assert browser(app).get("/notes").status_code == 401
    assert browser(app).get("/notes", headers=world.headers("/notes")).json() == "a secret"


def test_a_decorated_dependency_may_serve_requests_and_websockets(world: World) -> None:
    """FastAPI passes the one that there is, and leaves the other argument its default."""

    # None is of another type on purpose: so a user writes a connection that may not be there.
    @requires_dpop(world.server())
    async def caller(request: Request = None, websocket: WebSocket = None) -> str:  # type: ignore[assignment] # pyright: ignore[reportArgumentType]
        return str((request or websocket).user.identity)

    app = FastAPI()

    @app.get("/notes")
    async def notes(by: Annotated[str, Depends(caller)]) -> str:
        return by

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, by: Annotated[str, Depends(caller)]) -> None:
        await websocket.accept()
        await websocket.send_text(by)
        await websocket.close()

    client = browser(app)
    assert client.get("/notes").status_code == 401
    assert client.get("/notes", headers=world.headers("/notes")).json() == "user123"
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/ws"):
        raise AssertionError
    with client.websocket_connect("/ws", headers=world.headers("/ws")) as connection:
        assert connection.receive_text() == "user123"


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_a_decorated_dependency_lets_no_stranger_reach_a_websocket(
    world: World, extensions: dict[str, Any]
) -> None:
    @requires_dpop(world.server())
    async def caller(websocket: WebSocket) -> None:
        raise AssertionError

    app = FastAPI()

    @app.websocket("/ws", dependencies=[Depends(caller)])
    async def ws(websocket: WebSocket) -> None:
        raise AssertionError

    first, *_ = await answers_to_handshake(app, extensions)
    assert (first.get("status"), first.get("code")) == ((401, None) if extensions else (None, 1008))


def test_an_exception_handler_may_add_fields_to_those_of_a_refusal(world: World) -> None:
    app = FastAPI()

    @app.get("/notes", dependencies=[Security(DPoPSecurity(world.server()))])
    async def notes() -> str:
        raise AssertionError

    @app.exception_handler(DPoPHTTPException)
    async def handler(request: Request, error: Any) -> Response:
        error.headers["X-Request-ID"] = "7"
        return PlainTextResponse("", error.status_code, error.headers)

    refused = browser(app).get("/notes")
    assert refused.status_code == 401
    assert {"www-authenticate", "x-request-id"} <= set(refused.headers)


def test_in_fastapi_a_decorated_endpoint_still_answers_with_the_usual_body(world: World) -> None:
    app = FastAPI()

    @app.get("/notes")
    @requires_dpop(world.server())
    async def notes(request: Request) -> str:
        raise AssertionError

    assert browser(app).get("/notes").json() == {"error_description": "an access token is required"}


def test_in_fastapi_no_decorator_around_a_decorated_endpoint_takes_a_refusal_for_a_value(
    world: World,
) -> None:
    def shown(endpoint: Any) -> Any:
        @functools.wraps(endpoint)
        async def outer(*args: Any, **kwargs: Any) -> str:
            return f"files of {await endpoint(*args, **kwargs)}"

        return outer

    app = FastAPI()

    @app.get("/files")
    @shown
    @requires_dpop(world.server())
    async def files(request: Request) -> str:
        return str(request.user.identity)

    client = browser(app)
    refused = client.get("/files")
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
    assert client.get("/files", headers=world.headers("/files")).json() == "files of user123"


def test_an_attribute_func_of_an_endpoint_is_its_own(world: World) -> None:
    """A Mock has all attributes, each of which has all attributes: what followed them found no end."""

    class Endpoint:
        @property
        def func(self) -> Any:
            raise AssertionError

        async def __call__(self) -> str:
            return "reached"

    @requires_dpop(world.server())
    async def caller(request: Request) -> str:
        return str(request.user.identity)

    app = FastAPI(dependencies=[Depends(caller)])
    app.add_api_route("/notes", Endpoint())
    assert browser(app).get("/notes").status_code == 401
    assert browser(app).get("/notes", headers=world.headers("/notes")).json() == "reached"


def test_two_servers_accept_their_own_audience_only(world: World) -> None:
    ours = DPoPSecurity(world.server())
    other = DPoPSecurity(world.server(audience="https://other.example.test", replay_namespace="other"))
    app = FastAPI()

    @app.get("/ours")
    async def of_ours(token: Annotated[AccessToken, Security(ours)]) -> str:
        return token.identity

    @app.get("/both", dependencies=[Security(other)])
    async def of_both(token: Annotated[AccessToken, Security(ours)]) -> str:
        return token.identity

    client = browser(app)
    assert client.get("/ours", headers=world.headers("/ours")).status_code == 200
    assert client.get("/both", headers=world.headers("/both")).status_code == 401
    both = [ORIGIN, "https://other.example.test"]
    assert client.get("/both", headers=world.headers("/both", audience=both)).status_code == 200


def test_a_mounted_application_is_protected_at_its_full_path(world: World) -> None:
    api = world.server()
    app = FastAPI()
    app.mount("/sub", notes_app(api))
    for protected in (app, DPoPMiddleware(app, api)):
        client = browser(protected)
        assert client.get("/sub/me", headers=world.headers("/sub/me")).status_code == 200
        assert client.get("/sub/me", headers=world.headers("/me")).status_code == 401
    assert world.store.asked == 2


def test_optional_authentication_accepts_requests_without_credentials(world: World) -> None:
    api = world.server()
    dpop = DPoPSecurity(api, required=False)
    app = FastAPI()

    @app.get("/hello")
    async def hello(token: Annotated[AccessToken | None, Security(dpop, scopes=["hello"])]) -> str:
        return token.identity if token else "stranger"

    for client in (browser(app), browser(DPoPMiddleware(app, api, required=False))):
        assert client.get("/hello").json() == "stranger"
        assert client.get("/hello", headers=world.headers("/hello", scopes=["hello"])).json() == "user123"
        assert client.get("/hello", headers=world.headers("/hello")).status_code == 403
        assert client.get("/hello", headers={"Authorization": "DPoP junk"}).status_code == 401
        assert client.get("/hello", headers={"Authorization": "Basic junk"}).status_code == 401
    assert browser(DPoPMiddleware(app, api)).get("/hello").status_code == 401


def test_a_weak_or_old_login_is_asked_to_step_up(world: World) -> None:
    app = FastAPI()
    dpop = DPoPSecurity(world.server(), acr_values=("gold",), max_age=60)

    @app.get("/pay")
    async def pay(token: Annotated[AccessToken, Security(dpop)]) -> str:
        return token.identity

    client = browser(app)
    fresh = world.headers("/pay", acr="gold", auth_time=int(world.clock()))
    assert client.get("/pay", headers=fresh).status_code == 200
    refused = client.get("/pay", headers=world.headers("/pay", acr="gold"))
    assert refused.status_code == 401
    assert 'error="insufficient_user_authentication"' in refused.headers["www-authenticate"]


# --- nonces


def test_a_nonce_policy_on_a_dependency_alone_is_a_mistake(world: World) -> None:
    api = world.server(nonces=world.nonces()).with_policy(nonce="required")
    client = browser(notes_app(api))
    for headers in ({}, world.headers("/me")):
        with pytest.raises(ConfigurationError, match="add DPoPMiddleware with the same ResourceServer"):
            client.get("/me", headers=headers)
    other = DPoPMiddleware(notes_app(api), world.server(nonces=world.nonces()))
    with pytest.raises(ConfigurationError, match="add DPoPMiddleware"):
        browser(other).get("/me", headers=world.headers("/me"))


def test_under_the_middleware_a_route_may_require_a_nonce(world: World) -> None:
    api = world.server(nonces=world.nonces())
    strict = DPoPSecurity(api.with_policy(nonce="required"))
    app = FastAPI(middleware=[Middleware(DPoPMiddleware, api, public_paths=["/apart"])])

    @app.get("/strict")
    @app.get("/apart")
    async def endpoint(token: Annotated[AccessToken, Security(strict)], status: int = 200) -> Response:
        return Response(status_code=status, headers={"DPoP-Nonce": "application"})

    @app.get("/plain")
    async def plain() -> str:
        return "reached"

    client = browser(app)
    for path in ("/strict", "/apart"):
        refused = client.get(path, headers=world.headers(path))
        assert refused.status_code == 401
        (nonce,) = refused.headers.get_list("dpop-nonce")
        assert client.get(path, headers=world.headers(path, nonce=nonce)).status_code == 200
        world.clock.now += 61
        late = client.get(f"{path}?status=418", headers=world.headers(path, nonce=nonce))
        assert late.status_code == 418
        (newer,) = late.headers.get_list("dpop-nonce")
        assert newer not in (nonce, "application")
        assert late.headers.get_list("cache-control") == ["no-store"]
    assert "dpop-nonce" not in client.get("/plain", headers=world.headers("/plain")).headers


def test_a_handler_of_the_applications_own_keeps_the_nonce(world: World) -> None:
    api = world.server(nonces=world.nonces())
    app = notes_app(api.with_policy(nonce="required"))
    app.add_exception_handler(DPoPHTTPException, lambda request, exception: JSONResponse({}, 401))
    refused = browser(DPoPMiddleware(app, api)).get("/me", headers=world.headers("/me"))
    assert refused.json() == {}
    assert len(refused.headers.get_list("dpop-nonce")) == 1


# --- WebSockets


def socket_app(api: ResourceServer) -> FastAPI:
    app = FastAPI()
    dpop = DPoPSecurity(api)

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, token: Annotated[AccessToken, Security(dpop, scopes=["ws"])]) -> None:
        await websocket.accept()
        await websocket.send_text(token.identity)
        await websocket.close()

    return app


@pytest.mark.parametrize("with_handler", [False, True])
def test_a_websocket_route_is_protected(world: World, with_handler: bool) -> None:
    app = socket_app(world.server().with_policy(accept_bearer=True))
    if with_handler:
        app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
    client = browser(app)
    with client.websocket_connect("/ws", headers=world.headers("/ws", scopes=["ws"])) as websocket:
        assert websocket.receive_text() == "user123"
    for headers, status in ((world.headers("/ws"), 403), ({}, 401)):
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect("/ws", headers=headers),
        ):
            pass
        assert caught.value.status_code == status
        assert len(caught.value.headers.get_list("www-authenticate")) == 2
        assert ("error_description" if with_handler else "detail") in caught.value.json()


@pytest.mark.parametrize("close_at_expiry", [False, True])
def test_a_dependency_may_hold_the_websocket_of_a_decorated_route(
    world: World, close_at_expiry: bool
) -> None:
    class Caller:
        def __init__(self, websocket: WebSocket) -> None:
            self.websocket = websocket

    app = FastAPI()
    api = world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="fallback"))

    @app.websocket("/ws")
    @requires_dpop(api, close_at_expiry=close_at_expiry)
    async def echo(websocket: WebSocket, caller: Annotated[Caller, Depends(Caller)]) -> None:
        await caller.websocket.accept()
        await caller.websocket.send_text(await websocket.receive_text())

    with browser(app).websocket_connect("/ws", headers=world.headers("/ws")) as websocket:
        assert websocket.extra_headers is not None
        assert b"dpop-nonce" in dict(websocket.extra_headers)
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"


@pytest.mark.parametrize("with_handler", [False, True])
async def test_without_the_denial_extension_a_websocket_is_closed(world: World, with_handler: bool) -> None:
    app = socket_app(world.server())
    if with_handler:
        app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of("/ws", type="websocket", subprotocols=[]), None, send)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


def test_a_nonce_is_sent_with_the_accept(world: World) -> None:
    api = world.server(nonces=world.nonces()).with_policy(nonce="fallback")
    client = browser(DPoPMiddleware(socket_app(api), api))
    with client.websocket_connect("/ws", headers=world.headers("/ws", scopes=["ws"])) as websocket:
        assert websocket.extra_headers is not None
        assert [name for name, _ in websocket.extra_headers] == [b"dpop-nonce", b"cache-control"]


async def test_an_options_request_is_authenticated_by_the_middleware_only(world: World) -> None:
    app = notes_app(world.server())
    assert (await call(app, scope_of("/me", world.fields("/me"), method="OPTIONS"))).status == 405
    protected = DPoPMiddleware(app, world.server())
    assert (await call(protected, scope_of("/me", world.fields("/me"), method="OPTIONS"))).status == 401


# --- configuration


def test_a_dependency_may_have_another_name_in_openapi_and_no_description(world: World) -> None:
    security = DPoPSecurity(world.server(), scheme_name="Notes", description=None)
    assert (security.scheme_name, security.model.description) == ("Notes", None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"resource_server": "https://api.example.test"}, "takes a ResourceServer"),
        ({"acr_values": "gold"}, "acr_values takes a sequence"),
        ({"acr_values": [7]}, "acr_values takes strings"),
        ({"max_age": "60"}, "max_age takes a whole number"),
        ({"required": None}, "required takes True or False"),
        ({"scheme_name": ""}, "scheme_name takes a name for OpenAPI, such as 'DPoP', not ''"),
        ({"scheme_name": None}, "scheme_name takes a name for OpenAPI, such as 'DPoP', not None"),
        ({"description": 5}, "description takes a text for OpenAPI, not 5"),
    ],
)
def test_bad_configuration_is_refused(world: World, arguments: dict[str, Any], sentence: str) -> None:
    security: Any = DPoPSecurity
    with pytest.raises(ConfigurationError, match=sentence):
        security(**{"resource_server": world.server(), **arguments})


def test_openapi_says_what_refusals_look_like_and_what_is_optional(world: World) -> None:
    app = FastAPI(responses=refusal_responses())
    optional = DPoPSecurity(world.server(), required=False)

    @app.get("/notes", openapi_extra={"security": [{}]})
    async def notes(token: Annotated[AccessToken | None, Security(optional)]) -> str:
        return "anonymous" if token is None else token.identity

    operation = app.openapi()["paths"]["/notes"]["get"]
    assert operation["security"] == [{"DPoP": []}, {}]
    assert {"400", "401", "403", "503"} < set(operation["responses"])
    assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]
    assert "Retry-After" in operation["responses"]["503"]["headers"]
    client = TestClient(app, base_url=ORIGIN)
    assert client.get("/notes").json() == "anonymous"
    assert client.get("/notes", headers=world.headers("/notes")).json() == "user123"


def test_a_refusal_has_the_body_that_openapi_describes(world: World) -> None:
    app = notes_app(world.server())
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
    described: Any = refusal_responses()[401]["content"]["application/json"]["schema"]["properties"]
    body = TestClient(app, base_url=ORIGIN).get("/notes", headers={"Authorization": "DPoP x"}).json()
    assert {name: {"type": "string"} for name in body} == described


NO_JSON: dict[str, Any] = {"content": b"{", "headers": {"content-type": "application/json"}}
NO_NOTE: dict[str, Any] = {"json": {"other": 1}}


def app_with_a_body(api: ResourceServer, ran: list[str]) -> FastAPI:
    app, dpop = FastAPI(), DPoPSecurity(api)

    class Note(BaseModel):
        text: str

    async def other() -> None:
        ran.append("other")

    @app.post("/in-arguments/{number}", dependencies=[Depends(other)])
    async def last(number: int, note: Note, token: Annotated[AccessToken, Security(dpop)]) -> None:
        pass

    @app.post("/first/{number}", dependencies=[Security(dpop), Depends(other)])
    async def first(number: int, note: Note) -> None:
        pass

    return app


@pytest.mark.parametrize(
    ("path", "sent", "status", "others"),
    [
        ("/first/1", NO_NOTE, 401, []),
        ("/first/x", NO_NOTE, 401, []),
        ("/in-arguments/x", NO_NOTE, 401, ["other"]),
        ("/first/1", NO_JSON, 422, []),
        ("/in-arguments/1", NO_JSON, 422, []),
    ],
)
def test_credentials_come_before_the_values_of_a_request_but_after_the_parsing_of_its_json(
    world: World, path: str, sent: dict[str, Any], status: int, others: list[str]
) -> None:
    ran: list[str] = []
    app = app_with_a_body(world.server(), ran)
    assert browser(app).post(path, **sent).status_code == status
    assert ran == others


@pytest.mark.parametrize("path", ["/first/1", "/first/x", "/in-arguments/1"])
@pytest.mark.parametrize("sent", [NO_NOTE, NO_JSON])
def test_under_the_middleware_credentials_come_before_everything(
    world: World, path: str, sent: dict[str, Any]
) -> None:
    ran: list[str] = []
    api = world.server()
    assert browser(DPoPMiddleware(app_with_a_body(api, ran), api)).post(path, **sent).status_code == 401
    assert ran == []


def with_nonces(world: World, **policy: Any) -> ResourceServer:
    return world.server(nonces=HMACNonceProvider(bytes(32)), policy=DPoPPolicy(**policy))


def opening(api: ResourceServer) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with api:
            yield

    return FastAPI(lifespan=lifespan)


@pytest.mark.parametrize("nonce", ["required", "fallback"])
def test_a_nonce_policy_that_nothing_delivers_is_found_at_the_start(world: World, nonce: str) -> None:
    api = with_nonces(world, nonce=nonce)
    app = opening(api)
    app.add_api_route("/notes", lambda: None, dependencies=[Security(DPoPSecurity(api))])
    with (
        pytest.raises(ConfigurationError, match="add DPoPMiddleware with the same ResourceServer"),
        browser(app),
    ):
        pass


def test_a_sibling_with_a_nonce_policy_is_found_at_the_start_too(world: World) -> None:
    api = with_nonces(world)
    app = opening(api)
    stricter = api.with_policy(nonce="required")
    app.add_api_route("/notes", lambda: None, dependencies=[Security(DPoPSecurity(stricter))])
    with pytest.raises(ConfigurationError, match="add DPoPMiddleware"), browser(app):
        pass


@pytest.mark.parametrize("added", [True, False])
def test_a_nonce_policy_under_the_middleware_starts(world: World, added: bool) -> None:
    api = with_nonces(world, nonce="required")
    app = opening(api)
    app.add_api_route("/notes", lambda: None, dependencies=[Security(DPoPSecurity(api))])
    if added:
        app.add_middleware(DPoPMiddleware, resource_server=api)
    with browser(app if added else DPoPMiddleware(app, api)) as client:
        assert client.get("/notes").status_code == 401


def test_dependencies_without_nonces_start_without_a_middleware(world: World) -> None:
    api = with_nonces(world)
    app = opening(api)
    app.add_api_route("/notes", lambda: None, dependencies=[Security(DPoPSecurity(api))])
    with browser(app) as client:
        assert client.get("/notes").status_code == 401


def test_without_the_extra_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "dpop_middleware.fastapi")
    with pytest.raises(ImportError, match=r"pip install '\.\[fastapi\]'"):
        importlib.import_module("dpop_middleware.fastapi")
