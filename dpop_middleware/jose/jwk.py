"""The key and the thumbprint of a public JWK (RFC 7517, RFC 7518 section 6, RFC 8037, RFC 9964, RFC 7638).

Each accepted key has exactly one spelling of its required members, so that it has exactly one thumbprint.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurve, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from dpop_middleware.checks import Check, Reason
from dpop_middleware.jose import JOSEError, base64url
from dpop_middleware.jose.algorithms import ED25519_NAMES, MLDSA, Algorithm, MLDSAPublicKey, PublicKey

__all__ = [
    "PRIVATE_MEMBERS",
    "REQUIRED_MEMBERS",
    "is_thumbprint",
    "public_key",
    "thumbprint",
    "without_unset",
]

PRIVATE_MEMBERS: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv")
"""The members with private or symmetric key material (RFC 7518 section 6, RFC 9964 section 3)."""

_RSA_BITS: Final = range(2048, 4096 + 1)
_RSA_EXPONENTS: Final = range(3, 65537 + 1, 2)

_ED25519_LENGTH: Final = 32
_ED25519_PRIME: Final = 2**255 - 19
# The y coordinates of the eight points whose order divides the cofactor, for both signs of x. With such a key
# anyone can make a signature.
_ORDER_EIGHT: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER: Final = frozenset({0, 1, _ED25519_PRIME - 1, _ORDER_EIGHT, _ED25519_PRIME - _ORDER_EIGHT})

REQUIRED_MEMBERS: Final = {
    "AKP": ("alg", "kty", "pub"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}
"""The required members of a public key by its `kty`, in the order of RFC 7638 section 3.2."""

# The characters that their values consist of: none needs escaping in JSON, or could end a string early.
_is_plain: Final = re.compile(r"[A-Za-z0-9_-]+").fullmatch
# 43 characters, of which the last one carries only four bits.
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


def _refused(description: str, member: str | None = None) -> JOSEError:
    if member is not None:
        description = f"{description}: {member}"
    reason = Reason.PRIVATE_KEY if member in PRIVATE_MEMBERS else None
    return JOSEError(description, check=Check.JWK, member=member, reason=reason)


def without_unset(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of `jwk` that are set: an empty array or null means "not set" (RFC 7517).

    Some serialisers write every member that they know, whether it has a value or not.
    """
    return {name: value for name, value in jwk.items() if value not in (None, [], ())}


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise _refused("the JWK lacks a required member", name)
    try:
        return base64url.decode(value)
    except JOSEError as error:
        raise _refused("a member of the JWK is not canonical base64url", name) from error


def _check_purpose(jwk: Mapping[str, Any], algorithm: Algorithm) -> None:
    if "use" in jwk and jwk["use"] != "sig":
        raise _refused("the JWK is not for signatures", "use")
    if "key_ops" in jwk:
        operations = jwk["key_ops"]
        if not isinstance(operations, list) or "verify" not in operations:
            raise _refused("the JWK is not for verifying", "key_ops")
    names = ED25519_NAMES if algorithm.name in ED25519_NAMES else (algorithm.name,)
    if "alg" in jwk and jwk["alg"] not in names:
        raise _refused("the JWK is for another algorithm", "alg")


def _ec(jwk: Mapping[str, Any], curve: EllipticCurve) -> EllipticCurvePublicKey:
    length = (curve.key_size + 7) // 8
    x, y = _octets(jwk, "x"), _octets(jwk, "y")
    for name, octets in (("x", x), ("y", y)):
        if len(octets) != length:
            raise _refused("a coordinate of the JWK has the wrong length", name)
    try:
        return EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError as error:
        raise _refused("the JWK is not a point on its curve") from error


def _rsa(jwk: Mapping[str, Any]) -> RSAPublicKey:
    n_octets, e_octets = _octets(jwk, "n"), _octets(jwk, "e")
    for name, octets in (("n", n_octets), ("e", e_octets)):
        if octets[:1] in (b"", b"\0"):
            raise _refused("an RSA member of the JWK is empty or starts with a zero octet", name)
    n, e = int.from_bytes(n_octets, "big"), int.from_bytes(e_octets, "big")
    if n.bit_length() not in _RSA_BITS or n % 2 == 0:
        raise _refused("the RSA modulus must be odd and have 2048 to 4096 bits", "n")
    if e not in _RSA_EXPONENTS:
        raise _refused("the RSA exponent must be odd and at most 65537", "e")
    return RSAPublicNumbers(e, n).public_key()


