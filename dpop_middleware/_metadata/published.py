"""The metadata documents of a resource server: where they are, and what they say (RFC 9728 sections 2 and 3).

They are made from the configuration that verifies, so that they can't promise anything else. A request only
chooses among them, by its host.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from dpop_middleware._metadata.resource_metadata import ResourceMetadata
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._request.uri import URIError, normalize
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.policy import DPoPPolicy

__all__ = ["Document", "PublishedMetadata", "published"]

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_DOCUMENTS: Final = 64


class Document(NamedTuple):
    """The document as it is sent; `etag` changes with it, and `max_age` is in seconds."""

    body: bytes
    etag: str
    max_age: int


class PublishedMetadata(NamedTuple):
    """Where the metadata are: at one path of each public host, `path` once it is decoded.

    `origin` is that of the resource server's own identifier. `resources` has the identifier at each origin
    that is one of its own. `raw_paths` are the spellings of the path which clients send, `written` the
    usual one.
    """

    metadata: ResourceMetadata
    origin: str
    resources: Mapping[str, str]
    urls: PublicURLs
    path: str
    written: str
    raw_paths: frozenset[bytes]

    @property
    def several(self) -> bool:
        """Whether hosts have documents of their own."""
        return len(self.resources) > 1

    def url(self, request: ResourceRequest | None = None) -> str:
        """Return the URL of the document that concerns the host of `request`."""
        return self._origin(request) + self.written

    def resource(self, request: ResourceRequest | None = None) -> str:
        """Return the identifier of the resource at the host of `request`.

        It is the server's own at a host without one, and where `request` names none of the hosts.
        """
        return self.resources[self._origin(request)]

    def _origin(self, request: ResourceRequest | None) -> str:
        if request is None or not self.several:
            return self.origin
        origin = self.urls.origin_of(request)
        return self.origin if origin is None or origin not in self.resources else origin

    def is_asked_for(self, scope: Mapping[str, Any]) -> bool:
        """Whether an ASGI scope asks for the document: by its very path, alone or below the root path.

        Servers put the root path in front of the path or leave it out (`raw_path` likewise). Of other
        spellings none counts.
        """
        path: str = scope["path"]
        if not path.endswith(self.path) or scope["type"] != "http":
            return False
        raw_path: bytes | None = scope.get("raw_path")
        before = path.removesuffix(self.path)
        if before and before != (scope.get("root_path") or "").rstrip("/"):
            return False
        if raw_path is None:
            return True
        sent = raw_path.partition(b"?")[0]
        before_raw = before.encode("utf-8", "replace")
        return sent.startswith(before_raw) and sent[len(before_raw) :] in self.raw_paths

    def document(self, resource: str, *, issuers: tuple[str, ...], policy: DPoPPolicy) -> Document:
        """Return the document of `resource`, which accepts tokens of `issuers` and judges by `policy`."""
        return _document(self.metadata, resource, issuers, policy.algorithms, policy.accept_bearer)


def published(
    metadata: ResourceMetadata | None,
    resource: str,
    *,
    origin: str,
    urls: PublicURLs,
    verifier: object = None,
) -> PublishedMetadata | None:
    """Return where `metadata` of `resource`, an acceptable URL of `origin`, are; None without any.

    The well-known path goes between the host and the resource's own path (RFC 9728 section 3.1). Another
    public host is a resource of its own where tokens may name it: where one of the `audiences` of `verifier`
    is `resource` but for the host. Raises ConfigurationError where `origin` is none of `urls`, by which
    clients call the server: nobody would find the document there.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, ResourceMetadata):
        raise ConfigurationError(f"metadata takes a ResourceMetadata, not {metadata!r}")
    if origin not in urls.origins:
        raise ConfigurationError(
            f"metadata are published at the origin of resource, {origin}, which public_url doesn't name: "
            "add it there, or leave metadata out"
        )
    own = normalize(resource).removeprefix(origin)
    raw = _WELL_KNOWN + ("" if own == "/" else own)
    written = resource.partition("://")[2].partition("/")[2]
    spellings = {raw, f"{_WELL_KNOWN}/{written}" if written else raw}
    audiences: Iterable[str] = getattr(verifier, "audiences", ())
    found = {_normal(audience): audience for audience in sorted(audiences)}
    others = {other: found[other + own] for other in urls.origins if other + own in found}
    return PublishedMetadata(
        metadata,
        origin,
        MappingProxyType(others | {origin: resource}),
        urls,
        unquote(raw),
        raw,
        frozenset(each.encode() for each in spellings),
    )


def _normal(audience: str) -> str:
    try:
        return normalize(audience)
    except URIError:
        return audience


@lru_cache(maxsize=_DOCUMENTS)
def _document(
    metadata: ResourceMetadata,
    resource: str,
    issuers: tuple[str, ...],
    algorithms: tuple[str, ...],
    accept_bearer: bool,
) -> Document:
    said = {
        "resource": resource,
        "authorization_servers": issuers,
        "scopes_supported": metadata.scopes_supported,
        "bearer_methods_supported": ("header",),
        "resource_name": metadata.resource_name,
        "resource_documentation": metadata.resource_documentation,
        "resource_policy_uri": metadata.resource_policy_uri,
        "resource_tos_uri": metadata.resource_tos_uri,
        "authorization_details_types_supported": metadata.authorization_details_types_supported,
        "dpop_signing_alg_values_supported": algorithms,
        "dpop_bound_access_tokens_required": not accept_bearer,
    }
    # An empty array is left out (RFC 9728 section 3.2); False says something.
    body = json.dumps({name: value for name, value in said.items() if value not in (None, ())}).encode()
    return Document(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', metadata.max_age)
