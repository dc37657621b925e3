"""What only the operator of a resource server can say of it (RFC 9728 section 2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dpop_middleware._options import names, tokens, whole_number
from dpop_middleware.errors import ConfigurationError

__all__ = ["ResourceMetadata"]

# A page for people: any host, with a query and a fragment, but nothing that a browser would mend.
_PAGE = re.compile(r"https?://[A-Za-z0-9\[][!#-;=?-\[\]_a-z~]*")
_LONGEST_TEXT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceMetadata:
    """What clients are told of a protected resource, besides what follows from its configuration (RFC 9728).

    - `scopes_supported`: the scopes that clients may ask for; name none that shall stay unknown.
    - `resource_name`: the name to show to people.
    - `resource_documentation`, `resource_policy_uri`, `resource_tos_uri`: URLs of pages for people.
    - `authorization_details_types_supported`: the types of RFC 9396 that are understood.
    - `max_age`: seconds for which clients may keep the document.

    Everybody can read it. `resource`, `authorization_servers` and what concerns DPoP come from the
    `ResourceServer`. Raises ConfigurationError. That the authorization server knows the scopes isn't checked.
    """

    scopes_supported: Sequence[str] = ()
    resource_name: str | None = None
    resource_documentation: str | None = None
    resource_policy_uri: str | None = None
    resource_tos_uri: str | None = None
    authorization_details_types_supported: Sequence[str] = ()
    max_age: int = 3600

    def __post_init__(self) -> None:
        types = self.authorization_details_types_supported
        object.__setattr__(self, "scopes_supported", tokens("scopes_supported", self.scopes_supported))
        object.__setattr__(
            self,
            "authorization_details_types_supported",
            () if types == () else names("authorization_details_types_supported", types),
        )
        _check_text("resource_name", self.resource_name)
        for name in ("resource_documentation", "resource_policy_uri", "resource_tos_uri"):
            _check_page(name, getattr(self, name))
        whole_number("max_age", self.max_age, of=" of seconds")


def _check_text(name: str, value: object) -> None:
    if value is not None and not (
        isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST_TEXT
    ):
        raise ConfigurationError(
            f"{name} takes a printable text of 1 to {_LONGEST_TEXT} characters, not {value!r}"
        )


def _check_page(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and _PAGE.fullmatch(value)):
        raise ConfigurationError(f"{name} takes an absolute URL, such as 'https://…', not {value!r}")
