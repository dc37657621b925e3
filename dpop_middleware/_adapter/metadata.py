"""A request for the metadata of a resource server, answered: alike at every adapter (RFC 9728 section 3)."""

from starlette.types import Scope, Send

from dpop_middleware._adapter.connection import raw_headers
from dpop_middleware._metadata.answer import answer
from dpop_middleware._metadata.published import PublishedMetadata
from dpop_middleware.resource_server import ResourceServer

__all__ = ["send_metadata"]


async def send_metadata(
    published: PublishedMetadata, resource_server: ResourceServer, scope: Scope, send: Send
) -> None:
    """Answer the request of `scope`, of type `http`, with the metadata of `resource_server`.

    The request's body isn't read.
    """
    document = published.document(issuers=resource_server.issuers, policy=resource_server.policy)
    if_none_match = [
        value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"if-none-match"
    ]
    status, headers, body = answer(document, method=scope["method"], if_none_match=if_none_match)
    await send({"type": "http.response.start", "status": status, "headers": raw_headers(headers)})
    await send({"type": "http.response.body", "body": body})
