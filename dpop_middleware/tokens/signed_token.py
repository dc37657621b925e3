"""The form and the header of a JWT access token, before its signature (RFC 7515, RFC 9068 section 4).

Nothing in a token says how it is to be verified. `jwk`, `jku`, `x5u` and `x5c` in the header are never looked
at, and `alg` and `kid` only choose among what the configuration and the issuer allow.
"""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import JOSEError, base64url, compact
from dpop_middleware.jose.algorithms import ALGORITHMS, Algorithm
from dpop_middleware.jose.compact import media_type, parse_header
from dpop_middleware.jose.strict_json import Bounds
from dpop_middleware.tokens.jwks import VerificationKey

__all__ = ["MAX_TOKEN_SIZE", "SignedToken", "not_a_jwt", "parse_signed_token", "shown"]

MAX_TOKEN_SIZE = 16 * 1024
"""Characters of the longest token that is looked at."""

_JWE_DOTS = 4
# Whoever has no token can send one. It has no key in it; room for one certificate, which is never looked at.
_HEADER = Bounds(size=1536, structure=48, containers=4, escapes=40)
# All tokens of one key have the same header. Who sends others has each of them read.
_REMEMBERED = 64
_LONGEST_REMEMBERED = 512
_UNSUPPORTED_MEMBERS = ("crit", "b64", "zip", "enc")
_SHOWN = 100


class SignedToken(NamedTuple):
    """A JWS whose header is acceptable, and nothing else of it known yet."""

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


def shown(value: object) -> str:
    """Return what a token says for the log, cut short."""
    # A string is cut first: to escape it costs more than to receive it.
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


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
