"""The metadata of a resource server, served and named in refusals, alike at every adapter (RFC 9728)."""

from typing import TYPE_CHECKING

from starlette.types import Scope, Send

from dpop_middleware._adapter.connection import raw_headers
from dpop_middleware._judge.challenges import ErrorResponse
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.errors import DPoPError
from dpop_middleware.resource_server import ResourceServer

if TYPE_CHECKING:
    from dpop_middleware._metadata import PublishedMetadata

__all__ = ["error_response", "send_metadata"]


async def send_metadata(
    published: "PublishedMetadata", resource_server: ResourceServer, scope: Scope, send: Send
) -> None:
    """Answer the request of `scope`, of type `http`, with the metadata of `resource_server` at its host.

    The request's body isn't read.
    """
    resource = published.resource(ResourceRequest.from_scope(scope))
    document = published.document(resource, issuers=resource_server.issuers, policy=resource_server.policy)
    if_none_match = [
        value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"if-none-match"
    ]
    status, headers, body = document.answer(method=scope["method"], if_none_match=if_none_match)
    await send({"type": "http.response.start", "status": status, "headers": raw_headers(headers)})
    await send({"type": "http.response.body", "body": body})


def error_response(resource_server: ResourceServer, error: DPoPError, scope: Scope) -> ErrorResponse:
    """Return what `resource_server` answers to the request of `scope`, which it refused by `error`."""
    published = resource_server.published_metadata
    if published is None or not published.several:
        return resource_server.error_response(error)
    return resource_server.error_response(error, ResourceRequest.from_scope(scope))
