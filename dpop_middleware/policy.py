"""What a resource server requires of proofs and tokens: checked once, then frozen."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

from dpop_middleware._options import choice, flag, part, refused, seconds
from dpop_middleware.jose.algorithms import ALGORITHMS

__all__ = [
    "POST_QUANTUM_ALGORITHMS",
    "SUPPORTED_ALGORITHMS",
    "DPoPPolicy",
    "NonceMode",
    "checked_algorithms",
    "checked_policy",
]

NonceMode = Literal["off", "required", "fallback"]

SUPPORTED_ALGORITHMS = (
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
    "PS256",
    "PS384",
    "PS512",
    "RS256",
    "RS384",
    "RS512",
)

POST_QUANTUM_ALGORITHMS = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
"""RFC 9964: accepted where `algorithms` names them, never by default, since their proofs take up to 11 KB."""

# FAPI 2.0 Security Profile: sections 5.4.1 and 5.3.2.1, item 13.
_OF_FAPI2 = ("ES256", "EdDSA", "Ed25519", "PS256")
_LEAST_SKEW, _MOST_SKEW = 10, 60
# The store remembers each proof for as long as it could be fresh: here, and at every neighbour.
_DAY = 86_400


def checked_algorithms(algorithms: object) -> tuple[str, ...]:
    """Return `algorithms` as a tuple of supported JWS names, or raise ConfigurationError."""
    if isinstance(algorithms, str) or not isinstance(algorithms, (list, tuple, set, frozenset)):
        raise refused("algorithms", "a sequence of JWS algorithm names, such as ('ES256',)", algorithms)
    if not algorithms:
        raise refused("algorithms", "at least one name, such as ('ES256',)", algorithms)
    choices = (*SUPPORTED_ALGORITHMS, *POST_QUANTUM_ALGORITHMS)
    for name in algorithms:
        if name not in choices:
            raise refused("algorithms", f"some of {', '.join(choices)}", name)
        if name not in ALGORITHMS:
            takes = "what this build of cryptography has (ML-DSA: its wheels, or one on OpenSSL 3.5 or newer)"
            raise refused("algorithms", takes, name)
    return tuple(name for name in choices if name in algorithms)


@dataclass(frozen=True, slots=True, kw_only=True)
class DPoPPolicy:
    """How strict a resource server is with proofs (RFC 9449 sections 4.3, 7 and 9).

    - `algorithms`: JWS algorithms that a proof may use; asymmetric ones only. ML-DSA-44, ML-DSA-65 and
      ML-DSA-87 (RFC 9964) must be named; with one of them a proof may have 16 KiB, otherwise 8.
    - `proof_lifetime`: seconds for which a proof without nonce is fresh after its `iat`, 1 to 86400. It is
      remembered for as long as it could be fresh.
    - `clock_skew`: seconds by which a client's clock may differ from the server's, both ways, at most 86400.
      It is for proofs: tokens have a skew of their own.
    - `accept_bearer`: also accept unbound tokens as Bearer. They have no protection by DPoP: a thief can use
      such a token. Bound tokens are never accepted as Bearer.
    - `nonce`: `"off"` ignores nonces. `"required"` refuses a proof without the server's nonce,
      `"fallback"` only when its `iat` is outside the window; with either, a proof that carries a nonce
      is judged by the nonce alone. `"fallback"` doesn't stop proofs made in advance (section 11.2).
    - `iat_limit_with_nonce`: seconds, at least 1, by which the `iat` of a proof with a nonce may differ from
      the server's clock, both ways; None for any (section 11.1). It has no effect if `nonce` is `"off"`.

    Raises ConfigurationError for anything else.
    """

    algorithms: tuple[str, ...] = SUPPORTED_ALGORITHMS
    proof_lifetime: float = 60
    clock_skew: float = 30
    accept_bearer: bool = False
    nonce: NonceMode = "off"
    iat_limit_with_nonce: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "algorithms", checked_algorithms(self.algorithms))
        seconds("proof_lifetime", self.proof_lifetime, minimum=1, maximum=_DAY)
        seconds("clock_skew", self.clock_skew, minimum=0, maximum=_DAY)
        flag("accept_bearer", self.accept_bearer)
        choice("nonce", self.nonce, get_args(NonceMode))
        if self.iat_limit_with_nonce is not None:
            seconds("iat_limit_with_nonce", self.iat_limit_with_nonce, minimum=1)

    @classmethod
    def fapi2(
        cls,
        *,
        algorithms: tuple[str, ...] = _OF_FAPI2,
        proof_lifetime: float = 60,
        clock_skew: float = 30,
        nonce: NonceMode = "off",
    ) -> Self:
        """Return the policy of the FAPI 2.0 Security Profile (final, 2025) for a resource server.

        - `algorithms`: PS256, ES256 and EdDSA with Ed25519 (section 5.4.1, item 1), or some of them.
        - `clock_skew`: seconds, 10 to 60: an `iat` that is 10 s ahead must be accepted, one that is more than
          60 s ahead refused (section 5.3.2.1, item 13), also beside a nonce.
        - `proof_lifetime`, `nonce`: as in `DPoPPolicy`. FAPI has no rule for the first, and all its clients
          support nonces (section 5.3.3.1, item 8).

        Bearer tokens are refused (section 5.3.4, item 5). You must still configure the same algorithms for
        access tokens (`JWTAccessTokenVerifier(algorithms=…)`), their revocation (section 5.3.4, item 3) and
        TLS (section 5.2). Raises ConfigurationError.
        """
        policy = cls(
            algorithms=algorithms,
            proof_lifetime=proof_lifetime,
            clock_skew=seconds("clock_skew", clock_skew, minimum=_LEAST_SKEW, maximum=_MOST_SKEW),
            nonce=nonce,
            iat_limit_with_nonce=_MOST_SKEW,
        )
        if not set(policy.algorithms).issubset(_OF_FAPI2):
            raise refused("algorithms", f"some of {', '.join(_OF_FAPI2)}", algorithms)
        return policy


def checked_policy(policy: DPoPPolicy) -> DPoPPolicy:
    """Return the option `policy`, or raise ConfigurationError for anything but a DPoPPolicy."""
    takes = "a DPoPPolicy, such as DPoPPolicy(nonce='required')"
    return part("policy", policy, takes, fits=isinstance(policy, DPoPPolicy))
