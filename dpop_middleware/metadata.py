"""Protected resource metadata (RFC 9728): from a 401 a client learns where to get a token.

`DPoPMiddleware` serves the document itself; without it, use this route.
"""

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dpop_middleware._adapter.answers import send_metadata
from dpop_middleware._adapter.connection import checked_resource_server
from dpop_middleware._resource_metadata import PublishedMetadata, ResourceMetadata
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.resource_server import ResourceServer

__all__ = ["ResourceMetadata", "metadata_route"]


class _Metadata:
    """An ASGI application that answers every request with the document."""

    def __init__(self, published: PublishedMetadata, resource_server: ResourceServer) -> None:
        self._published = published
        self._resource_server = resource_server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        await send_metadata(self._published, self._resource_server, scope, send)


def metadata_route(resource_server: ResourceServer) -> Route:
    """Return a route that serves the metadata of `resource_server` (RFC 9728 section 3).

        app = FastAPI(routes=[metadata_route(api)])

    It belongs in the application at the root of the resource's host, and needs no credentials: requests for
    the path don't reach a mounted application. It answers GET, HEAD and OPTIONS, also for pages of any
    origin. Raises ConfigurationError for a server without `metadata=`, and for a resource whose path has a
    brace, which no route can name.
    """
    published = checked_resource_server(resource_server, option="metadata_route").published_metadata
    if published is None:
        raise ConfigurationError("metadata_route needs ResourceServer(metadata=ResourceMetadata(…))")
    if "{" in published.path or "}" in published.path:
        raise ConfigurationError(f"a route can't name a path with braces: {published.path!r}")
    return Route(published.path, _Metadata(published, resource_server), name="oauth-protected-resource")
