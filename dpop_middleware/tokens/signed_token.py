"""The form and the header of a JWT access token, judged before its signature, and the key that signed it.

RFC 7515, RFC 9068 section 4. Nothing in a token decides how it is verified. `jwk`, `jku`, `x5u` and `x5c` in
the header are never used, and `alg` and `kid` only choose among what the configuration and the issuer allow.

A token without `kid` may be signed by any key that fits (RFC 7515 section 4.1.4). A forged one would cause
attempts with all of them, so at most two are tried, and only ten attempts per second beyond the first one may
fail: a flood of forgeries costs one verification each. The key that made the last good signature is tried
first; while only one may be tried, the two keys take turns.
"""

import time
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import JOSEError, base64url, compact
from dpop_middleware.jose.algorithms import ALGORITHMS, Algorithm
from dpop_middleware.jose.compact import media_type, parse_header
from dpop_middleware.jose.strict_json import Bounds
from dpop_middleware.tokens.access_token import shown
from dpop_middleware.tokens.jwks import VerificationKey

__all__ = [
    "SignedToken",
    "SigningKeys",
    "not_a_jwt",
    "parse_signed_token",
    "signed_by_none_of",
]

_JWE_DOTS = 4
# Limits, since anybody can send a header. It holds no key; there is room for one certificate, which isn't
# used. No header parameter is a fraction, and reading one costs more than receiving it.
_HEADER = Bounds(size=1536, structure=64, containers=4, escapes=40, fractions=False)
# All tokens of one key have the same header; any other header is read each time.
_REMEMBERED = 64
_LONGEST_REMEMBERED = 512
_UNSUPPORTED_MEMBERS = ("crit", "b64", "zip", "enc")
_MAX_TRIES: Final = 2
_VAIN_TRIES_PER_SECOND: Final = 10


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


def not_a_jwt(why: str | None = None) -> InvalidToken:
    """Return the error for a string that isn't a signed JWT; `why` is for the log."""
    return InvalidToken("the access token is not a signed JWT", check=Check.TOKEN_FORMAT, actual=why)


def signed_by_none_of(keys: tuple[VerificationKey, ...]) -> InvalidToken:
    """Return the error for a token that fits `keys`, and was signed by none of those that were tried."""
    if len(keys) > _MAX_TRIES:
        return _names_no_key()
    return InvalidToken("the access token's signature is wrong", check=Check.TOKEN_SIGNATURE)


def _names_no_key() -> InvalidToken:
    return InvalidToken(
        "the access token names no key, and none of the keys that were tried signed it",
        check=Check.TOKEN_KEY,
        expected="kid",
    )


def parse_signed_token(
    token: str, *, token_types: tuple[str | None, ...], algorithms: tuple[str, ...]
) -> SignedToken:
    """Split and decode a token and judge its header (RFC 9068 section 4); raises InvalidToken.

    - `token_types`: the accepted media types as `media_type` writes them, None for a header without `typ`.
    - `algorithms`: the accepted values of `alg`, all of them in `jose.algorithms.ALGORITHMS`.
    """
    try:
        jws = compact.split(token)
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
    """Finds the key that signed a token, at a bounded cost; `monotonic` returns seconds."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last = ""
        self._second = 0
        self._in_vain = 0
        self._turns = 0

    def signer(
        self, signed: SignedToken, keys: tuple[VerificationKey, ...], *, tried: int = 0
    ) -> VerificationKey | None:
        """Return the one of `keys` that made the signature, or None.

        `tried` is how many keys were tried for this token before. Raises InvalidToken where too many attempts
        failed in this second to try another key.
        """
        if len(keys) > 1:
            keys = tuple(sorted(keys, key=self._is_another))[:_MAX_TRIES]
        only_one = tried + len(keys) > 1 and self._budget_is_spent()
        if only_one:
            self._turns += 1
            # In turns: a sender of forgeries must not lock out all tokens of an issuer's other key.
            keys = () if tried else (keys[self._turns % len(keys)],)
        for key in keys:
            if signed.is_signed_by(key):
                self._last = key.identity
                return key
            if tried:
                self._in_vain += 1
            tried += 1
        if only_one:
            raise _names_no_key()
        return None

    def _is_another(self, key: VerificationKey) -> bool:
        return key.identity != self._last

    def _budget_is_spent(self) -> bool:
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._in_vain = second, 0
        return self._in_vain >= _VAIN_TRIES_PER_SECOND
