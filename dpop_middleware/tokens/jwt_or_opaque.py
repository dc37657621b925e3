"""Both kinds of access token at one server: signed JWTs, and opaque ones."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from dpop_middleware._options import part, provides
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier
from dpop_middleware.tokens.options import TOKEN_CLOCK_SKEW

__all__ = ["BothHealth", "JWTOrOpaqueVerifier"]

_DOTS_OF_A_JWT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BothHealth:
    """Two verifiers as of now: `ok` when both are; `jwt` and `opaque` are what each says of itself."""

    ok: bool
    jwt: object
    opaque: object
    error: str | None = None


class JWTOrOpaqueVerifier:
    """Verifies tokens of both kinds, each by its own verifier.

    - `jwt`: for tokens of three segments with dots between, whatever is in them: what it refuses stays
      refused.
    - `opaque`: for all others, an `introspection.IntrospectionVerifier` for instance.

    The issuers of both are accepted. Proofs are remembered for as long as those of opaque tokens. Raises
    ConfigurationError.
    """

    remote = True
    """So are opaque tokens; `is_remote` tells which."""

    def __init__(self, *, jwt: AccessTokenVerifier, opaque: AccessTokenVerifier) -> None:
        self._jwt = part("jwt", jwt, "an AccessTokenVerifier", fits=provides(jwt, "verify"))
        self._opaque = part("opaque", opaque, "an AccessTokenVerifier", fits=provides(opaque, "verify"))

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers of both kinds of token, each once."""
        return tuple(dict.fromkeys((*self._jwt.issuers, *self._opaque.issuers)))

    @property
    def clock_skew(self) -> float:
        """Seconds for which a token is accepted after it expired, by the more patient of the two."""
        return max(
            float(getattr(verifier, "clock_skew", TOKEN_CLOCK_SKEW)) for verifier in (self._jwt, self._opaque)
        )

    def is_remote(self, token: str) -> bool:
        """Whether another server is asked about this token."""
        verifier = self._of(token)
        ask = getattr(verifier, "is_remote", None)
        return bool(getattr(verifier, "remote", False) if ask is None else ask(token))

    async def verify(self, token: str) -> AccessToken:
        """Verify one token by the verifier of its kind, and raise what that raises; the other isn't tried."""
        return await self._of(token).verify(token)

    async def open(self) -> None:
        """Open both."""
        for verifier in (self._jwt, self._opaque):
            start = getattr(verifier, "open", None)
            if start is not None:
                await start()

    async def health(self) -> BothHealth:
        """Return how both are; raises what one of them raises."""
        jwt, opaque = [await _health_of(verifier) for verifier in (self._jwt, self._opaque)]
        errors = [str(error) for said in (jwt, opaque) if (error := getattr(said, "error", None)) is not None]
        return BothHealth(
            ok=_is_ok(jwt) and _is_ok(opaque), jwt=jwt, opaque=opaque, error="; ".join(errors) or None
        )

    async def aclose(self) -> None:
        """Close both, the second one even if the first one fails."""
        async with AsyncExitStack() as stack:
            for verifier in (self._opaque, self._jwt):
                close = getattr(verifier, "aclose", None)
                if close is not None:
                    stack.push_async_callback(close)

    def _of(self, token: str) -> AccessTokenVerifier:
        return self._jwt if token.count(".") == _DOTS_OF_A_JWT else self._opaque


async def _health_of(verifier: AccessTokenVerifier) -> object:
    ask = getattr(verifier, "health", None)
    return True if ask is None else await ask()


def _is_ok(said: object) -> bool:
    return said is not False and bool(getattr(said, "ok", True))
