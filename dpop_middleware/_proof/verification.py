"""One proof, judged and marked as used, at a resource server or a token endpoint (RFC 9449 section 4.3).

    claims -> htm, htu, ath -> signature -> freshness -> replay store

The store comes last: a proof that failed an earlier check writes nothing to it, and the earlier checks await
nothing. The proof's header was read before, and the time is an argument.
"""

import asyncio
import math
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from dpop_middleware._options import part, provides
from dpop_middleware._proof.freshness import (
    Reach,
    acceptance_window,
    check_can_be_remembered,
    check_freshness,
    dated_nonce,
    issued_nonce,
    known_nonce,
    lifetime_of,
    reach_of,
    retention,
)
from dpop_middleware._proof.proof import (
    DPoPProof,
    ProofHeader,
    check_ath,
    check_htm,
    check_htu,
    check_signature,
    parse_claims,
)
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware._runtime import is_cancellation
from dpop_middleware.checks import Check
from dpop_middleware.errors import (
    ConfigurationError,
    DPoPError,
    InvalidDPoPProof,
    Refusal,
    Unavailable,
    UseDPoPNonce,
)
from dpop_middleware.jose.strict import CompactJWS
from dpop_middleware.nonces import Nonce, NonceProvider
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.replay.store import ReplayEntry, ReplayKeyspace, ReplayStore

__all__ = ["JudgedProof", "ProofVerification", "TargetURIs"]


class TargetURIs(Protocol):
    """Knows the URI that a client called."""

    def is_target(self, uri: str, request: ResourceRequest) -> bool:
        """Whether `uri` is exactly the request's target URI; raises InvalidDPoPProof."""
        ...

    def target_uri(self, request: ResourceRequest) -> str:
        """Return the request's target URI in normal form, or raise InvalidDPoPProof."""
        ...


class _Memory(NamedTuple):
    """How long the proofs of one server are remembered, from its policies."""

    policies: tuple[DPoPPolicy, ...]
    reach: Reach
    retention: float


