"""Where an issuer keeps its keys: its metadata document (RFC 8414, OpenID Connect Discovery 1.0)."""

from collections.abc import Collection
from typing import Any

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.secure_url import checked_url
from dpop_middleware.tokens.fetch import Deadline, Endpoint, Fetcher, FetchError, checked_endpoint

__all__ = ["discover", "jwks_endpoint", "metadata_urls"]

_METADATA_LIMIT = 128 * 1024


def metadata_urls(issuer: str, *, insecure_http_hosts: Collection[str]) -> tuple[str, str]:
    """Return the URLs at which `issuer` may publish its metadata, in the order in which to try them.

    RFC 8414 section 3.1 puts the well-known path before the issuer's own, OpenID Connect Discovery section
    4.1 after it. Raises ConfigurationError for an issuer that is no acceptable URL (RFC 8414 section 2).
    """
    base = checked_url("issuer", issuer, insecure_http_hosts=insecure_http_hosts)
    return (
        f"{base.origin}/.well-known/oauth-authorization-server{base.path}",
        f"{base.origin}{base.path}/.well-known/openid-configuration",
    )


def jwks_endpoint(metadata: dict[str, Any], *, issuer: str, insecure_http_hosts: Collection[str]) -> Endpoint:
    """Return where the keys are, from a metadata document whose `issuer` must be ours (RFC 8414 section 3.3).

    Raises FetchError for another issuer's document, a missing `jwks_uri`, and one that is no acceptable URL.
    `signed_metadata` is not looked at.
    """
    if metadata.get("issuer") != issuer:
        raise FetchError("the metadata is another issuer's")
    try:
        return checked_endpoint("jwks_uri", metadata.get("jwks_uri"), insecure_http_hosts=insecure_http_hosts)
    except ConfigurationError as error:
        raise FetchError(f"the metadata is of no use: {error}") from error


def discover(
    issuer: str, *, fetcher: Fetcher, deadline: Deadline, insecure_http_hosts: Collection[str]
) -> Endpoint:
    """Fetch the issuer's metadata and return where its keys are.

    Raises FetchError with the reasons when neither document leads there.
    """
    reasons: list[str] = []
    for url in metadata_urls(issuer, insecure_http_hosts=insecure_http_hosts):
        endpoint = checked_endpoint("issuer", url, insecure_http_hosts=insecure_http_hosts)
        try:
            metadata = fetcher.get(endpoint, deadline=deadline, limit=_METADATA_LIMIT)
            return jwks_endpoint(metadata, issuer=issuer, insecure_http_hosts=insecure_http_hosts)
        except FetchError as error:
            reasons.append(str(error) if url in str(error) else f"{url}: {error}")
    raise FetchError("; ".join(reasons))
