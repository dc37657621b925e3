"""Protection of single Starlette endpoints."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import Scope, Send
from starlette.websockets import WebSocket

from dpop_middleware._adapter.answers import (
    adding_headers,
    can_deny,
    error_response,
    exception_headers,
    holding,
    raw_headers,
    send_refusal,
)
from dpop_middleware._adapter.connection import (
    Connection,
    anonymize,
    checked_resource_server,
    has_credentials,
)
from dpop_middleware._adapter.expiry import deadline_after, end_at, ending_after
from dpop_middleware._adapter.results import exception_with, makes_the_response, response_with
from dpop_middleware._judge.requirements import NO_CLAIMS, Predicate, Requirements
from dpop_middleware._judge.verdicts import ErrorResponse
from dpop_middleware._options import flag
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.resource_server import ResourceServer

__all__ = ["refusal", "requires_dpop"]

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])

_CONNECTION_NAMES = ("request", "websocket")
_WHY_AN_EXCEPTION = (
    "a function under @requires_dpop refuses by this exception wherever the router itself doesn't call it: "
    "where nothing makes a response of it, as in a middleware, use DPoPMiddleware, or decorate the dispatch "
    "itself"
)


def refusal(response: ErrorResponse) -> Response:
    """Return `response` as a Starlette response, with every header line it has."""
    rendered = Response(response.body, response.status)
    rendered.raw_headers = raw_headers(response.headers)
    return rendered


def requires_dpop(
    resource_server: ResourceServer,
    *scopes: str,
    any_of: Collection[str] = (),
    claims: Mapping[str, Predicate] = NO_CLAIMS,
    acr_values: Collection[str] = (),
    max_age: int | None = None,
    required: bool = True,
    close_at_expiry: bool = False,
) -> Callable[[_Endpoint], _Endpoint]:
    """Let a request reach the decorated endpoint only with a valid access token and DPoP proof.

    Decorates a function with a `request` or `websocket` argument (sync or async), an `HTTPEndpoint` or
    `WebSocketEndpoint`, or a method of an `HTTPEndpoint`, but no method of a `WebSocketEndpoint`. Put it
    right below the decorator that registers a route: one in between that remembers results would give them to
    anybody. It needs no middleware, and under one the request is not authenticated a second time.

    Where the router itself calls a decorated function, a refusal is its result, the response; so it is where
    that function is the `dispatch` of a `BaseHTTPMiddleware`. Any other caller gets an HTTPException, or for
    a WebSocket a WebSocketException: a decorator above this one, an endpoint, the function itself, a method
    or `dispatch` of its class, FastAPI that asks for the value of a dependency (for which `DPoPSecurity` is
    made), an ASGI application of your own, mounted or not, an exception handler, a middleware, even of one
    route. In a middleware of an application, or an `AuthenticationBackend`, Starlette answers 500 to it: use
    `DPoPMiddleware` there. Whether a caller would return a refusal, or drop it and go on, can't be known: a
    `dispatch` that calls a decorated function, even with its `call_next`, gets the exception too, and so does
    a decorator above a `dispatch`. Starlette passes WebSockets on without asking any `dispatch`.

    - `scopes`: must all be granted by the token. `any_of`: one of these too; the challenge names the first.
    - `claims`: maps a claim to a synchronous function of its value, which must return True:
      `{"realm_access": lambda access: "admin" in access["roles"]}`. A token without the claim, and a function
      that raises, are a 403 as well.
    - `acr_values`, `max_age` (seconds): how and when the user must have authenticated (RFC 9470).
    - `required`, `close_at_expiry`: as in `DPoPMiddleware`. A function ends the response that it returns, or
      the WebSocket while it runs: `close_at_expiry` is not for a function that another one calls.

    A nonce for the client's next request is added to the `Response` that the endpoint returns and to an
    HTTPException that it raises; if the endpoint returns no Response, only the middleware can add it. Methods
    of a class that aren't decorated stay open. Raises ConfigurationError when applied to something else, and
    for a request of another framework, which `DPoPMiddleware` protects.
    """
    takes = "a ResourceServer first: @requires_dpop(api, 'notes:read')"
    checked_resource_server(resource_server, option="requires_dpop", takes=takes)
    gate = _Gate(
        resource_server,
        Requirements(scopes=scopes, any_of=any_of, claims=claims, acr_values=acr_values, max_age=max_age),
        flag("required", required),
        flag("close_at_expiry", close_at_expiry),
    )

    def decorate(endpoint: Any) -> Any:
        if isinstance(endpoint, type):
            return _protected_class(endpoint, gate)
        return _protected_function(endpoint, gate)

    return decorate


@dataclass(frozen=True, slots=True)
class _Gate:
    resource_server: ResourceServer
    requirements: Requirements
    required: bool
    close_at_expiry: bool

    async def admit(self, scope: Scope) -> float | None:
        """Authenticate; return for how many seconds the connection may last, None for any time."""
        if not self.required and not has_credentials(scope):
            anonymize(scope)
            return None
        verified = await Connection.of(scope).authenticate(self.resource_server, scope, self.requirements)
        return self.resource_server.seconds_left(verified.access_token) if self.close_at_expiry else None


def _protected_class(endpoint: type, gate: _Gate) -> type:
    if not issubclass(endpoint, (HTTPEndpoint, WebSocketEndpoint)):
        raise ConfigurationError(
            f"@requires_dpop goes on an HTTPEndpoint or a WebSocketEndpoint, unlike {endpoint.__name__}"
        )
    dispatch: Any = endpoint.dispatch

    @functools.wraps(dispatch)
    async def protected_dispatch(self: Any) -> None:
        with holding(Connection.of(self.scope)) as reporting:
            self.send = reporting(self.send)
            await guarded_dispatch(self)

    async def guarded_dispatch(self: Any) -> None:
        try:
            seconds = await gate.admit(self.scope)
        except DPoPError as error:
            response = error_response(gate.resource_server, error, self.scope)
            await send_refusal(response, self.scope, self.send)
            return
        shared = Connection.of(self.scope)
        async with ending_after(seconds, self.scope, self.receive, self.send) as (self.receive, send):
            self.send = adding_headers(send, shared)
            with _headers_on_exceptions(shared):
                await dispatch(self)

    return type(
        endpoint.__name__,
        (endpoint,),
        {
            "dispatch": protected_dispatch,
            "__module__": endpoint.__module__,
            "__qualname__": endpoint.__qualname__,
            "__doc__": endpoint.__doc__,
        },
    )


def _protected_function(endpoint: Callable[..., Any], gate: _Gate) -> Callable[..., Awaitable[Any]]:
    positions = _connection_positions(endpoint)

    @functools.wraps(endpoint)
    async def protected(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], WebSocketEndpoint):
            # After a refusal its `dispatch` would pass on what the server has received meanwhile.
            raise ConfigurationError(
                f"@requires_dpop goes on the whole WebSocketEndpoint, not on its method {endpoint!r}"
            )
        connection = _connection(positions, args, kwargs)
        with holding(Connection.of(connection.scope)) as reporting:
            return await guarded(connection, reporting, args, kwargs)

    async def guarded(
        connection: HTTPConnection,
        reporting: Callable[[Send], Send],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        websocket = connection if isinstance(connection, WebSocket) else None
        scope = connection.scope
        try:
            seconds = await gate.admit(scope)
        except DPoPError as error:
            response = error_response(gate.resource_server, error, scope)
            if not makes_the_response(protected, (*args, *kwargs.values()), scope):
                raise _exception(error, response, scope) from error
            if websocket is None:
                return refusal(response)
            await send_refusal(response, scope, websocket.send)
            return None
        shared = Connection.of(scope)
        if websocket is None:
            deadline = deadline_after(seconds)
            result = await _response(endpoint, args, kwargs, shared)
            if isinstance(result, Response):
                end_at(deadline, result)
            return result
        # The same object goes on: dependencies of FastAPI may hold it. Its methods would take a close of ours
        # for the application's own, so that comes below them.
        same: Any = websocket
        async with ending_after(seconds, scope, same._receive, same._send) as (same._receive, send):
            same._send = reporting(adding_headers(send, shared))
            return await _called(endpoint, args, kwargs)

    return protected


def _connection(
    positions: Mapping[str, int], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> HTTPConnection:
    """Return the argument that is Starlette's: from another framework, a refusal may be taken for a value.

    A dependency of FastAPI may have two, of which only one is there.
    """
    by_position = {name: args[position] for name, position in positions.items() if position < len(args)}
    given = [value for name, value in {**by_position, **kwargs}.items() if name in positions]
    for value in given:
        if isinstance(value, HTTPConnection):
            return value
    others = [f"a {type(value).__qualname__} of {type(value).__module__}" for value in given]
    raise ConfigurationError(
        "@requires_dpop is for Starlette and FastAPI: it takes a Request or WebSocket of theirs as "
        f"{' or '.join(positions)}, not {' and '.join(others) or 'nothing'}"
    )


def _exception(error: DPoPError, response: ErrorResponse, scope: Scope) -> Exception:
    """Return a refusal as an exception, which no caller can take for a value."""
    exception: Exception
    if scope["type"] == "websocket" and not can_deny(scope):
        exception = WebSocketException(WS_1008_POLICY_VIOLATION)
    else:
        exception = HTTPException(response.status, error.description, exception_headers(response))
    exception.add_note(_WHY_AN_EXCEPTION)
    return exception


def _connection_positions(endpoint: Callable[..., Any]) -> Mapping[str, int]:
    if not callable(endpoint):
        raise ConfigurationError(f"@requires_dpop goes on an endpoint, not on {endpoint!r}")
    if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):
        raise ConfigurationError(
            f"@requires_dpop goes on a function that returns a response; for the generator {endpoint!r} "
            "use DPoPSecurity or DPoPMiddleware"
        )
    parameters = enumerate(inspect.signature(endpoint).parameters)
    positions = {name: position for position, name in parameters if name in _CONNECTION_NAMES}
    if positions:
        return positions
    raise ConfigurationError(
        f"@requires_dpop goes on a function with an argument named request or websocket, unlike {endpoint!r}"
    )


async def _called(endpoint: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(endpoint):
        return await endpoint(*args, **kwargs)
    result = await run_in_threadpool(endpoint, *args, **kwargs)
    # A callable object may be async without being a coroutine function.
    return await result if inspect.isawaitable(result) else result


async def _response(
    endpoint: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], shared: Connection
) -> Any:
    with _headers_on_exceptions(shared):
        result = await _called(endpoint, args, kwargs)
    if isinstance(result, Response):
        return response_with(shared.response_headers, result)
    return result


@contextmanager
def _headers_on_exceptions(shared: Connection) -> Generator[None]:
    """Let an HTTPException carry the response's header fields."""
    try:
        yield
    except HTTPException as error:
        if not shared.response_headers:
            raise
        try:
            raise exception_with(shared.response_headers, error) from error.__cause__
        finally:
            # As Starlette does with what it has answered: an object that is raised again keeps every frame.
            error.__traceback__ = None
