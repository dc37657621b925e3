"""Both kinds of access token at one server: signed JWTs, and opaque ones."""

from dataclasses import dataclass, replace

from dpop_middleware._options import part, provides
from dpop_middleware._runtime import aclose_parts, open_parts
from dpop_middleware.health import PartHealth, health_of_each
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.optional_members import (
    asks_another_server,
    audiences_of_all,
    check_members,
    clock_skew_of,
    issuers_of,
    key_ages_of_all,
    may_ask_another_server,
)
from dpop_middleware.tokens.signed_token import has_three_segments

__all__ = ["BothHealth", "JWTOrOpaqueVerifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BothHealth:
    """The current state of two verifiers: `ok` when both are; `error` is what is wrong, or None."""

    ok: bool
    jwt: PartHealth
    opaque: PartHealth
    error: str | None = None


class JWTOrOpaqueVerifier:
    """Verifies tokens of both kinds, each by its own verifier.

    - `jwt`: for tokens of three segments with dots between, whatever their content: a token that it refuses
      stays refused.
    - `opaque`: for all others, an `introspection.IntrospectionVerifier` for instance.

    The issuers of both are accepted. Where they differ, `identity` names the issuer: user "1" of one issuer
    is not user "1" of another. Proofs are remembered for as long as those of opaque tokens. Raises
    ConfigurationError.
    """

    def __init__(self, *, jwt: AccessTokenVerifier, opaque: AccessTokenVerifier) -> None:
        self._jwt = part("jwt", jwt, "an AccessTokenVerifier", fits=provides(jwt, "verify"))
        self._opaque = part("opaque", opaque, "an AccessTokenVerifier", fits=provides(opaque, "verify"))
        check_members(jwt)
        check_members(opaque)
        self._names_issuer = len(issuers_of(jwt)) != 1 or issuers_of(jwt) != issuers_of(opaque)
        if self._names_issuer and isinstance(jwt, JWTAccessTokenVerifier):
            self._jwt = jwt.among_several()
        self._clock_skew = min(clock_skew_of(jwt), clock_skew_of(opaque))
        # `is_remote` says it of one token.
        self.remote = bool([one for one in (jwt, opaque) if may_ask_another_server(one)])

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers of both kinds of token, each once."""
        return tuple(dict.fromkeys(issuers_of(self._jwt) + issuers_of(self._opaque)))

    @property
    def audiences(self) -> frozenset[str]:
        """The identifiers of this resource server that tokens of both kinds may name."""
        return audiences_of_all((self._jwt, self._opaque))

    @property
    def clock_skew(self) -> float:
        """Seconds for which both verifiers accept a token after its expiry."""
        return self._clock_skew

    def is_remote(self, token: str) -> bool:
        """Whether another server is asked about this token."""
        return asks_another_server(self._of(token), token)

    async def verify(self, token: str) -> AccessToken:
        """Verify one token by the verifier of its kind only, and raise what that raises."""
        verified = await self._of(token).verify(token)
        if self._names_issuer and not verified.names_issuer:
            return replace(verified, names_issuer=True)
        return verified

    def key_ages(self) -> tuple[tuple[str, float], ...]:
        """Return each issuer of signed tokens, and for how many seconds its keys have been held."""
        return key_ages_of_all((self._jwt, self._opaque))

    async def open(self) -> None:
        """Open both."""
        await open_parts(self._jwt, self._opaque)

    async def health(self) -> BothHealth:
        """Return the state of both, within 1.5 seconds."""
        jwt, opaque = await health_of_each((self._jwt, self._opaque))
        errors = [one.error for one in (jwt, opaque) if one.error is not None]
        return BothHealth(ok=jwt.ok and opaque.ok, jwt=jwt, opaque=opaque, error="; ".join(errors) or None)

    async def aclose(self) -> None:
        """Close both, the second one even if the first one fails."""
        await aclose_parts(self._jwt, self._opaque)

    def _of(self, token: str) -> AccessTokenVerifier:
        return self._jwt if has_three_segments(token) else self._opaque
