"""Protection for any ASGI application."""

from collections.abc import Collection, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpop_middleware._adapter.answers import (
    adding_headers,
    error_response,
    reporting,
    send_metadata,
    send_refusal,
    send_startup_failed,
)
from dpop_middleware._adapter.connection import (
    AUTHENTICATED,
    Connection,
    anonymize,
    check_scope_type,
    checked_resource_server,
    has_credentials,
)
from dpop_middleware._adapter.expiry import ending_after
from dpop_middleware._adapter.layers import has_cors_around_protected_routes, inner_root_paths
from dpop_middleware._judge.requirements import NO_CLAIMS, Predicate, Requirements
from dpop_middleware._log import LOG, escaped
from dpop_middleware._options import flag, part
from dpop_middleware._request.public_paths import PublicPaths
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._runtime import check_event_loop
from dpop_middleware.errors import ConfigurationError, DPoPError, InvalidRequest
from dpop_middleware.events import HeldAcceptances
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["DPoPMiddleware"]

_SHUTDOWN = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})


class DPoPMiddleware:
    """Lets a request reach `app` only with a valid access token and DPoP proof (RFC 9449 section 7).

    - `app`: any ASGI application.
    - `resource_server`: the judge; it is opened and closed with the application's lifespan.
    - `public_paths`: paths that need no credentials: exact ones, or prefixes that end in `/*`, as the
      application's router sees them. An ambiguous path is never public: a path with a dot segment, an empty
      segment, a backslash or an encoded slash; where a root path is set, a path that doesn't start with it or
      contains it twice; a `raw_path` that is another path; a request target in absolute form. Nor is a path
      of over 8 KiB. The first request that is refused for each of these reasons causes a warning in the log.
    - `required`: False also lets a request without `Authorization` through, as anonymous; bad credentials are
      still refused.
    - `scopes`, `any_of`, `claims`: required of every authenticated request, as in `requires_dpop`.
    - `close_at_expiry`: True ends connections when the access token expires: a WebSocket is closed with code
      1008 (3000 under daphne), a `text/event-stream` response is completed. The application sees that the
      client disconnected.

    Sets `scope["user"]`, `scope["auth"]` and, for an authenticated request, `scope["dpop"]`, a
    `VerifiedRequest`. An anonymous request keeps the user that an outer middleware has set. Of all ASGI scope
    types only `lifespan` passes unauthenticated; any other than `http` and `websocket` raises
    ConfigurationError. It runs under asyncio: under trio the start fails. `OPTIONS` is authenticated like any
    method: put `CORSMiddleware` outside this one. Where the resource server has `metadata`, the middleware
    itself serves it, at its exact path and without credentials (RFC 9728). Raises ConfigurationError.
    """

    def __init__(
        self,
        app: ASGIApp,
        resource_server: ResourceServer,
        *,
        public_paths: Collection[str] = (),
        required: bool = True,
        scopes: Collection[str] = (),
        any_of: Collection[str] = (),
        claims: Mapping[str, Predicate] = NO_CLAIMS,
        close_at_expiry: bool = False,
    ) -> None:
        self.resource_server = checked_resource_server(resource_server)
        self.app = part("app", app, "an ASGI application", fits=callable(app))
        resource_server.verification.has_middleware = True
        self._listed = public_paths
        self._public_paths = PublicPaths(public_paths)
        self._has_public_paths = bool(self._public_paths)
        self._required = flag("required", required)
        self._requirements = Requirements(scopes=scopes, any_of=any_of, claims=claims)
        self._close_at_expiry = flag("close_at_expiry", close_at_expiry)
        self._has_looked_inside = False
        self._warned_of: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope.get("type") not in AUTHENTICATED:
            await self._pass_lifespan(scope, receive, send)
            return
        published = self.resource_server.published_metadata
        if published is not None and published.is_asked_for(scope):
            await send_metadata(published, self.resource_server, scope, send)
            return
        if not self._has_looked_inside:
            check_event_loop()
            self._look_inside()
            self._has_looked_inside = True
        connection = Connection.of(scope)
        connection.middleware.append(self.resource_server)
        if self.resource_server.issues_nonces:
            send = adding_headers(send, connection)
        held = None
        if self.resource_server.reporter.wants_acceptance and connection.held is None:
            held = connection.held = HeldAcceptances()
            send = reporting(held, send)
        try:
            if self._anonymous(scope):
                anonymize(scope)
                await self.app(scope, receive, send)
                return
            verdict = await connection.judge(self.resource_server, scope, self._requirements)
            if isinstance(verdict, DPoPError):
                await send_refusal(error_response(self.resource_server, verdict, scope), scope, send)
            elif self._close_at_expiry:
                await self._serve_until_expiry(verdict.access_token, scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            if held is not None:
                connection.held = None
                held.report()

    async def _pass_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("type") != "lifespan":
            check_scope_type(scope)
        try:
            check_event_loop()
        except ConfigurationError as error:
            await receive()
            await send_startup_failed(error, send)
            return
        await self.app(scope, receive, self._opening_and_closing(send))

    async def _serve_until_expiry(
        self, token: AccessToken, scope: Scope, receive: Receive, send: Send
    ) -> None:
        seconds = self.resource_server.seconds_left(token)
        async with ending_after(seconds, scope, receive, send) as (until_then_receive, until_then_send):
            await self.app(scope, until_then_receive, until_then_send)

    def _opening_and_closing(self, send: Send) -> Send:
        has_failed = False

        async def send_lifespan(message: Message) -> None:
            nonlocal has_failed
            if has_failed:
                # The middleware reports the lifespan's result; the application's own message is dropped.
                return
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self.resource_server.open()
                except BaseException as error:
                    has_failed = True
                    await send_startup_failed(error, send)
                    raise
            try:
                if message["type"] in _SHUTDOWN:
                    await self.resource_server.aclose()
            finally:
                await send(message)

        return send_lifespan

    def _anonymous(self, scope: Scope) -> bool:
        raw_path = scope.get("raw_path")
        if scope["path"][:1] != "/" or (raw_path is not None and raw_path[:1] != b"/"):
            # Some servers pass a target in absolute form on whole, in both. Some remove the authority and
            # keep `Host`: then the absolute form can't be detected here.
            known = _to_origin_form(scope, self.resource_server.verification.public_urls)
            return (known or scope["path"] == "*") and not (self._required or has_credentials(scope))
        if self._has_public_paths:
            is_public, reason = self._public_paths.judge(scope)
            if is_public:
                return True
            if reason is not None and reason not in self._warned_of:
                self._warn_of_refused_path(reason, scope)
        return not (self._required or has_credentials(scope))

    def _look_inside(self) -> None:
        self._public_paths = PublicPaths(self._listed, inner_root_paths=tuple(inner_root_paths(self.app)))
        if has_cors_around_protected_routes(self.app, self._public_paths):
            LOG.warning(
                "CORSMiddleware is inside DPoPMiddleware: %s. Put it outside, with "
                "allow_headers=['Authorization', 'DPoP'] and "
                "expose_headers=['DPoP-Nonce', 'WWW-Authenticate']",
                "preflights will be refused" if self._required else "no page can read a refusal",
            )

    def _warn_of_refused_path(self, reason: str, scope: Scope) -> None:
        self._warned_of.add(reason)
        LOG.warning(
            "the path %s is listed in public_paths, but still needs credentials: %s (root_path is %s, "
            "raw_path %s). A path that routers could read in two ways is never public: it must start with "
            "the root path and contain it once. Where a proxy strips the prefix, set no root path "
            "(--root-path, FastAPI(root_path=...)) or let the proxy pass the prefix on; where a name repeats "
            "it, rename one. Each reason is logged once",
            escaped(scope["path"]),
            reason,
            escaped(scope.get("root_path")),
            escaped(scope.get("raw_path")),
        )


def _to_origin_form(scope: Scope, public_urls: PublicURLs) -> bool:
    """Put the target of `scope` in origin form; return False and change nothing where that isn't possible.

    It is possible for an absolute form (RFC 9112 section 3.2.2) that names an origin of this server. `Host`
    is set to its authority, so that the application sees the same host as the check of the proof.
    """
    request = ResourceRequest.from_scope(scope)
    try:
        seen = public_urls.origin_form(request)
    except InvalidRequest:
        return False
    if seen is request:
        return False
    prefix = request.raw_path.removesuffix(seen.raw_path)
    path: str = scope["path"]
    if not path.startswith(prefix):
        return False
    scope["path"] = path.removeprefix(prefix) or "/"
    if scope.get("raw_path") is not None:
        scope["raw_path"] = seen.raw_path.encode("latin-1")
    host = seen.hosts[0].encode("latin-1")
    scope["headers"] = [
        (b"host", host),
        *(field for field in scope["headers"] if field[0].lower() != b"host"),
    ]
    return True
