"""A request to a protected resource, as a value, and the credentials that it carries.

Counts and sizes are judged here, before anything is decoded (RFC 9449 sections 4.1 and 7.1).
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from dpop_middleware._request.uri import quoted
from dpop_middleware.checks import Check
from dpop_middleware.errors import (
    InvalidDPoPProof,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    Refusal,
    Scheme,
)
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS

__all__ = [
    "MAX_FIELDS",
    "MAX_PROOF_SIZE",
    "MAX_TOKEN_SIZE",
    "ResourceRequest",
    "credentials",
    "one_proof",
    "too_many_fields",
]

MAX_TOKEN_SIZE = 16 * 1024
"""Characters of the longest access token that is read."""

MAX_PROOF_SIZE = 8 * 1024
_MAX_POST_QUANTUM_PROOF_SIZE = 16 * 1024
# No browser, proxy or library sends half as many header fields.
MAX_FIELDS = 256
# With two fields of one name a request is refused already, or no host selected.
_MOST_ALIKE = 16

_OPTIONAL_WHITESPACE = " \t"
_SPACE = 0x20
# White space is removed character by character: a value with more of it is refused.
_MOST_SPACES = 64
_LENGTHS = frozenset(map(len, (b"host", b"authorization", b"dpop")))
# RFC 9110 section 11.2, without the padding; and a table with which `translate` changes every other octet.
_TOKEN68 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
_ONLY_TOKEN68 = bytes(octet if octet in _TOKEN68 else _TOKEN68[0] for octet in range(256))
_LONGEST_SCHEME = len("bearer")
_SCHEMES: Mapping[str, Scheme] = {"dpop": "DPoP", "bearer": "Bearer"}


class ResourceRequest(NamedTuple):
    """The parts of a request that a resource server needs, as received.

    - `method`: the HTTP method; GET for a WebSocket handshake.
    - `raw_path`: the path as sent, still percent-encoded, without the query.
    - `hosts`, `authorization`, `dpop`: the values of such header fields, in order; of each the first 16.
    - `root_path`: the path, decoded, at which the server mounts the application.
    - `fields`: how many header fields there were; if there are more than 256, none is read.
    """

    method: str
    raw_path: str
    hosts: tuple[str, ...]
    authorization: tuple[str, ...]
    dpop: tuple[str, ...]
    root_path: str = ""
    fields: int = 0

    def __repr__(self) -> str:
        return f"ResourceRequest(method={self.method!r}, raw_path={self.raw_path!r}, hosts={self.hosts!r})"

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> "ResourceRequest":
        """Read an ASGI `http` or `websocket` connection scope; nothing is judged."""
        fields = scope["headers"] if isinstance(scope["headers"], (list, tuple)) else list(scope["headers"])
        hosts: list[str] = []
        authorization: list[str] = []
        dpop: list[str] = []
        for name, octets in fields if len(fields) <= MAX_FIELDS else ():
            if len(name) not in _LENGTHS:
                continue
            lowered = name.lower()
            if lowered == b"dpop":
                values = dpop
            elif lowered == b"authorization":
                values = authorization
            elif lowered == b"host":
                values = hosts
            else:
                continue
            if len(values) < _MOST_ALIKE:
                value = octets.decode("latin-1")
                if octets and (octets[0] <= _SPACE or octets[-1] <= _SPACE):
                    value = _trimmed(value)
                values.append(value)
        raw_path = scope.get("raw_path")
        return cls(
            scope["method"] if scope["type"] == "http" else "GET",
            quoted(scope["path"]) if raw_path is None else raw_path.partition(b"?")[0].decode("latin-1"),
            tuple(hosts),
            tuple(authorization),
            tuple(dpop),
            scope.get("app_root_path", scope.get("root_path", "")),
            len(fields),
        )


def _trimmed(value: str) -> str:
    """Return a field's value without the optional white space around it (RFC 9110 section 5.5)."""
    value = value[:_MOST_SPACES].lstrip(_OPTIONAL_WHITESPACE) + value[_MOST_SPACES:]
    return value[:-_MOST_SPACES] + value[-_MOST_SPACES:].rstrip(_OPTIONAL_WHITESPACE)


