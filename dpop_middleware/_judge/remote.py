"""The order of the checks where another server is asked about the access token.

    one DPoP field -> proof header -> what `proof_verification` does -> access token
    -> binding -> jkt -> freshness once more -> replay store

So nobody makes us ask by a bad proof. What a proof costs to judge, its sender has paid.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from dpop_middleware._options import flag
from dpop_middleware._proof.freshness import check_freshness, known_nonce
from dpop_middleware._proof.proof import parse_header, split_proof
from dpop_middleware._proof.verification import JudgedProof, Presentation, ProofVerification
from dpop_middleware._request.request import Credentials, ResourceRequest
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import base64url
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.options import LONGEST_CLOCK_SKEW

__all__ = ["bind", "judge_before_token", "remoteness"]


def remoteness(verifier: object) -> Callable[[str], bool]:
    """Return what tells of a token whether `verifier` asks another server about it.

    Raises ConfigurationError for a `remote` that is neither True nor False.
    """
    remote = flag("the verifier's remote", getattr(verifier, "remote", False))
    ask = getattr(verifier, "is_remote", None)

    def is_remote(token: str) -> bool:
        try:
            return remote if ask is None else ask(token) is not False
        except Exception:  # noqa: BLE001 - a verifier of anybody's: to ask it last is the safe order
            return True

    return is_remote


def judge_before_token(
    proofs: ProofVerification,
    carried: Credentials,
    proof: str,
    request: ResourceRequest,
    policy: DPoPPolicy,
    policies: tuple[DPoPPolicy, ...],
    now: float,
) -> JudgedProof:
    """Judge a proof by all but its token: what is left is its binding, and to mark it as used."""
    jws = split_proof(proof)
    presented = Presentation(
        request=request,
        ath=base64url.encode(hashlib.sha256(carried.access_token.encode()).digest()),
        policy=policy,
        policies=policies,
        now=now,
    )
    return proofs.judge(jws, parse_header(jws.header, policy.algorithms), presented)


def bind(
    proofs: ProofVerification, judged: JudgedProof, token: AccessToken, policy: DPoPPolicy, now: float
) -> JudgedProof:
    """Compare a judged proof with its token, which took time to get, and judge its freshness as of `now`.

    The proof is remembered for as long as it could be fresh, whenever the token expires: what another server
    says of that may change.
    """
    if token.jkt is None:
        raise InvalidToken("the access token is not bound to a key", check=Check.BINDING)
    if token.expires_at + LONGEST_CLOCK_SKEW <= now:
        raise InvalidToken(
            "the access token has expired", check=Check.TOKEN_TIME, expected=now, actual=token.expires_at
        )
    if token.jkt != judged.proof.jkt:
        raise InvalidToken(
            "the access token is bound to another key than the proof's",
            check=Check.JKT,
            expected=token.jkt,
            actual=judged.proof.jkt,
        )
    nonce = known_nonce(judged.proof, proofs.nonces, now)
    check_freshness(judged.proof, policy, nonces=proofs.nonces, nonce=nonce, now=now)
    entry = replace(judged.entry, now=now, speaks_for=f"{token.issuer} {token.identity}")
    return JudgedProof(judged.proof, nonce, entry)
