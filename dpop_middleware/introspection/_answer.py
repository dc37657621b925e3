"""The content of an introspection answer, judged: as JSON, or as a JWT signed by the issuer.

RFC 7662 section 2.2, RFC 9449 section 6.2, RFC 9701 sections 5 and 8.1. The claims are judged by the same
rules as those of a signed token. For that, the claims that an answer may leave out, since the endpoint speaks
for its issuer, are filled in.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from dpop_middleware._log import shown
from dpop_middleware._options import names
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import JOSEError, strict
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.cache import read_only_claims
from dpop_middleware.tokens.claims import ClaimRules, judge_claims
from dpop_middleware.tokens.issuer_keys import KeySource
from dpop_middleware.tokens.signed_token import SignedToken, SigningKeys, parse_signed_token

__all__ = [
    "AnswerRules",
    "MalformedAnswer",
    "SignedAnswers",
    "judge_answer",
    "read_answer",
    "required_of_an_answer",
]

_TYP: Final = "token-introspection+jwt"
# Some servers end a text with a line break.
_WHITE_SPACE: Final = b" \t\r\n"
_UNSET: Final[tuple[tuple[str, object], ...]] = (("sub", ""), ("aud", []))
# An answer is made for one request: an older one may be a replay.
_LONGEST_AGE: Final = 60.0


class MalformedAnswer(Exception):
    """An answer that doesn't follow RFC 7662 or RFC 9701; the message is for logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRules:
    """What an active token must say. With `accept_missing_audience` it may have no `aud`."""

    claims: ClaimRules
    accept_missing_audience: bool


