"""A JWK Set as a resource server uses it: which public keys may verify what (RFC 7517 section 5)."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dpop_middleware.checks import Check
from dpop_middleware.jose import base64url
from dpop_middleware.jose.algorithms import ALGORITHMS, PublicKey
from dpop_middleware.jose.errors import JOSEError
from dpop_middleware.jose.jwk import public_key

__all__ = ["Candidates", "KeySet", "VerificationKey", "parse_key_set"]

logger = logging.getLogger(__name__)

MAX_KEYS = 128
MAX_TRIES = 8

_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e")
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_EDDSA = ("EdDSA", "Ed25519")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key of an issuer, the `kid` it goes by and the names of the algorithms that it may verify.

    Two keys with the same `identity` are the same key for the same use under the same name.
    """

    kid: str | None
    algorithms: frozenset[str]
    key: PublicKey
    identity: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """The keys to try for a token, and whether the token's `kid` named them."""

    keys: tuple[VerificationKey, ...]
    named: bool


class KeySet:
    """The usable keys of one JWK Set."""

    def __init__(self, keys: tuple[VerificationKey, ...]) -> None:
        self.keys = keys
        self.identities = frozenset(key.identity for key in keys)

    def candidates(self, *, kid: str | None, algorithm: str) -> Candidates:
        """Return the keys to try for a token with this `kid` (None: it has none) and this `alg`.

        Several keys may share a `kid`. Where no key has it, the keys without one are tried; a token without
        `kid` tries every key. At most eight are returned, since each try is a signature verification.
        """
        named = kid is not None and any(key.kid == kid for key in self.keys)
        tried = tuple(
            key
            for key in self.keys
            if algorithm in key.algorithms and (kid is None or key.kid == (kid if named else None))
        )
        return Candidates(tried[:MAX_TRIES], named)


def parse_key_set(document: Mapping[str, Any]) -> KeySet:
    """Return the keys of a JWK Set that can verify an asymmetric signature (RFC 7517 section 5).

    Left out, each with a log line: symmetric keys and keys with private members, unknown types and curves,
    keys for another use, malformed keys, RSA keys outside 2048 to 8192 bits, and what follows the first 128.
    One odd key doesn't spoil the set. Raises JOSEError when the document has no `keys` array. That the
    set is not empty isn't checked.
    """
    members = document.get("keys")
    if not isinstance(members, Sequence) or isinstance(members, str):
        raise JOSEError("the document has no array 'keys', so it is no JWK Set", check=Check.JWK)
    if len(members) > MAX_KEYS:
        logger.warning("the JWK Set has %d keys: only the first %d are used", len(members), MAX_KEYS)
    keys: list[VerificationKey] = []
    for position, jwk in enumerate(members[:MAX_KEYS]):
        try:
            keys.append(_verification_key(jwk))
        except _UnusableError as reason:
            logger.log(reason.level, "key %d of the JWK Set is left out: %s", position, reason)
    return KeySet(tuple(keys))


class _UnusableError(Exception):
    def __init__(self, reason: str, *, level: int = logging.DEBUG) -> None:
        super().__init__(reason)
        self.level = level


def _verification_key(jwk: object) -> VerificationKey:
    if not isinstance(jwk, Mapping):
        raise _UnusableError("it is not an object", level=logging.WARNING)
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise _UnusableError("it holds private or symmetric key material", level=logging.WARNING)
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise _UnusableError("its kid is not a string", level=logging.WARNING)
    algorithms = _algorithms(jwk)
    key = _public_key(jwk)
    # The octets are those of the key itself, so another spelling of the same key changes nothing.
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    identity = hashlib.sha256(repr((kid, sorted(algorithms))).encode("utf-8", "surrogatepass") + octets)
    return VerificationKey(kid=kid, algorithms=algorithms, key=key, identity=identity.hexdigest())


def _algorithms(jwk: Mapping[str, Any]) -> frozenset[str]:
    if jwk.get("use", "sig") != "sig":
        raise _UnusableError("it is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, (list, tuple)) or "verify" not in operations:
        raise _UnusableError("it is not for verifying")
    kty = jwk.get("kty")
    crv = None if kty == "RSA" else jwk.get("crv")
    fitting = frozenset(name for name, row in ALGORITHMS.items() if (row.kty, row.crv) == (kty, crv))
    if not fitting:
        raise _UnusableError("its type or curve is not supported")
    if "alg" not in jwk:
        return fitting
    # RFC 9864 gave EdDSA over Ed25519 a name of its own: a key that says either may verify both.
    names = _EDDSA if jwk["alg"] in _EDDSA else (jwk["alg"],)
    allowed = frozenset(name for name in fitting if name in names)
    if not allowed:
        raise _UnusableError("its alg is not supported or is for another type of key")
    return allowed


def _public_key(jwk: Mapping[str, Any]) -> PublicKey:
    try:
        key: PublicKey = jwt.PyJWK({name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}).key
    # PyJWT lets KeyError, TypeError, AttributeError and more out for odd members.
    except Exception as error:
        raise _UnusableError("it is malformed", level=logging.WARNING) from error
    if isinstance(key, RSAPublicKey) and not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise _UnusableError("its RSA modulus is too short or too long", level=logging.WARNING)
    if isinstance(key, Ed25519PublicKey):
        _check_order(key)
    return key


def _check_order(key: Ed25519PublicKey) -> None:
    """Refuse a point of small order, under which anybody can make a signature."""
    x = base64url.encode(key.public_bytes_raw())
    try:
        public_key({"kty": "OKP", "crv": "Ed25519", "x": x}, ALGORITHMS["EdDSA"])
    except JOSEError as error:
        raise _UnusableError("it is an Ed25519 key of small order", level=logging.WARNING) from error
