"""The authorization server's side: proofs at its token endpoint, and bindings to keys (RFC 9449 section 5).

`TokenEndpoint` verifies the proof of a token request. The functions around it decide about the bindings: of
an authorization code (`requested_jkt`, `check_code_binding`), of the access token (`confirmation`) and of a
refresh token (`refresh_jkt`, `check_refresh_binding`). The server that uses them stores what they return.
"""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final, Literal, overload

from starlette.requests import Request

from dpop_middleware._judge.verdicts import ErrorResponse, Headers, nonce_headers
from dpop_middleware._log import warn_of_idle_nonces, warn_of_plain_http
from dpop_middleware._options import clock as checked_clock
from dpop_middleware._options import flag, namespace, part
from dpop_middleware._proof.freshness import known_nonce
from dpop_middleware._proof.proof import DPoPProof, parse_header, split_proof
from dpop_middleware._proof.verification import ProofVerification
from dpop_middleware._request.request import MAX_FIELDS, ResourceRequest, one_proof, too_many_fields
from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware._request.uri import normalize
from dpop_middleware._runtime import system_time
from dpop_middleware.checks import UNSIGNED_CHECKS_OF_A_PROOF, Check
from dpop_middleware.errors import (
    DPoPError,
    InvalidDPoPProof,
    InvalidRequest,
    Unavailable,
)
from dpop_middleware.jose.jwk import is_thumbprint
from dpop_middleware.nonces import NonceProvider, check_nonces, nonces_for
from dpop_middleware.policy import DPoPPolicy, checked_policy
from dpop_middleware.replay.store import ReplayKeyspace, ReplayStore

__all__ = [
    "CHECKS",
    "InvalidGrant",
    "TokenEndpoint",
    "check_code_binding",
    "check_refresh_binding",
    "confirmation",
    "dpop_signing_alg_values_supported",
    "refresh_jkt",
    "requested_jkt",
]

CHECKS: Final = (
    Check.ONE_HEADER,
    *UNSIGNED_CHECKS_OF_A_PROOF,
    Check.SIGNATURE,
    Check.IAT,
    Check.NONCE,
    Check.JTI,
)
"""The checks of a proof at a token endpoint, in this order. The bindings are checked after them."""


class InvalidGrant(DPoPError):
    """The code or refresh token is bound to another key than the proof's (RFC 6749 section 5.2)."""

    status = 400
    code = "invalid_grant"


class _OneURL:
    """A token endpoint has one URL, which is configured as a whole: the request's own target isn't used."""

    def __init__(self, url: str) -> None:
        self._url = normalize(url)

    def is_target(self, uri: str, request: ResourceRequest) -> bool:  # noqa: ARG002 - as below
        return uri == self._url

    def target_uri(self, request: ResourceRequest) -> str:  # noqa: ARG002 - the same for every request
        return self._url


