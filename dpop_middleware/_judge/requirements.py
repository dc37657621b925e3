"""Requirements for a valid token: that it may come with this proof, and those of a route.

A route requires scopes, claims, and how and when the user authenticated.
"""

import copy
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from dpop_middleware._log import shown
from dpop_middleware._options import predicates, tokens, whole_number
from dpop_middleware.checks import Check
from dpop_middleware.errors import InsufficientScope, InsufficientUserAuthentication, InvalidToken
from dpop_middleware.tokens.access_token import LONGEST_CLOCK_SKEW, AccessToken

__all__ = [
    "NOTHING_REQUIRED",
    "NO_CLAIMS",
    "Predicate",
    "Requirements",
    "bound_to_another",
    "check_bound",
    "check_not_expired",
    "check_unbound",
]

Predicate = Callable[[Any], bool]
"""Says whether the value of a claim is sufficient: by True, and nothing else."""

NO_CLAIMS: Final[Mapping[str, Predicate]] = MappingProxyType({})

_ABSENT: Final = object()
# Seconds: a login further ahead than any clocks differ is invalid, such as a time in milliseconds.
_MOST_AHEAD: Final = 300


def check_bound(token: AccessToken, now: float) -> None:
    """Raise InvalidToken for a token without a key, and as `check_not_expired` does."""
    if token.jkt is None:
        raise InvalidToken("the access token is not bound to a key", check=Check.BINDING)
    check_not_expired(token, now)


def check_unbound(token: AccessToken) -> None:
    """Raise InvalidToken for a token that is bound to anything: a Bearer token isn't."""
    if token.jkt is not None or "cnf" in token.claims:
        raise InvalidToken("the access token is bound to a key: use it with DPoP", check=Check.BINDING)


def check_not_expired(token: AccessToken, now: float) -> None:
    """Raise InvalidToken for a token that has expired by every clock within the skew."""
    # So that it holds for NaN, which Python reads from JSON.
    if not now < token.expires_at + LONGEST_CLOCK_SKEW:
        raise InvalidToken(
            "the access token has expired", check=Check.TOKEN_TIME, expected=now, actual=token.expires_at
        )


def bound_to_another(jkt: str | None, presented: str) -> InvalidToken:
    """Return the error for a token bound to `jkt` that came with a proof of the key `presented`."""
    return InvalidToken(
        "the access token is bound to another key than the proof's",
        check=Check.JKT,
        expected=jkt,
        actual=presented,
    )


@dataclass(frozen=True, slots=True, init=False)
class Requirements:
    """What a token must have for one route.

    `scopes` must all be granted, and one of `any_of` (RFC 6750 section 3.1). Each of `claims` must be there,
    and its predicate return True for its value; one that raises refuses the request. One of `acr_values` must
    be the token's `acr`, and its `auth_time` must be at most `max_age` whole seconds ago (RFC 9470 section
    4), and at most 300 ahead. Empty and None require nothing. Raises ConfigurationError.
    """

    scopes: tuple[str, ...]
    any_of: tuple[str, ...]
    claims: tuple[tuple[str, Predicate], ...]
    acr_values: tuple[str, ...]
    max_age: int | None

    def __init__(
        self,
        *,
        scopes: Collection[str] = (),
        any_of: Collection[str] = (),
        claims: Mapping[str, Predicate] = NO_CLAIMS,
        acr_values: Collection[str] = (),
        max_age: int | None = None,
    ) -> None:
        object.__setattr__(self, "scopes", tokens("scopes", scopes))
        object.__setattr__(self, "any_of", tokens("any_of", any_of))
        object.__setattr__(self, "claims", predicates("claims", claims))
        object.__setattr__(self, "acr_values", tokens("acr_values", acr_values, such_as="gold"))
        object.__setattr__(
            self, "max_age", None if max_age is None else whole_number("max_age", max_age, of=" of seconds")
        )

    def with_scopes(self, scopes: Collection[str]) -> "Requirements":
        """Return these requirements with `scopes` in place of their own; raises ConfigurationError."""
        changed = copy.copy(self)
        object.__setattr__(changed, "scopes", tokens("scopes", scopes))
        return changed

    def check(self, token: AccessToken, *, now: float) -> None:
        """Raise InsufficientScope or InsufficientUserAuthentication unless `token` has all of it."""
        if not token.scopes.issuperset(self.scopes) or (self.any_of and token.scopes.isdisjoint(self.any_of)):
            raise InsufficientScope(
                "the access token lacks a scope that is required here",
                scopes=self._needed,
                actual=tuple(sorted(token.scopes)),
            )
        for name, is_enough in self.claims:
            self._check_claim(token, name, is_enough)
        if self.acr_values and token.claims.get("acr") not in self.acr_values:
            raise self._insufficient("a different authentication level is required", token, "acr")
        if self.max_age is not None:
            auth_time = token.claims.get("auth_time")
            if (
                isinstance(auth_time, bool)
                or not isinstance(auth_time, (int, float))
                or not math.isfinite(auth_time)
                or not -_MOST_AHEAD <= now - auth_time <= self.max_age
            ):
                raise self._insufficient("more recent authentication is required", token, "auth_time")

    @property
    def _needed(self) -> tuple[str, ...]:
        """The scopes to request from the authorization server; of several alternatives the first."""
        return (*self.scopes, *(one for one in self.any_of[:1] if one not in self.scopes))

    def _check_claim(self, token: AccessToken, name: str, is_enough: Predicate) -> None:
        value = token.claims.get(name, _ABSENT)
        cause: Exception | None = None
        verdict: object = False
        if value is not _ABSENT:
            try:
                verdict = is_enough(value)
            except Exception as error:  # noqa: BLE001 - an issuer's odd claim must not cause a 500, nor pass
                cause = error
        if verdict is True:
            return
        found = None if value is _ABSENT else shown(value)
        raise InsufficientScope(
            "the access token lacks a claim that is required here",
            scopes=self._needed,
            claim=name,
            actual=found if cause is None else f"{type(cause).__name__} for {found}",
        ) from cause

    def _insufficient(
        self, description: str, token: AccessToken, claim: str
    ) -> InsufficientUserAuthentication:
        return InsufficientUserAuthentication(
            description, acr_values=self.acr_values, max_age=self.max_age, actual=token.claims.get(claim)
        )


NOTHING_REQUIRED: Final = Requirements()
