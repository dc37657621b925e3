"""Keys and proofs made by hand, from `cryptography` alone: as a foreign client might send them."""

import functools
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.support.oracle import CURVES, b64, jkt_of

__all__ = ["ALGORITHMS", "Signer", "encoded", "signer"]

ALGORITHMS = [
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
]


def encoded(part: Any) -> str:
    """Return a segment: bytes as they are, text in UTF-8, all else as JSON."""
    if isinstance(part, str):
        part = part.encode()
    return b64(part if isinstance(part, bytes) else json.dumps(part).encode())


def _octets(number: int, size: int | None = None) -> str:
    return b64(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


@functools.cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class Signer:
    """One private key that signs by one algorithm."""

    def __init__(self, alg: str) -> None:
        self.alg = alg
        self.jwk: dict[str, Any]
        self._digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}.get(alg[2:])
        if alg in CURVES:
            name, curve, size = CURVES[alg]
            self._key: Any = ec.generate_private_key(curve())
            numbers = self._key.public_key().public_numbers()
            self.jwk = {
                "kty": "EC",
                "crv": name,
                "x": _octets(numbers.x, size),
                "y": _octets(numbers.y, size),
            }
        elif alg in {"EdDSA", "Ed25519"}:
            self._key = ed25519.Ed25519PrivateKey.generate()
            self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(self._key.public_key().public_bytes_raw())}
        else:
            self._key = _rsa_key()
            numbers = self._key.public_key().public_numbers()
            self.jwk = {"kty": "RSA", "n": _octets(numbers.n), "e": _octets(numbers.e)}
        self.jkt = jkt_of(self.jwk)

    def sign(self, signed: bytes) -> bytes:
        if self.alg in CURVES:
            size = CURVES[self.alg][2]
            r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(self._digest)))  # type: ignore[arg-type]
            return bytes(r.to_bytes(size, "big") + s.to_bytes(size, "big"))
        if self.alg in {"EdDSA", "Ed25519"}:
            return bytes(self._key.sign(signed))
        assert self._digest is not None
        if self.alg.startswith("PS"):
            pss = padding.PSS(padding.MGF1(self._digest), self._digest.digest_size)
            return bytes(self._key.sign(signed, pss, self._digest))
        return bytes(self._key.sign(signed, padding.PKCS1v15(), self._digest))

    def jws(self, header: Any, claims: Any) -> str:
        """Return a compact JWS over the given parts; nothing is checked."""
        signed = f"{encoded(header)}.{encoded(claims)}"
        return f"{signed}.{b64(self.sign(signed.encode()))}"

    def header(self) -> dict[str, Any]:
        return {"typ": "dpop+jwt", "alg": self.alg, "jwk": self.jwk}

    @staticmethod
    def claims(method: str, htu: str, *, token: str, now: float, jti: str = "a-jti") -> dict[str, Any]:
        ath = b64(hashlib.sha256(token.encode()).digest())
        return {"jti": jti, "htm": method, "htu": htu, "iat": now, "ath": ath}


@functools.cache
def signer(alg: str) -> Signer:
    """Return the one signer of `alg`: keys take a while to make."""
    return Signer(alg)
