"""The key source that the option `jwks` asks for."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from dpop_middleware._runtime import system_time
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import JOSEError
from dpop_middleware.tokens.discovery import discover
from dpop_middleware.tokens.fetch import Deadline, FetchError, checked_endpoint
from dpop_middleware.tokens.fetching import AskingInItsLoop, Fetching, OwnFetcher
from dpop_middleware.tokens.jwks import KeySet, LeftOut, log_left_out, parse_key_set
from dpop_middleware.tokens.key_source import KeySource, StaticKeySource
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource

__all__ = ["issuer_keys"]

_JWKS_LIMIT = 512 * 1024
_USUALLY = Fetching()
_MAX_NOTICES = 256
_MAX_REASONS = 5


def issuer_keys(
    jwks: Mapping[str, Any] | str | None,
    *,
    issuer: str,
    lifetimes: Lifetimes,
    clock: Callable[[], float] = system_time,
    insecure_http_hosts: Collection[str] = (),
    fetching: Fetching = _USUALLY,
) -> KeySource:
    """Return the source of an issuer's keys: a JWK Set as given, its URL, or None for discovery.

    Nothing is fetched yet. A fetched set without a usable key counts as no answer: the keys before it serve
    on. What is left out of fetched sets is logged once for each key. Raises ConfigurationError for a set
    without a usable key and for a URL by which keys must not travel.
    """
    if isinstance(jwks, Mapping):
        return StaticKeySource(_static_keys(jwks))
    if jwks is not None and not isinstance(jwks, str):
        raise ConfigurationError(f"jwks takes a JWK Set as a mapping, its URL or None, not {jwks!r}")
    given = None if jwks is None else checked_endpoint("jwks", jwks, insecure_http_hosts=insecure_http_hosts)
    ours = given or checked_endpoint("issuer", issuer, insecure_http_hosts=insecure_http_hosts)
    fetcher = fetching.fetcher(ours.origin)
    report = _Once()

    def fetch() -> KeySet:
        deadline = Deadline(lifetimes.timeout)
        endpoint = given or discover(
            issuer, fetcher=fetcher, deadline=deadline, insecure_http_hosts=insecure_http_hosts
        )
        document = fetcher.get(endpoint, deadline=deadline, limit=_JWKS_LIMIT)
        try:
            keys = parse_key_set(document, report=report)
        except JOSEError as error:
            raise FetchError(f"{endpoint.url}: {error}") from error
        if not keys.keys:
            raise FetchError(f"{endpoint.url}: the JWK Set holds no usable key{_reasons(keys)}")
        return keys

    source = RemoteKeySource(fetch, lifetimes=lifetimes, clock=clock)
    return AskingInItsLoop(source, fetcher) if isinstance(fetcher, OwnFetcher) else source


class _Once:
    """Logs each key that is left out once; of a set whose keys are new at each fetch, not without end."""

    def __init__(self) -> None:
        self._said: set[tuple[str | None, str]] = set()

    def __call__(self, key: LeftOut) -> None:
        if (key.kid, key.reason) in self._said or len(self._said) >= _MAX_NOTICES:
            return
        self._said.add((key.kid, key.reason))
        log_left_out(key)


def _reasons(keys: KeySet) -> str:
    """Return why the first few keys are left out, as the rest of a sentence."""
    if not keys.left_out:
        return ": it is empty"
    reasons = [str(key) for key in keys.left_out[:_MAX_REASONS]]
    if len(keys.left_out) > _MAX_REASONS:
        reasons.append(f"and {len(keys.left_out) - _MAX_REASONS} more")
    return ": " + "; ".join(reasons)


def _static_keys(jwks: Mapping[str, Any]) -> KeySet:
    try:
        keys = parse_key_set(jwks)
    except JOSEError as error:
        raise ConfigurationError("jwks takes a JWK Set: a mapping whose 'keys' is a list of JWKs") from error
    if not keys.keys:
        raise ConfigurationError(
            f"jwks holds no usable key{_reasons(keys)}. "
            "Give a public RSA, P-256, P-384, P-521 or Ed25519 key for signatures"
        )
    return keys
