"""Whether a proof is fresh, and how long it must be remembered (RFC 9449 sections 4.3, 8 and 11.1)."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidDPoPProof, Unavailable, UseDPoPNonce
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN, Nonce, NonceProvider
from dpop_middleware.policy import DPoPPolicy

__all__ = [
    "Reach",
    "acceptance_window",
    "check_can_be_remembered",
    "check_freshness",
    "dated_nonce",
    "issued_nonce",
    "known_nonce",
    "lifetime_of",
    "reach_of",
    "retention",
]

_FARTHEST_IAT = 86_400
_USUAL_NONCES = 600.0
_NOT_CHECKED = "the nonce of the DPoP proof can't be checked now"
_NOT_ISSUED = "a nonce can't be issued now"
# RFC 9449 section 8.1
_NQCHARS = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class Reach(NamedTuple):
    """For how many seconds before and after its `iat` a proof can be accepted."""

    before: float
    after: float


def known_nonce(proof: DPoPProof, nonces: NonceProvider | None, now: float) -> Nonce | None:
    """Return what the server knows about the proof's nonce; None without one, or if it's unknown or stale.

    Raises Unavailable when the provider fails.
    """
    if nonces is None or proof.nonce is None or not _NQCHARS.fullmatch(proof.nonce):
        return None
    try:
        nonce: object = nonces.check(proof.nonce, now)
    except Exception as error:
        # It may be a user's own provider. If the nonce counted as unknown, the proof could be accepted later.
        raise Unavailable(_NOT_CHECKED, check=Check.NONCE, actual=type(error).__name__) from error
    if nonce is None or isinstance(nonce, Nonce):
        return nonce
    raise Unavailable(_NOT_CHECKED, check=Check.NONCE, actual=type(nonce).__name__)


def issued_nonce(nonces: NonceProvider, now: float) -> str:
    """Return the nonce to send to a client; raises Unavailable when the provider fails."""
    try:
        nonce: object = nonces.issue(now)
    except Exception as error:
        raise Unavailable(_NOT_ISSUED, check=Check.NONCE, actual=type(error).__name__) from error
    if isinstance(nonce, str) and _NQCHARS.fullmatch(nonce):
        return nonce
    raise Unavailable(_NOT_ISSUED, check=Check.NONCE, actual=type(nonce).__name__)


def dated_nonce(nonces: NonceProvider | None, now: float, *, not_before: float) -> str | None:
    """Return a nonce that was issued at `not_before` or later, None where the provider has none yet.

    A nonce that contains the second of its issue is available sooner than one that contains its step. It
    never returns a nonce that would be refused: the client would be challenged for ever.
    """
    if nonces is None:
        return None
    issue = getattr(nonces, "issue_dated", nonces.issue)
    try:
        nonce: object = issue(now)
        known: object = nonces.check(nonce, now) if isinstance(nonce, str) else None
    except Exception:  # noqa: BLE001 - a user's own provider; the answer stays a 503
        return None
    if not isinstance(known, Nonce) or known.issued_at < not_before:
        return None
    return nonce if isinstance(nonce, str) and _NQCHARS.fullmatch(nonce) else None


def _use_nonce(description: str, proof: DPoPProof, nonces: NonceProvider, now: float) -> UseDPoPNonce:
    return UseDPoPNonce(description, nonce=issued_nonce(nonces, now), actual=proof.nonce)


def _check_limit(proof: DPoPProof, policy: DPoPPolicy, now: float) -> None:
    limit = policy.iat_limit_with_nonce
    if limit is not None and not proof.iat - limit <= now <= proof.iat + limit:
        raise InvalidDPoPProof(
            "the iat of the DPoP proof is not recent",
            check=Check.IAT,
            expected=(now - limit, now + limit),
            actual=proof.iat,
        )


def _check_validity(proof: DPoPProof, now: float, clock_skew: float) -> None:
    if proof.exp is not None and now >= proof.exp + clock_skew:
        raise InvalidDPoPProof("the DPoP proof has expired", check=Check.IAT, expected=now, actual=proof.exp)
    if proof.nbf is not None and now < proof.nbf - clock_skew:
        raise InvalidDPoPProof(
            "the DPoP proof is not valid yet", check=Check.IAT, expected=now, actual=proof.nbf
        )


def check_freshness(
    proof: DPoPProof, policy: DPoPPolicy, *, nonces: NonceProvider | None, nonce: Nonce | None, now: float
) -> None:
    """A proof with a nonce is fresh by the nonce alone, one without by `iat` alone (check 11, section 8).

    Where `policy.iat_limit_with_nonce` is set, the `iat` of a proof with a nonce must be within it too. Where
    `policy.nonce` is off, `iat` alone counts. `nonce` is the result of `known_nonce`. Where the client's
    clock counts, the optional `exp` and `nbf` must allow the present time too (RFC 7519 section 4.1). Raises
    InvalidDPoPProof and UseDPoPNonce, and Unavailable when the provider can't issue the nonce for the latter.
    """
    if nonces is not None and policy.nonce != "off":
        if nonce is not None:
            _check_limit(proof, policy, now)
            return
        if proof.nonce is not None:
            raise _use_nonce("the nonce of the DPoP proof is unknown or stale", proof, nonces, now)
        if policy.nonce == "required":
            raise _use_nonce("the DPoP proof needs a nonce", proof, nonces, now)
    skew = policy.clock_skew
    if proof.iat - skew <= now <= proof.iat + policy.proof_lifetime + skew:
        if proof.exp is not None or proof.nbf is not None:
            _check_validity(proof, now, skew)
        return
    if policy.nonce == "fallback" and nonces is not None:
        raise _use_nonce("the iat of the DPoP proof is not recent: use a nonce", proof, nonces, now)
    raise InvalidDPoPProof(
        "the iat of the DPoP proof is not recent",
        check=Check.IAT,
        expected=(now - policy.proof_lifetime - policy.clock_skew, now + policy.clock_skew),
        actual=proof.iat,
    )


def check_can_be_remembered(proof: DPoPProof, *, now: float, useless_after: float) -> None:
    """A proof whose `iat` will be in the window later must be remembered until then, but not for ever.

    A proof with a nonce may have any `iat` (section 8), and a worker that judges it by its `iat` later must
    find it used. So it is refused when its `iat` is more than a day ahead, unless it is useless by then, as
    with a token that has expired. `useless_after` is in seconds since the epoch. Raises InvalidDPoPProof.
    """
    latest = now + _FARTHEST_IAT
    if proof.iat > latest and useless_after > latest:
        raise InvalidDPoPProof(
            "the iat of the DPoP proof is too far in the future",
            check=Check.IAT,
            expected=(-math.inf, latest),
            actual=proof.iat,
        )


def reach_of(policies: Iterable[DPoPPolicy]) -> Reach:
    """Return how far from its `iat` any of `policies` accepts a proof."""
    policies = tuple(policies)
    return Reach(
        max(policy.clock_skew for policy in policies),
        max(policy.proof_lifetime + policy.clock_skew for policy in policies),
    )


def acceptance_window(proof: DPoPProof, reach: Reach, nonce: Nonce | None) -> tuple[float, float]:
    """Return the start and the end of the time when the proof could be accepted, in seconds since the epoch.

    The workers' margin is at the end. `reach` is that of all policies by which it may be judged. A proof is
    remembered for all of this time, so that a proof that one policy accepted by its nonce can't be accepted
    again in another's `iat` window, nor the other way round: while a change is rolled out, two workers may
    differ in whether nonces count. A proof is no older than its nonce.
    """
    expires_at = proof.iat + reach.after + WORKER_CLOCK_MARGIN
    if nonce is None:
        return proof.iat - reach.before, expires_at
    return nonce.issued_at, max(expires_at, nonce.expires_at + WORKER_CLOCK_MARGIN)


def retention(policies: Iterable[DPoPPolicy], nonce_lifetime: float | None, nonce: Nonce | None) -> float:
    """Return for how many seconds after it was made any of `policies` could accept a proof, and a margin.

    `nonce_lifetime` is the result of `lifetime_of`. Where that is None, `nonce`, the proof's, shows it, or it
    counts as ten minutes. With less, all workers would refuse proofs with older nonces; with more, this one
    would, for as long, because of workers that remembered proofs for a shorter time and ended long ago.
    """
    if nonce_lifetime is None:
        nonce_lifetime = _USUAL_NONCES if nonce is None else nonce.expires_at - nonce.issued_at
    longest = 0.0
    for policy in policies:
        by_nonce = 0.0 if policy.nonce == "off" else nonce_lifetime
        longest = max(longest, policy.proof_lifetime + policy.clock_skew, by_nonce)
    return longest + WORKER_CLOCK_MARGIN


def lifetime_of(nonces: NonceProvider, now: float) -> float | None:
    """Return for how many seconds a nonce of `nonces` is valid, None if that is unknown now."""
    try:
        known: object = nonces.check(nonces.issue(now), now)
    except Exception:  # noqa: BLE001 - a user's own provider; the request may not need a new nonce
        return None
    return known.expires_at - known.issued_at if isinstance(known, Nonce) else None
