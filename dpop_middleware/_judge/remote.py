"""The order of the checks where another server is asked about the access token.

    one DPoP field -> proof header -> the checks of `proof_verification` -> access token
    -> binding -> jkt -> freshness once more -> replay store

A bad proof therefore never causes a question. A right one costs its sender a signature once, and the server a
verification each time that it comes, with whatever `alg` of the policy the sender chose.
"""

from collections.abc import Callable

from dpop_middleware._judge.requirements import bound_to_another, check_bound
from dpop_middleware._options import flag
from dpop_middleware._proof.freshness import check_freshness, known_nonce
from dpop_middleware._proof.proof import parse_header, split_proof
from dpop_middleware._proof.verification import JudgedProof, ProofVerification
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.tokens.access_token import AccessToken, token_hash

__all__ = ["bind", "judge_before_token", "remoteness"]


def remoteness(verifier: object) -> Callable[[str], bool] | None:
    """Return a function that says if `verifier` asks another server about a token, None if it never does.

    Raises ConfigurationError for a `remote` that is neither True nor False.
    """
    remote = flag("the verifier's remote", getattr(verifier, "remote", False))
    ask = getattr(verifier, "is_remote", None)
    if ask is None:
        return (lambda _: True) if remote else None

    def is_remote(token: str) -> bool:
        try:
            return ask(token) is not False
        except Exception:  # noqa: BLE001 - a user's own verifier: asking it last is the safe order
            return True

    return is_remote


def judge_before_token(
    proofs: ProofVerification,
    access_token: str,
    proof: str,
    request: ResourceRequest,
    policy: DPoPPolicy,
    policies: tuple[DPoPPolicy, ...],
    now: float,
) -> JudgedProof:
    """Judge a proof without its token: only the binding and marking it as used remain."""
    jws = split_proof(proof)
    return proofs.judge(
        jws,
        parse_header(jws.header, policy.algorithms),
        request=request,
        ath=token_hash(access_token),
        policy=policy,
        policies=policies,
        now=now,
    )


def bind(
    proofs: ProofVerification, judged: JudgedProof, token: AccessToken, policy: DPoPPolicy, now: float
) -> JudgedProof:
    """Compare a judged proof with its token, which took time to get, and judge its freshness as of `now`.

    The proof is remembered for as long as it could be fresh, even if the token expires earlier: another
    server may report another expiry the next time.
    """
    proof, _, entry = judged
    check_bound(token, now)
    if token.jkt != proof.jkt:
        raise bound_to_another(token.jkt, proof.jkt)
    nonce = None if proof.nonce is None else known_nonce(proof, proofs.nonces, now)
    check_freshness(proof, policy, nonces=proofs.nonces, nonce=nonce, now=now)
    return JudgedProof(proof, nonce, entry._replace(now=now, speaks_for=f"{token.issuer} {token.identity}"))
