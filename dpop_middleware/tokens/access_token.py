"""A verified access token, its content and its hash, and the protocol of its verifier.

Authorization details (RFC 9396) and actors (RFC 8693) are read from verified claims when they are asked for.
What an issuer wrote in another form is left out: then less is allowed, and no wrong actor is shown.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from dpop_middleware.jose import base64url

__all__ = [
    "LONGEST_CLOCK_SKEW",
    "TOKEN_CLOCK_SKEW",
    "AccessToken",
    "AccessTokenVerifier",
    "Actor",
    "AuthorizationDetail",
    "token_hash",
]

TOKEN_CLOCK_SKEW: Final = 15.0
"""Seconds by which the clocks of issuer and verifier may differ, unless configured otherwise."""

LONGEST_CLOCK_SKEW: Final = 300.0
"""The most that a verifier may allow; after that a resource server itself refuses the token."""

_MOST_ACTORS: Final = 8
_CLIENT: Final = "client:"
_SUBJECT: Final = "subject:"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationDetail:
    """One element of `authorization_details` (RFC 9396 section 2).

    `type` says what kind of thing is allowed, and which `members` there are. `locations`, `actions`,
    `datatypes` and `privileges` are empty, and `identifier` is None, where they aren't given: the type
    defines what that means. `members` is the whole element, read-only at its top. It isn't checked whether
    you know the type; a type that you don't know allows nothing.
    """

    type: str
    locations: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    datatypes: tuple[str, ...] = ()
    privileges: tuple[str, ...] = ()
    identifier: str | None = None
    members: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts for the token's subject (RFC 8693 section 4.1).

    `subject`, `client_id` and `issuer` are None where they aren't given; at least one of the first two is
    given. `actor` is the previous actor, None for none: previous actors are for the log only and decide
    nothing.
    """

    subject: str | None
    client_id: str | None
    issuer: str | None
    actor: "Actor | None" = None

    @property
    def identity(self) -> str:
        """The `subject`, or `client:` and the `client_id`; the issuer and a space come first, if it is given.

        It is for logs: `AccessToken.identity` names a user, and this names somebody who acts for that user.
        """
        name = self.subject or f"{_CLIENT}{self.client_id}"
        return name if self.issuer is None else f"{self.issuer} {name}"


def _authorization_details_in(claims: Mapping[str, Any]) -> tuple[AuthorizationDetail, ...]:
    """Return the elements of `authorization_details` that follow RFC 9396 section 2."""
    value = claims.get("authorization_details")
    elements = value if isinstance(value, list) else []
    return tuple(detail for element in elements if (detail := _detail(element)) is not None)


def _actor_in(claims: Mapping[str, Any]) -> Actor | None:
    """Return who acts for the subject, None where nobody does or where nobody is named.

    Of the previous actors, the last seven are returned.
    """
    said: list[tuple[str | None, ...]] = []
    value = claims.get("act")
    while isinstance(value, dict) and len(said) < _MOST_ACTORS:
        said.append(tuple(_text(value.get(name)) for name in ("sub", "client_id", "iss")))
        if said[-1][:2] == (None, None):
            said.pop()
            break
        value = value.get("act")
    actor: Actor | None = None
    for subject, client_id, issuer in reversed(said):
        actor = Actor(subject=subject, client_id=client_id, issuer=issuer, actor=actor)
    return actor


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _detail(element: object) -> AuthorizationDetail | None:
    if not isinstance(element, dict) or _text(element.get("type")) is None:
        return None
    lists = {name: element.get(name, []) for name in ("locations", "actions", "datatypes", "privileges")}
    if not all(
        isinstance(value, list) and all(isinstance(one, str) for one in value) for value in lists.values()
    ):
        return None
    identifier = element.get("identifier")
    if identifier is not None and not isinstance(identifier, str):
        return None
    return AuthorizationDetail(
        type=element["type"],
        identifier=identifier,
        members=MappingProxyType(element),
        **{name: tuple(value) for name, value in lists.items()},
    )


