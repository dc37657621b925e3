"""A JWK Set as a resource server uses it: which keys may verify which signatures (RFC 7517 section 5).

And the source of the keys of a set that was given once.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dpop_middleware._log import escaped
from dpop_middleware.checks import Check
from dpop_middleware.health import IssuerKeysHealth
from dpop_middleware.jose import JOSEError, base64url
from dpop_middleware.jose.algorithms import ALGORITHMS, ED25519_NAMES, PublicKey
from dpop_middleware.jose.jwk import PRIVATE_MEMBERS, public_key, without_unset

__all__ = [
    "MAX_CANDIDATES",
    "MAX_KEYS",
    "Candidates",
    "KeySet",
    "LeftOut",
    "StaticKeySource",
    "VerificationKey",
    "log_left_out",
    "parse_key_set",
]

_LOG = logging.getLogger(__name__)

MAX_KEYS = 128
"""How many keys a set may have."""

MAX_CANDIDATES = 8
"""How many keys may fit one token; `SigningKeys` says which of them are tried."""

_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e")
_PRIVATE_MEMBERS = frozenset(PRIVATE_MEMBERS)
_MATERIAL = {"EC": ("x", "y"), "OKP": ("x",), "RSA": ("n", "e"), "AKP": ("pub",)}
_ENCRYPTION = frozenset(
    {"encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"}  # RFC 7517 section 4.3
)
_SHOWN = 100


class VerificationKey(NamedTuple):
    """A public key of an issuer, its `kid` and the names of the algorithms that it may verify.

    Two keys with the same `identity` are the same key for the same use under the same name.
    """

    kid: str | None
    algorithms: frozenset[str]
    key: PublicKey
    identity: str


class Candidates(NamedTuple):
    """The keys that fit a token, and whether the token's `kid` named them."""

    keys: tuple[VerificationKey, ...]
    named: bool


class LeftOut(NamedTuple):
    """A key of a JWK Set that isn't used, and the reason: short ASCII text without key material.

    `kid` is None where the key has none, or none that is a string. `meant` says that the key itself names a
    purpose other than signatures, which is allowed.
    """

    position: int
    kid: str | None
    reason: str
    meant: bool = False

    def __str__(self) -> str:
        name = "" if self.kid is None else f", kid {_shown(self.kid)},"
        return f"key {self.position} of the JWK Set{name} is left out: {self.reason}"


