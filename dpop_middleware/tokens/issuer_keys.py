"""Where an issuer's keys come from: what the option `jwks` says or gives, or the issuer's metadata document.

RFC 8414, OpenID Connect Discovery 1.0.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from dpop_middleware._request.secure_url import checked_url, is_this_machine
from dpop_middleware._runtime import system_time
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.health import IssuerKeysHealth
from dpop_middleware.jose import JOSEError
from dpop_middleware.tokens.access_token import shown
from dpop_middleware.tokens.fetch import Deadline, Endpoint, Fetcher, FetchError, checked_endpoint
from dpop_middleware.tokens.fetching import AskingInItsLoop, Fetching, OwnFetcher
from dpop_middleware.tokens.jwks import (
    KeySet,
    KeySource,
    LeftOut,
    log_left_out,
    parse_key_set,
)
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource

__all__ = [
    "StaticKeySource",
    "check_issuer",
    "discover",
    "endpoint_named",
    "issuer_keys",
    "jwks_endpoint",
    "metadata_urls",
]

_WELL_KNOWN = _OAUTH, _OPENID = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
_METADATA_LIMIT = 128 * 1024
_MEANING = MappingProxyType({"jwks_uri": "the keys", "introspection_endpoint": "the endpoint"})
_OPTION = MappingProxyType({"jwks_uri": "jwks", "introspection_endpoint": "endpoint"})
_JWKS_LIMIT = 512 * 1024
_USUALLY = Fetching()
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
    4.1 after it. Raises ConfigurationError for an issuer that is no acceptable URL (RFC 8414 section 2).
    """
    base = checked_url("issuer", issuer, insecure_http_hosts=insecure_http_hosts)
    return (
        f"{base.origin}{_OAUTH}{base.path}",
        f"{base.origin}{base.path}{_OPENID}",
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
                f"mend {member} in the metadata, or give {_OPTION[member]}= the URL if it is right: it names "
                f"{shown(endpoint.url)} for {_MEANING[member]}, which is this machine and not the issuer's"
            )
    return endpoint


def _another_issuer(named: object, issuer: str) -> str:
    # What to do comes first: a line of the log may cut what is long.
    sentence = f"the metadata is another issuer's: it says {shown(named)}, and we were told {shown(issuer)}"
    if not isinstance(named, str):
        return sentence
    if named.rstrip("/") == issuer.rstrip("/"):
        return f"only a trailing slash differs, so set issuer={shown(named)}: {sentence}"
    if named.rstrip("/").lower() == issuer.rstrip("/").lower():
        return f"only upper and lower case differ, so set issuer={shown(named)}: {sentence}"
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
        except FetchError as error:
            reasons.append(str(error) if url in str(error) else f"{url}: {error}")
            continue
        try:
            return jwks_endpoint(metadata, issuer=issuer, insecure_http_hosts=insecure_http_hosts)
        except FetchError as error:
            # What to do about a document that is there comes before one that isn't.
            reasons.insert(0, f"{error} (at {url})")
    raise FetchError("; ".join(reasons))


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
    without a usable key, for a URL by which keys must not travel, and for an issuer that is none.
    """
    check_issuer(issuer, insecure_http_hosts=insecure_http_hosts)
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


class StaticKeySource:
    """Keys that were given once and never change."""

    renewable = False

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def current(self) -> KeySet:
        """Return the keys."""
        return self._keys

    async def load(self) -> KeySet:
        """Return the keys."""
        return self._keys

    async def newer_than(self, keys: KeySet, *, since: float, wanted: str) -> KeySet:  # noqa: ARG002
        """Return the same keys: there are no newer ones."""
        return keys

    def age(self) -> float | None:
        """Return None: they don't age."""
        return None

    def open(self) -> None:
        """Do nothing."""

    async def health(self) -> IssuerKeysHealth:
        """Return how many keys there are."""
        return IssuerKeysHealth(ok=True, keys=len(self._keys.keys), warnings=self._keys.warnings)

    async def aclose(self) -> None:
        """Do nothing."""


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
