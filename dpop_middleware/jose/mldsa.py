"""ML-DSA for JWS: pure, with an empty context (RFC 9964, FIPS 204).

`cryptography` has it since 48.0.0, where the library that it is built on has it: OpenSSL 3.5 and newer,
AWS-LC, BoringSSL. Its own wheels do; a build of a distribution may not.
"""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from jwt import algorithms as pyjwt

from dpop_middleware.jose import base64url

__all__ = ["KTY", "MLDSA", "MLDSA_NAMES", "MLDSAPrivateKey", "MLDSAPublicKey", "known"]

MLDSAPublicKey = MLDSA44PublicKey | MLDSA65PublicKey | MLDSA87PublicKey
MLDSAPrivateKey = MLDSA44PrivateKey | MLDSA65PrivateKey | MLDSA87PrivateKey

KTY: Final = "AKP"
"""The `kty` of a key that names its one algorithm itself (RFC 9964 section 3)."""

MLDSA_NAMES: Final = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
_PUBLIC: Final[Mapping[str, type[MLDSAPublicKey]]] = dict(
    zip(MLDSA_NAMES, (MLDSA44PublicKey, MLDSA65PublicKey, MLDSA87PublicKey), strict=True)
)
_PRIVATE: Final[Mapping[str, type[MLDSAPrivateKey]]] = dict(
    zip(MLDSA_NAMES, (MLDSA44PrivateKey, MLDSA65PrivateKey, MLDSA87PrivateKey), strict=True)
)
# In octets: FIPS 204 section 4, table 2.
_PUBLIC_SIZE: Final[Mapping[str, int]] = dict(zip(MLDSA_NAMES, (1312, 1952, 2592), strict=True))


class MLDSA(pyjwt.Algorithm):
    """One parameter set as PyJWT's classes have it; `name` is its `alg`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.public_size = _PUBLIC_SIZE[name]

    def public_key(self, octets: bytes) -> MLDSAPublicKey:
        """Return the public key of these octets.

        Raises ValueError for another length, and UnsupportedAlgorithm where the system has no ML-DSA.
        """
        return _PUBLIC[self.name].from_public_bytes(octets)

    def generate(self) -> MLDSAPrivateKey:
        """Return a new private key."""
        return _PRIVATE[self.name].generate()

    def prepare_key(self, key: Any) -> Any:
        """Return the key: it needs no preparation."""
        return key

    def sign(self, msg: bytes, key: Any) -> bytes:
        """Return the signature of `key` over `msg`."""
        signature: bytes = key.sign(msg)
        return signature

    def verify(self, msg: bytes, key: Any, sig: bytes) -> bool:
        """Whether `sig` is the signature of `key` over `msg`."""
        try:
            key.verify(sig, msg)
        except InvalidSignature:
            return False
        return True

    @staticmethod
    def to_jwk(key_obj: Any, as_dict: bool = True) -> Any:  # noqa: ARG004 - PyJWT's signature
        """Return the JWK of a key; of a private one the seed too (RFC 9964 section 3)."""
        if isinstance(key_obj, MLDSAPublicKey):
            name = next(name for name, kind in _PUBLIC.items() if isinstance(key_obj, kind))
            return {"kty": KTY, "alg": name, "pub": base64url.encode(key_obj.public_bytes_raw())}
        seed = base64url.encode(key_obj.private_bytes_raw())
        return {**MLDSA.to_jwk(key_obj.public_key()), "priv": seed}

    @staticmethod
    def from_jwk(jwk: Any) -> Any:
        """Return the private key of a JWK; raises KeyError, JOSEError and ValueError for what is none."""
        return _PRIVATE[jwk["alg"]].from_seed_bytes(base64url.decode(jwk["priv"]))


def known() -> tuple[tuple[MLDSA, type[MLDSAPublicKey]], ...]:
    """Return each parameter set, and the very class of its public keys; none where the system has none."""
    sets = tuple(map(MLDSA, MLDSA_NAMES))
    try:
        return tuple((each, type(each.public_key(bytes(each.public_size)))) for each in sets)
    except UnsupportedAlgorithm:
        return ()