def _ed25519(jwk: Mapping[str, Any]) -> Ed25519PublicKey:
    octets = _octets(jwk, "x")
    if len(octets) != _ED25519_LENGTH:
        raise _refused("the Ed25519 key must have 32 octets", "x")
    y = int.from_bytes(octets, "little") & (2**255 - 1)
    if y >= _ED25519_PRIME or y in _SMALL_ORDER:
        raise _refused("the Ed25519 key is not canonical or has a small order", "x")
    return Ed25519PublicKey.from_public_bytes(octets)


def _mldsa(jwk: Mapping[str, Any], verifier: MLDSA) -> MLDSAPublicKey:
    if "alg" not in jwk:
        raise _refused("the JWK lacks a required member", "alg")
    octets = _octets(jwk, "pub")
    if len(octets) != verifier.public_size:
        raise _refused("the ML-DSA key has the wrong length", "pub")
    return verifier.public_key(octets)


def _key(jwk: Mapping[str, Any], algorithm: Algorithm) -> PublicKey:
    if algorithm.curve is not None:
        return _ec(jwk, algorithm.curve)
    if algorithm.crv is not None:
        return _ed25519(jwk)
    if isinstance(algorithm.verifier, MLDSA):
        return _mldsa(jwk, algorithm.verifier)
    return _rsa(jwk)


def public_key(jwk: object, algorithm: Algorithm) -> PublicKey:
    """Return the public key that `jwk` describes, for `algorithm` only (RFC 9449 section 4.2, RFC 7517).

    Refuses the names of private members before it builds anything, whatever their values, a `kty` or `crv` of
    another algorithm, a contradicting `use`, `key_ops` or `alg`, members that aren't canonical base64url of
    the exact length, points that aren't on the curve, RSA keys outside 2048 to 4096 bits or with an exponent
    other than odd and 3 to 65537, and Ed25519 keys of small order. `EdDSA` and `Ed25519` name one algorithm.
    An empty array or null means "not set". Unknown members are ignored, including certificates and `kid`.
    Whether an Ed25519 key is on its curve is known only when it verifies.

    Raises JOSEError (`Check.JWK`).
    """
    if not isinstance(jwk, dict):
        raise _refused("the JWK is not a JSON object")
    private = next(filter(jwk.__contains__, PRIVATE_MEMBERS), None)
    if private is not None:
        raise _refused("the JWK holds private or symmetric key material", private)
    jwk = without_unset(jwk)
    if jwk.get("kty") != algorithm.kty:
        raise _refused("the JWK has another key type than the algorithm", "kty")
    if algorithm.crv is not None and jwk.get("crv") != algorithm.crv:
        raise _refused("the JWK has another curve than the algorithm", "crv")
    _check_purpose(jwk, algorithm)
    try:
        return _key(jwk, algorithm)
    except JOSEError:
        raise
    except (UnsupportedAlgorithm, ValueError) as error:
        raise _refused("the JWK is of a kind that this system's OpenSSL doesn't know") from error


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a public JWK in base64url (RFC 7638, RFC 8037, RFC 9964 section 6).

    Only the required members count, as they are spelled: `public_key` refuses a second spelling of the same
    key. Raises JOSEError (`Check.JWK`) when one is missing, isn't a string or has a character outside
    base64url's alphabet, and for a `kty` without public members.
    """
    kty = jwk.get("kty")
    names = REQUIRED_MEMBERS.get(kty) if isinstance(kty, str) else None
    if names is None:
        raise _refused("the JWK has an unknown key type", "kty")
    members = []
    for name in names:
        value = jwk.get(name)
        if not isinstance(value, str) or not _is_plain(value):
            raise _refused("the JWK lacks a required member", name)
        members.append(f'"{name}":"{value}"')
    return base64url.encode(hashlib.sha256(f"{{{','.join(members)}}}".encode("ascii")).digest())


def is_thumbprint(value: object) -> TypeGuard[str]:
    """Whether `value` is a SHA-256 thumbprint, as `thumbprint` returns it, of whatever key."""
    return isinstance(value, str) and _THUMBPRINT.fullmatch(value) is not None
