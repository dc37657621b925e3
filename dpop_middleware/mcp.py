"""Protection of MCP servers: only a DPoP-bound token reaches their tools (SEP-1932; extra `mcp`).

For the servers of the official SDK and of fastmcp. Tools identify the caller with those libraries' own
function: `get_access_token()` returns the verified token.
"""

import math
from collections.abc import Collection
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import _options as options
from dpop_middleware._adapter.connection import checked_resource_server
from dpop_middleware._request.request import ResourceRequest, credentials
from dpop_middleware._request.secure_url import is_loopback
from dpop_middleware.asgi import DPoPMiddleware
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.resource_server import ResourceServer

try:
    from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken
    from mcp.server.transport_security import TransportSecuritySettings
except ImportError as error:
    raise ImportError(
        "dpop_middleware.mcp needs the MCP SDK, which is not installed: "
        "in a checkout of dpop_middleware, python -m pip install '.[mcp]'"
    ) from error

__all__ = ["protect"]

_PATH: Final = "/mcp"
# The names that the SDK's own check of `Host` knows; each must be followed by a port.
_CHECKED: Final = ("127.0.0.1", "localhost", "::1")
_TAKES: Final = "a server of the MCP SDK or of fastmcp, or the ASGI application of one"


def protect(
    server: Any,
    resource_server: ResourceServer,
    *,
    path: str | None = None,
    scopes: Collection[str] = (),
    public_paths: Collection[str] = (),
    close_at_expiry: bool = False,
) -> DPoPMiddleware:
    """Return an ASGI application that lets only DPoP-bound tokens reach `server` (RFC 9449 section 7).

    - `server`: the SDK's `MCPServer` or low-level `Server`, fastmcp's `FastMCP`, each without authentication
      of its own; or the Streamable HTTP application of one, if you set its options yourself.
    - `resource_server`: the judge, with `metadata`, by which clients find the issuer (RFC 9728). Its
      `resource` is the URL of the MCP endpoint, such as `https://api.example.com/mcp`.
    - `path`: where the endpoint is; by default the path of `resource`, or `/mcp` where that has none. An
      application has its own path.
    - `scopes`: the scopes that every request needs; a token without them gets 403.
    - `public_paths`, `close_at_expiry`: as in `DPoPMiddleware`, for other routes and for streams.

    In a tool, the SDK's `get_access_token()` has the verified token's client, scopes, subject, claims and
    expiry, and the token itself, which you must not pass on; the token is empty where a ticket opened a
    stream. A session belongs to the client and user that opened it. A tool that needs more must check that
    itself. Where `resource` is not on this machine, or has a name that the SDK doesn't know, the libraries'
    check of `Host` and `Origin`, which is for servers without authentication, is off: no page can make a
    proof. In an application that you pass, turn it off yourself, in the SDK's by `host="api.example.com"`,
    the host of `resource`: otherwise clients get 421. Raises ConfigurationError.
    """
    if checked_resource_server(resource_server).published_metadata is None:
        raise ConfigurationError(
            "protect needs ResourceServer(metadata=ResourceMetadata(…)): MCP clients find the issuer in it"
        )
    if path is not None:
        options.path("path", path, such_as=_PATH)
    app = _application(server, resource_server.resource, path)
    return DPoPMiddleware(
        _ForTools(app, resource_server.resource),
        resource_server,
        public_paths=public_paths,
        scopes=scopes,
        close_at_expiry=close_at_expiry,
    )


class _ForTools:
    """Passes the caller that `DPoPMiddleware` authenticated to the SDK."""

    def __init__(self, app: ASGIApp, resource: str) -> None:
        self.app = app
        self._resource = resource
        self._with_auth_context = AuthContextMiddleware(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "dpop" in scope:
            scope["user"] = AuthenticatedUser(_as_the_sdk_has_it(scope, self._resource))
        await self._with_auth_context(scope, receive, send)


def _as_the_sdk_has_it(scope: Scope, resource: str) -> AccessToken:
    verified = scope["dpop"].access_token
    # A ticket that came instead is not a token, and was redeemed.
    fields = ResourceRequest.from_scope(scope).authorization
    _, presented = credentials(fields) if fields else (None, "")
    return AccessToken(
        token=presented,
        client_id=verified.client_id,
        scopes=sorted(verified.scopes),
        expires_at=None if math.isinf(verified.expires_at) else int(verified.expires_at),
        resource=resource,
        subject=verified.subject,
        # The SDK distinguishes the owners of sessions by it, and an opaque token may not name its issuer.
        claims=dict(verified.claims.items()) | {"iss": verified.issuer},
    )


def _application(server: Any, resource: str, path: str | None) -> ASGIApp:
    url = urlsplit(resource)
    # A route is compared with the decoded path.
    where = path or unquote(url.path) or _PATH
    if options.provides(server, "streamable_http_app"):
        if getattr(getattr(server, "settings", None), "auth", None) is not None:
            raise ConfigurationError("protect takes an MCPServer without auth= of its own")
        checked = url.hostname in _CHECKED and url.port is not None
        security = None if checked else TransportSecuritySettings(enable_dns_rebinding_protection=False)
        app = server.streamable_http_app(
            streamable_http_path=where, host="127.0.0.1", transport_security=security
        )
        return cast("ASGIApp", app)
    if options.provides(server, "http_app"):
        if server.auth is not None:
            raise ConfigurationError("protect takes a FastMCP without auth= of its own")
        protection = "auto" if is_loopback(url.hostname or "") else False
        return cast("ASGIApp", server.http_app(path=where, host_origin_protection=protection))
    if path is not None:
        raise ConfigurationError("path is for a server: an application has its own path")
    return cast("ASGIApp", options.part("server", server, _TAKES, fits=options.provides(server, "__call__")))
