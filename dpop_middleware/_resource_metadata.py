"""The metadata that a resource server publishes for clients that don't know it yet (RFC 9728).

Documents are made from the configuration that verifies requests, so that they always agree with it, and from
values that only the server's operator knows. A request only chooses one of them, by its host. Any page may
read them: they contain nothing secret, and depend on nothing that identifies a caller.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from dpop_middleware._options import names, refused, tokens, whole_number
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._request.uri import URIError, normalize
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.policy import DPoPPolicy

__all__ = ["Answer", "Document", "PublishedMetadata", "ResourceMetadata", "published"]

# A page for people: any host, with a query and a fragment, but no character that a browser would change.
_PAGE = re.compile(r"https?://[A-Za-z0-9\[][!#-;=?-\[\]_a-z~]*")
_LONGEST_TEXT = 1000
_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_DOCUMENTS: Final = 64
# A client has one document, or a few; a 200 with the whole one is right for any list.
_LONGEST_CONDITION: Final = 1000
_METHODS: Final = "GET, HEAD, OPTIONS"
_CORS: Final = (("access-control-allow-origin", "*"), ("access-control-expose-headers", "ETag"))
_PREFLIGHT: Final = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", _METHODS),
    ("access-control-allow-headers", "*"),
    ("access-control-max-age", "86400"),
    ("allow", _METHODS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceMetadata:
    """Metadata of a protected resource that doesn't follow from its configuration (RFC 9728).

    - `scopes_supported`: the scopes that clients may ask for; don't name one that must stay secret.
    - `resource_name`: the name to show to people.
    - `resource_documentation`, `resource_policy_uri`, `resource_tos_uri`: URLs of pages for people.
    - `authorization_details_types_supported`: the types of RFC 9396 that are understood.
    - `max_age`: seconds for which clients may keep the document.

    Anyone can read it. `resource`, `authorization_servers` and the members about DPoP come from the
    `ResourceServer`. Raises ConfigurationError. Not checked: whether the authorization server knows the
    scopes.
    """

    scopes_supported: Sequence[str] = ()
    resource_name: str | None = None
    resource_documentation: str | None = None
    resource_policy_uri: str | None = None
    resource_tos_uri: str | None = None
    authorization_details_types_supported: Sequence[str] = ()
    max_age: int = 3600

    def __post_init__(self) -> None:
        types = self.authorization_details_types_supported
        object.__setattr__(self, "scopes_supported", tokens("scopes_supported", self.scopes_supported))
        object.__setattr__(
            self,
            "authorization_details_types_supported",
            () if types in ((), []) else names("authorization_details_types_supported", types),
        )
        _check_text("resource_name", self.resource_name)
        for name in ("resource_documentation", "resource_policy_uri", "resource_tos_uri"):
            _check_page(name, getattr(self, name))
        whole_number("max_age", self.max_age, of=" of seconds")


def _check_text(name: str, value: object) -> None:
    if value is not None and not (
        isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST_TEXT
    ):
        raise refused(name, f"a printable text of 1 to {_LONGEST_TEXT} characters", value)


def _check_page(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and _PAGE.fullmatch(value)):
        raise refused(name, "an absolute URL, such as 'https://…'", value)


class Answer(NamedTuple):
    """Status, header fields and body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Document(NamedTuple):
    """The document as it is sent; `etag` changes with it, and `max_age` is in seconds."""

    body: bytes
    etag: str
    max_age: int

    def answer(self, *, method: str, if_none_match: Iterable[str]) -> Answer:
        """Return the answer to a request with `method`; `if_none_match` has the values of that field.

        A list of over 1000 characters counts as if it weren't there. Any method except GET, HEAD and OPTIONS
        gets 405.
        """
        if method == "OPTIONS":
            return Answer(204, _PREFLIGHT, b"")
        if method not in ("GET", "HEAD"):
            return Answer(405, (*_CORS, ("allow", _METHODS), ("content-length", "0")), b"")
        lifetime = f"public, max-age={self.max_age}" if self.max_age else "no-cache"
        headers = (*_CORS, ("cache-control", lifetime), ("etag", self.etag))
        if _names(",".join(if_none_match), self.etag):
            return Answer(304, headers, b"")
        described = (
            ("content-type", "application/json"),
            ("content-length", str(len(self.body))),
            ("x-content-type-options", "nosniff"),
        )
        return Answer(200, headers + described, self.body if method == "GET" else b"")


class PublishedMetadata(NamedTuple):
    """Where the metadata is served: at one path of each public host.

    `path` is that path decoded. `origin` is that of the resource server's own identifier. `resources` maps
    each origin that has an identifier of its own to that identifier. `raw_paths` are the spellings of the
    path that clients send, `written` is the usual one.
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

    def resource(self, request: ResourceRequest | None) -> str:
        """Return the identifier of the resource at the host of `request`.

        It is the server's own identifier if the host has none, and if `request` names none of the hosts.
        """
        return self.resources[self._origin(request)]

    def _origin(self, request: ResourceRequest | None) -> str:
        if request is None or not self.several:
            return self.origin
        origin = self.urls.origin_of(request)
        return self.origin if origin is None or origin not in self.resources else origin

    def is_asked_for(self, scope: Mapping[str, Any]) -> bool:
        """Whether an ASGI scope asks for the document: by exactly its path, alone or below the root path.

        Servers put the root path in front of the path or leave it out (`raw_path` likewise). No other
        spelling counts.
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
    metadata: ResourceMetadata,
    resource: str,
    *,
    origin: str,
    urls: PublicURLs,
    audiences: Iterable[str] = (),
) -> PublishedMetadata:
    """Return where the `metadata` of `resource`, an acceptable URL of `origin`, is served.

    The well-known path goes between the host and the resource's own path (RFC 9728 section 3.1). Another
    public host is a resource of its own where tokens may name it: where one of their `audiences` differs from
    `resource` only in the host. Raises ConfigurationError if `origin` isn't among `urls`, by
    which clients call the server: clients would not find the document there.
    """
    if not isinstance(metadata, ResourceMetadata):
        raise refused("metadata", "a ResourceMetadata", metadata)
    if origin not in urls.origins:
        raise ConfigurationError(
            f"metadata is published at the origin of resource, {origin}, which public_url doesn't name: "
            "add it there, or leave metadata out"
        )
    own = normalize(resource).removeprefix(origin)
    raw = _WELL_KNOWN + ("" if own == "/" else own)
    written = resource.partition("://")[2].partition("/")[2]
    spellings = {raw, f"{_WELL_KNOWN}/{written}" if written else raw}
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


def _names(if_none_match: str, etag: str) -> bool:
    if len(if_none_match) > _LONGEST_CONDITION:
        return False
    listed = if_none_match.split(",")
    return any(one.strip(" \t").removeprefix("W/") in (etag, "*") for one in listed)
