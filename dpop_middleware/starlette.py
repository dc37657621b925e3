"""Protection of single Starlette endpoints."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket

from dpop_middleware.asgi import Connection, adding_headers, authenticate, send_refusal
from dpop_middleware.challenges import ErrorResponse
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.requirements import Requirements
from dpop_middleware.resource_server import ResourceServer

__all__ = ["refusal", "requires_dpop"]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_CONNECTION_NAMES = ("request", "websocket")


def refusal(response: ErrorResponse) -> Response:
    """Return `response` as a Starlette response, with every header line it has."""
    rendered = Response(response.body, response.status)
    rendered.raw_headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
    ]
    return rendered


def requires_dpop(
    resource_server: ResourceServer,
    *scopes: str,
    acr_values: Collection[str] = (),
    max_age: int | None = None,
) -> Callable[[Endpoint], Endpoint]:
    """Let a request reach the decorated endpoint only with a valid access token and DPoP proof.

    Goes on a function with a `request` or `websocket` argument (sync or async), on an `HTTPEndpoint` or
    `WebSocketEndpoint`, or on a method of an `HTTPEndpoint`; below the decorator that registers a route.
    Needs no middleware, and under one the request is not authenticated a second time.

    - `scopes`: must all be granted by the token.
    - `acr_values`, `max_age` (seconds): how and when the user must have authenticated (RFC 9470).

    Raises ConfigurationError when it is applied to something else.
    """
    if not isinstance(resource_server, ResourceServer):
        raise ConfigurationError(
            "requires_dpop takes the resource server first: @requires_dpop(api, 'notes:read')"
        )
    requirements = Requirements(scopes=scopes, acr_values=tuple(acr_values), max_age=max_age)

    def decorate(endpoint: Any) -> Any:
        if isinstance(endpoint, type):
            return _protected_class(endpoint, resource_server, requirements)
        return _protected_function(endpoint, resource_server, requirements)

    return decorate


def _protected_class(endpoint: type, resource_server: ResourceServer, requirements: Requirements) -> type:
    if not issubclass(endpoint, (HTTPEndpoint, WebSocketEndpoint)):
        raise ConfigurationError(
            f"@requires_dpop goes on an HTTPEndpoint or a WebSocketEndpoint, not on the class {endpoint.__name__}"
        )
    dispatch = endpoint.dispatch

    async def protected_dispatch(self: Any) -> None:
        try:
            await authenticate(resource_server, self.scope, requirements)
        except DPoPError as error:
            await send_refusal(resource_server.error_response(error), self.scope, self.send)
            return
        self.send = adding_headers(self.send, Connection.of(self.scope))
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


def _protected_function(
    endpoint: Callable[..., Any], resource_server: ResourceServer, requirements: Requirements
) -> Callable[..., Awaitable[Any]]:
    name, position = _connection_argument(endpoint)

    @functools.wraps(endpoint)
    async def protected(*args: Any, **kwargs: Any) -> Any:
        connection: HTTPConnection = kwargs[name] if name in kwargs else args[position]
        try:
            await authenticate(resource_server, connection.scope, requirements)
        except DPoPError as error:
            response = resource_server.error_response(error)
            if isinstance(connection, WebSocket):
                await send_refusal(response, connection.scope, connection.send)
                return None
            return refusal(response)
        shared = Connection.of(connection.scope)
        if isinstance(connection, WebSocket):
            websocket = WebSocket(
                connection.scope, connection.receive, adding_headers(connection.send, shared)
            )
            if name in kwargs:
                kwargs[name] = websocket
            else:
                args = (*args[:position], websocket, *args[position + 1 :])
        return await _respond(endpoint, args, kwargs, shared)

    return protected


def _connection_argument(endpoint: Callable[..., Any]) -> tuple[str, int]:
    if not callable(endpoint):
        raise ConfigurationError(f"@requires_dpop goes on an endpoint, not on {endpoint!r}")
    for position, name in enumerate(inspect.signature(endpoint).parameters):
        if name in _CONNECTION_NAMES:
            return name, position
    raise ConfigurationError(
        f"@requires_dpop goes on a function with an argument named request or websocket, unlike {endpoint!r}"
    )


async def _respond(
    endpoint: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], shared: Connection
) -> Any:
    try:
        if inspect.iscoroutinefunction(endpoint):
            result = await endpoint(*args, **kwargs)
        else:
            result = await run_in_threadpool(endpoint, *args, **kwargs)
    except HTTPException as error:
        if shared.response_headers:
            headers = MutableHeaders(dict(error.headers or {}))
            headers.update(dict(shared.response_headers))
            error.headers = headers
        raise
    if isinstance(result, Response):
        for header, value in shared.response_headers:
            result.headers[header] = value
    return result
