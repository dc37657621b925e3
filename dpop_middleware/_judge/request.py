"""The judgement of one request: the only place that orders the checks and awaits other servers.

    credentials -> path -> one DPoP field -> access token -> binding -> proof header -> jkt
    -> the checks of `_proof.verification`, the replay store last

The steps between the token and the store await nothing. The clock is read once, when the token is known. The
checks after the proof's header are the same at a token endpoint: `ProofVerification`. Where a verifier asks
another server about the token, the order is different: see `remote`.
"""

import asyncio
import math
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, cast

from dpop_middleware._judge.remote import proof_first
from dpop_middleware._judge.requirements import (
    Requirements,
    bound_to_another,
    check_bound,
    check_not_expired,
    check_unbound,
)
from dpop_middleware._judge.verdicts import Authentication, VerifiedRequest, nonce_headers, refusal_of
from dpop_middleware._log import warn_of_idle_nonces
from dpop_middleware._proof.freshness import check_freshness
from dpop_middleware._proof.proof import ProofHeader, check_algorithm, parse_header, split_proof
from dpop_middleware._proof.verification import JudgedProof, ProofVerification
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.request import (
    MAX_FIELDS,
    ResourceRequest,
    credentials,
    one_proof,
    too_many_fields,
)
from dpop_middleware._runtime import is_cancellation
from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError, InvalidToken, Unavailable
from dpop_middleware.nonces import undelivered_nonces
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.tokens.access_token import (
    LONGEST_CLOCK_SKEW,
    AccessToken,
    AccessTokenVerifier,
    token_hash,
)
from dpop_middleware.tokens.cache import LONGEST_KNOWN_HEADER
from dpop_middleware.tokens.claims import speaks_for_nobody
from dpop_middleware.tokens.optional_members import promises_final_expiry

__all__ = ["RequestVerification"]

_TOKEN_NOT_JUDGED = "the access token can't be verified now"
# If a token is logged, cut short or escaped, at least this many characters in a row remain.
_PART = 16


class _Client(NamedTuple):
    """The client that presents a token: the header of its proof, as sent and as parsed.

    `speaks_for` is the user or client of the token.
    """

    segment: str
    header: ProofHeader
    speaks_for: str


