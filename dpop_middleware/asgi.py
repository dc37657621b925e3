"""Protection for any ASGI application, and what the other faces share with it.

Nothing is decided here: a connection scope becomes a `ResourceRequest`, an error becomes messages.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from typing import Any

from starlette.authentication import AuthCredentials, BaseUser, UnauthenticatedUser
from starlette.middleware.cors import CORSMiddleware

from dpop_middleware.challenges import ErrorResponse, Headers
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.once import RequestMemory
from dpop_middleware.public_paths import PublicPaths
from dpop_middleware.request import ResourceRequest
from dpop_middleware.requirements import Requirements
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.verdicts import VerifiedRequest

__all__ = ["Connection", "DPoPMiddleware", "DPoPUser", "adding_headers", "authenticate", "send_refusal"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOG = logging.getLogger("dpop_middleware")
_CONNECTION = "dpop_middleware.connection"
_WITH_HEADERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_SHUTDOWN = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_POLICY_VIOLATION = 1008


class DPoPUser(BaseUser):
    """The user whom a verified access token speaks for: `request.user`."""

    def __init__(self, verified: VerifiedRequest) -> None:
        self.access_token = verified.access_token

    @property
    def is_authenticated(self) -> bool:
        """True."""
        return True

    @property
    def display_name(self) -> str:
        """The token's subject."""
        return self.access_token.subject

    @property
    def identity(self) -> str:
        """The token's subject."""
        return self.access_token.subject


class Connection:
    """What the faces of one connection share: past verdicts, and header fields for its response."""

    __slots__ = ("memory", "middleware", "response_headers")

    def __init__(self) -> None:
        self.memory = RequestMemory()
        self.middleware: list[ResourceServer] = []
        self.response_headers: Headers = ()

    @classmethod
    def of(cls, scope: Scope) -> "Connection":
        """Return the connection of an ASGI scope; scopes that were copied from it share it."""
        connection = scope.get(_CONNECTION)
        if connection is None:
            connection = scope[_CONNECTION] = cls()
        return connection


async def authenticate(
    resource_server: ResourceServer, scope: Scope, requirements: Requirements
) -> VerifiedRequest:
    """Authenticate the connection of `scope` once, and show the application who it is.

    Sets `scope["user"]`, `scope["auth"]` and `scope["dpop"]`. Raises `errors.DPoPError`.
    """
    connection = Connection.of(scope)
    verified = await resource_server.authenticate(
        ResourceRequest.from_scope(scope), requirements=requirements, memory=connection.memory
    )
    scope["user"] = DPoPUser(verified)
    scope["auth"] = AuthCredentials(sorted(verified.access_token.scopes))
    scope["dpop"] = verified
    if verified.response_headers:
        connection.response_headers = verified.response_headers
    return verified


def _raw(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def adding_headers(send: Send, connection: Connection) -> Send:
    """Return a `send` that puts the connection's response headers in place of any of their names."""

    async def send_with_headers(message: Message) -> None:
        if connection.response_headers and message["type"] in _WITH_HEADERS:
            added = _raw(connection.response_headers)
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
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        prefix = "websocket."
    await send(
        {
            "type": f"{prefix}http.response.start",
            "status": response.status,
            "headers": _raw(response.headers),
        }
    )
    await send({"type": f"{prefix}http.response.body", "body": response.body})


class DPoPMiddleware:
    """Lets a request reach `app` only with a valid access token and DPoP proof (RFC 9449 section 7).

    - `app`: any ASGI application.
    - `public_paths`: paths that need no credentials: exact ones, or prefixes that end in `/*`, as the
      application's router sees them. A path with a dot segment, an empty segment, a backslash or an encoded
      slash is never public.
    - `required`: False also lets a request without `Authorization` through, as anonymous; bad credentials are
      refused all the same.

    Sets `scope["user"]`, `scope["auth"]` and, for an authenticated request, `scope["dpop"]`, a
    `VerifiedRequest`. `OPTIONS` is authenticated like any method: put `CORSMiddleware` outside this one. Raises
    ConfigurationError.
    """

    def __init__(
        self,
        app: ASGIApp,
        resource_server: ResourceServer,
        *,
        public_paths: Collection[str] = (),
        required: bool = True,
    ) -> None:
        if not isinstance(resource_server, ResourceServer):
            raise ConfigurationError(
                f"DPoPMiddleware takes a ResourceServer as resource_server, not {resource_server!r}"
            )
        self.app = app
        self.resource_server = resource_server
        self._public_paths = PublicPaths(public_paths)
        self._required = required
        self._looked_for_cors = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._closing_at_the_end(send))
        elif scope["type"] in ("http", "websocket"):
            await self._protect(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _closing_at_the_end(self, send: Send) -> Send:
        async def send_and_close(message: Message) -> None:
            if message["type"] in _SHUTDOWN:
                await self.resource_server.aclose()
            await send(message)

        return send_and_close

    async def _protect(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._looked_for_cors:
            self._looked_for_cors = True
            _warn_of_cors_inside(self.app)
        if self._anonymous(scope):
            scope["user"] = UnauthenticatedUser()
            scope["auth"] = AuthCredentials()
            await self.app(scope, receive, send)
            return
        connection = Connection.of(scope)
        connection.middleware.append(self.resource_server)
        try:
            await authenticate(self.resource_server, scope, Requirements())
        except DPoPError as error:
            await send_refusal(self.resource_server.error_response(error), scope, send)
            return
        if self.resource_server.issues_nonces:
            send = adding_headers(send, connection)
        await self.app(scope, receive, send)

    def _anonymous(self, scope: Scope) -> bool:
        if scope in self._public_paths:
            return True
        if self._required:
            return False
        return not any(name.lower() == b"authorization" for name, _ in scope["headers"])


def _layers(app: object) -> Iterator[object]:
    while app is not None:
        yield app
        for middleware in getattr(app, "user_middleware", ()):
            yield middleware.cls
        app = getattr(app, "app", None)


def _warn_of_cors_inside(app: ASGIApp) -> None:
    if any(layer is CORSMiddleware or isinstance(layer, CORSMiddleware) for layer in _layers(app)):
        _LOG.warning(
            "CORSMiddleware is inside DPoPMiddleware: preflights will be refused. Put it outside, with "
            "allow_headers=['Authorization', 'DPoP'] and expose_headers=['DPoP-Nonce', 'WWW-Authenticate']"
        )
