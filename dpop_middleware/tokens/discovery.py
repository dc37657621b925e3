"""Where an issuer keeps its keys: its metadata document (RFC 8414, OpenID Connect Discovery 1.0)."""

from collections.abc import Collection
from types import MappingProxyType
from typing import Any

from dpop_middleware._request.secure_url import checked_url, is_this_machine
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.access_token import shown
from dpop_middleware.tokens.fetch import Deadline, Endpoint, Fetcher, FetchError, checked_endpoint

__all__ = ["discover", "endpoint_named", "jwks_endpoint", "metadata_urls"]

_METADATA_LIMIT = 128 * 1024
_MEANING = MappingProxyType({"jwks_uri": "the keys", "introspection_endpoint": "the endpoint"})
_OPTION = MappingProxyType({"jwks_uri": "jwks", "introspection_endpoint": "endpoint"})


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
    """Return where the keys are, as `endpoint_named` does."""
    return endpoint_named("jwks_uri", metadata, issuer=issuer, insecure_http_hosts=insecure_http_hosts)


def endpoint_named(
    member: str, metadata: dict[str, Any], *, issuer: str, insecure_http_hosts: Collection[str]
) -> Endpoint:
    """Return the URL in `member` of a metadata document whose `issuer` must be ours (RFC 8414 section 3.3).

    It may be on another https origin than the issuer. It may be on this machine itself, or be asked by plain
    http there, only where the issuer is on this machine too or is a host of `insecure_http_hosts`: what a
    document from elsewhere says must not make us trust whoever listens here.

    Raises FetchError for another issuer's document, a missing member, and one that is no acceptable URL.
    `signed_metadata` is not looked at.
    """
    named = metadata.get("issuer")
    if named != issuer:
        raise FetchError(_another_issuer(named, issuer))
    try:
        endpoint = checked_endpoint(member, metadata.get(member), insecure_http_hosts=insecure_http_hosts)
    except ConfigurationError as error:
        raise FetchError(f"the metadata is of no use: {error}") from error
    if is_this_machine(endpoint.host) and endpoint.host not in insecure_http_hosts:
        host = checked_url("issuer", issuer, insecure_http_hosts=insecure_http_hosts).host
        if not is_this_machine(host) and host not in insecure_http_hosts:
            raise FetchError(
                f"the metadata names {shown(endpoint.url)} for {_MEANING[member]}, which is this machine and "
                f"not the issuer's: mend {member} there, or give {_OPTION[member]}= the URL if it is right"
            )
    return endpoint


def _another_issuer(named: object, issuer: str) -> str:
    sentence = f"the metadata is another issuer's: it says {shown(named)}, and we were told {shown(issuer)}"
    if not isinstance(named, str):
        return sentence
    if named.rstrip("/") == issuer.rstrip("/"):
        return f"{sentence}; only a trailing slash differs, so set issuer={shown(named)}"
    if named.rstrip("/").lower() == issuer.rstrip("/").lower():
        return f"{sentence}; only upper and lower case differ, so set issuer={shown(named)}"
    return sentence


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
