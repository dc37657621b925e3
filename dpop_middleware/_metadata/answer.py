"""The answer to a request for the metadata document (RFC 9728 section 3.2, RFC 9110 section 13).

Any page may read it: it holds nothing secret, and depends on nothing that identifies a caller.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from dpop_middleware._metadata.published import Document

__all__ = ["Answer", "answer"]

_METHODS: Final = "GET, HEAD, OPTIONS"
_CORS: Final = (("access-control-allow-origin", "*"), ("access-control-expose-headers", "ETag"))
_PREFLIGHT: Final = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", _METHODS),
    ("access-control-allow-headers", "*"),
    ("access-control-max-age", "86400"),
    ("allow", _METHODS),
)


class Answer(NamedTuple):
    """Status, header fields and body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def answer(document: Document, *, method: str, if_none_match: Iterable[str]) -> Answer:
    """Return the answer to a request by `method`; `if_none_match` are the values of the fields of that name.

    Any method but GET, HEAD and OPTIONS gets 405.
    """
    if method == "OPTIONS":
        return Answer(204, _PREFLIGHT, b"")
    if method not in ("GET", "HEAD"):
        return Answer(405, (*_CORS, ("allow", _METHODS), ("content-length", "0")), b"")
    lifetime = f"public, max-age={document.max_age}" if document.max_age else "no-cache"
    headers = (*_CORS, ("cache-control", lifetime), ("etag", document.etag))
    if any(_names(value, document.etag) for value in if_none_match):
        return Answer(304, headers, b"")
    described = (
        ("content-type", "application/json"),
        ("content-length", str(len(document.body))),
        ("x-content-type-options", "nosniff"),
    )
    return Answer(200, headers + described, document.body if method == "GET" else b"")


def _names(if_none_match: str, etag: str) -> bool:
    listed = if_none_match.split(",")
    return any(one.strip(" \t").removeprefix("W/") in (etag, "*") for one in listed)
