"""One request, judged: the one place that orders the checks and awaits the outside.

    credentials -> path -> one DPoP field -> access token -> binding -> proof header -> jkt
    -> what `proof_verification` does, the replay store last

What is between the token and the store awaits nothing. The clock is read once, when the token is known. What
follows the proof's header is the same at a token endpoint: `ProofVerification`.
"""

import hashlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError, InvalidRequest, InvalidToken, Unavailable
from dpop_middleware.freshness import check_freshness
from dpop_middleware.jose import base64url
from dpop_middleware.known_clients import MAX_KNOWN_CLIENTS, KnownClients
from dpop_middleware.policy import DPoPPolicy, PolicyFamily
from dpop_middleware.proof import check_algorithm, parse_header, split_proof
from dpop_middleware.proof_verification import ProofVerification
from dpop_middleware.replay.store import ReplayEntry
from dpop_middleware.request import MAX_FIELDS, Credentials, ResourceRequest, credentials, one_proof
from dpop_middleware.target import PublicURLs
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.verdicts import Authentication

__all__ = ["RequestVerification"]

_TOKEN_NOT_JUDGED = "the access token can't be verified now"
# Of a token that somebody logs, cut short or escaped, so many characters in a row remain.
_PART = 16

# As far as an access token may outlive its `expires_at`: the largest skew that a verifier may allow.
_LONGEST_TOKEN_SKEW = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestVerification(ProofVerification):
    """What all policies of one resource server share, and the order of its checks (RFC 9449 section 7)."""

    verifier: AccessTokenVerifier
    clock: Callable[[], float]
    known_clients: KnownClients = field(
        default_factory=lambda: KnownClients(max_clients=MAX_KNOWN_CLIENTS), repr=False
    )

    async def verify(
        self, request: ResourceRequest, policy: DPoPPolicy, family: PolicyFamily
    ) -> Authentication:
        """Verify `request` under `policy`; its proof is remembered for all policies of `family`.

        Raises `errors.DPoPError`.
        """
        if request.fields > MAX_FIELDS:
            raise InvalidRequest(
                "the request has too many header fields",
                check=Check.AUTHORIZATION,
                expected=MAX_FIELDS,
                actual=request.fields,
            )
        carried = credentials(request.authorization)
        token: AccessToken | None = None
        try:
            PublicURLs.check_path(request)
            if carried.scheme == "Bearer":
                _check_bearer_accepted(policy)
                token = await self._access_token(carried)
                return self._judge_bearer(token, policy)
            proof_text = one_proof(request.dpop)
            token = await self._access_token(carried)
            authentication, entry = self._judge_dpop(carried, token, proof_text, request, policy, family)
            await self.use_up(entry, authentication.nonce, policy)
        except DPoPError as error:
            error.scheme = carried.scheme
            if token is not None:
                error.jkt, error.client_id = token.jkt, token.client_id
            raise
        return authentication

    def judge_again(self, authentication: Authentication, policy: DPoPPolicy) -> None:
        """Judge what was verified under another policy by this one too; the store is not asked.

        Raises `errors.DPoPError`.
        """
        proof = authentication.proof
        if proof is None:
            _check_bearer_accepted(policy)
            return
        check_algorithm(proof.algorithm, policy.algorithms)
        check_freshness(proof, policy, nonces=self.nonces, nonce=authentication.nonce, now=authentication.now)

    def _judge_bearer(self, token: AccessToken, policy: DPoPPolicy) -> Authentication:
        if token.jkt is not None or "cnf" in token.claims:
            raise InvalidToken("the access token is bound to a key: use it with DPoP", check=Check.BINDING)
        return Authentication(token, None, None, policy, self.clock())

    def _judge_dpop(
        self,
        carried: Credentials,
        token: AccessToken,
        proof_text: str,
        request: ResourceRequest,
        policy: DPoPPolicy,
        family: PolicyFamily,
    ) -> tuple[Authentication, ReplayEntry]:
        if token.jkt is None:
            raise InvalidToken("the access token is not bound to a key", check=Check.BINDING)
        now = self.clock()
        if token.expires_at + _LONGEST_TOKEN_SKEW <= now:
            raise InvalidToken(
                "the access token has expired", check=Check.TOKEN_TIME, expected=now, actual=token.expires_at
            )
        ath = base64url.encode(hashlib.sha256(carried.access_token.encode()).digest())
        jws = split_proof(proof_text)
        known = self.known_clients.header(ath=ath, segment=jws.header)
        if known is None:
            header = parse_header(jws.header, policy.algorithms)
        else:
            header = known
            check_algorithm(header.algorithm.name, policy.algorithms)
        if header.jkt != token.jkt:
            raise InvalidToken(
                "the access token is bound to another key than the proof's",
                check=Check.JKT,
                expected=token.jkt,
                actual=header.jkt,
            )
        proof, nonce, entry = self.judge_proof(
            jws,
            header,
            request=request,
            ath=ath,
            policy=policy,
            family=family,
            now=now,
            # By `ath` a proof dies with its token, however far in the future its `iat` is.
            useless_after=max(token.expires_at, now) + _LONGEST_TOKEN_SKEW,
        )
        if known is None:
            self.known_clients.remember(header, ath=ath, segment=jws.header)
        return Authentication(token, proof, nonce, policy, now), entry

    async def _access_token(self, carried: Credentials) -> AccessToken:
        try:
            token: object = await self.verifier.verify(carried.access_token)
        except DPoPError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a verifier fails with, nobody gets in
            # The cause goes to the log, unless it quotes the token.
            raise Unavailable(_TOKEN_NOT_JUDGED, check=Check.TOKEN_KEY, actual=type(error).__name__) from (
                None if _quotes(error, carried.access_token) else error
            )
        if not isinstance(token, AccessToken):
            # A verifier that answers anything else is a bug, and nobody gets in by one.
            raise Unavailable(_TOKEN_NOT_JUDGED, check=Check.TOKEN_KEY, actual=type(token).__name__)
        return token


def _quotes(error: Exception, token: str) -> bool:
    """Whether what would be logged of `error` holds a part of `token` that is worth hiding."""
    text = "".join(traceback.format_exception(error))
    return any(
        token[start : start + _PART] in text for start in range(0, max(1, len(token) - _PART + 1), _PART)
    )


def _check_bearer_accepted(policy: DPoPPolicy) -> None:
    if not policy.accept_bearer:
        raise InvalidToken("a DPoP-bound access token is required here", check=Check.BINDING)