class _WithMemo:
    """What a resource server knows of the client; not a field, so that no copy of the token has it."""

    __slots__ = ("_client_memo", "_has_no_actor")

    @property
    def client_memo(self) -> object:
        """The last value given to `remember_client`, None without any."""
        return getattr(self, "_client_memo", None)

    def remember_client(self, memo: object) -> None:
        """Keep `memo` with this one object, for the next request that carries the same token."""
        object.__setattr__(self, "_client_memo", memo)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken(_WithMemo):
    """An access token whose signature and claims were verified (RFC 9068 section 4).

    `claims` is everything the issuer said, read-only; a JWT's are decoded at each access, so to read many of
    them take `dict(claims.items())` once. `subject` is None for a token without one: some issuers issue such
    tokens to clients that act on their own behalf. `client_id` is empty where none is named; a token has at
    least one of the two. `scopes` are the granted ones. `expires_at` is in seconds since the epoch, infinite
    where the issuer gives none; 300 seconds after it a resource server refuses the token, whatever its
    verifier says. `jkt` is the RFC 7638 thumbprint of the key that the token is bound to (`cnf.jkt`, RFC 9449
    section 6.1), None for an unbound token. `names_issuer` says whether `identity` names the issuer, as it
    does in a server of several.
    """

    claims: Mapping[str, Any] = field(repr=False)
    issuer: str
    subject: str | None
    client_id: str
    scopes: frozenset[str]
    expires_at: float
    jkt: str | None
    names_issuer: bool = False

    @property
    def identity(self) -> str:
        """Whom the token speaks for: its `subject`, or `client:` and its `client_id` where it has none.

        No two of these are the same (RFC 9700 section 4.15): `subject:` is put before a subject that begins
        with `client:` or `subject:`. In a server of several issuers, the issuer and a space come first. It
        isn't checked whether an issuer lets clients choose a `sub`: that can't be known here.
        """
        if not self.subject:
            name = _CLIENT + self.client_id
        else:
            clash = self.subject.startswith((_CLIENT, _SUBJECT))
            name = _SUBJECT + self.subject if clash else self.subject
        return f"{self.issuer} {name}" if self.names_issuer else name

    @property
    def authorization_details(self) -> tuple[AuthorizationDetail, ...]:
        """What is allowed in detail (RFC 9396 section 9.1); malformed elements are left out."""
        return _authorization_details_in(self.claims)

    @property
    def actor(self) -> Actor | None:
        """Who acts for the subject with this token (`act`, RFC 8693 section 4.1), None where nobody does."""
        # Each refusal of a token reads this. Most tokens have no actor, and remembering that costs less than
        # a search.
        if getattr(self, "_has_no_actor", False):
            return None
        actor = _actor_in(self.claims)
        if actor is None:
            object.__setattr__(self, "_has_no_actor", True)
        return actor


_hashed: tuple[str, str] = ("", "")


def token_hash(token: str) -> str:
    """Return the hash of an ASCII token as in `ath` (RFC 9449 section 4.2); once for each request."""
    global _hashed  # noqa: PLW0603 - one pair, replaced as a whole: threads may share it
    known, digest = _hashed
    if token is known:
        return digest
    digest = base64url.encode(hashlib.sha256(token.encode("ascii")).digest())
    _hashed = token, digest
    return digest


class AccessTokenVerifier(Protocol):
    """Turns the string that a client sent into a verified `AccessToken`.

    A verifier may also have these, all of them optional:

    - `async def open(self) -> None`, awaited at the start, which should not wait for other servers; and
      `async def aclose(self) -> None`, awaited at the end.
    - `async def health(self) -> object`, which says whether tokens can be verified now, for readiness probes:
      by a bool, or by an attribute or key `ok`; any other value means that they can, an exception that they
      can't.
    - `clock_skew`: for how many seconds, 0 to 300, it accepts a token after its `expires_at`; 15 by default.
    - `audiences`: the identifiers of the resource server that a token may name; where they are known, each
      public host that is one of them has metadata of its own (RFC 9728).
    - `remote`: True where `verify` asks another server: then a request's proof is judged first, as far as
      that is possible without the token, so that a bad proof causes no question.
    - `is_remote(token)`: a method that returns the same for one token, where it depends on the token, or on
      what is known of it already.
    - `expiry_is_final`: True, in the class that has `verify`, where the `expires_at` of a token never
      changes, so that proofs may be forgotten with their token.
    - `key_ages()`: a method that returns pairs of an issuer and the seconds for which its keys have been
      held, for `telemetry`.
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
