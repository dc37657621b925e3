"""An error becomes a response: the one place that writes challenges (RFC 9449 section 7.1).

Everything in a header value is of our own making: fixed descriptions, configured names, issued nonces. The
descriptions of somebody else's verifier or store are cleaned first.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.errors import (
    DPoPError,
    InsufficientScope,
    InsufficientUserAuthentication,
    Scheme,
    Unavailable,
)
from dpop_middleware.policy import DPoPPolicy

if TYPE_CHECKING:
    from dpop_middleware._metadata import PublishedMetadata

__all__ = ["ErrorResponse", "Headers", "error_response", "nonce_headers"]

Headers = tuple[tuple[str, str], ...]

_CHALLENGED = frozenset({400, 401, 403})
_KINDS = 256
# RFC 6750 section 3: what an error_description may not hold, and what would end its quoted string.
_NOT_IN_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """What to answer: status, header fields in order (a name may come more than once), and a JSON body."""

    status: int
    headers: Headers
    body: bytes


def nonce_headers(nonce: str) -> Headers:
    """Return the fields that hand a nonce to the client, in a response that no cache keeps (section 8.2)."""
    return (("dpop-nonce", nonce), ("cache-control", "no-store"))


def _parameters(error: DPoPError) -> tuple[tuple[str, str], ...]:
    """What a challenge says beyond the error: of an error that asks for more than a better try."""
    if isinstance(error, InsufficientScope):
        return (("scope", " ".join(error.scopes)),) if error.scopes else ()
    if not isinstance(error, InsufficientUserAuthentication):
        return ()
    acr_values = (("acr_values", " ".join(error.acr_values)),) if error.acr_values else ()
    max_age = () if error.max_age is None else (("max_age", str(error.max_age)),)
    return acr_values + max_age


def _challenge(scheme: str, parameters: Collection[tuple[str, str]]) -> str:
    return " ".join((scheme, ", ".join(f'{name}="{value}"' for name, value in parameters))).rstrip()


class _Kind(NamedTuple):
    """All that the fixed part of a response depends on, so that it is written once for each kind of error."""

    status: int
    code: str | None
    description: str
    parameters: tuple[tuple[str, str], ...]
    scheme: Scheme | None
    algorithms: tuple[str, ...]
    accept_bearer: bool
    metadata_url: str | None


def _challenges(kind: _Kind) -> list[str]:
    parameters: list[tuple[str, str]] = []
    if kind.code is not None:
        description = _NOT_IN_DESCRIPTION.sub("?", kind.description)
        parameters = [("error", kind.code), ("error_description", description), *kind.parameters]
    metadata = [] if kind.metadata_url is None else [("resource_metadata", kind.metadata_url)]
    always = [("algs", " ".join(kind.algorithms)), *metadata]
    if not kind.accept_bearer:
        return [_challenge("DPoP", [*parameters, *always])]
    bearer = _challenge("Bearer", [*(parameters if kind.scheme in ("Bearer", None) else []), *metadata])
    dpop = _challenge("DPoP", [*(parameters if kind.scheme in ("DPoP", None) else []), *always])
    # Some clients look only at the beginning of what the lines are folded into.
    return [dpop, bearer] if kind.scheme == "DPoP" else [bearer, dpop]


@lru_cache(maxsize=_KINDS)
def _response(kind: _Kind) -> ErrorResponse:
    headers = [("content-type", "application/json"), ("cache-control", "no-store")]
    if kind.status in _CHALLENGED:
        headers += [("www-authenticate", challenge) for challenge in _challenges(kind)]
    content = {"error": kind.code} if kind.code is not None else {}
    body = json.dumps(content | {"error_description": kind.description}).encode()
    return ErrorResponse(kind.status, (*headers, ("content-length", str(len(body)))), body)


def error_response(
    error: DPoPError,
    policy: DPoPPolicy,
    *,
    metadata: "PublishedMetadata | None" = None,
    request: ResourceRequest | None = None,
) -> ErrorResponse:
    """Return the response to `error` (RFC 9449 sections 7.1 and 7.2, RFC 6750 section 3).

    The error stands on the challenge of the scheme that was used, on both when that can't be told, and on
    neither without credentials. Where Bearer is accepted, each has a line of its own, that of the used scheme
    first. Where the resource server publishes `metadata`, each says where: at the host of `request` (RFC 9728
    section 5.1).
    """
    parameters = _parameters(error)
    response = _response(
        _Kind(
            error.status,
            error.code,
            error.description,
            parameters,
            error.scheme,
            policy.algorithms,
            policy.accept_bearer,
            None if metadata is None else metadata.url(request),
        )
    )
    added: Headers = () if error.nonce is None else (("dpop-nonce", error.nonce),)
    if isinstance(error, Unavailable):
        added += (("retry-after", str(error.retry_after)),)
    return response if not added else replace(response, headers=response.headers + added)