class JudgedProof(NamedTuple):
    """A proof that passed every check except the store's; its nonce, and the entry for the store."""

    proof: DPoPProof
    nonce: Nonce | None
    entry: ReplayEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofVerification:
    """The parts that a server needs to judge proofs, and the order of checks (RFC 9449 section 4.3)."""

    store: ReplayStore
    keyspace: ReplayKeyspace
    public_urls: TargetURIs
    nonces: NonceProvider | None
    # One entry, by the identity of the tuple, which is kept: comparing its policies costs more than the rest.
    _memories: dict[int, _Memory] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        part(
            "replay_store",
            self.store,
            "a replay store: RedisReplayStore.from_url(…) for several workers, "
            "MemoryReplayStore() for a single process",
            fits=provides(self.store, "add"),
        )

    def judge(
        self,
        jws: CompactJWS,
        header: ProofHeader,
        *,
        request: ResourceRequest,
        ath: str | None,
        policy: DPoPPolicy,
        policies: tuple[DPoPPolicy, ...],
        now: float,
        useless_after: float = math.inf,
        speaks_for: str = "",
    ) -> JudgedProof:
        """Judge the proof `jws`, whose `header` was read; then it only remains to mark it as used.

        - `request`: the request that carried it; `ath`: the hash of its access token, None without one.
        - `policy`: the requirements; `policies`: all those by which the same server may judge the proof
          again, and for which it is remembered.
        - `now`: seconds since the epoch; `useless_after`: when nothing accepts it, whatever its `iat`.
        - `speaks_for`: the user or client of the access token, empty without one.

        Nothing is awaited and nothing written. Raises `errors.DPoPError`.
        """
        proof = self.check_claims(jws.payload, header, request=request, ath=ath)
        check_signature(jws, header)
        nonce = self.check_freshness(proof, policy, now, useless_after=useless_after)
        return self.to_be_remembered(
            proof,
            nonce,
            policy=policy,
            policies=policies,
            now=now,
            useless_after=useless_after,
            speaks_for=speaks_for,
        )

    def check_claims(
        self, segment: str, header: ProofHeader, *, request: ResourceRequest, ath: str | None
    ) -> DPoPProof:
        """Return the proof with these claims, unsigned as yet. Raises `errors.InvalidDPoPProof`."""
        proof = parse_claims(segment, header)
        check_htm(proof, request.method)
        if not self.public_urls.is_target(proof.htu, request):
            check_htu(proof, self.public_urls.target_uri(request))
        if ath is not None:
            check_ath(proof, ath)
        return proof

    def check_freshness(
        self, proof: DPoPProof, policy: DPoPPolicy, now: float, *, useless_after: float = math.inf
    ) -> Nonce | None:
        """Return what is known about the nonce of a proof that is fresh and can be remembered long enough.

        Raises `errors.DPoPError` for another.
        """
        nonce = None if proof.nonce is None else known_nonce(proof, self.nonces, now)
        check_freshness(proof, policy, nonces=self.nonces, nonce=nonce, now=now)
        if nonce is not None:
            check_can_be_remembered(proof, now=now, useless_after=useless_after)
        return nonce

    def to_be_remembered(
        self,
        proof: DPoPProof,
        nonce: Nonce | None,
        *,
        policy: DPoPPolicy,
        policies: tuple[DPoPPolicy, ...],
        now: float,
        speaks_for: str,
        useless_after: float = math.inf,
    ) -> JudgedProof:
        """Return a proof that passed the other checks with its entry for the store."""
        memory = self._memories.get(id(policies)) or self._remember_for(policies, nonce, now)
        not_before, expires_at = acceptance_window(proof, memory.reach, nonce)
        entry = ReplayEntry(
            self.keyspace.key(jkt=proof.jkt, jti=proof.jti),
            proof.jkt,
            now,
            not_before,
            min(expires_at, useless_after),
            speaks_for,
            self.keyspace.name,
            proof.iat if nonce is None or policy.nonce == "off" else nonce.issued_at,
            memory.retention,
            proof.iat if nonce is None else min(proof.iat, useless_after),
            memory.reach.before,
            nonce is None,
        )
        return JudgedProof(proof, nonce, entry)

    def _remember_for(self, policies: tuple[DPoPPolicy, ...], nonce: Nonce | None, now: float) -> _Memory:
        lifetime = 0.0 if self.nonces is None else lifetime_of(self.nonces, now)
        memory = _Memory(policies, reach_of(policies), retention(policies, lifetime, nonce))
        # If the provider fails now, the next request asks it again.
        if lifetime is not None:
            self._memories.clear()
            self._memories[id(policies)] = memory
        return memory

    def next_nonce(self, nonce: Nonce | None, policy: DPoPPolicy, now: float) -> str | None:
        """Return the nonce for a client's next request, None if its own is the newest or none are used.

        `nonce` is what is known about the proof's. Raises `errors.Unavailable` when the provider fails.
        """
        if self.nonces is None or policy.nonce == "off" or (nonce is not None and nonce.current):
            return None
        return issued_nonce(self.nonces, now)

    def offered_nonce(self, nonce: Nonce | None, policy: DPoPPolicy, now: float) -> str | None:
        """Return the result of `next_nonce` for a refusal; also None when the provider fails."""
        try:
            return self.next_nonce(nonce, policy, now)
        except Unavailable:
            return None

    def first_nonce(self, now: float) -> str:
        """Return a nonce for a client that has shown no proof: one that is accepted right now.

        The newer it is, the sooner it is accepted after a replay store lost entries. Raises
        `errors.Unavailable` when the provider fails or doesn't recognise its own nonce, ConfigurationError
        without a provider.
        """
        if self.nonces is None:
            raise ConfigurationError("nonce_headers needs nonces=HMACNonceProvider(secret) in ResourceServer")
        nonce = dated_nonce(self.nonces, now, not_before=-math.inf)
        if nonce is None:
            raise Unavailable("a nonce can't be issued now", check=Check.NONCE)
        return nonce

    async def mark_as_used(self, judged: JudgedProof, policy: DPoPPolicy) -> None:
        """Let the store remember a judged proof. Raises `errors.DPoPError` unless it is its first use.

        If a newer proof could be judged, the client gets the newest nonce and may retry at once, since a
        proof is as old as its nonce.
        """
        try:
            first = await self.store.add(judged.entry)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a user's store; an error is a refusal
            failed = _of_store(error)
            try:
                raise self._answer_to(failed, judged, policy) from failed.__cause__
            finally:
                # Its traceback holds this frame, and so the proof.
                del failed
        if first is not True:
            raise InvalidDPoPProof("the DPoP proof was used before", check=Check.JTI)

    async def is_first(self, entry: ReplayEntry) -> bool:
        """Let the store remember `entry`; return whether it is its first use. Raises `errors.DPoPError`."""
        try:
            return await self.store.add(entry) is True
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - an error is never a first use
            failed = _of_store(error)
            try:
                raise failed from failed.__cause__
            finally:
                del failed

    def _answer_to(self, error: DPoPError, judged: JudgedProof, policy: DPoPPolicy) -> DPoPError:
        """Return the error for a client whose proof couldn't be marked as used: a newer one may pass."""
        if not isinstance(error, Unavailable):
            return error
        if error.newer_proof and error.judges_from is not None and policy.nonce != "off":
            dated = dated_nonce(self.nonces, judged.entry.now, not_before=error.judges_from)
            if dated is not None:
                return UseDPoPNonce("the replay store lost entries: a newer nonce is needed", nonce=dated)
            if hasattr(self.nonces, "issue_dated"):
                seconds = math.ceil(error.judges_from - judged.entry.now)
                return Unavailable(
                    error.description, retry_after=max(1, seconds), newer_proof=True, check=Check.JTI
                )
        offered = self.offered_nonce(judged.nonce, policy, judged.entry.now) if error.newer_proof else None
        if offered is None:
            return error
        return Unavailable(
            error.description,
            retry_after=1,
            newer_proof=True,
            check=Check.JTI,
            actual=error.actual,
            refusal=Refusal(nonce=offered),
        )


def _of_store(error: BaseException) -> DPoPError:
    """Return the error of a store as one of the check that asked it; its cause is kept.

    It may be a user's own store: when it fails, the verdict is unknown, and the request is refused. Raises
    `error` where it cancels the request.
    """
    if is_cancellation(error):
        raise error
    if isinstance(error, DPoPError):
        return error.restated(check=Check.JTI)
    failed = Unavailable("the replay store can't be asked now", check=Check.JTI, actual=type(error).__name__)
    failed.__cause__ = error
    return failed
