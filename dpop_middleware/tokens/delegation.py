"""What a token says beyond its scopes: authorization details (RFC 9396) and who acts for whom (RFC 8693).

Read from verified claims when somebody looks. What an issuer wrote in another way is left out: less is
allowed then, and nobody is shown as who they are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

__all__ = ["Actor", "AuthorizationDetail", "actor_in", "authorization_details_in"]

_MOST_ACTORS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationDetail:
    """One element of `authorization_details` (RFC 9396 section 2).

    `type` says what kind of thing is allowed, and which `members` there are. `locations`, `actions`,
    `datatypes` and `privileges` are empty, `identifier` is None where they aren't said: what that means is
    for the type to say. `members` is the whole element, read-only at its top. Not checked: whether you know
    the type; one that you don't know allows nothing.
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

    `subject`, `client_id` and `issuer` are None where they aren't said; one of the first two is. `actor` is
    who acted before, None for nobody: those before are for the log only, and decide nothing.
    """

    subject: str | None
    client_id: str | None
    issuer: str | None
    actor: "Actor | None" = None

    @property
    def identity(self) -> str:
        """The `subject`, or `client:` and the `client_id`; before it the issuer and a blank, if one is said.

        It is for logs: `AccessToken.identity` is of a user, and this is of somebody who acts for them.
        """
        name = self.subject or f"client:{self.client_id}"
        return name if self.issuer is None else f"{self.issuer} {name}"


def authorization_details_in(claims: Mapping[str, Any]) -> tuple[AuthorizationDetail, ...]:
    """Return the elements of `authorization_details` that are as RFC 9396 section 2 has them."""
    value = claims.get("authorization_details")
    elements = value if isinstance(value, list) else []
    return tuple(detail for element in elements if (detail := _detail(element)) is not None)


def actor_in(claims: Mapping[str, Any]) -> Actor | None:
    """Return who acts for the subject, None where nobody does or where it isn't said who.

    Of those who acted before, the last seven are told.
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