class TokenEndpoint:
    """Verifies the DPoP proofs of token requests (RFC 9449 sections 4.3 and 5).

    - `url`: the endpoint's own https URL, complete and as clients call it. Each URL needs a `TokenEndpoint`
      of its own: the endpoint for pushed authorization requests (section 10.1) is another.
    - `replay_store`: where presented proofs are remembered. `MemoryReplayStore()` is for a single process.
    - `replay_namespace`: endpoints with the same text and the same store share the proofs that are
      remembered, and their nonces. All endpoints of one server share one.
    - `policy`: see `DPoPPolicy`; `accept_bearer` has no effect here.
    - `nonces`: issues and checks nonces, where the policy asks for them. They are valid at all endpoints of
      one `replay_namespace`, and nowhere else.
    - `clock`: returns seconds since the epoch.
    - `insecure_http_hosts`: hosts that may be addressed by plain http, besides loopback ones.

    Raises ConfigurationError. Not checked: client authentication, the grant and PKCE, which your server must
    check. Nor is it bounded how many forged proofs are verified: authenticate confidential clients first, and
    limit the rate of requests.
    """

    def __init__(
        self,
        *,
        url: str,
        replay_store: ReplayStore,
        replay_namespace: str = "token endpoint",
        policy: DPoPPolicy = DPoPPolicy(),
        nonces: NonceProvider | None = None,
        clock: Callable[[], float] = system_time,
        insecure_http_hosts: Collection[str] = (),
    ) -> None:
        checked_url("url", url, insecure_http_hosts=insecure_http_hosts)
        self._policy = checked_policy(policy)
        check_nonces(policy, nonces, server="TokenEndpoint")
        self._policies = (policy,)
        self._clock = checked_clock(clock)
        self._verification = ProofVerification(
            store=replay_store,
            keyspace=ReplayKeyspace(namespace("replay_namespace", replay_namespace)),
            public_urls=_OneURL(url),
            # A client remembers nonces by origin (section 8.2): its endpoints must agree on them.
            nonces=nonces_for(nonces, purpose="token endpoint", namespace=replay_namespace),
        )
        warn_of_plain_http(checked_hosts(insecure_http_hosts))
        if nonces is not None and policy.nonce == "off":
            warn_of_idle_nonces("TokenEndpoint")

    @overload
    async def verify(
        self, request: ResourceRequest | Request, *, required: Literal[True] = True
    ) -> DPoPProof: ...

    @overload
    async def verify(self, request: ResourceRequest | Request, *, required: bool) -> DPoPProof | None: ...

    async def verify(self, request: ResourceRequest | Request, *, required: bool = True) -> DPoPProof | None:
        """Verify the proof of one token request and mark it as used.

        `request` is a Starlette (or FastAPI) request, or a `ResourceRequest`. With `required=False`, for
        clients that may have Bearer tokens too, a request without any `DPoP` field returns None; a bad proof
        is still refused.

        Raises `errors.DPoPError`, which `error_response` renders; its `check`, `expected` and `actual` are
        for the server's own log. Raises ConfigurationError for an argument of another type. The request's
        body is not read.
        """
        # A setting that is missing, and so None, must not make proofs optional.
        flag("required", required)
        if isinstance(request, Request):
            request = ResourceRequest.from_scope(request.scope)
        takes = "a Starlette request or a ResourceRequest"
        part("request", request, takes, fits=isinstance(request, ResourceRequest))
        if request.fields > MAX_FIELDS:
            # None was read: it isn't known whether there is a proof.
            raise too_many_fields(request, Check.ONE_HEADER)
        if not required and not request.dpop:
            return None
        now = self._clock()
        jws = split_proof(one_proof(request.dpop, self._policy.algorithms))
        header = parse_header(jws.header, self._policy.algorithms)
        judged = self._verification.judge(
            jws, header, request=request, ath=None, policy=self._policy, policies=self._policies, now=now
        )
        await self._verification.mark_as_used(judged, self._policy)
        return judged.proof

    def response_headers(self, proof: DPoPProof | None) -> Headers:
        """Return the header fields for the answer to a verified request.

        No cache may store a token (RFC 6749 section 5.1). Where nonces are used and the client's is not the
        newest, the newest is included (RFC 9449 section 8.2), unless the provider fails.
        """
        nonce = None
        if proof is not None:
            now = self._clock()
            # The code was redeemed, and the client needs its answer more than a nonce.
            with suppress(Unavailable):
                known = known_nonce(proof, self._verification.nonces, now)
                nonce = self._verification.next_nonce(known, self._policy, now)
        return (("cache-control", "no-store"),) if nonce is None else nonce_headers(nonce)

    def error_response(self, error: DPoPError) -> ErrorResponse:
        """Return the response to an error of `verify` or of the functions here (RFC 6749 section 5.2).

        400 with an OAuth error code; 503 with `Retry-After` where the verdict can't be known.
        """
        headers = [("content-type", "application/json"), ("cache-control", "no-store")]
        content = {"error": error.code or "invalid_request", "error_description": error.description}
        status = 400
        if error.nonce is not None:
            headers.append(("dpop-nonce", error.nonce))
        if isinstance(error, Unavailable):
            status = error.status
            headers.append(("retry-after", str(error.retry_after)))
            del content["error"]
        body = json.dumps(content).encode()
        return ErrorResponse(status, (*headers, ("content-length", str(len(body)))), body)


