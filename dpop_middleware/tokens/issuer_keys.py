"""Where an issuer's keys come from: the set or URL in the option `jwks`, or the issuer's metadata document.

RFC 8414, OpenID Connect Discovery 1.0.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

from dpop_middleware._log import shown
from dpop_middleware._options import part, refused
from dpop_middleware._request.secure_url import Endpoint, checked_endpoint, checked_url, is_this_machine
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import JOSEError
from dpop_middleware.tokens.claims import difference
from dpop_middleware.tokens.connections import Deadline, FetchError, checked_proxy, checked_ssl_context
from dpop_middleware.tokens.fetch import Fetch, Fetcher, FetchHeaders, OwnFetcher, checked_headers
from dpop_middleware.tokens.jwks import KeySet, LeftOut, StaticKeySource, log_left_out, parse_key_set
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource

__all__ = [
    "Discovery",
    "FetchOptions",
    "KeySource",
    "check_issuer",
    "endpoint_named",
    "issuer_keys",
    "metadata_urls",
]

_WELL_KNOWN = _OAUTH, _OPENID = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
_METADATA_LIMIT = 128 * 1024
# A document instead of its URL: JSON, or a PEM file.
_KEYS_AS_TEXT = re.compile(r"[{\n]")
_MEANING = MappingProxyType({"jwks_uri": "the keys", "introspection_endpoint": "the endpoint"})
_OPTION = MappingProxyType({"jwks_uri": "jwks", "introspection_endpoint": "endpoint"})
_JWKS_LIMIT = 512 * 1024
_MAX_NOTICES = 256
_MAX_REASONS = 5


def check_issuer(issuer: str, *, insecure_http_hosts: Collection[str]) -> None:
    """Raise ConfigurationError unless `issuer` is an acceptable URL, and not that of its metadata."""
    base = checked_url("issuer", issuer, insecure_http_hosts=insecure_http_hosts)
    for place in _WELL_KNOWN:
        if place in base.path:
            found = f"{base.origin}{base.path.replace(place, '')}"
            raise ConfigurationError(
                f"issuer takes the issuer's identifier, such as {found!r}, not the URL of its metadata"
            )


def metadata_urls(issuer: str, *, insecure_http_hosts: Collection[str]) -> tuple[str, str]:
    """Return the URLs at which `issuer` may publish its metadata, in the order in which to try them.

    RFC 8414 section 3.1 puts the well-known path before the issuer's own, OpenID Connect Discovery section
    4.1 after it. Raises ConfigurationError for an issuer that isn't an acceptable URL (RFC 8414 section 2).
    """
    base = checked_url("issuer", issuer, insecure_http_hosts=insecure_http_hosts)
    return (
        f"{base.origin}{_OAUTH}{base.path}",
        f"{base.origin}{base.path}{_OPENID}",
    )


def endpoint_named(
    member: str, metadata: dict[str, Any], *, issuer: str, insecure_http_hosts: Collection[str]
) -> Endpoint:
    """Return the URL in `member` of a metadata document whose `issuer` must be ours (RFC 8414 section 3.3).

    It may be on another https origin than the issuer. It may be on this machine, with or without TLS, only
    where the issuer is on this machine too or is a host of `insecure_http_hosts`: a document from elsewhere
    must not make the verifier trust a service on this machine.

    Raises FetchError for another issuer's document, a missing member, and one that isn't an acceptable URL.
    `signed_metadata` is ignored.
    """
    named = metadata.get("issuer")
    if named != issuer:
        raise FetchError(_another_issuer(named, issuer))
    try:
        endpoint = checked_endpoint(member, metadata.get(member), insecure_http_hosts=insecure_http_hosts)
    except ConfigurationError as error:
        raise FetchError(
            f"correct {member} in the metadata, or set {_OPTION[member]}=: it can't be used: {error}"
        ) from error
    if is_this_machine(endpoint.host) and endpoint.host not in insecure_http_hosts:
        host = checked_url("issuer", issuer, insecure_http_hosts=insecure_http_hosts).host
        if not is_this_machine(host) and host not in insecure_http_hosts:
            raise FetchError(
                f"correct {member} in the metadata, or set {_OPTION[member]}= if the URL is right: it names "
                f"{shown(endpoint.url)} for {_MEANING[member]}, which is this machine and not the issuer's"
            )
    return endpoint


def _another_issuer(named: object, issuer: str) -> str:
    # The advice comes first: a line of the log may be cut after it.
    sentence = f"the metadata is another issuer's: it says {shown(named)}, not the configured {shown(issuer)}"
    differs = difference((issuer,), (named,)) if isinstance(named, str) else None
    return sentence if differs is None else f"{differs}, so set issuer={shown(named)}: {sentence}"


class Discovery:
    """Finds the endpoint of an issuer's keys in its metadata.

    The place at which nothing answered in time is tried last at the next attempt: on a host that the issuer
    shares with others, somebody else may be there.
    """

    def __init__(self, issuer: str, *, insecure_http_hosts: Collection[str]) -> None:
        self._issuer = issuer
        self._hosts = insecure_http_hosts
        self._urls: tuple[str, ...] = metadata_urls(issuer, insecure_http_hosts=insecure_http_hosts)

    def endpoint(self, fetcher: Fetcher, *, deadline: Deadline) -> Endpoint:
        """Fetch the metadata by `fetcher` and return the endpoint that it names.

        Raises FetchError with the reasons when neither document names it.
        """
        reasons: list[str] = []
        for url in self._urls:
            endpoint = checked_endpoint("issuer", url, insecure_http_hosts=self._hosts)
            try:
                metadata = fetcher.get(endpoint, deadline=deadline, limit=_METADATA_LIMIT)
            except FetchError as error:
                reasons.append(str(error) if url in str(error) else f"{url}: {error}")
                if deadline.is_over:
                    self._urls = (*(other for other in self._urls if other != url), url)
                    break
                continue
            try:
                return endpoint_named(
                    "jwks_uri", metadata, issuer=self._issuer, insecure_http_hosts=self._hosts
                )
            except FetchError as error:
                # What to do about a document that is there comes before one that isn't.
                reasons.insert(0, f"{error} (at {url})")
        raise FetchError("; ".join(reasons))


KeySource: TypeAlias = RemoteKeySource | StaticKeySource
"""Gives a verifier the issuer's newest keys: those that are fetched, or those that were given."""


