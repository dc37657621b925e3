"""How a request is answered: a refusal, the metadata, header fields; and when an acceptance is reported.

Every adapter serves metadata and names it in refusals in the same way (RFC 9728).

An acceptance is reported when the response begins, unless an adapter further inside refuses the request: a
middleware accepts requests that a route may refuse for a scope. That is one decision, and one event. It is
reported in the context in which it was made: the response may begin in another span of a trace.
"""

import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import Message, Scope, Send

from dpop_middleware._adapter.connection import Connection
from dpop_middleware._judge.verdicts import ErrorResponse, Headers
from dpop_middleware._request.request import MAX_FIELDS, ResourceRequest
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.events import HeldAcceptances
from dpop_middleware.resource_server import ResourceServer

if TYPE_CHECKING:
    from dpop_middleware._resource_metadata import PublishedMetadata

__all__ = [
    "adding_headers",
    "can_deny",
    "error_response",
    "exception_headers",
    "holding",
    "raw_headers",
    "reporting",
    "send_metadata",
    "send_refusal",
    "send_startup_failed",
]

_WITH_HEADERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


async def send_metadata(
    published: "PublishedMetadata", resource_server: ResourceServer, scope: Scope, send: Send
) -> None:
    """Answer the request of `scope`, of type `http`, with the metadata of `resource_server` at its host.

    The request's body isn't read.
    """
    resource = published.resource(ResourceRequest.from_scope(scope))
    document = published.document(resource, issuers=resource_server.issuers, policy=resource_server.policy)
    fields = islice(scope["headers"], MAX_FIELDS)
    if_none_match = [value.decode("latin-1") for name, value in fields if name.lower() == b"if-none-match"]
    status, headers, body = document.answer(method=scope["method"], if_none_match=if_none_match)
    await send({"type": "http.response.start", "status": status, "headers": raw_headers(headers)})
    await send({"type": "http.response.body", "body": body})


def error_response(resource_server: ResourceServer, error: DPoPError, scope: Scope) -> ErrorResponse:
    """Return the answer of `resource_server` to the request of `scope`, which it refused with `error`."""
    published = resource_server.published_metadata
    if published is None or not published.several:
        return resource_server.error_response(error)
    latest = Connection.of(scope).latest
    return resource_server.error_response(error, latest or ResourceRequest.from_scope(scope))


def exception_headers(response: ErrorResponse) -> MutableHeaders:
    """Return the header fields of `response` for an exception, whose body its handler makes.

    They can be changed: a handler may add fields to those of any exception.
    """
    of_the_body = ("content-type", "content-length")
    kept = tuple(field for field in response.headers if field[0] not in of_the_body)
    return MutableHeaders(raw=raw_headers(kept))


def raw_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return header fields in ASGI's form, in order; a repeated name is kept each time."""
    return list(_encoded(headers))


@lru_cache(maxsize=256)
def _encoded(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    return tuple([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])


def adding_headers(send: Send, connection: Connection) -> Send:
    """Return a `send` that replaces fields of the same names with the connection's response headers."""

    async def send_with_headers(message: Message) -> None:
        if connection.response_headers and message["type"] in _WITH_HEADERS:
            added = raw_headers(connection.response_headers)
            names = {name for name, _ in added}
            kept = [field for field in message.get("headers", ()) if field[0].lower() not in names]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    return send_with_headers


async def send_refusal(response: ErrorResponse, scope: Scope, send: Send) -> None:
    """Answer a request, or a WebSocket handshake that was not accepted yet, with `response`.

    A server without the denial extension answers a handshake by closing it, which clients see as a 403.
    """
    prefix = ""
    if scope["type"] == "websocket":
        if not can_deny(scope):
            await send({"type": "websocket.close", "code": WS_1008_POLICY_VIOLATION})
            return
        prefix = "websocket."
    await send(
        {
            "type": f"{prefix}http.response.start",
            "status": response.status,
            "headers": raw_headers(response.headers),
        }
    )
    await send({"type": f"{prefix}http.response.body", "body": response.body})


async def send_startup_failed(error: BaseException, send: Send) -> None:
    """Tell the server that the start failed: an error alone would mean an application without lifespan.

    For an unexpected error the traceback is sent, as in Starlette: some servers show nothing else.
    """
    ours = isinstance(error, ConfigurationError)
    why = str(error) if ours else "".join(traceback.format_exception(error))
    await send({"type": "lifespan.startup.failed", "message": f"the resource server can't be opened: {why}"})


def can_deny(scope: Scope) -> bool:
    """Whether the server can answer the WebSocket handshake of `scope` with an HTTP response."""
    return "websocket.http.response" in (scope.get("extensions") or {})


def reporting(held: HeldAcceptances, send: Send) -> Send:
    """Return a `send` that reports what is held back before the first message."""

    async def send_after_reporting(message: Message) -> None:
        held.report()
        await send(message)

    return send_after_reporting


def _as_it_is(send: Send) -> Send:
    return send


@contextmanager
def holding(connection: Connection) -> Generator[Callable[[Send], Send]]:
    """Hold acceptances in the block back until the first message, or the block's end.

    Yields a function that makes a `send` that reports them. If an outer adapter holds them back already,
    this changes nothing.
    """
    if connection.held is not None:
        yield _as_it_is
        return
    held = connection.held = HeldAcceptances()
    try:
        yield partial(reporting, held)
    finally:
        connection.held = None
        held.report()