class RequestVerification:
    """The common part of all policies of a resource server; the order of its checks (RFC 9449 section 7).

    Two servers are siblings when they have the same verification. `needs_middleware` says whether an adapter
    of one of them can't put a nonce on each response, `has_middleware` whether another adapter can.
    """

    def __init__(
        self,
        *,
        verifier: AccessTokenVerifier,
        proofs: ProofVerification,
        clock: Callable[[], float],
        policies: tuple[DPoPPolicy, ...],
    ) -> None:
        self.verifier = verifier
        self.proofs = proofs
        # A token endpoint, whose proofs are for one URL, has no such verification.
        self.public_urls = cast("PublicURLs", proofs.public_urls)
        self.clock = clock
        self.policies = policies
        self._gateway: RequestVerification | None = None
        self.needs_middleware = self.has_middleware = False
        self._has_warned_of_nonces = False
        # If a token may get a later expiry each time it is asked about, an entry can't expire with it.
        self._expiry_is_final = promises_final_expiry(verifier)
        self.proof_first = proof_first(verifier)

    def add(self, policy: DPoPPolicy) -> None:
        """Remember proofs for `policy` too from now on."""
        if policy not in self.policies:
            self.policies = (*self.policies, policy)
        if self._gateway is not None:
            self._gateway.add(policy)

    def check_nonce_delivery(self) -> None:
        """Raise ConfigurationError where nothing would put the nonces on the responses.

        Nonces that no policy asks for are logged, once.
        """
        if self.needs_middleware and not self.has_middleware:
            raise undelivered_nonces()
        are_idle = self.proofs.nonces is not None and all(policy.nonce == "off" for policy in self.policies)
        if are_idle and not self._has_warned_of_nonces:
            self._has_warned_of_nonces = True
            warn_of_idle_nonces("ResourceServer")

    def at_gateway(self) -> "RequestVerification":
        """Return the judge for a gateway in front of this server: the same at each call.

        It remembers proofs separately, so that a request passes there and here, and gets paths as clients
        sent them. Nonces are valid at both: a client remembers one for each origin (section 8.2).
        """
        if self._gateway is None:
            keyspace = self.proofs.keyspace.apart("gateway")
            self._gateway = RequestVerification(
                verifier=self.verifier,
                proofs=replace(self.proofs, keyspace=keyspace, public_urls=self.public_urls.as_sent()),
                clock=self.clock,
                policies=self.policies,
            )
            # One bound for both, and a client that is known here is known there.
            self._gateway.proof_first = self.proof_first
        return self._gateway

    async def judge(
        self, request: ResourceRequest, policy: DPoPPolicy, *, started: float = 0.0
    ) -> Authentication | DPoPError:
        """Judge `request` under `policy`; its proof is remembered for all policies of the server.

        `started` is kept with the evidence. An error is returned, with what is known about the request.
        """
        if request.fields > MAX_FIELDS:
            return too_many_fields(request, Check.AUTHORIZATION)
        try:
            scheme, presented = credentials(request.authorization)
        except DPoPError as error:
            return error
        token: AccessToken | None = None
        try:
            request = self.public_urls.origin_form(request)
            if scheme == "Bearer":
                _check_bearer_accepted(policy)
                token = await self.access_token(presented)
                now = self.clock()
                check_unbound(token)
                check_not_expired(token, now)
                return Authentication(token, None, None, policy, now, request, started)
            proof = one_proof(request.dpop, policy.algorithms)
            first = self.proof_first
            if first is None or not first.is_remote(presented):
                token = await self.access_token(presented)
                now = self.clock()
                check_bound(token, now)
                judged = self._judge_after_token(
                    token, request, policy, presented=presented, proof=proof, now=now
                )
            else:
                verified_proof = first.judge(self.proofs, presented, proof, request, policy, self.clock())
                token = await first.verified(self.access_token, presented, verified_proof)
                now = self.clock()
                judged = first.bind(self.proofs, verified_proof, token, policy, self.policies, now)
            await self.proofs.mark_as_used(judged, policy)
            return Authentication(token, judged.proof, judged.nonce, policy, now, request, started)
        except DPoPError as error:
            return error.restated(refusal=refusal_of(token, error, scheme=scheme, nonce=error.refusal.nonce))

    def _judge_after_token(
        self,
        token: AccessToken,
        request: ResourceRequest,
        policy: DPoPPolicy,
        *,
        presented: str,
        proof: str,
        now: float,
    ) -> JudgedProof:
        """Judge a proof with its token, which was `presented` as text; the client is remembered with it."""
        jws = split_proof(proof)
        known = token.client_memo
        if isinstance(known, _Client) and known.segment == jws.header:
            client = known
            check_algorithm(client.header.algorithm.name, policy.algorithms)
        else:
            header = parse_header(jws.header, policy.algorithms)
            client = _Client(jws.header, header, f"{token.issuer} {token.identity}")
        if client.header.jkt != token.jkt:
            raise bound_to_another(token.jkt, client.header.jkt)
        judged = self.proofs.judge(
            jws,
            client.header,
            request=request,
            ath=token_hash(presented),
            policy=policy,
            policies=self.policies,
            now=now,
            useless_after=self.useless_after(token.expires_at, now),
            speaks_for=client.speaks_for,
        )
        # A padded header is not cached.
        if client is not known and len(client.segment) <= LONGEST_KNOWN_HEADER:
            token.remember_client(client)
        if self.proof_first is not None:
            # A tenant's issuer is looked up again later.
            self.proof_first.remember(judged.proof)
        return judged

    def useless_after(self, expires_at: float, now: float) -> float:
        """Return from when on no server accepts a proof for a token with this expiry, whatever its `iat`.

        By `ath` the proof is of no use without the token. The result is infinity where the expiry may change.
        """
        return max(expires_at, now) + LONGEST_CLOCK_SKEW if self._expiry_is_final else math.inf

    def authorize(
        self, authentication: Authentication, requirements: Requirements, policy: DPoPPolicy
    ) -> VerifiedRequest:
        """Judge a verified request by a route's requirements, and by `policy` if another one accepted it.

        The store is not asked again. Raises `errors.DPoPError`.
        """
        token, nonce, now = authentication.access_token, None, authentication.now
        try:
            if authentication.policy is not policy:
                self._judge_again(authentication, policy)
            # A ticket brings evidence from an earlier request, and a login grows old in the meantime.
            requirements.check(token, now=now if requirements.max_age is None else self.clock())
            if authentication.proof is not None:
                nonce = self.proofs.next_nonce(authentication.nonce, policy, now)
        except DPoPError as error:
            offered = error.nonce
            if offered is None and authentication.proof is not None:
                offered = self.proofs.offered_nonce(authentication.nonce, policy, now)
            refusal = refusal_of(token, error, scheme=authentication.scheme, nonce=offered)
            raise error.restated(refusal=refusal) from error.__cause__
        return VerifiedRequest(token, authentication.proof, nonce_headers(nonce) if nonce else ())

    def _judge_again(self, authentication: Authentication, policy: DPoPPolicy) -> None:
        proof = authentication.proof
        if proof is None:
            _check_bearer_accepted(policy)
            return
        check_algorithm(proof.algorithm, policy.algorithms)
        check_freshness(
            proof, policy, nonces=self.proofs.nonces, nonce=authentication.nonce, now=authentication.now
        )

    async def access_token(self, presented: str) -> AccessToken:
        """Verify an access token alone; raises `errors.DPoPError` for any error of the verifier."""
        try:
            token: object = await self.verifier.verify(presented)
        except DPoPError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # with any error of a verifier
            if is_cancellation(error):
                raise
            # The cause is logged, unless it quotes the token.
            raise Unavailable(_TOKEN_NOT_JUDGED, check=Check.TOKEN_KEY, actual=type(error).__name__) from (
                None if _quotes(error, presented) else error
            )
        if not isinstance(token, AccessToken):
            # A verifier that returns anything else has a bug, and a bug must let no request through.
            raise Unavailable(_TOKEN_NOT_JUDGED, check=Check.TOKEN_KEY, actual=type(token).__name__)
        if not token.subject and not token.client_id:
            raise speaks_for_nobody("subject", "client_id")
        return token


def _quotes(error: BaseException, token: str) -> bool:
    """Whether the log of `error` would contain a part of `token` that must be hidden."""
    text = "".join(traceback.format_exception(error))
    return any(
        token[start : start + _PART] in text for start in range(0, max(1, len(token) - _PART + 1), _PART)
    )


def _check_bearer_accepted(policy: DPoPPolicy) -> None:
    if not policy.accept_bearer:
        raise InvalidToken("a DPoP-bound access token is required here", check=Check.BINDING)