class KeySet:
    """The usable keys of one JWK Set, and the reasons why others aren't used."""

    def __init__(self, keys: tuple[VerificationKey, ...], left_out: tuple[LeftOut, ...] = ()) -> None:
        self.keys = keys
        self.left_out = left_out
        self.identities = frozenset(key.identity for key in keys)
        self._by_kid: dict[str | None, tuple[VerificationKey, ...]] = {
            kid: tuple(key for key in keys if key.kid == kid) for kid in {key.kid for key in keys}
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence about each key that isn't used although it isn't meant for another purpose."""
        return tuple(str(key) for key in self.left_out if not key.meant)

    def why_not(self, kid: str | None) -> str:
        """Return the sentence about a key with this `kid` that is in the set but isn't used, or ""."""
        return next((str(key) for key in self.left_out if kid is not None and key.kid == kid), "")

    def candidates(self, *, kid: str | None, algorithm: str) -> Candidates:
        """Return the keys that fit a token with this `kid` (None: it has none) and this `alg`: at most eight.

        Several keys may share a `kid`. Where no key has it, the keys without one fit; every key fits a token
        without `kid`.
        """
        named = kid is not None and kid in self._by_kid
        fitting = self.keys if kid is None else self._by_kid.get(kid if named else None, ())
        tried = tuple([key for key in fitting if algorithm in key.algorithms])
        return Candidates(tried[:MAX_CANDIDATES], named)


def log_left_out(key: LeftOut) -> None:
    """Log a key that isn't used: as a WARNING, unless it is meant for another purpose."""
    _LOG.log(logging.DEBUG if key.meant else logging.WARNING, "%s", key)


def parse_key_set(document: Mapping[str, Any], *, report: Callable[[LeftOut], None] = log_left_out) -> KeySet:
    """Return the keys of a JWK Set that can verify an asymmetric signature (RFC 7517 section 5).

    Left out, and each passed to `report`: symmetric keys and keys with private members, unknown types and
    curves, keys for another use, malformed keys, RSA keys outside 2048 to 8192 bits. So are keys after the
    first 128, of which the first one is passed. A member that is null or an empty array counts as not set.
    One unusable key doesn't affect the others. Raises JOSEError when the document has no `keys` array. It
    isn't checked that the set is not empty.
    """
    members = document.get("keys")
    if not isinstance(members, Sequence) or isinstance(members, (str, bytes)):
        raise JOSEError("the document has no array 'keys', so it isn't a JWK Set", check=Check.JWK)
    # A key that is listed twice would take the place of another one that is to be tried.
    keys: dict[str, VerificationKey] = {}
    left_out: list[LeftOut] = []
    for position, jwk in enumerate(members[: MAX_KEYS + 1]):
        try:
            key = _verification_key(jwk, position)
            keys.setdefault(key.identity, key)
        except _UnusableError as error:
            kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
            kid = kid if isinstance(kid, str) else None
            left_out.append(LeftOut(position, kid, str(error), meant=error.meant))
            report(left_out[-1])
    return KeySet(tuple(keys.values()), tuple(left_out))


class _UnusableError(Exception):
    def __init__(self, reason: str, *, meant: bool = False) -> None:
        super().__init__(reason)
        self.meant = meant


def _shown(value: object) -> str:
    return escaped(value, most=_SHOWN)


def _verification_key(document: object, position: int) -> VerificationKey:
    if position >= MAX_KEYS:
        raise _UnusableError(f"it and those after it are beyond the {MAX_KEYS} keys that are read")
    if not isinstance(document, Mapping):
        raise _UnusableError("it is not an object")
    jwk = without_unset(document)
    private = sorted(_PRIVATE_MEMBERS.intersection(jwk))
    if private:
        raise _UnusableError(f"it holds private or symmetric key material, in its {', '.join(private)}")
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise _UnusableError(f"its kid is {_shown(kid)}, not a string")
    algorithms = _algorithms(jwk)
    key = _public_key(jwk)
    # The octets are those of the key itself, so that another encoding of the same key has the same identity.
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    identity = hashlib.sha256(repr((kid, sorted(algorithms))).encode("utf-8", "surrogatepass") + octets)
    return VerificationKey(kid=kid, algorithms=algorithms, key=key, identity=identity.hexdigest())


def _algorithms(jwk: Mapping[str, Any]) -> frozenset[str]:
    use = jwk.get("use", "sig")
    if use != "sig":
        raise _UnusableError(f"its use is {_shown(use)}, not 'sig'", meant=use == "enc")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, (list, tuple)):
        raise _UnusableError(f"its key_ops is {_shown(operations)}, not an array")
    if "verify" not in operations:
        encryption = all(isinstance(name, str) and name in _ENCRYPTION for name in operations)
        raise _UnusableError(f"its key_ops are {_shown(operations)}, without 'verify'", meant=encryption)
    kty = jwk.get("kty")
    crv = None if kty == "RSA" else jwk.get("crv")
    fitting = frozenset(name for name, row in ALGORITHMS.items() if (row.kty, row.crv) == (kty, crv))
    if not fitting:
        curve = "" if crv is None else f" with the crv {_shown(crv)}"
        raise _UnusableError(f"its kty {_shown(kty)}{curve} is not supported")
    if "alg" not in jwk and kty == "AKP":
        raise _UnusableError("it lacks alg, which its kty 'AKP' requires")
    if "alg" not in jwk:
        return fitting
    names = ED25519_NAMES if jwk["alg"] in ED25519_NAMES else (jwk["alg"],)
    allowed = frozenset(name for name in fitting if name in names)
    if not allowed:
        raise _UnusableError(
            f"its alg is {_shown(jwk['alg'])}, which is not supported or for another type of key"
        )
    return allowed


def _public_key(jwk: Mapping[str, Any]) -> PublicKey:
    names = _MATERIAL[jwk["kty"]]
    for name in names:
        if not isinstance(jwk.get(name), str):
            raise _UnusableError(
                f"its {name} is {_shown(jwk[name])}, not a string" if name in jwk else f"it lacks {name}"
            )
    try:
        key: PublicKey = (
            public_key(dict(jwk), ALGORITHMS[jwk["alg"]])
            if jwk["kty"] == "AKP"
            else jwt.PyJWK({name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}).key
        )
    # PyJWT raises KeyError, TypeError, AttributeError and more for malformed members.
    except Exception as error:
        raise _UnusableError(f"it is malformed: no key has this {' and '.join(names)}") from error
    if isinstance(key, RSAPublicKey) and not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise _UnusableError(
            f"its n, the RSA modulus, has {key.key_size} bits, not {_MIN_RSA_BITS} to {_MAX_RSA_BITS}"
        )
    if isinstance(key, Ed25519PublicKey):
        _check_order(key)
    return key


def _check_order(key: Ed25519PublicKey) -> None:
    """Refuse a point of small order, for which anybody can make a signature."""
    x = base64url.encode(key.public_bytes_raw())
    try:
        public_key({"kty": "OKP", "crv": "Ed25519", "x": x}, ALGORITHMS["EdDSA"])
    except JOSEError as error:
        raise _UnusableError("its x is an Ed25519 key of small order") from error


class StaticKeySource:
    """Keys that were given once and never change."""

    renewable = False
    """Whether there may ever be other keys."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def current(self) -> KeySet:
        """Return the keys."""
        return self._keys

    async def load(self) -> KeySet:
        """Return the keys."""
        return self._keys

    async def newer_than(self, keys: KeySet, *, since: float, wanted: str) -> KeySet:  # noqa: ARG002 - none are newer
        """Return the same keys: there are no newer ones."""
        return keys

    def age(self) -> float | None:
        """Return None: they don't age."""
        return None

    def open(self) -> None:
        """Do nothing."""

    async def health(self) -> IssuerKeysHealth:
        """Return how many keys there are."""
        return IssuerKeysHealth(ok=True, keys=len(self._keys.keys), warnings=self._keys.warnings)

    async def aclose(self) -> None:
        """Do nothing."""
