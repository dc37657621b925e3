"""A verified access token, and what verifies one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["AccessToken", "AccessTokenVerifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """An access token whose signature and claims were verified (RFC 9068 section 4).

    `claims` is everything the issuer said, read-only; a JWT's are decoded anew at each look, so for many of
    them take `dict(claims.items())` once. `scopes` are the granted ones. `expires_at` is in seconds since the
    epoch, infinite where the issuer tells none; 300 seconds after it a resource server refuses the token,
    whatever its verifier says. `jkt` is the RFC 7638 thumbprint of the key that the token is bound to
    (`cnf.jkt`, RFC 9449 section 6.1), None for an unbound token.
    """

    claims: Mapping[str, Any] = field(repr=False)
    issuer: str
    subject: str
    client_id: str
    scopes: frozenset[str]
    expires_at: float
    jkt: str | None


class AccessTokenVerifier(Protocol):
    """Turns the string that a client sent into a verified `AccessToken`.

    A verifier may also have `async def aclose(self) -> None`, which is awaited at the end, and `clock_skew`:
    for how many seconds, 0 to 300, it accepts a token after its `expires_at` (15 where it doesn't say).

    And `async def open(self) -> None`, awaited at the start, which should not wait for anybody; and
    `async def health(self) -> object`, which says whether tokens can be verified now, for readiness probes:
    by a bool or an attribute `ok`, otherwise they can unless it raises.
    """

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuer identifiers whose tokens this verifier accepts (RFC 8414)."""
        ...

    async def verify(self, token: str) -> AccessToken:
        """Verify one token.

        Raises `errors.InvalidToken` when it isn't valid here and `errors.Unavailable` when that can't
        be known now.
        """
        ...
