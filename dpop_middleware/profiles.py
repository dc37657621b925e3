"""The form of the access tokens of well-known issuers, where they differ from RFC 9068.

    ResourceServer(issuer="https://sso.example.com/realms/main", profile=profiles.KEYCLOAK, …)

A profile sets four options of `JWTAccessTokenVerifier`, and nothing else: issuer, audience, signature, times
and binding are checked as strictly as with the default. The text below each profile says what differs and
which check is lost, and so does the chapter on issuers.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dpop_middleware import _options as options
from dpop_middleware import tokens
from dpop_middleware._log import warn_of_plain_http
from dpop_middleware._request.secure_url import checked_hosts
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.access_token import AccessTokenVerifier
from dpop_middleware.tokens.claims import checked_required_claims, checked_token_types
from dpop_middleware.tokens.optional_members import checked_clock_skew

__all__ = [
    "AUTH0",
    "BETTER_AUTH",
    "DUENDE",
    "KEYCLOAK",
    "KNOWN",
    "OIDC_PROVIDER",
    "OKTA",
    "RFC9068",
    "Profile",
    "configured_verifier",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The form of one issuer's access tokens (RFC 9068 section 2, for issuers that follow it).

    - `name`: for messages.
    - `token_types`, `scope_claims`, `client_id_claims`, `required_claims`: as in `JWTAccessTokenVerifier`;
      the issuer writes the first value of each.
    - `scopes_as_list`: whether the issuer writes scopes as an array. Both forms are always accepted.

    Raises ConfigurationError. Not checked: whether an issuer writes its tokens in this form.
    """

    name: str
    token_types: tuple[str | None, ...] = ("at+jwt",)
    scope_claims: tuple[str, ...] = ("scope",)
    client_id_claims: tuple[str, ...] = ("client_id",)
    required_claims: tuple[str, ...] = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
    scopes_as_list: bool = False

    def __post_init__(self) -> None:
        options.names("name", (self.name,))
        checked_token_types(self.token_types)
        object.__setattr__(self, "token_types", tuple(self.token_types))
        for name in ("scope_claims", "client_id_claims"):
            object.__setattr__(self, name, options.names(name, getattr(self, name)))
        object.__setattr__(self, "required_claims", checked_required_claims(self.required_claims))
        options.flag("scopes_as_list", self.scopes_as_list)

    @property
    def options(self) -> dict[str, Any]:
        """The options of `JWTAccessTokenVerifier` that the profile sets, by their names."""
        return {
            "token_types": checked_token_types(self.token_types),
            "scope_claims": self.scope_claims,
            "client_id_claims": self.client_id_claims,
            "required_claims": self.required_claims,
        }

    def verifier(self, **arguments: Any) -> "tokens.JWTAccessTokenVerifier":
        """Return a verifier for tokens of this form: `profiles.OKTA.verifier(issuer=…, audience=…)`.

        `arguments` are those of `JWTAccessTokenVerifier`; they take precedence over the profile. Raises
        ConfigurationError.
        """
        return tokens.JWTAccessTokenVerifier(**{**self.options, **arguments})


RFC9068: Final = Profile(name="RFC9068")
"""Tokens as in RFC 9068: the default."""

OIDC_PROVIDER: Final = Profile(name="OIDC_PROVIDER")
"""The npm package oidc-provider, with `accessTokenFormat: 'jwt'` and a resource indicator.

Nothing differs, and nothing is lost. A client's own tokens have its `client_id` as `sub`.
"""

BETTER_AUTH: Final = Profile(name="BETTER_AUTH")
"""Better Auth 1.7 and newer with its OAuth provider, for a `resource` that was requested.

Nothing differs, and nothing is lost. A client's own tokens have its `client_id` as `sub`.
"""

