"""The form and the header of a JWT access token, judged before its signature, and the key that signed it.

RFC 7515, RFC 9068 section 4. Nothing in a token decides how it is verified. `jwk`, `jku`, `x5u` and `x5c` in
the header are never used, and `alg` and `kid` only choose among what the configuration and the issuer allow.

A token without `kid` may be signed by any key that fits (RFC 7515 section 4.1.4). A forged one would cause
attempts with all of them, so at most two are tried, and only ten attempts per second beyond the first one may
fail: a flood of forgeries costs one verification each. The key that made the last good signature is tried
first; while only one may be tried, the two keys take turns.

While the issuer's keys change, honest tokens fail as well. So a new key in the set is tried for each token
that waited for it, and so is the key that was put off; and what failed before it came no longer counts.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from dpop_middleware._log import shown
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import JOSEError, base64url, strict
from dpop_middleware.jose.algorithms import ALGORITHMS, Algorithm
from dpop_middleware.jose.strict import Bounds, media_type, parse_header
from dpop_middleware.tokens.jwks import VerificationKey

__all__ = [
    "KeySearch",
    "SignedToken",
    "SigningKeys",
    "has_three_segments",
    "not_a_jwt",
    "parse_signed_token",
]

_JWS_DOTS, _JWE_DOTS = 2, 4
# Limits, since anybody can send a header. It holds no key; there is room for one certificate, which isn't
# used. No header parameter is a fraction, and reading one costs more than receiving it.
_HEADER = Bounds(size=1536, structure=64, containers=4, escapes=40, fractions=False)
# All tokens of one key have the same header; any other header is read each time.
_REMEMBERED = 64
_LONGEST_REMEMBERED = 512
_UNSUPPORTED_MEMBERS = ("crit", "b64", "zip", "enc")
_MAX_TRIES: Final = 2
_VAIN_TRIES_PER_SECOND: Final = 10
_MOST_KNOWN: Final = 1024  # an issuer may change its keys for years


class SignedToken(NamedTuple):
    """A JWS whose header is acceptable; nothing else of it was checked yet."""

    algorithm: Algorithm
    kid: str | None
    signing_input: bytes
    signature: bytes
    encoded_payload: str

    def __repr__(self) -> str:
        return f"SignedToken(algorithm={self.algorithm!r}, kid={self.kid!r})"

    @property
    def payload(self) -> bytes:
        """The claims, decoded; raises InvalidToken where they are not base64url."""
        try:
            return base64url.decode(self.encoded_payload)
        except JOSEError as error:
            raise not_a_jwt(error.description) from error

    def is_signed_by(self, key: VerificationKey) -> bool:
        """Whether `key` made the signature."""
        return self.algorithm.verify(key.key, self.signing_input, self.signature)


def has_three_segments(token: str) -> bool:
    """Whether `token` has the form of a signed JWT, whatever its segments hold; an opaque one has another."""
    return token.count(".") == _JWS_DOTS


def not_a_jwt(why: str | None = None) -> InvalidToken:
    """Return the error for a string that isn't a signed JWT; `why` is for the log."""
    return InvalidToken("the access token is not a signed JWT", check=Check.TOKEN_FORMAT, actual=why)


def parse_signed_token(
    token: str, *, token_types: tuple[str | None, ...], algorithms: tuple[str, ...]
) -> SignedToken:
    """Split and decode a token and judge its header (RFC 9068 section 4); raises InvalidToken.

    - `token_types`: the accepted media types as `media_type` writes them, None for a header without `typ`.
    - `algorithms`: the accepted values of `alg`, all of them in `jose.algorithms.ALGORITHMS`.
    """
    try:
        jws = strict.split(token)
        read = _read_header if len(jws.header) <= _LONGEST_REMEMBERED else _read_header.__wrapped__
        algorithm, kid = read(jws.header, token_types, algorithms)
        signature = base64url.decode(jws.signature)
    except JOSEError as error:
        if token.count(".") == _JWE_DOTS:
            raise InvalidToken(
                "encrypted access tokens (JWE) are not supported", check=Check.TOKEN_FORMAT
            ) from error
        raise not_a_jwt(error.description) from error
    return SignedToken(algorithm, kid, jws.signing_input, signature, jws.payload)


@lru_cache(maxsize=_REMEMBERED)
def _read_header(
    segment: str, token_types: tuple[str | None, ...], algorithms: tuple[str, ...]
) -> tuple[Algorithm, str | None]:
    """Return algorithm and `kid` of an acceptable header."""
    header = parse_header(segment, _HEADER)
    _judge_members(header)
    _judge_typ(header, token_types)
    return _algorithm(header, algorithms), header.get("kid")


