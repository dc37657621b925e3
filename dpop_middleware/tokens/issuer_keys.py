"""The key source that the option `jwks` asks for."""

import ssl
from collections.abc import Callable, Collection, Mapping
from typing import Any

from dpop_middleware.clock import system_time
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose.errors import JOSEError
from dpop_middleware.tokens.discovery import discover
from dpop_middleware.tokens.fetch import Deadline, Fetcher, checked_endpoint, checked_ssl_context
from dpop_middleware.tokens.jwks import KeySet, parse_key_set
from dpop_middleware.tokens.key_source import KeySource, StaticKeySource
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource

__all__ = ["issuer_keys"]

_JWKS_LIMIT = 512 * 1024


def issuer_keys(
    jwks: Mapping[str, Any] | str | None,
    *,
    issuer: str,
    lifetimes: Lifetimes,
    clock: Callable[[], float] = system_time,
    insecure_http_hosts: Collection[str] = (),
    ssl_context: ssl.SSLContext | None = None,
) -> KeySource:
    """Return the source of an issuer's keys: a JWK Set as given, its URL, or None for discovery.

    Nothing is fetched yet. Raises ConfigurationError for a set without a usable key and for a URL by which
    keys must not travel.
    """
    context = checked_ssl_context(ssl_context)
    if isinstance(jwks, Mapping):
        return StaticKeySource(_static_keys(jwks))
    if jwks is not None and not isinstance(jwks, str):
        raise ConfigurationError(f"jwks takes a JWK Set as a mapping, its URL or None, not {jwks!r}")
    fetcher = Fetcher(ssl_context=context)
    given = None if jwks is None else checked_endpoint("jwks", jwks, insecure_http_hosts=insecure_http_hosts)

    def fetch() -> KeySet:
        deadline = Deadline(lifetimes.timeout)
        endpoint = given or discover(
            issuer, fetcher=fetcher, deadline=deadline, insecure_http_hosts=insecure_http_hosts
        )
        return parse_key_set(fetcher.get(endpoint, deadline=deadline, limit=_JWKS_LIMIT))

    return RemoteKeySource(fetch, lifetimes=lifetimes, clock=clock)


def _static_keys(jwks: Mapping[str, Any]) -> KeySet:
    try:
        keys = parse_key_set(jwks)
    except JOSEError as error:
        raise ConfigurationError("jwks takes a JWK Set: a mapping whose 'keys' is a list of JWKs") from error
    if not keys.keys:
        raise ConfigurationError(
            "jwks holds no usable key: give a public RSA, P-256, P-384, P-521 or Ed25519 key for signatures"
        )
    return keys
