"""One bounded HTTP GET, for documents that decide what is trusted, or the user's own function in its place.

It blocks, and runs in a thread of its own. It is bounded in total time (connect, proxy, TLS handshake,
headers, body) and in bytes, both read from the connection and after decompression. At most two redirects are
followed, within the origin only. Only a configured proxy is used, and only status 200 is accepted. Configured
header fields are sent to the configured origin only. Of the user's function the time and the size of the
result are bounded.
"""

import asyncio
import concurrent.futures
import http.client
import re
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urljoin

from dpop_middleware._log import plain, shown
from dpop_middleware._options import HTTP_TOKEN, refused
from dpop_middleware._request.secure_url import Endpoint, checked_endpoint
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import JOSEError, strict
from dpop_middleware.tokens.connections import (
    TOO_LARGE,
    BoundedSocket,
    Deadline,
    FetchError,
    ProxyChoice,
    connected,
)

__all__ = [
    "Fetch",
    "FetchHeaders",
    "Fetcher",
    "OwnFetcher",
    "checked_headers",
    "decoded",
]

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]

_USUAL: Final = {
    # A key set's own type (RFC 7517 section 8.5.1), without which some servers answer 406.
    "Accept": "application/json, application/jwk-set+json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "dpop_middleware",
}
_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")
# Fields for framing, routing and encoding can't be configured.
_OURS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HEADERS_ALLOWANCE = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 2
# Not 101: no upgrade was asked for.
_INTERIM = frozenset({100, *range(102, 200)})
_GZIP = 16 + zlib.MAX_WBITS
_NO_LOOP = "the event loop that asked is closed"