def _parsed(body: bytes, parse: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer's JSON object; raises MalformedAnswer."""
    try:
        return parse(body)
    except JOSEError as error:
        raise MalformedAnswer(f"the answer is not a JSON object: {error.description}") from error


def judge_answer(answer: Mapping[str, Any], *, rules: AnswerRules, now: float) -> AccessToken:
    """Return the token that an answer describes; `now` is in seconds since the epoch.

    Raises InvalidToken for a token that isn't active or isn't for this server, and MalformedAnswer where the
    answer doesn't say whether it is active.
    """
    active = answer.get("active")
    if not isinstance(active, bool):
        raise MalformedAnswer("the answer doesn't say whether the token is active")
    if not active:
        raise InvalidToken("the access token is not active", check=Check.TOKEN_ACTIVE)
    said = _said(answer)
    filled = {"iss": rules.claims.issuer, **said}
    if "aud" not in said:
        if not rules.accept_missing_audience:
            raise InvalidToken(
                "the access token names no audience",
                check=Check.TOKEN_AUD,
                expected=sorted(rules.claims.audiences),
                actual="no aud (accept_missing_audience=True accepts that)",
            )
        filled["aud"] = sorted(rules.claims.audiences)
    token = judge_claims(_payload(filled), rules=rules.claims, now=now).access_token
    _judge_token_type(said)
    # The application sees what the issuer said, not what was filled in.
    return replace(token, claims=read_only_claims(_payload(said)))


def _payload(claims: Mapping[str, Any]) -> bytes:
    return json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()


def _said(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an answer says: some serializers write every member that they know.

    Null says that a member isn't set, and so do a `sub` without a character and an `aud` that names nobody.
    """
    return {
        name: value for name, value in answer.items() if value is not None and (name, value) not in _UNSET
    }


def _judge_token_type(answer: Mapping[str, Any]) -> None:
    """If an answer names the type, it is DPoP for a bound token (RFC 9449 section 6.2), Bearer for another.

    An endpoint may call other tokens active too: without this, a refresh token would pass as an access token.
    """
    token_type = answer.get("token_type")
    expected = "DPoP" if "cnf" in answer else "Bearer"
    if "token_type" in answer and (not isinstance(token_type, str) or token_type.lower() != expected.lower()):
        raise InvalidToken(
            "the access token is of another type",
            check=Check.BINDING,
            expected=f"token_type {expected}",
            actual=shown(token_type),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAnswers:
    """Reads signed answers of one issuer; `audiences` are the names by which it may know this server.

    `clock_skew` is in seconds, `clock` returns seconds since the epoch.
    """

    media_type: ClassVar[str] = "application/token-introspection+jwt"
    keys: KeySource
    issuer: str
    audiences: frozenset[str]
    algorithms: tuple[str, ...]
    clock_skew: float
    clock: Callable[[], float]
    _signing_keys: SigningKeys = field(init=False, default_factory=SigningKeys, repr=False)

    async def read(self, body: bytes) -> dict[str, Any]:
        """Return what a signed answer says of the token (its `token_introspection`).

        Raises MalformedAnswer for anything but an answer that the issuer signed for this server within the
        last minute, and `errors.Unavailable` when the issuer's keys can't be fetched.
        """
        since = time.monotonic()
        try:
            signed = parse_signed_token(
                body.strip(_WHITE_SPACE).decode("latin-1"), token_types=(_TYP,), algorithms=self.algorithms
            )
            await self._check_signature(signed, since)
            payload = signed.payload
        except InvalidToken as error:
            words = error.description.replace("the access token", "the signed answer")
            raise MalformedAnswer(f"{words} (found {error.actual})") from error
        claims = _parsed(payload, strict.parse_object)
        answer = claims.get("token_introspection")
        if not isinstance(answer, dict):
            raise MalformedAnswer("the signed answer has no token_introspection")
        if claims.get("iss") != self.issuer:
            raise MalformedAnswer(f"the signed answer is from another issuer: {shown(claims.get('iss'))}")
        self._check_age(claims.get("iat"))
        # A token that isn't active is refused, whatever audience the answer was made for.
        if answer.get("active") is not False:
            self._check_audience(claims.get("aud"))
        return answer

    async def _check_signature(self, signed: SignedToken, since: float) -> None:
        keys = self.keys.current() or await self.keys.load()
        wanted = f"{signed.algorithm.name} {signed.kid!r}"
        search = self._signing_keys.search(signed)
        while True:
            candidates = keys.candidates(kid=signed.kid, algorithm=signed.algorithm.name)
            if search.among(candidates.keys) is not None:
                return
            if (candidates.named and candidates.keys) or not self.keys.renewable:
                raise MalformedAnswer("no key of the issuer signed the answer")
            newer = await self.keys.newer_than(keys, since=since, wanted=wanted)
            if newer is keys:
                raise MalformedAnswer("no key of the issuer signed the answer")
            keys = newer

    def _check_age(self, iat: object) -> None:
        now = self.clock()
        if (
            isinstance(iat, bool)
            or not isinstance(iat, (int, float))
            or not now - _LONGEST_AGE - self.clock_skew <= iat <= now + self.clock_skew
        ):
            raise MalformedAnswer(f"the signed answer is not from the last minute: its iat is {shown(iat)}")

    def _check_audience(self, aud: object) -> None:
        audiences = [aud] if isinstance(aud, str) else aud
        if not isinstance(audiences, list) or not any(
            isinstance(audience, str) and audience in self.audiences for audience in audiences
        ):
            raise MalformedAnswer(f"the signed answer is for somebody else: its aud is {shown(aud)}")


async def read_answer(
    media_type: str, body: bytes, *, accept: str, signed: SignedAnswers | None
) -> dict[str, Any]:
    """Return what an answer says of the token; where answers must be signed, `signed` reads it.

    `accept` is the media type that was asked for. Raises MalformedAnswer for another one, and as
    `SignedAnswers.read` does.
    """
    if media_type != accept:
        raise MalformedAnswer(f"the answer's media type is not {accept}: it is {media_type[:100]!r}")
    if signed is not None:
        return await signed.read(body)
    return _parsed(body, strict.parse_document)


def required_of_an_answer(claims: object) -> tuple[str, ...]:
    """Return the claims that must be present; issuer and audience may be filled in, and are judged apart."""
    if isinstance(claims, (tuple, list)) and not claims:
        return ("iss", "aud")
    return ("iss", "aud", *names("required_claims", claims))
