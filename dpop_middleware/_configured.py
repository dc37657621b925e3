"""What the options of a resource server ask for: its verifier, and the metadata that it publishes."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dpop_middleware._log import warn_of_plain_http
from dpop_middleware._options import names_or_one, part, provides, refused
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._request.secure_url import checked_hosts
from dpop_middleware._runtime import Deferred
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.profiles import RFC9068, Profile
from dpop_middleware.tokens.access_token import TOKEN_CLOCK_SKEW, AccessTokenVerifier
from dpop_middleware.tokens.cache import MAX_CACHED_BYTES, MAX_CACHED_TOKENS
from dpop_middleware.tokens.optional_members import checked_clock_skew

if TYPE_CHECKING:
    from dpop_middleware import _resource_metadata
else:
    _resource_metadata = Deferred("dpop_middleware._resource_metadata")

__all__ = ["configured_verifier", "published"]


def configured_verifier(
    verifier: AccessTokenVerifier | None,
    *,
    issuer: str | None,
    resource: str,
    options: Mapping[str, Any],
    clock: Callable[[], float],
    insecure_http_hosts: Collection[str],
) -> AccessTokenVerifier:
    """Return `verifier`, or the one for `issuer`: exactly one of the two is given.

    - `resource`: the audience where `audience` isn't set.
    - `options`: the other options that are allowed with `issuer` only, by name, None where one isn't set:
      `audience`, `jwks`, `token_clock_skew`, `profile`, `max_cached_tokens` and `max_cached_bytes`.

    Raises ConfigurationError.
    """
    audience = names_or_one("audience", resource if options["audience"] is None else options["audience"])
    if verifier is None:
        if issuer is None:
            raise ConfigurationError("ResourceServer takes exactly one of issuer and verifier: none is given")
        skew, tokens, size = (
            options[name] for name in ("token_clock_skew", "max_cached_tokens", "max_cached_bytes")
        )
        return _checked_profile(options["profile"]).verifier(
            issuer=issuer,
            audience=audience,
            jwks=options["jwks"],
            clock_skew=TOKEN_CLOCK_SKEW if skew is None else checked_clock_skew("token_clock_skew", skew),
            clock=clock,
            insecure_http_hosts=insecure_http_hosts,
            max_cached_tokens=MAX_CACHED_TOKENS if tokens is None else tokens,
            max_cached_bytes=MAX_CACHED_BYTES if size is None else size,
        )
    takes = "an AccessTokenVerifier, such as JWTAccessTokenVerifier(…)"
    part("verifier", verifier, takes, fits=provides(verifier, "verify"))
    if issuer is not None or any(value is not None for value in options.values()):
        raise ConfigurationError(
            f"issuer, {', '.join(options)} make a verifier: leave them out, or leave out verifier"
        )
    # A verifier that is made here has logged this already.
    warn_of_plain_http(checked_hosts(insecure_http_hosts))
    return verifier


def _checked_profile(profile: object) -> Profile:
    if profile is not None and not isinstance(profile, Profile):
        raise refused("profile", "a Profile, such as profiles.KEYCLOAK", profile)
    return RFC9068 if profile is None else profile


def published(
    metadata: "_resource_metadata.ResourceMetadata | None",
    resource: str,
    *,
    origin: str,
    urls: PublicURLs,
    audiences: Iterable[str],
) -> "_resource_metadata.PublishedMetadata | None":
    """Return where the `metadata` of `resource` is served (`_resource_metadata.published`), None without any.

    Raises ConfigurationError.
    """
    if metadata is None:
        return None
    # Imported only if metadata is published.
    return _resource_metadata.published(metadata, resource, origin=origin, urls=urls, audiences=audiences)
