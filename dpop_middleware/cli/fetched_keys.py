"""A verifier for `explain` that fetches the issuer's keys before it says what is wrong with a token's claims.

A server refuses a token that no key could make acceptable without any keys. Whether the issuer has the key,
and signed the token, isn't known then: `explain` finds it out.
"""

# What a verifier's keys come from is private to it; it is replaced here and nowhere else.
# pyright: reportPrivateUsage=false

from dataclasses import dataclass
from typing import Final

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.issuer_keys import StaticKeySource
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier

__all__ = ["WithFetchedKeys"]

_BY_CLAIMS: Final = (Check.TOKEN_CLAIMS, Check.TOKEN_ISS, Check.TOKEN_AUD, Check.TOKEN_TIME, Check.BINDING)


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