class FetchOptions:
    """How an issuer's documents are fetched, by a verifier's options; each is None where it isn't set.

    - `proxy`: the URL of an egress proxy, or `"environment"`.
    - `headers`: header fields for the configured origin.
    - `ssl_context`: for private CAs.
    - `fetch`: an async function from a URL to bytes, in place of the other options.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self._proxy = checked_proxy("jwks_proxy", proxy)
        self._headers = checked_headers(headers)
        self._ssl_context = checked_ssl_context(ssl_context)
        self._fetch = fetch
        ours = {"jwks_proxy": proxy, "jwks_headers": headers, "ssl_context": ssl_context}
        if fetch is not None and not callable(fetch):
            raise refused("fetch", "an async function from a URL to bytes", fetch)
        if fetch is not None and any(ours.values()):
            raise ConfigurationError(
                "fetch itself gets the documents: leave out jwks_proxy, jwks_headers and ssl_context"
            )
        self._given = [name for name, value in {**ours, "fetch": fetch}.items() if value]

    def check_none_is_set(self) -> None:
        """Raise ConfigurationError if an option is set: the keys were given, and nothing is fetched."""
        if self._given:
            raise ConfigurationError(f"the keys in jwks are given, not fetched: leave out {self._given[0]}")

    def fetcher(self, origin: tuple[bool, str, int]) -> Callable[[asyncio.AbstractEventLoop], Fetcher]:
        """Return what gives the event loop that asks its fetcher; `origin` is that of the configured URL."""
        if self._fetch is not None:
            return partial(OwnFetcher, self._fetch)
        headers = FetchHeaders(self._headers, origin=origin)
        fetcher = Fetcher(ssl_context=self._ssl_context, proxy=self._proxy, headers=headers)
        return lambda _: fetcher


def issuer_keys(
    jwks: Mapping[str, Any] | str | None,
    *,
    issuer: str,
    lifetimes: Lifetimes,
    clock: Callable[[], float],
    insecure_http_hosts: Collection[str],
    fetch_options: FetchOptions,
) -> KeySource:
    """Return the source of an issuer's keys: a JWK Set as given, its URL, or None for discovery.

    Nothing is fetched yet. A fetched set without a usable key counts as a failed fetch: the previous keys
    stay in use. Each key that is left out of fetched sets is logged once. Raises ConfigurationError for a set
    without a usable key, for a URL that isn't secure, and for an `issuer` that isn't an issuer's URL.
    """
    check_issuer(issuer, insecure_http_hosts=insecure_http_hosts)
    if isinstance(jwks, Mapping):
        return StaticKeySource(_static_keys(jwks))
    is_url = isinstance(jwks, str) and not _KEYS_AS_TEXT.search(jwks)
    part("jwks", jwks, "a JWK Set as a mapping, its URL or None", fits=jwks is None or is_url)
    given = None if jwks is None else checked_endpoint("jwks", jwks, insecure_http_hosts=insecure_http_hosts)
    ours = given or checked_endpoint("issuer", issuer, insecure_http_hosts=insecure_http_hosts)
    fetcher_in = fetch_options.fetcher(ours.origin)
    report = _Once()
    discovery = Discovery(issuer, insecure_http_hosts=insecure_http_hosts)

    def fetch(loop: asyncio.AbstractEventLoop) -> KeySet:
        fetcher, deadline = fetcher_in(loop), Deadline(lifetimes.timeout)
        endpoint = given or discovery.endpoint(fetcher, deadline=deadline)
        document = fetcher.get(endpoint, deadline=deadline, limit=_JWKS_LIMIT)
        try:
            keys = parse_key_set(document, report=report)
        except JOSEError as error:
            raise FetchError(f"{endpoint.url}: {error}") from error
        if not keys.keys:
            raise FetchError(f"{endpoint.url}: the JWK Set holds no usable key{_reasons(keys)}")
        return keys

    return RemoteKeySource(fetch, lifetimes=lifetimes, clock=clock)


class _Once:
    """Logs each key that is left out once, and a bounded number where the keys are new at each fetch."""

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