KEYCLOAK: Final = Profile(
    name="KEYCLOAK", token_types=("JWT", "at+jwt"), client_id_claims=("azp", "client_id")
)
"""Keycloak 26.4 and newer: `typ` is `JWT` unless the client's setting says `at+jwt`; the client is in `azp`.

Add a mapper that puts your audience into `aud`. Lost: only the audience distinguishes an ID token; it has no
`cnf`, so it is accepted at most as Bearer, if `accept_bearer` allows that. Roles are in `realm_access` and
`resource_access`: see the `claims` of `requires_dpop`.
"""

OKTA: Final = Profile(
    name="OKTA",
    token_types=(None,),
    scope_claims=("scp",),
    client_id_claims=("cid",),
    scopes_as_list=True,
)
"""Okta's custom authorization servers: no `typ`, scopes as an array in `scp`, the client in `cid`.

Lost: only the audience distinguishes an ID token; it has no `cnf`, so it is accepted at most as Bearer, if
`accept_bearer` allows that. The org authorization server's tokens are for Okta itself.
"""

AUTH0: Final = Profile(
    name="AUTH0",
    token_types=("JWT",),
    client_id_claims=("azp",),
    required_claims=("iss", "exp", "aud", "sub", "client_id", "iat"),
)
"""Auth0 with its own token profile: `typ` is `JWT`, the client is in `azp`, and there is no `jti`.

Lost: as with `KEYCLOAK`; and tokens have no identifier, since `jti` is missing. With Auth0's RFC 9068 profile
use the default. `permissions` aren't scopes: see the `claims` of `requires_dpop`.
"""

DUENDE: Final = Profile(
    name="DUENDE",
    required_claims=("iss", "exp", "aud", "client_id", "iat", "jti"),
    scopes_as_list=True,
)
"""Duende IdentityServer, and HelseID, which is built on it: `scope` is an array, unless a setting changes it.

A client's own tokens have no `sub`: their `subject` is None. Lost: a token that lacks `sub` by mistake is
accepted as the client's own.
"""

KNOWN: Final = (RFC9068, KEYCLOAK, OKTA, AUTH0, DUENDE)
"""The profiles that differ from RFC 9068; if two fit a token, the stricter one comes first."""


def configured_verifier(
    verifier: AccessTokenVerifier | None,
    *,
    issuer: str | None,
    resource: str,
    given: Mapping[str, Any],
    clock: Callable[[], float],
    insecure_http_hosts: Collection[str],
) -> AccessTokenVerifier:
    """Return `verifier`, or the one for `issuer`: exactly one of the two is given.

    - `resource`: the audience where `audience` isn't set.
    - `given`: the other options that are allowed with `issuer` only, by name, None where one isn't set:
      `audience`, `jwks`, `token_clock_skew`, `profile`, `max_cached_tokens` and `max_cached_bytes`.

    Raises ConfigurationError.
    """
    audience = options.names_or_one("audience", resource if given["audience"] is None else given["audience"])
    if verifier is None:
        if issuer is None:
            raise ConfigurationError("ResourceServer takes exactly one of issuer and verifier: none is given")
        arguments = {name: value for name, value in given.items() if value is not None}
        profile = arguments.pop("profile", RFC9068)
        if not isinstance(profile, Profile):
            raise options.refused("profile", "a Profile, such as profiles.KEYCLOAK", profile)
        if "token_clock_skew" in arguments:
            skew = arguments.pop("token_clock_skew")
            arguments["clock_skew"] = checked_clock_skew("token_clock_skew", skew)
        arguments |= {"audience": audience, "clock": clock, "insecure_http_hosts": insecure_http_hosts}
        return profile.verifier(issuer=issuer, **arguments)
    takes = "an AccessTokenVerifier, such as JWTAccessTokenVerifier(…)"
    options.part("verifier", verifier, takes, fits=options.provides(verifier, "verify"))
    if issuer is not None or any(value is not None for value in given.values()):
        raise ConfigurationError(
            f"issuer, {', '.join(given)} make a verifier: leave them out, or leave out verifier"
        )
    # A verifier that is made here has logged this already.
    warn_of_plain_http(checked_hosts(insecure_http_hosts))
    return verifier
