"""What a resource server asks of proofs and tokens: checked once, then frozen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from dpop_middleware.errors import ConfigurationError

__all__ = [
    "SUPPORTED_ALGORITHMS",
    "DPoPPolicy",
    "NonceMode",
    "PolicyFamily",
    "checked_algorithms",
    "checked_flag",
    "provides",
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


def checked_algorithms(algorithms: object) -> tuple[str, ...]:
    """Return `algorithms` as a tuple of supported JWS names, or raise ConfigurationError."""
    if isinstance(algorithms, str) or not isinstance(algorithms, (list, tuple, set, frozenset)):
        raise ConfigurationError("algorithms takes a sequence of JWS algorithm names, such as ('ES256',)")
    if not algorithms:
        raise ConfigurationError("algorithms is empty: name at least one, such as ('ES256',)")
    for name in algorithms:
        if name not in SUPPORTED_ALGORITHMS:
            raise ConfigurationError(
                f"algorithm {name!r} is not supported: choose from {', '.join(SUPPORTED_ALGORITHMS)}"
            )
    return tuple(name for name in SUPPORTED_ALGORITHMS if name in algorithms)


def checked_flag(name: str, value: object) -> bool:
    """Return the option `value`, or raise ConfigurationError where it is neither True nor False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} takes True or False, not {value!r}")
    return value


def provides(part: object, *methods: str) -> bool:
    """Return whether `part` has `methods` and is an object, not the class of one."""
    return not isinstance(part, type) and all(callable(getattr(part, method, None)) for method in methods)


def _seconds(name: str, value: object, *, minimum: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigurationError(f"{name} takes a finite number of seconds, not {value!r}")
    if value < minimum:
        raise ConfigurationError(f"{name} must be at least {minimum:g} seconds, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DPoPPolicy:
    """How strict a resource server is with proofs (RFC 9449 sections 4.3, 7 and 9).

    - `algorithms`: JWS algorithms that a proof may use; asymmetric ones only.
    - `proof_lifetime`: seconds for which a proof without nonce is fresh after its `iat`.
    - `clock_skew`: seconds by which a client's clock may differ from ours, both ways. It is for proofs:
      tokens have a skew of their own.
    - `accept_bearer`: also let unbound tokens in as Bearer. It costs what DPoP gives: such a token works
      for whoever steals it. Bound tokens never pass as Bearer.
    - `nonce`: `"off"` ignores nonces. `"required"` refuses a proof without the server's nonce,
      `"fallback"` only when its `iat` is outside the window; with either, a proof that carries a nonce
      is judged by the nonce alone. `"fallback"` doesn't stop proofs made in advance (section 11.2).

    Raises ConfigurationError for anything else.
    """

    algorithms: tuple[str, ...] = SUPPORTED_ALGORITHMS
    proof_lifetime: float = 60
    clock_skew: float = 30
    accept_bearer: bool = False
    nonce: NonceMode = "off"

    def __post_init__(self) -> None:
        object.__setattr__(self, "algorithms", checked_algorithms(self.algorithms))
        _seconds("proof_lifetime", self.proof_lifetime, minimum=1)
        _seconds("clock_skew", self.clock_skew, minimum=0)
        checked_flag("accept_bearer", self.accept_bearer)
        if self.nonce not in get_args(NonceMode):
            raise ConfigurationError(
                f"nonce takes one of {', '.join(map(repr, get_args(NonceMode)))}, not {self.nonce!r}"
            )


class PolicyFamily:
    """The policies of one resource server: its own and those of its `with_policy`.

    What they share is judged for all of them; two servers are siblings when they have the same family.
    """

    def __init__(self, policy: DPoPPolicy) -> None:
        self._policies: tuple[DPoPPolicy, ...] = (policy,)

    def __iter__(self) -> Iterator[DPoPPolicy]:
        return iter(self._policies)

    def add(self, policy: DPoPPolicy) -> None:
        """Let `policy` belong to the family."""
        if policy not in self._policies:
            self._policies = (*self._policies, policy)
