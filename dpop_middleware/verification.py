"""One request, judged: the one place that orders the checks and awaits the outside.

    credentials -> path -> one DPoP field -> access token -> binding -> proof header -> jkt -> claims
    -> htm, htu, ath -> signature -> freshness -> replay store

The store comes last: nothing that failed before writes to it. The clock is read once, when the token is known.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError, InvalidDPoPProof, InvalidToken, Unavailable
from dpop_middleware.freshness import Window, acceptance_window, check_freshness, known_nonce
from dpop_middleware.jose import base64url
from dpop_middleware.known_clients import KnownClients
from dpop_middleware.nonces import NonceProvider
from dpop_middleware.once import Authentication
from dpop_middleware.policy import DPoPPolicy, PolicyFamily
from dpop_middleware.proof import (
    DPoPProof,
    check_algorithm,
    check_ath,
    check_htm,
    check_htu,
    check_signature,
    parse_claims,
    parse_header,
    split_proof,
)
from dpop_middleware.replay.store import ReplayEntry, ReplayKeyspace, ReplayStore
from dpop_middleware.request import Credentials, ResourceRequest, credentials, one_proof
from dpop_middleware.target import PublicURLs
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier

__all__ = ["RequestVerification"]

_MAX_KNOWN_CLIENTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestVerification:
    """What all policies of one resource server share, and the order of its checks (RFC 9449 section 4.3)."""

    verifier: AccessTokenVerifier
    store: ReplayStore
    keyspace: ReplayKeyspace
    public_urls: PublicURLs
    nonces: NonceProvider | None
    clock: Callable[[], float]
    known_clients: KnownClients = field(
        default_factory=lambda: KnownClients(max_clients=_MAX_KNOWN_CLIENTS), repr=False
    )

    async def verify(
        self, request: ResourceRequest, policy: DPoPPolicy, family: PolicyFamily
    ) -> Authentication:
        """Verify `request` under `policy`; its proof is remembered for all policies of `family`.

        Raises `errors.DPoPError`.
        """
        carried = credentials(request.authorization)
        try:
            PublicURLs.check_path(request)
            if carried.scheme == "Bearer":
                return await self._verify_bearer(carried, policy)
            return await self._verify_dpop(carried, request, policy, family)
        except DPoPError as error:
            error.scheme = carried.scheme
            raise

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

    async def _verify_bearer(self, carried: Credentials, policy: DPoPPolicy) -> Authentication:
        _check_bearer_accepted(policy)
        token = await self._access_token(carried)
        if token.jkt is not None or "cnf" in token.claims:
            raise InvalidToken("the access token is bound to a key: use it with DPoP", check=Check.BINDING)
        return Authentication("Bearer", token, None, None, policy, self.clock())

    async def _verify_dpop(
        self,
        carried: Credentials,
        request: ResourceRequest,
        policy: DPoPPolicy,
        family: PolicyFamily,
    ) -> Authentication:
        proof_text = one_proof(request.dpop)
        token = await self._access_token(carried)
        if token.jkt is None:
            raise InvalidToken("the access token is not bound to a key", check=Check.BINDING)
        now = self.clock()
        ath = base64url.encode(hashlib.sha256(carried.access_token.encode()).digest())
        jws = split_proof(proof_text)
        header = self.known_clients.header(ath=ath, segment=jws.header)
        if header is None:
            header = parse_header(jws.header, policy.algorithms)
        check_algorithm(header.algorithm.name, policy.algorithms)
        if header.jkt != token.jkt:
            raise InvalidToken(
                "the access token is bound to another key than the proof's",
                check=Check.JKT,
                expected=token.jkt,
                actual=header.jkt,
            )
        proof = parse_claims(jws.payload, header)
        check_htm(proof, request.method)
        check_htu(proof, self.public_urls.target_uri(request))
        check_ath(proof, ath)
        check_signature(jws, header)
        nonce = known_nonce(proof, self.nonces, now)
        check_freshness(proof, policy, nonces=self.nonces, nonce=nonce, now=now)
        await self._check_first_use(proof, acceptance_window(proof, family, nonce), now)
        self.known_clients.remember(header, ath=ath, segment=jws.header)
        return Authentication("DPoP", token, proof, nonce, policy, now)

    async def _access_token(self, carried: Credentials) -> AccessToken:
        try:
            return await self.verifier.verify(carried.access_token)
        except DPoPError:
            raise
        except Exception as error:
            # Anybody's verifier may be behind this door: what it fails with, nobody gets in.
            raise Unavailable(
                "the access token can't be verified now",
                check=Check.TOKEN_KEY,
                actual=type(error).__name__,
            ) from error

    async def _check_first_use(self, proof: DPoPProof, window: Window, now: float) -> None:
        entry = ReplayEntry(
            key=self.keyspace.key(jkt=proof.jkt, jti=proof.jti),
            jkt=proof.jkt,
            now=now,
            not_before=window.not_before,
            expires_at=window.expires_at,
        )
        try:
            first = await self.store.add(entry)
        except DPoPError:
            raise
        except Exception as error:
            # Anybody's store may be behind this door: when it fails, nobody knows, and nobody gets in.
            raise Unavailable(
                "the replay store can't be asked now", check=Check.JTI, actual=type(error).__name__
            ) from error
        if first is not True:
            raise InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI)


def _check_bearer_accepted(policy: DPoPPolicy) -> None:
    if not policy.accept_bearer:
        raise InvalidToken("a DPoP-bound access token is required here", check=Check.BINDING)