def _judge_members(header: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED_MEMBERS:
        # `b64` true is how every JWS is encoded anyway (RFC 7797 section 3).
        if name in header and (name != "b64" or header[name] is not True):
            raise InvalidToken(
                "the access token's header asks for something that is not supported",
                check=Check.TOKEN_FORMAT,
                actual=name,
            )
    if not isinstance(header.get("kid", ""), str):
        raise InvalidToken("the access token's kid is not a string", check=Check.TOKEN_FORMAT)


def _judge_typ(header: Mapping[str, Any], token_types: Collection[str | None]) -> None:
    typ = header.get("typ")
    named = media_type(typ)
    if named not in token_types or (named is None and "typ" in header):
        raise InvalidToken(
            "the access token's typ is not accepted",
            check=Check.TOKEN_TYP,
            expected=token_types,
            actual=shown(typ),
        )


def _algorithm(header: Mapping[str, Any], algorithms: Collection[str]) -> Algorithm:
    name = header.get("alg")
    if not isinstance(name, str) or name not in algorithms:
        raise InvalidToken(
            "the access token's alg is not accepted",
            check=Check.TOKEN_ALG,
            expected=algorithms,
            actual=shown(name),
        )
    return ALGORITHMS[name]


class SigningKeys:
    """What earlier searches found, and how many attempts failed; `monotonic` returns seconds."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last = ""
        self._second = 0
        self._in_vain = 0
        self._turns = 0
        self._known: frozenset[str] = frozenset()

    def search(self, signed: SignedToken) -> "KeySearch":
        """Return the search for the key that signed a token."""
        return KeySearch(signed, self)

    def in_order(self, keys: Sequence[VerificationKey]) -> Sequence[VerificationKey]:
        """Return those of `keys` that may be tried, the one that made the last good signature first."""
        return sorted(keys, key=self._is_another)[:_MAX_TRIES]

    def only_one(
        self, fitting: Sequence[VerificationKey], keys: Sequence[VerificationKey]
    ) -> VerificationKey | None:
        """Return the only one of `keys` to try for a token, None where all of them may be tried.

        `fitting` are all keys that fit such a token.
        """
        identities = frozenset(key.identity for key in fitting)
        if not identities <= self._known:
            self._in_vain = 0
            # Not these alone: a sender of forgeries chooses, by `kid` and `alg`, which keys fit.
            self._known = identities | (self._known if len(self._known) < _MOST_KNOWN else frozenset())
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._in_vain = second, 0
        if self._in_vain < _VAIN_TRIES_PER_SECOND:
            return None
        # In turns: a sender of forgeries must not lock out all tokens of an issuer's other key.
        self._turns += 1
        return keys[self._turns % len(keys)]

    def ended(self, found: VerificationKey | None, *, in_vain: int) -> None:
        """Note the result of some attempts; `in_vain` is how many others than a token's first one failed."""
        if found is None:
            self._in_vain += in_vain
        else:
            self._last = found.identity

    def _is_another(self, key: VerificationKey) -> bool:
        return key.identity != self._last


class KeySearch:
    """Finds the key that signed one token, at a bounded cost."""

    def __init__(self, signed: SignedToken, signing_keys: SigningKeys) -> None:
        self._signed = signed
        self._signing_keys = signing_keys
        self._seen: frozenset[str] = frozenset()
        self._tried: frozenset[str] = frozenset()
        self._put_off = ""

    def among(self, keys: Sequence[VerificationKey]) -> VerificationKey | None:
        """Return the one of `keys` that made the signature, None if it isn't among those that were tried.

        `keys` are all that fit the token. In a second call, with a newer set, only new keys are tried, and
        with these the one that was put off; nothing is where there is no new one.
        """
        identities = frozenset([key.identity for key in keys])
        if identities <= self._seen:
            return None
        chosen = self._chosen(keys) if len(keys) > 1 else keys
        self._seen |= identities
        return self._signer(chosen)

    def _chosen(self, keys: Sequence[VerificationKey]) -> Sequence[VerificationKey]:
        """Return those of `keys`, of which some are new, that may be tried now."""
        new = [key for key in keys if key.identity not in self._seen]
        put_off = [key for key in keys if key.identity == self._put_off]
        chosen = self._signing_keys.in_order(new + put_off)
        if len(chosen) > 1 and not self._seen:
            only = self._signing_keys.only_one(keys, chosen)
            if only is not None:
                (self._put_off,) = (key.identity for key in chosen if key is not only)
                return [only]
        return chosen

    def failure(self, keys: Sequence[VerificationKey]) -> InvalidToken:
        """Return the error for a token that fits `keys`, and was signed by none of those that were tried."""
        if self._tried.issuperset(key.identity for key in keys):
            return InvalidToken("the access token's signature is wrong", check=Check.TOKEN_SIGNATURE)
        return InvalidToken(
            "the access token names no key, and its signature is by none of those tried",
            check=Check.TOKEN_KEY,
            expected="kid",
        )

    def _signer(self, keys: Sequence[VerificationKey]) -> VerificationKey | None:
        in_vain = len(keys) if self._tried else len(keys) - 1
        found = next(filter(self._signed.is_signed_by, keys), None)
        self._tried = self._tried.union([key.identity for key in keys])
        self._signing_keys.ended(found, in_vain=in_vain)
        return found
