"""Third-party JOSE libraries behind one interface: a key that signs."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import joserfc.jwk
import joserfc.jws
import joserfc.jwt
import jwskate
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

__all__ = ["LIBRARIES", "LibraryKey", "library_key"]

_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
# Of a coordinate in base64url.
_FULL_LENGTHS = {"ES256": 43, "ES384": 64, "ES512": 88}


@dataclass(frozen=True)
class LibraryKey:
    """A key of one library: `public_jwk` and `jkt` as the library returns them, `sign(header, claims)`."""

    public_jwk: dict[str, Any]
    jkt: str
    sign: Callable[[Mapping[str, Any], Mapping[str, Any]], str]


def library_key(library: str, algorithm: str, *, number: int = 1) -> LibraryKey:
    """Return a new key of `library`, one of LIBRARIES; RSA keys are shared, one for each `number`."""
    return LIBRARIES[library](algorithm, number)


@cache
def _rsa_pem(number: int) -> str:
    """Return one of the RSA keys that all libraries share: making them is slow."""
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _joserfc(algorithm: str, number: int) -> LibraryKey:
    key: Any
    if algorithm in _CURVES:
        key = joserfc.jwk.ECKey.generate_key(_CURVES[algorithm])
    elif algorithm in ("EdDSA", "Ed25519"):
        key = joserfc.jwk.OKPKey.generate_key("Ed25519")
    else:
        key = joserfc.jwk.RSAKey.import_key(_rsa_pem(number))
    registry = joserfc.jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)

    def sign(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        return joserfc.jwt.encode({"alg": algorithm, **header}, dict(claims), key, registry=registry)

    return LibraryKey(key.as_dict(private=False), key.thumbprint(), sign)


def _authlib(algorithm: str, number: int) -> LibraryKey:
    # Its import warns, whatever the filters, that joserfc is its successor.
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        jose: Any = importlib.import_module("authlib.jose")
    if algorithm in _CURVES:
        key = jose.ECKey.generate_key(_CURVES[algorithm], is_private=True)
        # Without leading zero octets a coordinate has one form only (RFC 7518 section 6.2.1.2).
        while {len(key.as_dict()[name]) for name in "xy"} != {_FULL_LENGTHS[algorithm]}:
            key = jose.ECKey.generate_key(_CURVES[algorithm], is_private=True)
    elif algorithm == "EdDSA":
        key = jose.OKPKey.generate_key("Ed25519", is_private=True)
    else:
        key = jose.RSAKey.import_key(_rsa_pem(number))

    def sign(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        token: bytes = jose.JsonWebToken([algorithm]).encode({"alg": algorithm, **header}, claims, key)
        return token.decode()

    return LibraryKey(key.as_dict(is_private=False), key.thumbprint(), sign)


def _jwskate(algorithm: str, number: int) -> LibraryKey:
    if algorithm in _CURVES or algorithm == "EdDSA":
        key = jwskate.Jwk.generate(alg=algorithm)
    else:
        key = jwskate.Jwk.from_pem(_rsa_pem(number))

    def sign(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        return str(jwskate.Jwt.sign_arbitrary(dict(claims), {"alg": algorithm, **header}, key, alg=algorithm))

    return LibraryKey(key.public_jwk().to_dict(), key.thumbprint(), sign)


LIBRARIES: Mapping[str, Callable[[str, int], LibraryKey]] = {
    "joserfc": _joserfc,
    "Authlib": _authlib,
    "jwskate": _jwskate,
}
"""Each library by its name; Authlib and jwskate know Ed25519 by its older name, EdDSA, only."""
