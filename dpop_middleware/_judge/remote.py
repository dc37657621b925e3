"""The order of the checks where another server is asked about the access token.

    one DPoP field -> proof header -> claims, htm, htu, ath -> freshness -> a bound -> signature
    -> access token -> binding -> jkt -> freshness once more -> replay store

A bad proof therefore never causes a question. Anybody can make up a token and a proof, with the algorithm
that costs most: so the signature comes last before the question, and verifications in vain are bounded. The
bound is as high as a worker can bear, since it refuses new honest clients too: nobody can tell them apart.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final

from dpop_middleware._judge.requirements import bound_to_another, check_bound
from dpop_middleware._proof.proof import DPoPProof, check_signature, parse_header, split_proof
from dpop_middleware._proof.verification import JudgedProof, ProofVerification
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.checks import Check, Reason
from dpop_middleware.errors import InvalidDPoPProof, InvalidToken, Refusal, Unavailable
from dpop_middleware.jose.algorithms import ALGORITHMS
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.tokens.access_token import AccessToken, token_hash
from dpop_middleware.tokens.admission import Bucket, Tendency, UnavailableAnswers
from dpop_middleware.tokens.cache import MAX_CACHED_BYTES, MAX_CACHED_TOKENS, BoundedCache
from dpop_middleware.tokens.optional_members import asks_another_server, may_ask_another_server

__all__ = ["ProofFirst", "proof_first"]

# What one verification costs, in verifications by ES256, as measured; the others cost about one.
_COSTS: Final = {
    "ES384": 8,
    "ES512": 8,
    "EdDSA": 2,
    "Ed25519": 2,
    "ML-DSA-44": 2,
    "ML-DSA-65": 3,
    "ML-DSA-87": 4,
}
# What unknown senders may cost in vain by each algorithm, in verifications by ES256 per second: a tenth of a
# core. A fifth of it may come at once.
_IN_VAIN: Final = 1600
_SHARE_AT_ONCE: Final = 5
# So many seconds after the last one in vain a flood has ended, whatever came before.
_RECENT: Final = 1.0
# A thumbprint and a hash, 43 characters each.
_SIZE: Final = 200


class _InVain:
    """Counts the proofs by one algorithm that are verified in vain, for all event loops of a process."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = Bucket(size=per_second // _SHARE_AT_ONCE, per_second=per_second)
        self._mostly_in_vain = Tendency()
        self._last = -math.inf
        # Objects, not a number: threads that run at the same time never lose a place.
        self._waiting: set[object] = set()

    def are_too_many(self, now: float) -> bool:
        """Whether there were too many; in a flood, those that still wait for an answer count too."""
        is_flood = self._mostly_in_vain.is_most and now - self._last < _RECENT
        return self._left.is_empty(now) or (is_flood and len(self._waiting) >= self._per_second)

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Count a proof as waiting while its token is asked about."""
        place = object()
        self._waiting.add(place)
        try:
            yield
        finally:
            self._waiting.discard(place)

    def ended(self, now: float, *, in_vain: bool) -> None:
        """Note how the verification of one proof turned out."""
        if in_vain:
            self._left.pause(now)
            self._last = now
        self._mostly_in_vain.note(in_vain)


class ProofFirst:
    """Judges proofs before their tokens, for one resource server.

    `is_remote` says whether another server is asked about a token; `monotonic` returns seconds. Of each
    algorithm a number of proofs per second may turn out bad, belong to a token that isn't active or is bound
    to another key, or come from a sender who doesn't wait for the answer: 1600, or less where one
    verification costs more than by ES256. The excess is refused before its signature is verified, unless its
    token was active before and is bound to its key. Where the other server fails, nothing else counts.
    """

    def __init__(
        self, is_remote: Callable[[str], bool], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_remote = is_remote
        self._monotonic = monotonic
        self._in_vain = {name: _InVain(_IN_VAIN // _COSTS.get(name, 1)) for name in ALGORITHMS}
        self._unavailable = UnavailableAnswers(
            "too many DPoP proofs were bad, or came with unknown access tokens"
        )
        # Tokens that are judged first may never be asked about, such as JWTs beside opaque tokens: however
        # many they are, they evict none of the others.
        self._asked, self._judged_first = _keys_of_tokens(), _keys_of_tokens()

    def judge(
        self,
        proofs: ProofVerification,
        access_token: str,
        proof: str,
        request: ResourceRequest,
        policy: DPoPPolicy,
        now: float,
    ) -> DPoPProof:
        """Return the proof that came with `access_token`, if it is good. Raises `errors.DPoPError`."""
        jws = split_proof(proof)
        header = parse_header(jws.header, policy.algorithms)
        judged = proofs.check_claims(jws.payload, header, request=request, ath=token_hash(access_token))
        proofs.check_freshness(judged, policy, now)
        self._check_limit(judged)
        try:
            check_signature(jws, header)
        except InvalidDPoPProof:
            self._ended(judged, in_vain=True)
            raise
        return judged

    async def verified(
        self, verify: Callable[[str], Awaitable[AccessToken]], access_token: str, proof: DPoPProof
    ) -> AccessToken:
        """Return the token of a judged proof from `verify`. Raises `errors.DPoPError`, as that does."""
        try:
            with self._in_vain[proof.algorithm].waiting():
                return await verify(access_token)
        except InvalidToken:
            self._asked.discard(proof.ath)
            self._judged_first.discard(proof.ath)
            self._ended(proof, in_vain=True)
            raise
        except asyncio.CancelledError:
            # By a sender who doesn't wait for the answer.
            self._ended(proof, in_vain=True)
            raise

    def bind(
        self,
        proofs: ProofVerification,
        proof: DPoPProof,
        token: AccessToken,
        policy: DPoPPolicy,
        policies: tuple[DPoPPolicy, ...],
        now: float,
    ) -> JudgedProof:
        """Compare a judged proof with its token, which took time to get, and judge its freshness as of `now`.

        The proof is remembered for as long as it could be fresh, even if the token expires earlier: another
        server may report another expiry the next time. Raises `errors.DPoPError`.
        """
        try:
            check_bound(token, now)
            if token.jkt != proof.jkt:
                raise bound_to_another(token.jkt, proof.jkt)
        except InvalidToken:
            self._ended(proof, in_vain=True)
            raise
        self._ended(proof, in_vain=False)
        self._asked.put(proof.ath, proof.jkt, size=_SIZE)
        nonce = proofs.check_freshness(proof, policy, now)
        speaks_for = f"{token.issuer} {token.identity}"
        return proofs.to_be_remembered(
            proof, nonce, policy=policy, policies=policies, now=now, speaks_for=speaks_for
        )

    def remember(self, proof: DPoPProof) -> None:
        """Note that the token of a good proof, which was judged before it, is active and bound to its key."""
        if not self._is_known(proof):
            self._judged_first.put(proof.ath, proof.jkt, size=_SIZE)

    def _check_limit(self, proof: DPoPProof) -> None:
        now = self._monotonic()
        if not self._in_vain[proof.algorithm].are_too_many(now) or self._is_known(proof):
            return
        kind = Unavailable if self._unavailable.may_answer(now) else InvalidDPoPProof
        raise kind(
            "the DPoP proof can't be verified now",
            check=Check.SIGNATURE,
            actual=f"too many proofs by {proof.algorithm} were bad, or came with unknown access tokens",
            refusal=Refusal(reason=Reason.TOO_MANY),
        )

    def _ended(self, proof: DPoPProof, *, in_vain: bool) -> None:
        if not self._is_known(proof):
            self._in_vain[proof.algorithm].ended(self._monotonic(), in_vain=in_vain)

    def _is_known(self, proof: DPoPProof) -> bool:
        return proof.jkt in (self._asked.get(proof.ath), self._judged_first.get(proof.ath))


def _keys_of_tokens() -> BoundedCache[str | None, str]:
    """Return a cache for the key of each token that was active, by the hash of the token."""
    return BoundedCache(max_entries=MAX_CACHED_TOKENS, max_bytes=MAX_CACHED_BYTES)


def proof_first(verifier: object) -> ProofFirst | None:
    """Return what judges proofs before the tokens of `verifier`, None if it never asks another server.

    Raises ConfigurationError for a `remote` or an `is_remote` that can't be believed.
    """
    if not may_ask_another_server(verifier):
        return None

    def is_remote(token: str) -> bool:
        try:
            return asks_another_server(verifier, token)
        except Exception:  # noqa: BLE001 - a user's own verifier: asking it last is the safe order
            return True

    return ProofFirst(is_remote)
