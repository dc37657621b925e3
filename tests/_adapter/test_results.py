"""Who calls a decorated function: a refusal is the response or an exception, and never a value."""

import functools
import json
import traceback
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette import routing
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, World, answers_to_handshake, scope_of
from tests.support.asgi import call


@pytest.fixture
def world() -> World:
    return World()


async def notes(request: Request) -> Response:
    return PlainTextResponse("reached")


@pytest.mark.parametrize("kind", ["endpoint", "endpoint of another class", "application"])
def test_no_method_takes_the_refusal_of_another_method_for_a_value(world: World, kind: str) -> None:
    class Notes(HTTPEndpoint):
        @requires_dpop(world.server(), "notes:write")
        async def caller(self, request: Request) -> str:
            return str(request.user.identity)

        async def get(self, request: Request) -> Response:
            return PlainTextResponse(f"deleted by {await self.caller(request)}")

    class Other(HTTPEndpoint):
        @requires_dpop(world.server(), "notes:write")
        async def get(self, request: Request) -> Any:
            return request.user.identity

    class OfAnotherClass(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            caller = await Other(self.scope, self.receive, self.send).get(request)
            return PlainTextResponse(f"deleted by {caller}")

    class Application:
        """Starlette calls no `get` of it."""

        def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.asgi = scope, receive, send

        @requires_dpop(world.server(), "notes:write")
        async def get(self, request: Request) -> str:
            return str(request.user.identity)

        async def serve(self) -> None:
            caller = await self.get(Request(*self.asgi))
            await PlainTextResponse(f"deleted by {caller}")(*self.asgi)

        def __await__(self) -> Any:
            return self.serve().__await__()

    kinds: dict[str, Any] = {
        "endpoint": Notes,
        "endpoint of another class": OfAnotherClass,
        "application": Application,
    }
    routes = [Route("/notes", kinds[kind])]
    client = TestClient(Starlette(routes=routes), base_url=ORIGIN)
    anonymous = client.get("/notes")
    assert (anonymous.status_code, anonymous.headers["www-authenticate"][:4]) == (401, "DPoP")
    fit = world.headers("/notes", scopes=["notes:write"])
    assert client.get("/notes", headers=fit).text == "deleted by user123"


@pytest.mark.parametrize("has_head", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_decorated_method_answers_a_request_of_its_own_with_the_usual_body(
    world: World, method: str, has_head: bool
) -> None:
    """A router without an application has nothing that makes a response of an exception."""

    class Notes(HTTPEndpoint):
        @requires_dpop(world.server())
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("read")

        post = get

    class WithHead(Notes):
        @requires_dpop(world.server())
        async def head(self, request: Request) -> Response:
            return PlainTextResponse("")

    client = TestClient(Router([Route("/notes", WithHead if has_head else Notes)]), base_url=ORIGIN)
    refused = client.request(method, "/notes")
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
    assert refused.headers["content-type"] == "application/json"
    fit = world.headers("/notes", method=method)
    assert client.request(method, "/notes", headers=fit).status_code == 200


def shown(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    async def outer(*args: Any) -> Response:
        return PlainTextResponse(f"files of {await function(*args)}")

    return outer


@pytest.mark.parametrize("kind", ["function", "method", "own dispatch", "own dispatch and decorator"])
def test_nothing_around_a_decorated_function_takes_a_refusal_for_a_value(world: World, kind: str) -> None:
    api = world.server()
    protect = requires_dpop(api)

    @protect
    async def caller(request: Request) -> str:
        return str(request.user.identity)

    class Method(HTTPEndpoint):
        get = shown(protect(lambda self, request: request.user.identity))

    class OwnDispatch(HTTPEndpoint):
        """Makes every response by itself, of what a method returns."""

        async def dispatch(self) -> None:
            request = Request(self.scope, self.receive)
            response = await shown(self.get)(request)
            await response(self.scope, self.receive, self.send)

        @protect
        async def get(self, request: Request) -> str:
            return str(request.user.identity)

    endpoints: dict[str, Any] = {
        "function": shown(caller),
        "method": Method,
        "own dispatch": OwnDispatch,
        "own dispatch and decorator": requires_dpop(api, required=False)(OwnDispatch),
    }
    client = TestClient(Starlette(routes=[Route("/files", endpoints[kind])]), base_url=ORIGIN)
    refused = client.get("/files")
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
    assert client.get("/files", headers=world.headers("/files")).text == "files of user123"


@pytest.mark.parametrize(
    "kind", ["decorated", "decorated class", "replaced", "of the object", "awaited", "of a subclass"]
)
def test_nothing_that_replaces_the_dispatch_of_a_class_takes_a_refusal_for_a_value(
    world: World, kind: str
) -> None:
    api = world.server()
    protect = requires_dpop(api)

    class Files(HTTPEndpoint):
        @protect
        async def get(self, request: Request) -> Any:
            return request.user.identity

    async def answer(self: Any) -> None:
        request = Request(self.scope, self.receive)
        response = await shown(self.get)(request)
        await response(self.scope, self.receive, self.send)

    class Decorated(Files):
        dispatch: Any = functools.wraps(HTTPEndpoint.dispatch)(answer)

    class Replaced(Files):
        pass

    replaced = requires_dpop(api, required=False)(Replaced)
    replaced.dispatch = functools.wraps(replaced.dispatch)(answer)  # type: ignore[method-assign] # as instrumentation does

    class OfTheObject(Files):
        def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
            super().__init__(scope, receive, send)
            self.dispatch = MethodType(answer, self)  # type: ignore[method-assign] # as an application may

    class Awaited(Files):
        def __await__(self) -> Any:
            return answer(self).__await__()

    class Parent(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            response: Response = await shown(OfASubclass(self.scope, self.receive, self.send).get)(request)
            return response

    class OfASubclass(Parent):
        get: Any = Files.get

    endpoints: dict[str, Any] = {
        "decorated": Decorated,
        "decorated class": requires_dpop(api, required=False)(Decorated),
        "replaced": replaced,
        "of the object": OfTheObject,
        "awaited": Awaited,
        "of a subclass": Parent,
    }
    client = TestClient(Starlette(routes=[Route("/files", endpoints[kind])]), base_url=ORIGIN)
    refused = client.get("/files")
    assert (refused.status_code, refused.headers.get("www-authenticate", "")[:4]) == (401, "DPoP")
    assert client.get("/files", headers=world.headers("/files")).text == "files of user123"


@pytest.mark.parametrize("kind", [MethodType, functools.partial])
def test_no_proxy_of_a_decorated_function_takes_a_refusal_for_a_value(world: World, kind: Any) -> None:
    """Those of wrapt, as many decorators use them, say that they are what they stand for."""

    class Files:
        @requires_dpop(world.server())
        async def caller(self, request: Request) -> str:
            return str(request.user.identity)

    stands_for: Any = Files().caller if kind is MethodType else functools.partial(Files.caller, Files())

    class Proxy:
        def __getattribute__(self, name: str) -> Any:
            return kind if name == "__class__" else getattr(stands_for, name)

        async def __call__(self, request: Request) -> Response:
            return PlainTextResponse(f"files of {await stands_for(request)}")

    client = TestClient(Starlette(routes=[Route("/files", Proxy())]), base_url=ORIGIN)
    refused = client.get("/files")
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
    assert client.get("/files", headers=world.headers("/files")).text == "files of user123"


def test_no_proxy_of_a_decorated_function_passes_for_one_that_is_decorated_twice(world: World) -> None:
    """Those of wrapt have the code of what they stand for, and that as their `__wrapped__`."""
    protected: Any = requires_dpop(world.server())(notes)

    class Proxy:
        __name__ = "notes"
        __code__ = protected.__code__
        __wrapped__ = staticmethod(protected)
        __class__: Any = FunctionType

        async def __call__(self, request: Request) -> Response:
            await protected(request)
            return PlainTextResponse("reached")

    client = TestClient(Starlette(routes=[Route("/notes", Proxy())]), base_url=ORIGIN)
    refused = client.get("/notes")
    assert (refused.status_code, refused.headers.get("www-authenticate", "")[:4]) == (401, "DPoP")
    assert client.get("/notes", headers=world.headers("/notes")).text == "reached"


def test_nothing_that_remembers_results_keeps_a_refusal_for_others(world: World) -> None:
    def cached(function: Callable[..., Any]) -> Any:
        kept: list[Any] = []

        @functools.wraps(function)
        async def outer(request: Request) -> Any:
            if not kept:
                kept.append(await function(request))
            return kept[0]

        return outer

    @cached
    @requires_dpop(world.server())
    async def notes(request: Request) -> Response:
        return PlainTextResponse("notes")

    client = TestClient(Starlette(routes=[Route("/notes", notes)]), base_url=ORIGIN)
    assert client.get("/notes").status_code == 401
    assert client.get("/notes", headers=world.headers("/notes")).text == "notes"


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_no_decorator_around_a_decorated_function_goes_on_with_a_refused_websocket(
    world: World, extensions: dict[str, Any]
) -> None:
    """The result of a handshake that is refused is None, as that of any other."""
    then: list[str] = []

    @requires_dpop(world.server())
    async def serve(websocket: WebSocket) -> None:
        raise AssertionError

    @functools.wraps(serve)
    async def outer(websocket: WebSocket) -> None:
        await serve(websocket)
        then.append("counted as served")

    first, *_ = await answers_to_handshake(Starlette(routes=[WebSocketRoute("/ws", outer)]), extensions)
    assert (first.get("status"), first.get("code")) == ((401, None) if extensions else (None, 1008))
    assert then == []


@pytest.mark.parametrize("twice", [False, True])
def test_a_decorated_method_of_a_decorated_class_answers_with_the_usual_body(
    world: World, twice: bool
) -> None:
    api = world.server()

    class Notes(HTTPEndpoint):
        @requires_dpop(api, "notes:write")
        async def get(self, request: Request) -> Response:
            raise AssertionError

    served = requires_dpop(api)(Notes)
    if twice:
        served = requires_dpop(api)(served)
    client = TestClient(Router([Route("/notes", served)]), base_url=ORIGIN)
    refused = client.get("/notes", headers=world.headers("/notes"))
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("module", [__name__, BaseHTTPMiddleware.__module__])
async def test_a_function_that_a_decorated_one_is_called_with_makes_no_middleware_of_it(
    world: World, module: str
) -> None:
    @requires_dpop(world.server())
    async def check(request: Request, found: Any) -> None:
        raise AssertionError

    async def call_next(request: Request) -> Response:
        raise AssertionError

    call_next.__module__ = module

    async def endpoint(request: Request) -> Response:
        await check(request, call_next)
        raise AssertionError

    answer = await call(Starlette(routes=[Route("/notes", endpoint)]), scope_of("/notes"))
    assert answer.status == 401


def test_a_function_that_is_called_with_the_send_of_a_middleware_is_no_dispatch(world: World) -> None:
    """Inside a BaseHTTPMiddleware `receive` and `send` are functions of its module, as call_next is."""

    @requires_dpop(world.server())
    async def check(request: Request, receive: Receive, send: Send) -> None:
        return None

    class Guarded:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await check(Request(scope), receive, send)
            await PlainTextResponse("reached")(scope, receive, send)

    async def dispatch(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    around = Middleware(BaseHTTPMiddleware, dispatch=dispatch)
    client = TestClient(Starlette(routes=[Mount("/notes", Guarded())], middleware=[around]), base_url=ORIGIN)
    assert client.get("/notes/").status_code == 401
    assert client.get("/notes/", headers=world.headers("/notes/")).text == "reached"


@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize(
    "kind", ["function", "method", "twice decorated", "with another argument", "callable object"]
)
def test_a_dispatch_that_is_decorated_itself_answers_with_the_refusal(
    world: World, kind: str, mounted: bool
) -> None:
    """Whatever it returns is sent. Nothing makes a response of an exception there."""
    api = world.server()
    protect = requires_dpop(api)

    async def goes_on(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    @protect
    async def labelled(label: str, request: Request, call_next: Any) -> Any:
        return await call_next(request)

    class Guard(BaseHTTPMiddleware):
        @protect
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    class CallableObject:
        @protect
        async def __call__(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    kinds = {
        "function": Middleware(BaseHTTPMiddleware, dispatch=protect(goes_on)),
        "method": Middleware(Guard),
        "twice decorated": Middleware(
            BaseHTTPMiddleware, dispatch=requires_dpop(api, required=False)(protect(goes_on))
        ),
        "with another argument": Middleware(
            BaseHTTPMiddleware, dispatch=functools.partial(labelled, "notes")
        ),
        "callable object": Middleware(BaseHTTPMiddleware, dispatch=CallableObject()),
    }
    app = Starlette(routes=[Route("/notes", notes)], middleware=[kinds[kind]])
    path = "/v1/notes" if mounted else "/notes"
    client = TestClient(Starlette(routes=[Mount("/v1", app)]) if mounted else app, base_url=ORIGIN)
    refused = client.get(path)
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
    assert refused.json() == {"error_description": "an access token is required"}
    assert client.get(path, headers=world.headers(path)).text == "reached"


async def test_starlette_asks_no_dispatch_about_a_websocket(world: World) -> None:
    """As the docstring warns: who protects an application so leaves its WebSockets open."""

    @requires_dpop(world.server())
    async def guard(request: Request, call_next: Any) -> Any:
        raise AssertionError

    async def serve(websocket: WebSocket) -> None:
        await websocket.close(4000)

    around = Middleware(BaseHTTPMiddleware, dispatch=guard)
    app = Starlette(routes=[WebSocketRoute("/ws", serve)], middleware=[around])
    assert [message["code"] for message in await answers_to_handshake(app, {})] == [4000]


def around_a_dispatch(world: World, kind: str) -> Middleware:
    """Return a middleware whose `dispatch` passes `call_next` to a decorated function and drops a refusal."""
    protect = requires_dpop(world.server())

    @protect
    async def check(request: Request, call_next: Any) -> Any:
        return None

    async def goes_on(request: Request, call_next: Any) -> Any:
        await check(request, call_next)
        return await call_next(request)

    async def goes_on_by_names(request: Request, call_next: Any) -> Any:
        await check(call_next=call_next, request=request)
        return await call_next(request)

    async def answers(request: Request, call_next: Any) -> Any:
        await check(request, call_next)
        return PlainTextResponse("reached")

    class Guard(BaseHTTPMiddleware):
        @protect
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    class OfASubclass(Guard):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            await super().dispatch(request, call_next)
            return PlainTextResponse("reached")

    dispatches: dict[str, Any] = {
        "goes on": goes_on,
        "goes on, by names": goes_on_by_names,
        "answers itself": answers,
        "is decorated again": shown(protect(lambda request, call_next: "reached")),
    }
    if kind == "overrides a decorated one":
        return Middleware(OfASubclass)
    return Middleware(BaseHTTPMiddleware, dispatch=dispatches[kind])


@pytest.mark.parametrize("where", ["application", "mounted application", "route"])
@pytest.mark.parametrize(
    "kind",
    ["goes on", "goes on, by names", "answers itself", "is decorated again", "overrides a decorated one"],
)
def test_no_dispatch_takes_the_refusal_of_a_function_that_gets_its_call_next_for_a_value(
    world: World, kind: str, where: str
) -> None:
    """What it would do with a refusal can't be known. Only around a route an exception becomes a 401."""
    guard = around_a_dispatch(world, kind)
    path = "/v1/notes" if where == "mounted application" else "/notes"
    app = Starlette(routes=[Route("/notes", notes)], middleware=[guard])
    if where == "mounted application":
        app = Starlette(routes=[Mount("/v1", app)])
    elif where == "route":
        app = Starlette(routes=[Route("/notes", notes, middleware=[guard])])
    client = TestClient(app, base_url=ORIGIN, raise_server_exceptions=False)
    refused = client.get(path)
    assert refused.status_code == (401 if where == "route" else 500)
    assert "reached" not in refused.text
    assert client.get(path, headers=world.headers(path)).text.endswith("reached")


def test_a_dispatch_may_answer_with_the_exception_of_a_function_that_gets_its_call_next(world: World) -> None:
    @requires_dpop(world.server())
    async def guard(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    async def dispatch(request: Request, call_next: Any) -> Any:
        try:
            return await guard(request, call_next)
        except HTTPException as error:
            return PlainTextResponse(error.detail, error.status_code, error.headers)

    around = Middleware(BaseHTTPMiddleware, dispatch=dispatch)
    client = TestClient(Starlette(routes=[Route("/notes", notes)], middleware=[around]), base_url=ORIGIN)
    refused = client.get("/notes")
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
    assert client.get("/notes", headers=world.headers("/notes")).text == "reached"


@pytest.mark.parametrize("kind", ["function", "method"])
def test_no_middleware_of_a_route_takes_the_refusal_of_the_function_of_that_route_for_a_value(
    world: World, kind: str
) -> None:
    """The route is found already, but the router hasn't called its function yet."""
    protect = requires_dpop(world.server())
    served = protect(notes)

    class Notes(HTTPEndpoint):
        @protect
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("reached")

    class Guard:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            await (Notes(scope, receive, send).get if kind == "method" else served)(request)
            await PlainTextResponse("reached")(scope, receive, send)

    endpoints: dict[str, Any] = {"function": served, "method": Notes}
    route = Route("/notes", endpoints[kind], middleware=[Middleware(Guard)])
    client = TestClient(Starlette(routes=[route]), base_url=ORIGIN)
    refused = client.get("/notes")
    assert (refused.status_code, refused.headers.get("www-authenticate", "")[:4]) == (401, "DPoP")
    assert client.get("/notes", headers=world.headers("/notes")).text == "reached"


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_no_middleware_of_a_route_goes_on_with_a_websocket_that_its_function_refused(
    world: World, extensions: dict[str, Any]
) -> None:
    then: list[str] = []

    @requires_dpop(world.server())
    async def serve(websocket: WebSocket) -> None:
        raise AssertionError

    class Guard:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await serve(WebSocket(scope, receive, send))
            then.append("counted as served")

    route = WebSocketRoute("/ws", serve, middleware=[Middleware(Guard)])
    first, *_ = await answers_to_handshake(Starlette(routes=[route]), extensions)
    assert (first.get("status"), first.get("code")) == ((401, None) if extensions else (None, 1008))
    assert then == []


def test_a_dispatch_of_a_class_that_calls_starlettes_own_answers_with_the_usual_body(world: World) -> None:
    class Timed(HTTPEndpoint):
        async def dispatch(self) -> None:
            await super().dispatch()

        @requires_dpop(world.server())
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("reached")

    client = TestClient(Router([Route("/notes", Timed)]), base_url=ORIGIN)
    refused = client.get("/notes")
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/json")
    assert client.get("/notes", headers=world.headers("/notes")).text == "reached"


@pytest.mark.parametrize("kind", ["function", "method"])
def test_a_function_that_is_decorated_twice_answers_with_the_usual_body(world: World, kind: str) -> None:
    api = world.server()
    readers, writers = requires_dpop(api, "notes:read"), requires_dpop(api, "notes:write")

    class Notes(HTTPEndpoint):
        @readers
        @writers
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("reached")

    endpoints: dict[str, Any] = {"function": readers(writers(notes)), "method": Notes}
    client = TestClient(Router([Route("/notes", endpoints[kind])]), base_url=ORIGIN)
    refused = client.get("/notes", headers=world.headers("/notes", scopes=["notes:read"]))
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
    fit = world.headers("/notes", scopes=["notes:read", "notes:write"])
    assert client.get("/notes", headers=fit).text == "reached"


@pytest.mark.parametrize("kind", ["starlette", "fastapi"])
async def test_a_function_that_serves_a_websocket_refuses_it_with_the_usual_body(
    world: World, kind: str
) -> None:
    @requires_dpop(world.server())
    async def serve(websocket: WebSocket) -> None:
        raise AssertionError

    of_fastapi = FastAPI()
    of_fastapi.add_api_websocket_route("/ws", serve)
    app = Starlette(routes=[WebSocketRoute("/ws", serve)]) if kind == "starlette" else of_fastapi
    _, body = await answers_to_handshake(app, {"websocket.http.response": {}})
    assert json.loads(body["body"]) == {"error_description": "an access token is required"}


def calling_otherwise(kind: str, protect: Callable[[Any], Any]) -> FastAPI:
    """Return an application in which another one than the router calls the function of a route."""
    app = FastAPI()

    @protect
    async def caller(request: Request, page: int = 0) -> Any:
        return request.user.identity

    async def told(request: Request) -> Response:
        return PlainTextResponse(f"files of {await caller(request)}")

    class Asking(APIRoute):
        def get_route_handler(self) -> Any:
            return told

    async def handler(request: Request, _error: Exception) -> Response:
        return await told(request)

    if kind == "route class":
        app.router.route_class = Asking
    else:
        app.add_exception_handler(RequestValidationError, handler)
    app.get("/files")(caller)
    return app


@pytest.mark.parametrize("kind", ["route class", "exception handler"])
def test_nothing_of_fastapi_that_calls_the_function_of_its_route_takes_a_refusal_for_a_value(
    world: World, kind: str
) -> None:
    app = calling_otherwise(kind, requires_dpop(world.server()))
    client = TestClient(app, base_url=ORIGIN, raise_server_exceptions=False)
    refused = client.get("/files?page=none")
    assert (refused.status_code, refused.headers.get("www-authenticate", "")[:4]) == (401, "DPoP")
    assert client.get("/files?page=none", headers=world.headers("/files")).text == "files of user123"


def test_no_background_task_of_a_dependency_takes_the_refusal_of_the_function_of_its_route_for_a_value(
    world: World,
) -> None:
    """FastAPI runs these tasks after a refusal as well."""
    callers: list[Any] = []
    app = FastAPI()

    @requires_dpop(world.server())
    async def caller(request: Request) -> Any:
        return request.user.identity

    async def note(request: Request) -> None:
        callers.append(await caller(request))

    async def audited(request: Request, tasks: BackgroundTasks) -> None:
        tasks.add_task(note, request)

    app.get("/files", dependencies=[Depends(audited)])(caller)
    client = TestClient(app, base_url=ORIGIN, raise_server_exceptions=False)
    assert client.get("/files").status_code == 401
    assert client.get("/files", headers=world.headers("/files")).status_code == 200
    assert callers == ["user123"]


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_no_dependency_goes_on_with_a_websocket_that_the_function_of_its_route_refused(
    world: World, extensions: dict[str, Any]
) -> None:
    then: list[str] = []
    app = FastAPI()

    @requires_dpop(world.server())
    async def check(websocket: WebSocket) -> None:
        raise AssertionError

    async def counted(_checked: Annotated[None, Depends(check)]) -> None:
        then.append("counted as served")

    app.add_api_websocket_route("/ws", check, dependencies=[Depends(counted)])
    first, *_ = await answers_to_handshake(app, extensions)
    assert (first.get("status"), first.get("code")) == ((401, None) if extensions else (None, 1008))
    assert then == []


def test_a_function_around_the_one_of_a_route_that_changes_nothing_leaves_the_refusal_a_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As instrumentation has them, put around the function that the router calls, not into its route."""
    request_response = routing.request_response

    def instrumented(function: Callable[..., Any]) -> Any:
        async def measured(request: Request) -> Any:
            return await function(request)

        return request_response(measured)

    monkeypatch.setattr(routing, "request_response", instrumented)
    route = Route("/notes", requires_dpop(world.server())(notes))
    refused = TestClient(Router([route]), base_url=ORIGIN).get("/notes")
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/json")


@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize(
    "kind", ["pure", "dispatch", "authentication backend", "exception handler", "handler of all exceptions"]
)
def test_nobody_who_goes_on_after_a_refusal_lets_a_stranger_pass(
    world: World, kind: str, mounted: bool
) -> None:
    """None of them returns what the decorated function returns. Only an application makes a 401 of it."""

    @requires_dpop(world.server())
    async def check(request: HTTPConnection) -> str:
        return str(request.user.identity)

    class Guard:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await check(Request(scope, receive))
            await self.app(scope, receive, send)

    async def dispatch(request: Request, call_next: Any) -> Any:
        await check(request)
        return await call_next(request)

    class Backend(AuthenticationBackend):
        async def authenticate(self, conn: HTTPConnection) -> Any:
            return AuthCredentials(["authenticated"]), SimpleUser(await check(conn))

    async def handler(request: Request, error: Exception) -> Response:
        await check(request)
        return PlainTextResponse("reached")

    async def endpoint(request: Request) -> Response:
        if "handler" in kind:
            raise HTTPException(404) if kind == "exception handler" else KeyError
        return PlainTextResponse("reached")

    guards = {
        "pure": Middleware(Guard),
        "dispatch": Middleware(BaseHTTPMiddleware, dispatch=dispatch),
        "authentication backend": Middleware(AuthenticationMiddleware, backend=Backend()),
    }
    app = Starlette(
        routes=[Route("/notes", endpoint)],
        middleware=[guards[kind]] if kind in guards else [],
        exception_handlers={404 if kind == "exception handler" else KeyError: handler},
    )
    path = "/v1/notes" if mounted else "/notes"
    serving = Starlette(routes=[Mount("/v1", app)]) if mounted else app
    client = TestClient(serving, base_url=ORIGIN, raise_server_exceptions=False)
    refused = client.get(path)
    assert refused.status_code == (401 if "handler" in kind else 500)
    assert "reached" not in refused.text
    assert client.get(path, headers=world.headers(path)).text == "reached"


@pytest.mark.parametrize("kind", ["function", "method", "after the endpoint"])
def test_no_dispatch_takes_the_refusal_of_the_function_that_the_router_serves_for_a_value(
    world: World, kind: str
) -> None:
    """The route is found already, and the function is the one that it names."""

    protect = requires_dpop(world.server())

    @protect
    async def notes(request: Request) -> Response:
        return PlainTextResponse("notes")

    class Notes(HTTPEndpoint):
        @protect
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("notes")

    async def send(_message: Message) -> None:
        raise AssertionError

    async def dispatch(request: Request, call_next: Any) -> Response:
        if kind == "after the endpoint":
            await call_next(request)
        of_a_class = Notes(request.scope, request.receive, send)
        await (of_a_class.get if kind == "method" else notes)(request)
        return PlainTextResponse("reached")

    here = [Middleware(BaseHTTPMiddleware, dispatch=dispatch)]
    route: Any = Route("/notes", Notes if kind == "method" else notes, middleware=here)
    if kind == "after the endpoint":
        route = Mount("", Router([Route("/notes", notes)], middleware=here))
    client = TestClient(Starlette(routes=[route]), base_url=ORIGIN)
    refused = client.get("/notes")
    assert (refused.status_code, refused.headers.get("www-authenticate", "")[:4]) == (401, "DPoP")
    assert client.get("/notes", headers=world.headers("/notes")).text == "reached"


@pytest.mark.parametrize("path", ["/missing", "/notes"])
def test_an_exception_handler_that_nothing_serves_yet_lets_no_stranger_pass(world: World, path: str) -> None:
    """The router has found no endpoint, or not one for the method."""

    @requires_dpop(world.server())
    async def check(request: Request) -> str:
        return str(request.user.identity)

    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"files of {await check(request)}")

    async def endpoint(request: Request) -> Response:
        raise AssertionError

    app = Starlette(
        routes=[Route("/notes", endpoint, methods=["POST"])], exception_handlers={404: handler, 405: handler}
    )
    client = TestClient(app, base_url=ORIGIN, raise_server_exceptions=False)
    assert client.get(path).status_code == 500
    assert client.get(path, headers=world.headers(path)).text == "files of user123"


@pytest.mark.parametrize("around", [{}, {"app": "an application of Litestar's"}])
async def test_an_application_without_a_router_takes_no_refusal_for_a_value(
    world: World, around: dict[str, Any]
) -> None:
    @requires_dpop(world.server())
    async def context(request: Request) -> str:
        return str(request.user.identity)

    async def graphql(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await context(Request(scope, receive))
        await PlainTextResponse(f"secrets of {caller}")(scope, receive, send)

    with pytest.raises(HTTPException) as refused:
        await call(graphql, scope_of("/graphql", **around))
    assert refused.value.status_code == 401
    assert "as in a middleware, use DPoPMiddleware" in refused.value.__notes__[0]
    answer = await call(graphql, scope_of("/graphql", world.fields("/graphql"), **around))
    assert answer.body == b"secrets of user123"


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
@pytest.mark.parametrize("where", ["application", "without an application"])
async def test_no_websocket_passes_a_middleware_after_the_refusal_of_a_decorated_function(
    world: World, where: str, extensions: dict[str, Any]
) -> None:
    """A refused WebSocket has no response that could be returned, nor anything that tells it from another."""

    @requires_dpop(world.server())
    async def check(websocket: WebSocket) -> None:
        raise AssertionError

    class Guard:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await check(WebSocket(scope, receive, send))
            await self.app(scope, receive, send)

    async def endpoint(websocket: WebSocket) -> None:
        raise AssertionError

    routes = [WebSocketRoute("/ws", endpoint)]
    guarded: Any = Guard(Router(routes))
    if where == "application":
        guarded = Starlette(routes=routes, middleware=[Middleware(Guard)])
    with pytest.raises((HTTPException, WebSocketException)):
        await answers_to_handshake(guarded, extensions)
    first, *_ = await answers_to_handshake(Starlette(routes=[Mount("", guarded)]), extensions)
    assert (first.get("status"), first.get("code")) == ((401, None) if extensions else (None, 1008))


@pytest.mark.parametrize("around", [(), (Middleware(GZipMiddleware),)])
def test_a_dispatch_of_a_mounted_application_answers_whatever_it_calls_its_arguments(
    world: World, around: Any
) -> None:
    """The mounted application is what the router serves, or a middleware around it."""

    @requires_dpop(world.server())
    async def guard(request: Request, go_on: Any) -> Response:
        raise AssertionError

    guarded = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])
    mount = Mount("/v1", guarded, middleware=list(around))
    refused = TestClient(Starlette(routes=[mount]), base_url=ORIGIN).get("/v1/notes")
    assert (refused.status_code, refused.headers["www-authenticate"][:4]) == (401, "DPoP")
    assert refused.json() == {"error_description": "an access token is required"}


@pytest.mark.parametrize("where", ["router alone", "middleware", "mounted middleware", "background task"])
def test_a_refusal_that_nothing_makes_a_response_of_says_why_and_what_to_do(world: World, where: str) -> None:
    """The log of the server shows it, since that is a 500, or comes after the response."""

    @requires_dpop(world.server())
    async def check(request: Request) -> Response:
        raise AssertionError

    async def dispatch(request: Request, call_next: Any) -> Any:
        return await check(request)

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("", background=BackgroundTask(check, request))

    here = [Middleware(BaseHTTPMiddleware, dispatch=dispatch)] if "middleware" in where else []
    app: Any = Starlette(routes=[Route("/notes", endpoint)], middleware=here)
    if where == "router alone":
        app = Router([Route("/notes", shown(check))])
    elif where == "mounted middleware":
        app = Starlette(routes=[Mount("", app)])
    with pytest.raises((HTTPException, RuntimeError)) as unanswered:
        TestClient(app, base_url=ORIGIN).get("/notes")
    assert "as in a middleware, use DPoPMiddleware" in "".join(traceback.format_exception(unanswered.value))
