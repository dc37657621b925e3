"""An introspection answer that is a signed JWT (RFC 9701 sections 5 and 8.1)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from dpop_middleware.errors import InvalidToken
from dpop_middleware.introspection._answer import MalformedAnswer, parse_answer
from dpop_middleware.tokens.access_token import shown
from dpop_middleware.tokens.key_source import KeySource
from dpop_middleware.tokens.signed_token import SignedToken, SigningKeys, parse_signed_token

__all__ = ["MEDIA_TYPE", "SignedAnswers"]

MEDIA_TYPE: Final = "application/token-introspection+jwt"
_TYP: Final = "token-introspection+jwt"
# An answer is made for us, now: an older one was recorded.
_LONGEST_AGE: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAnswers:
    """Reads signed answers of one issuer; `audiences` are the names by which it may know us.

    `clock_skew` is in seconds, `clock` returns seconds since the epoch.
    """

    keys: KeySource
    issuer: str
    audiences: frozenset[str]
    algorithms: tuple[str, ...]
    clock_skew: float
    clock: Callable[[], float]
    _signing_keys: SigningKeys = field(init=False, default_factory=SigningKeys, repr=False)

    async def read(self, body: bytes) -> dict[str, Any]:
        """Return what a signed answer says of the token (its `token_introspection`).

        Raises MalformedAnswer for anything but an answer that the issuer signed for us within the last
        minute, and `errors.Unavailable` when the issuer's keys can't be fetched.
        """
        since = time.monotonic()
        try:
            signed = parse_signed_token(
                body.decode("latin-1"), token_types=(_TYP,), algorithms=self.algorithms
            )
            await self._check_signature(signed, since)
            payload = signed.payload
        except InvalidToken as error:
            words = error.description.replace("the access token", "the signed answer")
            raise MalformedAnswer(f"{words} (found {error.actual})") from error
        claims = parse_answer(payload)
        answer = claims.get("token_introspection")
        if not isinstance(answer, dict):
            raise MalformedAnswer("the signed answer has no token_introspection")
        if claims.get("iss") != self.issuer:
            raise MalformedAnswer(f"the signed answer is from another issuer: {shown(claims.get('iss'))}")
        self._check_age(claims.get("iat"))
        # What is not active is refused, for whomever the answer was made.
        if answer.get("active") is not False:
            self._check_audience(claims.get("aud"))
        return answer

    async def _check_signature(self, signed: SignedToken, since: float) -> None:
        keys = self.keys.current() or await self.keys.load()
        wanted = f"{signed.algorithm.name} {signed.kid!r}"
        while True:
            candidates = keys.candidates(kid=signed.kid, algorithm=signed.algorithm.name)
            if self._signing_keys.signer(signed, candidates.keys) is not None:
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
            raise MalformedAnswer(f"the signed answer is not of this minute: its iat is {shown(iat)}")

    def _check_audience(self, aud: object) -> None:
        audiences = [aud] if isinstance(aud, str) else aud
        if not isinstance(audiences, list) or not any(
            isinstance(audience, str) and audience in self.audiences for audience in audiences
        ):
            raise MalformedAnswer(f"the signed answer is for somebody else: its aud is {shown(aud)}")
