"""The results of judging a request: the evidence, the value for the application, or a refusal's response.

Challenges are written only here (RFC 9449 section 7.1). Header values have only fixed descriptions,
configured names and issued nonces. Descriptions of a user's own verifier or store are cleaned first.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.errors import (
    DPoPError,
    InsufficientScope,
    InsufficientUserAuthentication,
    Refusal,
    Scheme,
    Unavailable,
)
from dpop_middleware.nonces import Nonce
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.tokens.access_token import AccessToken

__all__ = [
    "Authentication",
    "ErrorResponse",
    "Headers",
    "VerifiedRequest",
    "error_response",
    "nonce_headers",
    "refusal_of",
]

if TYPE_CHECKING:
    from dpop_middleware._resource_metadata import PublishedMetadata

Headers = tuple[tuple[str, str], ...]

_CHALLENGED = frozenset({400, 401, 403})
_KINDS = 256
# RFC 6750 section 3: characters that an error_description may not have, or that would end its quoted string.
_NOT_IN_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """What to answer: status, header fields in order (a name may come more than once), and a JSON body."""

    status: int
    headers: Headers
    body: bytes


def nonce_headers(nonce: str) -> Headers:
    """Return the fields that send a nonce to the client, in a response that no cache keeps (section 8.2)."""
    return (("dpop-nonce", nonce), ("cache-control", "no-store"))


def _parameters(error: DPoPError) -> tuple[tuple[str, str], ...]:
    """The parameters of a challenge other than the error: what the client must get from its issuer."""
    if isinstance(error, InsufficientScope):
        return (("scope", " ".join(error.scopes)),) if error.scopes else ()
    if not isinstance(error, InsufficientUserAuthentication):
        return ()
    acr_values = (("acr_values", " ".join(error.acr_values)),) if error.acr_values else ()
    max_age = () if error.max_age is None else (("max_age", str(error.max_age)),)
    return acr_values + max_age


def _challenge(scheme: str, parameters: Collection[tuple[str, str]]) -> str:
    return " ".join((scheme, ", ".join(f'{name}="{value}"' for name, value in parameters))).rstrip()


def _challenges(
    parameters: Collection[tuple[str, str]],
    scheme: Scheme | None,
    algorithms: tuple[str, ...],
    accept_bearer: bool,
    metadata_url: str | None,
) -> list[str]:
    metadata = [] if metadata_url is None else [("resource_metadata", metadata_url)]
    always = [("algs", " ".join(algorithms)), *metadata]
    if not accept_bearer:
        return [_challenge("DPoP", [*parameters, *always])]
    bearer = _challenge("Bearer", [*(parameters if scheme in ("Bearer", None) else []), *metadata])
    dpop = _challenge("DPoP", [*(parameters if scheme in ("DPoP", None) else []), *always])
    # Some clients read only the beginning of the field into which the lines are joined.
    return [dpop, bearer] if scheme == "DPoP" else [bearer, dpop]


@lru_cache(maxsize=_KINDS)
def _response(
    status: int,
    code: str | None,
    description: str,
    parameters: tuple[tuple[str, str], ...],
    scheme: Scheme | None,
    algorithms: tuple[str, ...],
    accept_bearer: bool,
    metadata_url: str | None,
) -> ErrorResponse:
    """Return the fixed part of a response, which is written once for each kind of error."""
    headers = [("content-type", "application/json"), ("cache-control", "no-store")]
    content = {"error_description": description}
    shown: tuple[tuple[str, str], ...] = ()
    if code is not None:
        content = {"error": code} | content
        quoted = _NOT_IN_DESCRIPTION.sub("?", description)
        shown = (("error", code), ("error_description", quoted), *parameters)
    if status in _CHALLENGED:
        challenges = _challenges(shown, scheme, algorithms, accept_bearer, metadata_url)
        headers += [("www-authenticate", challenge) for challenge in challenges]
    body = json.dumps(content).encode()
    return ErrorResponse(status, (*headers, ("content-length", str(len(body)))), body)


def error_response(
    error: DPoPError,
    policy: DPoPPolicy,
    *,
    metadata: "PublishedMetadata | None" = None,
    request: ResourceRequest | None = None,
) -> ErrorResponse:
    """Return the response to `error` (RFC 9449 sections 7.1 and 7.2, RFC 6750 section 3).

    The error is in the challenge of the scheme that was used, in both if the scheme is unknown, and in
    neither without credentials. Where Bearer is accepted, each challenge has a line of its own, with the used
    scheme first. Where the resource server publishes `metadata`, each challenge has its URL, at the host of
    `request` (RFC 9728 section 5.1).
    """
    refusal = error.refusal
    response = _response(
        error.status,
        error.code,
        error.description,
        _parameters(error),
        refusal.scheme,
        policy.algorithms,
        policy.accept_bearer,
        None if metadata is None else metadata.url(request),
    )
    added: Headers = () if refusal.nonce is None else (("dpop-nonce", refusal.nonce),)
    if isinstance(error, Unavailable):
        added += (("retry-after", str(error.retry_after)),)
    return response if not added else replace(response, headers=response.headers + added)


class Authentication(NamedTuple):
    """The evidence of an authenticated request, judged under `policy` at `now`, before any scope.

    `proof` and `nonce` are None for a Bearer token; `nonce` is also None where the proof has no nonce of this
    server. `now` is in seconds since the epoch; `started` is when the verification began, by
    `time.perf_counter`.
    """

    access_token: AccessToken
    proof: DPoPProof | None
    nonce: Nonce | None
    policy: DPoPPolicy
    now: float
    request: ResourceRequest
    started: float

    @property
    def scheme(self) -> Scheme:
        """The authentication scheme of the request."""
        return "Bearer" if self.proof is None else "DPoP"

    @property
    def proof_age(self) -> float | None:
        """Seconds since the `iat` of the proof, or the issue of the nonce that counts instead; at least 0.

        None without a proof.
        """
        if self.proof is None:
            return None
        if self.nonce is None or self.policy.nonce == "off":
            return max(0.0, self.now - self.proof.iat)
        return max(0.0, self.now - self.nonce.issued_at)

    @property
    def clock_offset(self) -> float | None:
        """By how many seconds the `iat` of the proof is ahead of the server's clock, below 0 for behind.

        Time in transit counts as behind. None without a proof.
        """
        return None if self.proof is None else self.proof.iat - self.now


class VerifiedRequest(NamedTuple):
    """A request that passed every check.

    `proof` is None for a Bearer token. `response_headers` must be added to the response: a nonce for the
    client's next request, if there is a new one (RFC 9449 section 8.2).
    """

    access_token: AccessToken
    proof: DPoPProof | None
    response_headers: Headers = ()

    @property
    def issuer(self) -> str:
        """The issuer of the access token."""
        return self.access_token.issuer


def refusal_of(token: AccessToken | None, error: DPoPError, *, scheme: Scheme, nonce: str | None) -> Refusal:
    """Return what is known about a request that `error` refuses; `token` is None if it wasn't verified."""
    if token is None:
        return Refusal(scheme=scheme, nonce=nonce, reason=error.refusal.reason)
    actor = token.actor
    return Refusal(
        scheme,
        token.jkt,
        token.client_id,
        nonce,
        error.refusal.reason,
        token.issuer,
        None if actor is None else actor.identity,
        token.subject,
    )
