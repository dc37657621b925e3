"""Private keys of `cryptography`, and as JWKs (RFC 7518 section 6), and the files that hold them."""

import codecs
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.exceptions import PyJWTError

from dpop_middleware.jose import base64url
from dpop_middleware.jose.algorithms import ALGORITHMS, KTY, MLDSA_NAMES, MLDSAPrivateKey
from dpop_middleware.jose.jwk import REQUIRED_MEMBERS

__all__ = [
    "PrivateKey",
    "as_utf8",
    "checked_password",
    "exported",
    "is_pem",
    "key_file",
    "public_part",
    "read_private",
    "require_supported",
    "supported",
    "usual_algorithm",
]

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | MLDSAPrivateKey

_EXPORTER: Mapping[Any, str] = MappingProxyType(
    {
        ec.EllipticCurvePrivateKey: "ES256",
        rsa.RSAPrivateKey: "RS256",
        ed25519.Ed25519PrivateKey: "EdDSA",
        MLDSAPrivateKey: "ML-DSA-44",
    }
)
_USUAL_ALGORITHM: Mapping[tuple[str, str | None], str] = MappingProxyType(
    {
        ("EC", "P-256"): "ES256",
        ("EC", "P-384"): "ES384",
        ("EC", "P-521"): "ES512",
        ("OKP", "Ed25519"): "EdDSA",
        ("RSA", None): "RS256",
    }
)


def require_supported(algorithm: object) -> None:
    """Raise ValueError for anything but the name of an algorithm that proofs may have."""
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        names = ", ".join(ALGORITHMS)
        raise ValueError(f"the algorithm {algorithm!r} is not supported: choose from {names}")


def checked_password(password: object) -> bytes | None:
    """Return the option `password`; raises ValueError, without the password, for anything but octets."""
    if password is None or (isinstance(password, bytes) and password):
        return password
    wrong = "empty ones" if password == b"" else f"a {type(password).__name__}"
    raise ValueError(f"password takes bytes, such as text.encode(), not {wrong}")


def supported(private_key: object) -> PrivateKey:
    """Return a private key of `cryptography`; raises ValueError for one of a type that proofs don't use."""
    if not isinstance(private_key, PrivateKey):
        kind = type(private_key).__name__
        raise ValueError(f"the key is not an EC, RSA, Ed25519 or ML-DSA private key, but a {kind}")
    return private_key


def read_private(jwk: Mapping[str, Any], usual: str) -> PrivateKey:
    """Return the key that a private JWK holds; `usual` is an algorithm of its type."""
    if usual == "EdDSA":
        return ed25519.Ed25519PrivateKey.from_private_bytes(base64url.decode(jwk["d"]))
    return supported(ALGORITHMS[usual].verifier.from_jwk(dict(jwk)))


def exported(private_key: PrivateKey) -> dict[str, Any]:
    """Return a private key as a JWK; raises ValueError for one that proofs don't use."""
    supported(private_key)
    name = next(name for kind, name in _EXPORTER.items() if isinstance(private_key, kind))
    try:
        return dict(ALGORITHMS[name].verifier.to_jwk(private_key, as_dict=True))
    except PyJWTError as error:
        raise ValueError("the key is on a curve that DPoP does not use") from error


def usual_algorithm(jwk: Mapping[str, Any]) -> str:
    """Return the algorithm that a key has unless it names another; raises ValueError for an unusable key."""
    if "keys" in jwk:
        raise ValueError("the JWK is a set of keys: give one of them, such as jwks['keys'][0]")
    if jwk.get("kty") == KTY and jwk.get("alg") in MLDSA_NAMES:
        return str(jwk["alg"])
    crv = None if jwk.get("kty") == "RSA" else str(jwk.get("crv"))
    usual = _USUAL_ALGORITHM.get((str(jwk.get("kty")), crv))
    if usual is None:
        raise ValueError(
            "the key is not of a supported type: EC on P-256, P-384 or P-521, RSA, Ed25519 or ML-DSA"
        )
    return usual


def public_part(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of the public key alone."""
    return {name: jwk[name] for name in REQUIRED_MEMBERS[jwk["kty"]] if name in jwk}


def key_file(path: "str | os.PathLike[str]") -> Path:
    """Return the option `path`; raises ValueError, without it, for a key in place of the name of its file."""
    name = os.fspath(path)
    if isinstance(name, bytes) or "-----BEGIN" in name or '"kty"' in name:
        raise ValueError("load takes the name of a file, not the key itself: see from_pem and from_jwk")
    return Path(name)


def is_pem(data: bytes) -> bool:
    """Whether a file's content is PEM and no JWK; some tools write attributes before the key."""
    return b"-----BEGIN" in data and not data.lstrip().startswith(b"{")


def as_utf8(data: bytes) -> bytes:
    """Return a file's content as Windows may write it: without byte order mark, and from UTF-16 with one."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)
