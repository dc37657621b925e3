"""The claims of a JWT access token, each parsed and judged (RFC 9068 sections 2.2 and 4, RFC 7519 section 4).

They are judged after the signature, so the issuer wrote them. They are judged strictly all the same: an
issuer that writes a claim in another form means something unknown here.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from dpop_middleware._log import shown
from dpop_middleware._options import SCOPE_TOKEN, names, names_or_one, refused
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import LATEST_TIME, JOSEError, strict
from dpop_middleware.jose.jwk import is_thumbprint
from dpop_middleware.jose.strict import media_type
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.cache import VerifiedToken, read_only_claims
from dpop_middleware.tokens.optional_members import checked_clock_skew

__all__ = [
    "NEVER_DROPPED",
    "ClaimRules",
    "another_issuer",
    "checked_required_claims",
    "checked_token_types",
    "claim_rules",
    "difference",
    "judge_claims",
    "speaks_for_nobody",
]

NEVER_DROPPED = ("iss", "exp", "aud")
"""The claims that say which issuer a token is from, until when it is valid, and for which audience."""

_CERTIFICATE = "x5t#S256"
_MOST_OF_AN_ISSUER = 600


class ClaimRules(NamedTuple):
    """What a token must say. `clock_skew` is in seconds; `names_issuer` is that of `AccessToken`."""

    issuer: str
    audiences: frozenset[str]
    required: tuple[str, ...]
    scope_claims: tuple[str, ...]
    client_id_claims: tuple[str, ...]
    clock_skew: float
    names_issuer: bool = False


def claim_rules(
    *,
    issuer: str,
    audience: object,
    required: tuple[str, ...],
    scope_claims: object,
    client_id_claims: object,
    clock_skew: float,
) -> ClaimRules:
    """Return the rules that a verifier's options of these names ask for; `issuer` and `required` are checked.

    Raises ConfigurationError.
    """
    return ClaimRules(
        issuer=issuer,
        audiences=frozenset(names_or_one("audience", audience)),
        required=required,
        scope_claims=names("scope_claims", scope_claims),
        client_id_claims=names("client_id_claims", client_id_claims),
        clock_skew=checked_clock_skew("clock_skew", clock_skew),
    )


def checked_required_claims(claims: object) -> tuple[str, ...]:
    """Return the names that the option `required_claims` gives, or raise ConfigurationError."""
    named = names("required_claims", claims)
    if not set(NEVER_DROPPED).issubset(named):
        raise refused("required_claims", "names with iss, exp and aud among them", claims)
    return named


def checked_token_types(types: object) -> tuple[str | None, ...]:
    """Return the media types that the option `token_types` names, or raise ConfigurationError."""
    if (
        isinstance(types, (str, Mapping))
        or not isinstance(types, Collection)
        or not types
        or not all(name is None or (isinstance(name, str) and name and name.isascii()) for name in types)
    ):
        takes = "the accepted values of typ, such as ('at+jwt', 'JWT', None), None for no typ"
        raise refused("token_types", takes, types)
    return tuple(dict.fromkeys(media_type(name) for name in types))


def judge_claims(
    payload: bytes, *, rules: ClaimRules, now: float, key_identity: str = "", token_hash: str = ""
) -> VerifiedToken:
    """Return what a signed payload says, or raise InvalidToken.

    - `payload`: the bytes under the signature; `key_identity`: the key that signed them.
    - `token_hash`: the hash of the token that holds them.
    - `now`: seconds since the epoch.
    """
    try:
        claims = strict.parse_object(payload)
    except JOSEError as error:
        raise InvalidToken("the access token's claims are malformed", check=Check.TOKEN_CLAIMS) from error
    _require(claims, rules)
    subject = _text(claims, "sub") or None
    client_id = _client_id(claims, rules)
    if subject is None and not client_id:
        raise speaks_for_nobody("sub", *rules.client_id_claims)
    _text(claims, "jti")
    scopes = _scopes(claims, rules.scope_claims)
    expires_at = _time(claims, "exp", default=math.inf)
    not_before = max(_time(claims, "nbf", default=-math.inf), _time(claims, "iat", default=-math.inf))
    _judge_issuer(claims, rules)
    _judge_audience(claims, rules)
    if expires_at + rules.clock_skew <= now:
        raise InvalidToken(
            "the access token has expired", check=Check.TOKEN_TIME, expected=now, actual=expires_at
        )
    if not_before - rules.clock_skew > now:
        raise InvalidToken(
            "the access token is not valid yet", check=Check.TOKEN_TIME, expected=now, actual=not_before
        )
    access_token = AccessToken(
        claims=read_only_claims(payload),
        issuer=rules.issuer,
        subject=subject,
        client_id=client_id,
        scopes=scopes,
        expires_at=expires_at,
        jkt=_confirmation(claims),
        names_issuer=rules.names_issuer,
    )
    return VerifiedToken(
        access_token=access_token, token_hash=token_hash, not_before=not_before, key_identity=key_identity
    )


def speaks_for_nobody(*names: str) -> InvalidToken:
    """Return the error for a token with neither a subject nor a client; `names` are the claims for them."""
    return InvalidToken(
        "the access token names neither a subject nor a client", check=Check.TOKEN_CLAIMS, expected=names
    )


def _malformed(name: str, actual: object) -> InvalidToken:
    return InvalidToken(
        "a claim of the access token is malformed",
        check=Check.TOKEN_CLAIMS,
        expected=name,
        actual=shown(actual),
    )


def _require(claims: Mapping[str, Any], rules: ClaimRules) -> None:
    present = claims.keys()
    for name in rules.required:
        alternatives = rules.client_id_claims if name == "client_id" else (name,)
        if present.isdisjoint(alternatives):
            raise InvalidToken(
                "the access token lacks a required claim",
                check=Check.TOKEN_CLAIMS,
                expected=" or ".join(alternatives),
            )


def _text(claims: Mapping[str, Any], name: str) -> str:
    if name not in claims:
        return ""
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise _malformed(name, value)
    return value


def _client_id(claims: Mapping[str, Any], rules: ClaimRules) -> str:
    for name in rules.client_id_claims:
        if name in claims:
            return _text(claims, name)
    return ""


def _time(claims: Mapping[str, Any], name: str, *, default: float) -> float:
    if name not in claims:
        return default
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LATEST_TIME:
        raise _malformed(name, value)
    return value


def _scopes(claims: Mapping[str, Any], names: tuple[str, ...]) -> frozenset[str]:
    scopes: set[str] = set()
    for name in names:
        value = claims.get(name, "")
        tokens = list(filter(None, value.split(" "))) if isinstance(value, str) else value
        if not isinstance(tokens, list):
            raise _malformed(name, value)
        for token in tokens:
            if not isinstance(token, str) or not SCOPE_TOKEN.fullmatch(token):
                raise _malformed(name, value)
        scopes.update(tokens)
    return frozenset(scopes)


def another_issuer(named: object, expected: str | tuple[str, ...]) -> InvalidToken:
    """Return the error for a token whose issuer is `named` so, where `expected` was."""
    return InvalidToken(
        "the access token is from another issuer",
        check=Check.TOKEN_ISS,
        expected=expected,
        # All of it, where it isn't absurd: a hint says what differs from ours.
        actual=shown(named, most=_MOST_OF_AN_ISSUER),
    )


# For a machine these are two names (RFC 7519 section 2).
_DIFFERENCES: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("only a trailing slash differs", lambda name: name.rstrip("/")),
    ("only upper and lower case differ", str.lower),
    ("a trailing slash and upper and lower case differ", lambda name: name.rstrip("/").lower()),
)


def difference(ours: Iterable[str], theirs: Iterable[str]) -> str | None:
    """Return how one of `ours` differs from one of `theirs`, None where they differ in more than spelling.

    Of several pairs, the one that differs least counts.
    """
    ours, theirs = tuple(ours), tuple(theirs)
    for words, unified in _DIFFERENCES:
        if not set(map(unified, ours)).isdisjoint(map(unified, theirs)):
            return words
    return None


def _judge_issuer(claims: Mapping[str, Any], rules: ClaimRules) -> None:
    if claims["iss"] != rules.issuer:
        raise another_issuer(claims["iss"], rules.issuer)


def _judge_audience(claims: Mapping[str, Any], rules: ClaimRules) -> None:
    value = claims["aud"]
    if isinstance(value, str):
        is_ours = value in rules.audiences
    elif isinstance(value, list) and all(isinstance(audience, str) for audience in value):
        is_ours = not rules.audiences.isdisjoint(value)
    else:
        raise _malformed("aud", value)
    if not is_ours:
        raise InvalidToken(
            "the access token is for another audience",
            check=Check.TOKEN_AUD,
            expected=sorted(rules.audiences),
            actual=shown(value),
        )


def _confirmation(claims: Mapping[str, Any]) -> str | None:
    """Return `cnf.jkt`, None where there is no `cnf` (RFC 9449 section 6.1, RFC 7800 section 3.1).

    Any other confirmation is refused under both schemes: such a token is bound, so it must not be accepted as
    Bearer, and bound to something that can't be checked here, so it must not be accepted as DPoP. That holds
    for a client certificate beside `jkt` too (RFC 8705): an issuer that bound the token to both wants both
    checked. Null there says that there is none, as some serializers write it. Unknown members are ignored, as
    RFC 7800 section 3.1 requires.
    """
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    jkt = cnf.get("jkt") if isinstance(cnf, dict) and cnf.get(_CERTIFICATE) is None else None
    if not is_thumbprint(jkt):
        raise InvalidToken(
            "the access token is bound by a confirmation method that is not supported here",
            check=Check.BINDING,
            expected="jkt",
            actual=shown(cnf),
        )
    return jkt
