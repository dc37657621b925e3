"""How an issuer's documents are fetched, by a verifier's options: by us, or by a function of the user's.

That function is any HTTP client, with our bounds around it. It is async and runs in the event loop that asked
for keys, where its client lives; who waits for it is the thread that fetches. Bounded are the time, and the
bytes of what it returns. What it connects to, and whether it checks certificates, is its own affair.
"""

import asyncio
import concurrent.futures
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.health import IssuerKeysHealth
from dpop_middleware.tokens.connections import TOO_LARGE, Deadline, FetchError, ProxyChoice, checked_proxy
from dpop_middleware.tokens.fetch import Endpoint, Fetcher, FetchHeaders, checked_headers, checked_ssl_context
from dpop_middleware.tokens.jwks import KeySet, KeySource

__all__ = ["AskingInItsLoop", "Fetch", "Fetching", "OwnFetcher", "checked_fetch"]

Fetch = Callable[[str], Awaitable[bytes]]


def checked_fetch(fetch: Fetch) -> Fetch:
    """Return the option `fetch`; raises ConfigurationError for what can't be called."""
    if not callable(fetch):
        raise ConfigurationError(f"fetch takes an async function from a URL to bytes, not {fetch!r}")
    return fetch


class OwnFetcher(Fetcher):
    """Gets JSON objects by `fetch`, in the event loop `loop`, which is None until somebody asks."""

    def __init__(self, fetch: Fetch) -> None:
        super().__init__()
        self._fetch = fetch
        self.loop: asyncio.AbstractEventLoop | None = None

    def body(self, endpoint: Endpoint, *, deadline: Deadline, limit: int) -> bytes:
        """Return what the function returns for the URL of `endpoint`; raises FetchError.

        Of what it raises the name of the class is told: its words may hold what no log should.
        """
        if self.loop is None or self.loop.is_closed():
            raise FetchError("the event loop that asked is closed")
        seconds = deadline.remaining()
        asked = self._asked(endpoint.url)
        try:
            future = asyncio.run_coroutine_threadsafe(asked, self.loop)
        except RuntimeError as error:
            asked.close()
            raise FetchError("the event loop that asked is closed") from error
        try:
            body: object = future.result(seconds)
        except concurrent.futures.CancelledError as error:
            raise FetchError("fetch was cancelled") from error
        except TimeoutError as error:
            future.cancel()
            raise FetchError("no complete answer within the time limit") from error
        except Exception as error:
            # It is a function of the user's, and may fail with anything: then there are no new keys.
            raise FetchError(f"fetch raised {type(error).__name__}") from error
        if not isinstance(body, bytes):
            raise FetchError(f"fetch returned {type(body).__name__}, not bytes")
        if len(body) > limit:
            raise FetchError(TOO_LARGE)
        return body

    async def _asked(self, url: str) -> bytes:
        return await self._fetch(url)


class AskingInItsLoop:
    """A key source that tells `fetcher` in which event loop it was asked last."""

    def __init__(self, source: KeySource, fetcher: OwnFetcher) -> None:
        self.renewable = source.renewable
        self._source = source
        self._fetcher = fetcher

    def _here(self) -> KeySource:
        self._fetcher.loop = asyncio.get_running_loop()
        return self._source

    def current(self) -> KeySet | None:
        """Return the keys to use now, None if they must be waited for; never blocks."""
        return self._here().current()

    async def load(self) -> KeySet:
        """Return the keys to use now and wait for them if need be; raises `errors.Unavailable`."""
        return await self._here().load()

    async def newer_than(self, keys: KeySet, *, since: float, wanted: str) -> KeySet:
        """Return a newer set than `keys`, or `keys` themselves: see `KeySource`."""
        return await self._here().newer_than(keys, since=since, wanted=wanted)

    def age(self) -> float | None:
        """Return for how many seconds the keys have been held: see `KeySource`."""
        return self._source.age()

    def open(self) -> None:
        """Begin to get the keys, if there are none; never blocks."""
        self._here().open()

    async def health(self) -> IssuerKeysHealth:
        """Return how the keys are; waits for them for a second at most."""
        return await self._here().health()

    async def aclose(self) -> None:
        """Release what is held; the source may be used again."""
        await self._source.aclose()


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
