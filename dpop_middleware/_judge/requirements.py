"""What a route asks of a valid token: scopes, and how and when the user authenticated."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from dpop_middleware._options import tokens, whole_number
from dpop_middleware.errors import InsufficientScope, InsufficientUserAuthentication
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["Requirements"]


@dataclass(frozen=True, slots=True, init=False)
class Requirements:
    """What a token must offer for one route.

    `scopes` must all be granted (RFC 6750 section 3.1). One of `acr_values` must be the token's `acr`, and
    its `auth_time` must be at most `max_age` whole seconds ago (RFC 9470 section 4); empty and None ask for
    nothing. Raises ConfigurationError.
    """

    scopes: tuple[str, ...]
    acr_values: tuple[str, ...]
    max_age: int | None

    def __init__(
        self, *, scopes: Collection[str] = (), acr_values: Collection[str] = (), max_age: int | None = None
    ) -> None:
        object.__setattr__(self, "scopes", tokens("scopes", scopes))
        object.__setattr__(self, "acr_values", tokens("acr_values", acr_values))
        object.__setattr__(
            self, "max_age", None if max_age is None else whole_number("max_age", max_age, of=" of seconds")
        )

    def check(self, token: AccessToken, *, now: float) -> None:
        """Raise InsufficientScope or InsufficientUserAuthentication unless `token` offers all of it."""
        if not token.scopes.issuperset(self.scopes):
            raise InsufficientScope(
                "the access token lacks a scope that is required here",
                scopes=self.scopes,
                actual=tuple(sorted(token.scopes)),
            )
        if self.acr_values and token.claims.get("acr") not in self.acr_values:
            raise self._insufficient("a different authentication level is required", token, "acr")
        if self.max_age is not None:
            auth_time = token.claims.get("auth_time")
            if (
                isinstance(auth_time, bool)
                or not isinstance(auth_time, (int, float))
                or not math.isfinite(auth_time)
                or now - auth_time > self.max_age
            ):
                raise self._insufficient("more recent authentication is required", token, "auth_time")

    def _insufficient(
        self, description: str, token: AccessToken, claim: str
    ) -> InsufficientUserAuthentication:
        return InsufficientUserAuthentication(
            description, acr_values=self.acr_values, max_age=self.max_age, actual=token.claims.get(claim)
        )
