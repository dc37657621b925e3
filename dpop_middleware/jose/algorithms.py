"""The closed table of signature algorithms (RFC 7518 section 3, RFC 8037, RFC 9864, RFC 9964).

Asymmetric ones only, each with one type of key and, where the type has curves, one curve. To add one is a
change here, on purpose: nothing that a request or a token says can widen the table.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from jwt import algorithms as pyjwt

from dpop_middleware.jose import mldsa
from dpop_middleware.jose.mldsa import MLDSAPublicKey

__all__ = ["ALGORITHMS", "Algorithm", "PublicKey"]

PublicKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey | MLDSAPublicKey


def _ed25519_key() -> type[PublicKey]:
    try:
        return type(Ed25519PublicKey.from_public_bytes(bytes(32)))
    except (UnsupportedAlgorithm, ValueError):
        # An OpenSSL without this algorithm, as some with FIPS are: no key is of the abstract class itself.
        return Ed25519PublicKey


# The very classes: to compare them costs less than to ask for the abstract ones, for each signature.
_EC_KEY: Final = type(derive_private_key(1, SECP256R1()).public_key())
_RSA_KEY: Final = type(RSAPublicNumbers(65537, (1 << 2047) + 1).public_key())
_ED25519_KEY: Final = _ed25519_key()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Algorithm:
    """One JWS algorithm and the only keys that go with it.

    `name` is the value of `alg`, `kty` and `crv` are what a JWK must say (`crv` is None where the type has no
    curves), `curve` is the elliptic curve of an ECDSA key, None otherwise. `key_type` is the very class of
    its keys.
    """

    name: str
    kty: str
    crv: str | None
    curve: EllipticCurve | None = field(repr=False)
    key_type: type[PublicKey] = field(repr=False)
    verifier: pyjwt.Algorithm = field(repr=False)

    def accepts(self, key: Any) -> bool:
        """Whether `key` is a public key of this algorithm's type and curve."""
        if type(key) is not self.key_type:
            return False
        known: Any = key
        return self.curve is None or known.curve.name == self.curve.name

    def verify(self, key: PublicKey, signing_input: bytes, signature: bytes) -> bool:
        """Whether `signature` is `key`'s signature over `signing_input` (RFC 7515 section 5.2).

        False for a signature of another length or form, and for a key of another algorithm; no bytes make it
        raise. The strength of the key is not checked here: `jwk.public_key` does that.
        """
        return self.accepts(key) and self.verifier.verify(signing_input, key, signature)


class _ECDSA(pyjwt.ECAlgorithm):
    """PyJWT's ECDSA, but what it makes anew for each signature that it verifies is made once.

    hashlib hashes: for messages as short as these that takes half the time.
    """

    def __init__(self, hash_alg: type[HashAlgorithm], curve: type[EllipticCurve]) -> None:
        super().__init__(hash_alg, curve)
        self._size = (curve().key_size + 7) // 8
        algorithm = hash_alg()
        self._scheme = ECDSA(Prehashed(algorithm))
        self._hash = getattr(hashlib, algorithm.name)

    def verify(self, msg: bytes, key: Any, sig: bytes) -> bool:
        """Whether `sig` is the signature of `key` over `msg` (RFC 7518 section 3.4)."""
        if len(sig) != 2 * self._size:
            return False
        r = int.from_bytes(sig[: self._size], "big")
        s = int.from_bytes(sig[self._size :], "big")
        try:
            key.verify(encode_dss_signature(r, s), self._hash(msg).digest(), self._scheme)
        except InvalidSignature:
            return False
        return True


def _ecdsa(name: str, crv: str, curve: EllipticCurve, verifier: pyjwt.ECAlgorithm) -> Algorithm:
    return Algorithm(name=name, kty="EC", crv=crv, curve=curve, key_type=_EC_KEY, verifier=verifier)


def _eddsa(name: str) -> Algorithm:
    return Algorithm(
        name=name,
        kty="OKP",
        crv="Ed25519",
        curve=None,
        key_type=_ED25519_KEY,
        verifier=pyjwt.OKPAlgorithm(),
    )


def _rsa(name: str, verifier: pyjwt.RSAAlgorithm) -> Algorithm:
    return Algorithm(name=name, kty="RSA", crv=None, curve=None, key_type=_RSA_KEY, verifier=verifier)


_TABLE: Final = (
    _ecdsa("ES256", "P-256", SECP256R1(), _ECDSA(pyjwt.ECAlgorithm.SHA256, SECP256R1)),
    _ecdsa("ES384", "P-384", SECP384R1(), _ECDSA(pyjwt.ECAlgorithm.SHA384, SECP384R1)),
    _ecdsa("ES512", "P-521", SECP521R1(), _ECDSA(pyjwt.ECAlgorithm.SHA512, SECP521R1)),
    _eddsa("EdDSA"),
    _eddsa("Ed25519"),
    _rsa("PS256", pyjwt.RSAPSSAlgorithm(pyjwt.RSAPSSAlgorithm.SHA256)),
    _rsa("PS384", pyjwt.RSAPSSAlgorithm(pyjwt.RSAPSSAlgorithm.SHA384)),
    _rsa("PS512", pyjwt.RSAPSSAlgorithm(pyjwt.RSAPSSAlgorithm.SHA512)),
    _rsa("RS256", pyjwt.RSAAlgorithm(pyjwt.RSAAlgorithm.SHA256)),
    _rsa("RS384", pyjwt.RSAAlgorithm(pyjwt.RSAAlgorithm.SHA384)),
    _rsa("RS512", pyjwt.RSAAlgorithm(pyjwt.RSAAlgorithm.SHA512)),
    *(
        Algorithm(name=each.name, kty=mldsa.KTY, crv=None, curve=None, key_type=key_type, verifier=each)
        for each, key_type in mldsa.known()
    ),
)

ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {algorithm.name: algorithm for algorithm in _TABLE}
)
"""Every algorithm that the library knows, by its `alg` name."""
