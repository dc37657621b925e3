"""How an issuer's documents are fetched, from the options of a verifier."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.fetch import Fetcher, checked_ssl_context
from dpop_middleware.tokens.fetch_headers import FetchHeaders, checked_headers
from dpop_middleware.tokens.own_fetch import Fetch, OwnFetcher, checked_fetch
from dpop_middleware.tokens.proxy import ProxyChoice, checked_proxy

__all__ = ["Fetching"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """The options by which documents are fetched; each is None where it isn't set.

    - `proxy`: the URL of an egress proxy, or `"environment"`.
    - `headers`: header fields for the configured origin.
    - `ssl_context`: for private CAs.
    - `fetch`: an async function from a URL to bytes, in place of all that.

    Raises ConfigurationError.
    """

    proxy: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
    fetch: Fetch | None = None
    _choice: ProxyChoice = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_choice", checked_proxy(self.proxy))
        object.__setattr__(self, "headers", checked_headers(self.headers))
        checked_ssl_context(self.ssl_context)
        if self.fetch is None:
            return
        checked_fetch(self.fetch)
        if self.proxy is not None or self.headers or self.ssl_context is not None:
            raise ConfigurationError(
                "fetch gets the documents by itself: leave out jwks_proxy, jwks_headers and ssl_context"
            )

    def fetcher(self, origin: tuple[bool, str, int]) -> Fetcher:
        """Return what fetches; `origin` is the one whose URL was configured."""
        if self.fetch is not None:
            return OwnFetcher(self.fetch)
        return Fetcher(
            ssl_context=self.ssl_context,
            proxy=self._choice,
            headers=FetchHeaders(self.headers or {}, origin=origin),
        )
