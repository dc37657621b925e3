"""Signing keys of an issuer for every algorithm, and tokens of any form signed by them."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from dpop_middleware.jose import base64url

ISSUER = "https://as.example.com"
RESOURCE = "https://api.example.com"
JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"

_CURVES: Mapping[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


@dataclass(frozen=True)
class IssuerKey:
    """A private key that signs by one algorithm."""

    alg: str
    private: Any
    kid: str | None = "key-1"

    @property
    def jwk(self) -> dict[str, Any]:
        """The public JWK, with `kid` but without `alg` and `use`."""
        document: dict[str, Any] = json.loads(_signer(self.alg).to_jwk(self.private.public_key()))
        document.pop("key_ops", None)
        return document if self.kid is None else document | {"kid": self.kid}

    def sign(self, header: Mapping[str, Any] | str, claims: Mapping[str, Any] | str | bytes) -> str:
        """Sign any header and payload: mappings, or text for content that a mapping can't have."""
        texts = [
            part
            if isinstance(part, bytes)
            else (part if isinstance(part, str) else json.dumps(part)).encode()
            for part in (header, claims)
        ]
        signing_input = ".".join(base64url.encode(text) for text in texts)
        signature = _signer(self.alg).sign(signing_input.encode(), self.private)
        return f"{signing_input}.{base64url.encode(signature)}"

    def token(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A valid RFC 9068 token, with changed `header` and `claims`; Ellipsis removes a member."""
        kid = {} if self.kid is None else {"kid": self.kid}
        return self.sign(
            _merged({"typ": "at+jwt", "alg": self.alg} | kid, header or {}),
            _merged(good_claims(), claims),
        )


def good_claims(now: float | None = None) -> dict[str, Any]:
    now = int(time.time() if now is None else now)
    return {
        "iss": ISSUER,
        "aud": RESOURCE,
        "sub": "someone@example.com",
        "client_id": "s6BhdRkqt3",
        "iat": now,
        "exp": now + 600,
        "jti": "-BwC3ESc6acc2lTc",
        "scope": "notes:read notes:write",
        "cnf": {"jkt": JKT},
    }


def _merged(defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**defaults, **changes}.items() if value is not ...}


def _signer(alg: str) -> Any:
    return get_default_algorithms()["EdDSA" if alg == "Ed25519" else alg]


@cache
def _rsa(number: int, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def issuer_key(
    alg: str = "ES256", *, number: int = 1, bits: int = 2048, kid: str | None = "key-1"
) -> IssuerKey:
    """The key `number` for `alg`: the same one each time, since RSA keys are slow to make."""
    if alg in _CURVES:
        private: Any = ec.generate_private_key(_CURVES[alg])
    elif alg in ("EdDSA", "Ed25519"):
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = _rsa(number, bits)
    return IssuerKey(alg, private, kid)


def key_set(*keys: IssuerKey) -> dict[str, Any]:
    return {"keys": [key.jwk for key in keys]}
