"""What came out of judging a request: the evidence, and what the application is given."""

from typing import NamedTuple

from dpop_middleware._judge.challenges import Headers
from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.errors import DPoPError, Refusal, Scheme
from dpop_middleware.nonces import Nonce
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["Authentication", "VerifiedRequest", "refusal_of"]


class Authentication(NamedTuple):
    """The evidence of an authenticated request, judged under `policy` at `now`, before any scope.

    `proof` and `nonce` are None for a Bearer token; `nonce` is also None where the proof has none of ours.
    `now` is in seconds since the epoch; `started` is when the verification began, by `time.perf_counter`.
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
        """By how many seconds the `iat` of the proof is ahead of our clock, below 0 for behind.

        The time on the way counts as behind. None without a proof.
        """
        return None if self.proof is None else self.proof.iat - self.now


class VerifiedRequest(NamedTuple):
    """A request that passed every check.

    `proof` is None for a Bearer token. `response_headers` are to be added to the response: a nonce for the
    client's next request, where there is one to give (RFC 9449 section 8.2).
    """

    access_token: AccessToken
    proof: DPoPProof | None
    response_headers: Headers = ()

    @property
    def issuer(self) -> str:
        """The issuer of the access token."""
        return self.access_token.issuer


def refusal_of(token: AccessToken | None, error: DPoPError, *, scheme: Scheme, nonce: str | None) -> Refusal:
    """Return what is known of a request that `error` refuses; `token` is None where it wasn't verified."""
    if token is None:
        return Refusal(scheme=scheme, nonce=nonce, reason=error.reason)
    actor = token.actor
    return Refusal(
        scheme=scheme,
        jkt=token.jkt,
        client_id=token.client_id,
        nonce=nonce,
        reason=error.reason,
        issuer=token.issuer,
        actor=None if actor is None else actor.identity,
        subject=token.subject,
    )