def confirmation(proof: DPoPProof) -> dict[str, str]:
    """Return the `cnf` member that binds an access token to the proof's key (RFC 9449 section 6).

    For a JWT: `claims["cnf"] = confirmation(proof)`; the same in an introspection response. The answer's
    `token_type` is then `DPoP` (section 5).
    """
    return {"jkt": proof.jkt}


def requested_jkt(*, dpop_jkt: str | None, proof: DPoPProof | None = None) -> str | None:
    """Return the thumbprint that an authorization code is to be bound to, None for no binding (section 10).

    - `dpop_jkt`: that parameter of the authorization request, None where it is absent.
    - `proof`: the proof that was verified at the endpoint for pushed authorization requests, which implies
      `dpop_jkt`; None at the authorization endpoint, where there can be no proof.

    Raises InvalidRequest for a `dpop_jkt` that is not a SHA-256 thumbprint, and InvalidDPoPProof where both
    are given and name different keys (section 10.1).
    """
    if dpop_jkt is None:
        return None if proof is None else proof.jkt
    # In a request object (RFC 9101) a client may write any JSON.
    if not is_thumbprint(dpop_jkt):
        raise InvalidRequest("the dpop_jkt of the request is not a SHA-256 thumbprint", check=Check.JKT)
    if proof is not None and proof.jkt != dpop_jkt:
        raise InvalidDPoPProof(
            "the dpop_jkt of the request names another key than the proof's",
            check=Check.JKT,
            expected=dpop_jkt,
            actual=proof.jkt,
        )
    return dpop_jkt


def check_code_binding(proof: DPoPProof | None, *, dpop_jkt: str | None) -> None:
    """Raise unless `proof` may redeem an authorization code that is bound to `dpop_jkt` (section 10).

    `dpop_jkt` is what `requested_jkt` returned for the authorization request, None for an unbound code;
    `proof` is None for a token request without one. Raises InvalidDPoPProof where a bound code comes without
    a proof, and InvalidGrant where it comes with another key's: it was stolen, so revoke it.
    """
    _check_binding(proof, dpop_jkt, "the authorization code is bound to another key than the proof's")


def refresh_jkt(proof: DPoPProof | None, *, public_client: bool) -> str | None:
    """Return the thumbprint that a new refresh token must be bound to, None for no binding (section 5).

    The refresh token of a public client is bound to its key. That of a confidential client is bound to the
    client's authentication already, so that its DPoP key can change. Raises ConfigurationError for a
    `public_client` that is neither True nor False.
    """
    flag("public_client", public_client)
    return proof.jkt if proof is not None and public_client else None


def check_refresh_binding(proof: DPoPProof | None, *, jkt: str | None) -> None:
    """Raise unless `proof` may use a refresh token that is bound to `jkt` (section 5).

    `jkt` is what `refresh_jkt` returned when the token was issued, None for an unbound token; `proof` is None
    for a request without one. Raises InvalidDPoPProof where a bound token comes without a proof, and
    InvalidGrant where it comes with another key's.
    """
    _check_binding(proof, jkt, "the refresh token is bound to another key than the proof's")


def _check_binding(proof: DPoPProof | None, jkt: str | None, description: str) -> None:
    if jkt is None:
        return
    if proof is None:
        raise InvalidDPoPProof("a DPoP proof is required", check=Check.ONE_HEADER, expected=1, actual=0)
    if proof.jkt != jkt:
        raise InvalidGrant(description, check=Check.JKT, expected=jkt, actual=proof.jkt)


def dpop_signing_alg_values_supported(policy: DPoPPolicy) -> list[str]:
    """Return the value of that member of the server's metadata (RFC 9449 section 5.1)."""
    return list(policy.algorithms)