def too_many_fields(request: ResourceRequest, check: Check) -> InvalidRequest:
    """Return the error for more than `MAX_FIELDS` fields: none was read, so that `check` finds none."""
    return InvalidRequest(
        "the request has too many header fields", check=check, expected=MAX_FIELDS, actual=request.fields
    )


def _invalid_request(description: str, scheme: Scheme) -> InvalidRequest:
    return InvalidRequest(description, check=Check.AUTHORIZATION, refusal=Refusal(scheme=scheme))


def credentials(authorization: tuple[str, ...]) -> tuple[Scheme, str]:
    """Return the scheme and the access token of a request's `Authorization` field; the token isn't parsed.

    RFC 9110 section 11.4, RFC 6750 section 2.1. Raises MissingCredentials without a field of an accepted
    scheme, InvalidRequest for several fields, no token or illegal characters, and InvalidToken for a token
    over 16 KiB.
    """
    if not authorization:
        raise MissingCredentials("an access token is required", check=Check.AUTHORIZATION)
    if len(authorization) != 1:
        raise InvalidRequest(
            "the request has several Authorization fields",
            check=Check.AUTHORIZATION,
            expected=1,
            actual=len(authorization),
        )
    name, _, rest = authorization[0].partition(" ")
    scheme = _SCHEMES.get(name.lower()) if len(name) <= _LONGEST_SCHEME and name.isascii() else None
    if scheme is None:
        raise MissingCredentials("an access token is required", check=Check.AUTHORIZATION)
    access_token = rest[:_MOST_SPACES].lstrip(" ") + rest[_MOST_SPACES:] if rest[:1] == " " else rest
    if len(access_token) > MAX_TOKEN_SIZE:
        raise InvalidToken(
            "the access token is too large",
            check=Check.AUTHORIZATION,
            expected=MAX_TOKEN_SIZE,
            actual=len(access_token),
            refusal=Refusal(scheme=scheme),
        )
    if not access_token:
        raise _invalid_request("the Authorization field has no access token", scheme)
    octets = access_token.rstrip("=").encode("utf-8", "surrogatepass")
    if not octets or octets.translate(_ONLY_TOKEN68) != octets:
        raise _invalid_request("the access token has illegal characters", scheme)
    return scheme, access_token


def _max_proof_size(algorithms: Collection[str]) -> int:
    large = any(name in algorithms for name in POST_QUANTUM_ALGORITHMS)
    return _MAX_POST_QUANTUM_PROOF_SIZE if large else MAX_PROOF_SIZE


def one_proof(dpop: tuple[str, ...], algorithms: Collection[str]) -> str:
    """Return the value of the one `DPoP` field (RFC 9449 section 4.3, check 1).

    A comma counts as a second field: some intermediaries join fields with it, and no proof contains one.
    `algorithms` are those that the proof may use: with ML-DSA among them it may have 16 KiB, otherwise 8.
    Raises InvalidDPoPProof.
    """
    if not dpop:
        raise InvalidDPoPProof("a DPoP proof is required", check=Check.ONE_HEADER, expected=1, actual=0)
    if len(dpop) != 1 or "," in dpop[0]:
        raise InvalidDPoPProof(
            "the request has several DPoP fields",
            check=Check.ONE_HEADER,
            expected=1,
            actual=sum(value.count(",") + 1 for value in dpop),
        )
    proof = dpop[0]
    if len(proof) > MAX_PROOF_SIZE and len(proof) > (limit := _max_proof_size(algorithms)):
        raise InvalidDPoPProof(
            "the DPoP proof is too large",
            check=Check.ONE_HEADER,
            expected=limit,
            actual=len(proof),
        )
    if not proof:
        raise InvalidDPoPProof("the DPoP field is empty", check=Check.ONE_HEADER)
    return proof
