"""Protection for any ASGI application."""

import logging
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpop_middleware.connection import (
    Connection,
    adding_headers,
    authenticate,
    has_credentials,
    send_refusal,
)
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.expiry import ending_after
from dpop_middleware.policy import checked_flag
from dpop_middleware.public_paths import PublicPaths
from dpop_middleware.requirements import Requirements
from dpop_middleware.resource_server import ResourceServer

__all__ = ["DPoPMiddleware"]

_LOG = logging.getLogger("dpop_middleware")
_SHUTDOWN = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_NOTHING_REQUIRED = Requirements()
_MOST_LAYERS = 10_000


class DPoPMiddleware:
    """Lets a request reach `app` only with a valid access token and DPoP proof (RFC 9449 section 7).

    - `app`: any ASGI application.
    - `resource_server`: the judge; it is opened and closed with the application's lifespan.
    - `public_paths`: paths that need no credentials: exact ones, or prefixes that end in `/*`, as the
      application's router sees them. A path with a dot segment, an empty segment, a backslash or an encoded
      slash is never public.
    - `required`: False also lets a request without `Authorization` through, as anonymous; bad credentials are
      refused all the same.
    - `close_at_expiry`: True ends what outlives the access token: a WebSocket is closed with code 1008, a
      `text/event-stream` response is completed. The application sees a client that left.

    Sets `scope["user"]`, `scope["auth"]` and, for an authenticated request, `scope["dpop"]`, a
    `VerifiedRequest`. `OPTIONS` is authenticated like any method: put `CORSMiddleware` outside this one.
    Raises ConfigurationError.
    """

    def __init__(
        self,
        app: ASGIApp,
        resource_server: ResourceServer,
        *,
        public_paths: Collection[str] = (),
        required: bool = True,
        close_at_expiry: bool = False,
    ) -> None:
        if not isinstance(resource_server, ResourceServer):
            raise ConfigurationError(
                f"DPoPMiddleware takes a ResourceServer as resource_server, not {resource_server!r}"
            )
        if not callable(app):
            raise ConfigurationError(f"DPoPMiddleware takes an ASGI application as app, not {app!r}")
        self.app = app
        self.resource_server = resource_server
        self._public_paths = PublicPaths(public_paths)
        self._required = checked_flag("required", required)
        self._close_at_expiry = checked_flag("close_at_expiry", close_at_expiry)
        self._looked_for_cors = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._opening_and_closing(send))
        elif scope["type"] in ("http", "websocket"):
            await self._protect(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _opening_and_closing(self, send: Send) -> Send:
        async def send_lifespan(message: Message) -> None:
            try:
                if message["type"] == "lifespan.startup.complete":
                    await self.resource_server.open()
                elif message["type"] in _SHUTDOWN:
                    await self.resource_server.aclose()
            finally:
                await send(message)

        return send_lifespan

    async def _protect(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._looked_for_cors:
            self._looked_for_cors = True
            _warn_of_cors_inside(self.app)
        connection = Connection.of(scope)
        connection.middleware.append(self.resource_server)
        if self.resource_server.issues_nonces:
            send = adding_headers(send, connection)
        if self._anonymous(scope):
            scope["user"] = UnauthenticatedUser()
            scope["auth"] = AuthCredentials()
            scope.pop("dpop", None)
            await self.app(scope, receive, send)
            return
        try:
            verified = await authenticate(self.resource_server, scope, _NOTHING_REQUIRED)
        except DPoPError as error:
            await send_refusal(self.resource_server.error_response(error), scope, send)
            # The connection remembers the error, whose frames remember the connection: refusing must leave
            # nothing that only a garbage collection takes away.
            error.__traceback__ = None
            return
        if not self._close_at_expiry:
            await self.app(scope, receive, send)
            return
        seconds = self.resource_server.seconds_left(verified.access_token)
        async with ending_after(seconds, scope, receive, send) as (until_then_receive, until_then_send):
            await self.app(scope, until_then_receive, until_then_send)

    def _anonymous(self, scope: Scope) -> bool:
        return scope in self._public_paths or not (self._required or has_credentials(scope))


def _inside(app: object) -> Iterator[object]:
    """Yield `app` and what can be seen to be inside it: applications, middleware classes, routes."""
    seen: set[int] = set()
    waiting = [app]
    while waiting:
        layer = waiting.pop()
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        waiting.extend(getattr(middleware, "cls", None) for middleware in _listed(layer, "user_middleware"))
        waiting.extend(_listed(layer, "routes"))
        waiting.append(getattr(layer, "app", None))


def _listed(layer: object, name: str) -> Iterable[object]:
    value = getattr(layer, name, ())
    return value if isinstance(value, (list, tuple)) else ()


def _warn_of_cors_inside(app: ASGIApp) -> None:
    for layer in islice(_inside(app), _MOST_LAYERS):
        if issubclass(layer if isinstance(layer, type) else type(layer), CORSMiddleware):
            _LOG.warning(
                "CORSMiddleware is inside DPoPMiddleware: preflights will be refused. Put it outside, with "
                "allow_headers=['Authorization', 'DPoP'] and "
                "expose_headers=['DPoP-Nonce', 'WWW-Authenticate']"
            )
            return
