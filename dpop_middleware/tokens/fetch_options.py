"""How an issuer's documents are fetched, by a verifier's options: by this package, or by the user's function.

The user's function may use any HTTP client. It is async and runs in the event loop that asked for keys, to
which its client belongs; the fetching thread waits for it. Its time and the size of its result are bounded.
It isn't checked where it connects, nor whether it checks certificates.
"""

import asyncio
import concurrent.futures
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from dpop_middleware._options import refused
from dpop_middleware._request.secure_url import Endpoint
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.connections import TOO_LARGE, Deadline, FetchError, ProxyChoice, checked_proxy
from dpop_middleware.tokens.fetch import Fetcher, FetchHeaders, checked_headers, checked_ssl_context

__all__ = ["Fetch", "FetchOptions", "OwnFetcher"]

Fetch = Callable[[str], Awaitable[bytes]]


class OwnFetcher(Fetcher):
    """Gets JSON objects by `fetch`, in the event loop `loop`."""

    def __init__(self, fetch: Fetch, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._fetch = fetch
        self._loop = loop

    def body(self, endpoint: Endpoint, *, deadline: Deadline, limit: int) -> bytes:
        """Return what the function returns for the URL of `endpoint`; raises FetchError.

        Of an exception only the class name is reported: its message may hold secrets.
        """
        seconds = deadline.remaining()
        asked = self._asked(endpoint.url)
        try:
            future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError as error:
            asked.close()
            raise FetchError("the event loop that asked is closed") from error
        try:
            # Not `result`: the user's function may raise anything, and then there are no new keys.
            raised = future.exception(seconds)
        except concurrent.futures.CancelledError as cancelled:
            raise FetchError("fetch was cancelled") from cancelled
        except TimeoutError as late:
            future.cancel()
            raise FetchError("no complete answer within the time limit") from late
        if raised is not None:
            raise FetchError(f"fetch raised {type(raised).__name__}") from raised
        body: object = future.result()
        if not isinstance(body, bytes):
            raise FetchError(f"fetch returned {type(body).__name__}, not bytes")
        if len(body) > limit:
            raise FetchError(TOO_LARGE)
        return body

    async def _asked(self, url: str) -> bytes:
        return await self._fetch(url)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """The options for fetching documents; each is None where it isn't set.

    - `proxy`: the URL of an egress proxy, or `"environment"`.
    - `headers`: header fields for the configured origin.
    - `ssl_context`: for private CAs.
    - `fetch`: an async function from a URL to bytes, in place of the other options.

    Raises ConfigurationError.
    """

    proxy: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
    fetch: Fetch | None = None
    _choice: ProxyChoice = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_choice", checked_proxy("jwks_proxy", self.proxy))
        object.__setattr__(self, "headers", checked_headers(self.headers))
        checked_ssl_context(self.ssl_context)
        if self.fetch is None:
            return
        if not callable(self.fetch):
            raise refused("fetch", "an async function from a URL to bytes", self.fetch)
        if self.proxy is not None or self.headers or self.ssl_context is not None:
            raise ConfigurationError(
                "fetch itself gets the documents: leave out jwks_proxy, jwks_headers and ssl_context"
            )

    def check_none_is_set(self) -> None:
        """Raise ConfigurationError if an option is set: the keys were given, and nothing is fetched."""
        options = {
            "jwks_proxy": self.proxy,
            "jwks_headers": self.headers,
            "ssl_context": self.ssl_context,
            "fetch": self.fetch,
        }
        for name, value in options.items():
            if value:
                raise ConfigurationError(f"the keys in jwks are given, not fetched: leave out {name}")

    def fetcher(self, origin: tuple[bool, str, int]) -> Callable[[asyncio.AbstractEventLoop], Fetcher]:
        """Return what gives the event loop that asks its fetcher; `origin` is that of the configured URL."""
        if self.fetch is not None:
            return partial(OwnFetcher, self.fetch)
        fetcher = Fetcher(
            ssl_context=self.ssl_context,
            proxy=self._choice,
            headers=FetchHeaders(self.headers or {}, origin=origin),
        )
        return lambda _: fetcher
