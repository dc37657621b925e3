"""The verifiers of `explain` alone: without keys, by a saved answer, with keys fetched in any case.

A server refuses a token that no key could make acceptable without any keys. Whether the issuer has the key,
and signed the token, isn't known then: `explain` finds it out.
"""

# What a verifier's keys come from is private to it; it is replaced here and nowhere else.
# pyright: reportPrivateUsage=false

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.introspection._answer import AnswerRules, MalformedAnswer, judge_answer
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.claims import ClaimRules, checked_token_types, judge_claims
from dpop_middleware.tokens.issuer_keys import StaticKeySource
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.signed_token import parse_signed_token

__all__ = ["BySavedAnswer", "TokenJudge", "WithFetchedKeys", "WithoutKeys"]

_BY_CLAIMS: Final = (Check.TOKEN_CLAIMS, Check.TOKEN_ISS, Check.TOKEN_AUD, Check.TOKEN_TIME, Check.BINDING)


@dataclass(frozen=True, slots=True)
class TokenJudge:
    """A verifier for one token, and the checks that it can't make, each with its reason.

    `rules` are those for a JWT's claims, None for a token that isn't one: they judge the claims where the
    verifier doesn't reach them. `asks` says that the verifier asks the issuer about the token.
    """

    verifier: AccessTokenVerifier
    unknown: Mapping[Check, str] = field(default_factory=dict)
    rules: ClaimRules | None = None
    asks: bool = False


@dataclass(frozen=True, slots=True)
class WithoutKeys:
    """Judges signed tokens by all but their key and signature; `now` is in seconds since the epoch."""

    rules: ClaimRules
    token_types: tuple[str | None, ...]
    now: float
    expiry_is_final = True

    @property
    def issuers(self) -> tuple[str, ...]:
        """The one issuer whose tokens are accepted."""
        return (self.rules.issuer,)

    def accepting_type(self, typ: str | None) -> "WithoutKeys":
        """Return a verifier that accepts one more `typ`: see `JWTAccessTokenVerifier`."""
        return replace(self, token_types=checked_token_types((*self.token_types, typ)))

    async def verify(self, token: str) -> AccessToken:
        """Judge the header and the claims of one token."""
        signed = parse_signed_token(token, token_types=self.token_types, algorithms=SUPPORTED_ALGORITHMS)
        return judge_claims(signed.payload, rules=self.rules, now=self.now).access_token


@dataclass(frozen=True, slots=True)
class BySavedAnswer:
    """Judges one opaque token by what its issuer `said` about it; `now` is in seconds since the epoch."""

    rules: AnswerRules
    said: Mapping[str, Any] = field(repr=False)
    now: float
    remote = True

    @property
    def issuers(self) -> tuple[str, ...]:
        """The one issuer whose tokens are accepted."""
        return (self.rules.claims.issuer,)

    async def verify(self, token: str) -> AccessToken:  # noqa: ARG002 - the answer is about this one token
        """Judge the answer; raises `errors.Unavailable` for one that can't be used."""
        try:
            return judge_answer(self.said, rules=self.rules, now=self.now)
        except MalformedAnswer as error:
            raise Unavailable(
                "the saved answer can't be used", check=Check.TOKEN_ACTIVE, actual=str(error)
            ) from error


@dataclass(frozen=True, slots=True)
class WithFetchedKeys:
    """Judges tokens as `verifier` does, but never their claims before key and signature."""

    verifier: JWTAccessTokenVerifier
    expiry_is_final = True

    @property
    def issuers(self) -> tuple[str, ...]:
        """The one issuer whose tokens are accepted."""
        return self.verifier.issuers

    def accepting_type(self, typ: str | None) -> "WithFetchedKeys":
        """Return a verifier that accepts one more `typ`: see `JWTAccessTokenVerifier`."""
        return WithFetchedKeys(self.verifier.accepting_type(typ))

    async def verify(self, token: str) -> AccessToken:
        """Verify one token; raises `errors.Unavailable` also where its claims alone would cause a refusal."""
        try:
            return await self.verifier.verify(token)
        except InvalidToken as error:
            if error.check not in _BY_CLAIMS:
                raise
        in_order = self.verifier._sibling()
        in_order._source = StaticKeySource(await self.verifier._source.load())
        return await in_order.verify(token)

    async def aclose(self) -> None:
        """Close the verifier."""
        await self.verifier.aclose()