def checked_headers(value: object) -> dict[str, str]:
    """Return the option `jwks_headers`; raises ConfigurationError, which never shows a value."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            "jwks_headers takes a mapping of header fields, such as {'X-Api-Key': key}, "
            f"not a {type(value).__name__}"
        )
    for name, content in value.items():
        if not isinstance(name, str) or not HTTP_TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise refused("jwks_headers", "names of header fields that have no other use", name)
        if not isinstance(content, str) or not _VALUE.fullmatch(content):
            raise ConfigurationError(f"jwks_headers takes printable ASCII as the value of {name}")
    return dict(value)


class FetchHeaders:
    """The usual fields, and `added` ones, which are sent to one origin only: they may be secrets."""

    def __init__(self, added: Mapping[str, str], *, origin: tuple[bool, str, int] | None = None) -> None:
        replaced = {name.lower() for name in added}
        kept = {name: value for name, value in _USUAL.items() if name.lower() not in replaced}
        self._added = kept | dict(added)
        self._origin = origin

    def to(self, origin: tuple[bool, str, int]) -> dict[str, str]:
        """Return the fields of a request to `origin`."""
        return self._added if origin == self._origin else _USUAL


def _final_response(sock: Any) -> http.client.HTTPResponse:
    """Return the response after those that only say that it is coming (RFC 9110 section 15.2)."""
    while True:
        response = http.client.HTTPResponse(sock, method="GET")
        try:
            response.begin()
        except BaseException:
            response.close()
            raise
        if response.status not in _INTERIM:
            return response
        # So that it doesn't close the reader, which belongs to the next response too.
        response.fp = None  # type: ignore[assignment] # http.client itself does so


def _read(response: http.client.HTTPResponse, *, limit: int) -> bytes:
    if response.status != http.client.OK:
        raise FetchError(f"the status is {response.status}, not 200")
    body = response.read(limit + 1)
    if len(body) > limit:
        raise FetchError(TOO_LARGE)
    if response.length:
        raise FetchError("the answer ended too early")
    return decoded(body, response.headers.get("Content-Encoding"), limit=limit)


def decoded(body: bytes, coding: str | None, *, limit: int) -> bytes:
    """Return a body whose `Content-Encoding` is `coding`: at most `limit` bytes; raises FetchError."""
    coding = "identity" if coding is None else coding.strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise FetchError(f"the answer has a content coding other than gzip: {shown(coding)}")
    return body if coding == "identity" else _decompressed(body, limit=limit)


def _decompressed(body: bytes, *, limit: int) -> bytes:
    """Decompress one gzip member of at most `limit` bytes; decompression stops at the limit."""
    gzip = zlib.decompressobj(_GZIP)
    try:
        content = gzip.decompress(body, limit + 1)
    except zlib.error as error:
        raise FetchError("the answer is not valid gzip data") from error
    if len(content) > limit:
        raise FetchError(TOO_LARGE)
    if not gzip.eof or gzip.unused_data:
        raise FetchError("the answer is not valid gzip data")
    return content


class Fetcher:
    """Gets JSON objects over HTTP.

    - `ssl_context`: for private CAs; None for the system's CAs.
    - `proxy`: through which https URLs are fetched.
    - `headers`: header fields to send, and to which origin.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: ProxyChoice | None = None,
        headers: FetchHeaders | None = None,
    ) -> None:
        self._context = ssl_context
        self._proxy = proxy or ProxyChoice(None)
        self._headers = headers or FetchHeaders({})

    def get(self, endpoint: Endpoint, *, deadline: Deadline, limit: int) -> dict[str, Any]:
        """Return the JSON object at `endpoint`, of at most `limit` bytes; raises FetchError."""
        try:
            body = self.body(endpoint, deadline=deadline, limit=limit)
            return strict.parse_document(body)
        except FetchError as error:
            raise FetchError(f"{endpoint.url}: {error}") from error
        except JOSEError as error:
            raise FetchError(
                f"{endpoint.url}: the answer is not a JSON object: {error.description}"
            ) from error
        # http.client and the IDNA codec raise ValueError for some hosts, headers and chunk sizes.
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Its message may quote the answer, and goes to the log.
            raise FetchError(f"{endpoint.url}: {type(error).__name__}: {plain(str(error))}") from error

    def body(self, endpoint: Endpoint, *, deadline: Deadline, limit: int) -> bytes:
        """Return the document itself; raises FetchError and what sockets and http.client raise."""
        for _ in range(_MOST_REDIRECTS + 1):
            found = self._answer(endpoint, deadline=deadline, limit=limit)
            if isinstance(found, bytes):
                return found
            if found.origin != endpoint.origin:
                raise FetchError(f"it redirects to another origin: {shown(found.url)}")
            endpoint = found
        raise FetchError(f"it redirects more than {_MOST_REDIRECTS} times")

    def _answer(self, endpoint: Endpoint, *, deadline: Deadline, limit: int) -> bytes | Endpoint:
        """Return the document, or the endpoint to which the server redirects."""
        context, proxy = self._tls(endpoint), self._proxy.for_host(endpoint.host)
        if context is None or proxy is None:
            sock = connected(endpoint.host, endpoint.port, deadline=deadline)
        else:
            sock = proxy.tunnel(endpoint.host, endpoint.port, deadline=deadline)
        with sock:
            if context is None:
                return self._exchange(sock, endpoint, deadline=deadline, limit=limit)
            sock.settimeout(deadline.remaining())
            with context.wrap_socket(sock, server_hostname=endpoint.host) as secured:
                return self._exchange(secured, endpoint, deadline=deadline, limit=limit)

    def _exchange(self, sock: Any, endpoint: Endpoint, *, deadline: Deadline, limit: int) -> bytes | Endpoint:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
        # http.client leaves the port out of Host when it is the default one, which depends on TLS.
        connection.default_port = 443 if endpoint.secure else 80
        bounded: Any = BoundedSocket(sock, deadline=deadline, limit=limit + _HEADERS_ALLOWANCE)
        connection.sock = bounded
        connection.request("GET", endpoint.target, headers=self._headers.to(endpoint.origin))
        with _final_response(bounded) as response:
            if response.status in _REDIRECTS and response.headers.get("Location") is not None:
                return _redirection(endpoint, response.headers["Location"])
            return _read(response, limit=limit)

    def _tls(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        if not endpoint.secure:
            return None
        if self._context is None:
            # Loaded here, in the fetching thread: loading the system's CAs takes tens of milliseconds.
            self._context = ssl.create_default_context()
        return self._context


def _redirection(endpoint: Endpoint, location: str) -> Endpoint:
    try:
        # The host was acceptable: the caller refuses another origin.
        return checked_endpoint(
            "Location", urljoin(endpoint.url, location), insecure_http_hosts=(endpoint.host,)
        )
    except (ConfigurationError, ValueError) as error:
        raise FetchError(f"it redirects to an unacceptable URL: {shown(location)}") from error


class OwnFetcher(Fetcher):
    """Gets JSON objects by the user's own function `fetch`, in the event loop `loop`, to which it belongs.

    It may use any HTTP client. It isn't checked where it connects, nor whether it checks certificates.
    """

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
            raise FetchError(_NO_LOOP) from error
        try:
            # Not `result`: the user's function may raise anything, and then there are no new keys.
            raised = future.exception(seconds)
        except concurrent.futures.CancelledError as cancelled:
            raise FetchError("fetch was cancelled") from cancelled
        except TimeoutError as late:
            if self._loop.is_closed():
                raise FetchError(_NO_LOOP) from late
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
        task = cast("asyncio.Task[bytes]", asyncio.current_task())
        task.add_done_callback(_mark_as_retrieved)
        return await self._fetch(url)


def _mark_as_retrieved(task: "asyncio.Task[bytes]") -> None:
    """Retrieve what a fetch raised, even after the deadline: asyncio logs in whole what nobody retrieved."""
    if not task.cancelled():
        task.exception()
