"""The closed table of signature algorithms (RFC 7518 section 3, RFC 8037, RFC 9864, RFC 9964).

Only asymmetric ones, each with one type of key and, where the type has curves, one curve. Adding one needs a
change here, on purpose: nothing in a request or a token can extend the table.

ML-DSA is pure, with an empty context (RFC 9964, FIPS 204). `cryptography` has it since 48.0.0, if the library
that it is built on has it: OpenSSL 3.5 and newer, AWS-LC, BoringSSL. Its own wheels have it; the build of a
Linux distribution may not.
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
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from jwt import algorithms as pyjwt

from dpop_middleware.jose import base64url

__all__ = [
    "ALGORITHMS",
    "ED25519_NAMES",
    "KTY",
    "MLDSA",
    "MLDSA_NAMES",
    "Algorithm",
    "MLDSAPrivateKey",
    "MLDSAPublicKey",
    "PublicKey",
    "mldsa_sets",
]

MLDSAPublicKey = MLDSA44PublicKey | MLDSA65PublicKey | MLDSA87PublicKey
MLDSAPrivateKey = MLDSA44PrivateKey | MLDSA65PrivateKey | MLDSA87PrivateKey

ED25519_NAMES: Final = ("EdDSA", "Ed25519")
"""Both names of EdDSA over Ed25519 (RFC 9864): a key that names either is the same key."""

KTY: Final = "AKP"
"""The `kty` of a key that names its only algorithm (RFC 9964 section 3)."""

MLDSA_NAMES: Final = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
_PUBLIC: Final[Mapping[str, type[MLDSAPublicKey]]] = dict(
    zip(MLDSA_NAMES, (MLDSA44PublicKey, MLDSA65PublicKey, MLDSA87PublicKey), strict=True)
)
_PRIVATE: Final[Mapping[str, type[MLDSAPrivateKey]]] = dict(
    zip(MLDSA_NAMES, (MLDSA44PrivateKey, MLDSA65PrivateKey, MLDSA87PrivateKey), strict=True)
)
# In octets: FIPS 204 section 4, table 2.
_PUBLIC_SIZE: Final[Mapping[str, int]] = dict(zip(MLDSA_NAMES, (1312, 1952, 2592), strict=True))
PublicKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey | MLDSAPublicKey


class MLDSA(pyjwt.Algorithm):
    """One parameter set with the interface of PyJWT's classes; `name` is its `alg`."""

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
        """Return the private key of a JWK; raises KeyError, JOSEError or ValueError if it isn't one."""
        return _PRIVATE[jwk["alg"]].from_seed_bytes(base64url.decode(jwk["priv"]))


def mldsa_sets() -> tuple[tuple[MLDSA, type[MLDSAPublicKey]], ...]:
    """Return each parameter set, and the exact class of its public keys; empty where the system has none."""
    sets = tuple(map(MLDSA, MLDSA_NAMES))
    try:
        return tuple((each, type(each.public_key(bytes(each.public_size)))) for each in sets)
    except UnsupportedAlgorithm:
        return ()


def _ed25519_key() -> type[PublicKey]:
    try:
        return type(Ed25519PublicKey.from_public_bytes(bytes(32)))
    except (UnsupportedAlgorithm, ValueError):
        # An OpenSSL without this algorithm, as with FIPS: no key is of the abstract class itself.
        return Ed25519PublicKey


# The exact classes: comparing them costs less than isinstance with the abstract ones, for each signature.
_EC_KEY: Final = type(derive_private_key(1, SECP256R1()).public_key())
_RSA_KEY: Final = type(RSAPublicNumbers(65537, (1 << 2047) + 1).public_key())
_ED25519_KEY: Final = _ed25519_key()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Algorithm:
    """One JWS algorithm and its only kind of keys.

    `name` is the value of `alg`, `kty` and `crv` are what a JWK must say (`crv` is None where the type has no
    curves), `curve` is the elliptic curve of an ECDSA key, None otherwise. `key_type` is the exact class of
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
    """PyJWT's ECDSA, with the objects made once that PyJWT makes for each signature.

    hashlib computes the hash: for such short messages that takes half the time.
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
        Algorithm(name=each.name, kty=KTY, crv=None, curve=None, key_type=key_type, verifier=each)
        for each, key_type in mldsa_sets()
    ),
)

ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {algorithm.name: algorithm for algorithm in _TABLE}
)
"""Every algorithm that the library knows, by its `alg` name."""
