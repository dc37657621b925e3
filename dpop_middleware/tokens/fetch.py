"""One bounded HTTP GET for documents that decide about trust.

Blocking, for a thread of its own. Bounded in time as a whole (connect, TLS handshake, headers, body: a peer
that drips bytes gains nothing) and in bytes as read from the connection. No redirects, no proxies from the
environment, no content coding, status 200 only. Name resolution is the operating system's and is bounded
only by its resolver's own time-outs.
"""

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from dpop_middleware._request.secure_url import checked_url
from dpop_middleware._request.uri import normalize
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import strict_json
from dpop_middleware.jose.errors import JOSEError

__all__ = ["Deadline", "Endpoint", "FetchError", "Fetcher", "checked_endpoint", "checked_ssl_context"]

_HEADERS_ALLOWANCE = 64 * 1024
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "dpop_middleware",
}
_TOO_LARGE = "the answer is larger than the limit"


class FetchError(Exception):
    """A document could not be fetched; the message is for logs."""


class Deadline:
    """A moment by which several steps must be over, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left; raises FetchError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchError("no complete answer within the time limit")
        return left


class Endpoint(NamedTuple):
    """Where a document is: what to connect to and what to ask for. `target` is the path and the query."""

    url: str
    secure: bool
    host: str
    port: int
    target: str


def checked_endpoint(name: str, url: object, *, insecure_http_hosts: Collection[str]) -> Endpoint:
    """Parse a URL from which to fetch; as `secure_url.checked_url`, but a query is allowed."""
    if not isinstance(url, str):
        raise ConfigurationError(f"{name} takes an https URL as a string, not {url!r}")
    base_url, mark, query = url.partition("?")
    base = checked_url(name, base_url, insecure_http_hosts=insecure_http_hosts)
    if not all("!" <= character <= "~" and character != "#" for character in query):
        raise ConfigurationError(f"{name} has an illegal character in its query: percent-encode it")
    port = base.authority.rpartition("]")[2].partition(":")[2]
    secure = base.scheme == "https"
    return Endpoint(
        url=url,
        secure=secure,
        host=base.host,
        port=int(port) if port else (443 if secure else 80),
        # A base URL's path is without its last slash, which counts here.
        target=normalize(base_url).removeprefix(base.origin) + mark + query,
    )


def checked_ssl_context(context: object) -> ssl.SSLContext | None:
    """Return the option `ssl_context`, or raise ConfigurationError for one that trusts anybody."""
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError(f"ssl_context takes an ssl.SSLContext, not {context!r}")
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigurationError(
            "ssl_context must check certificates and host names: for a private CA use "
            "ssl.create_default_context(cafile=...)"
        )
    return context


class _Reader(io.RawIOBase):
    """Reads from a socket, with one deadline and one byte limit for everything."""

    def __init__(self, sock: socket.socket, *, deadline: Deadline, limit: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.remaining())
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise FetchError(_TOO_LARGE)
        return count


class _BoundedSocket:
    """The part of a socket that http.client uses."""

    def __init__(self, sock: socket.socket, *, deadline: Deadline, limit: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._limit = limit

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.remaining())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, deadline=self._deadline, limit=self._limit))

    def close(self) -> None:
        """Leave the socket open: http.client closes it while the answer is still to be read."""


def _connect(endpoint: Endpoint, *, deadline: Deadline, context: ssl.SSLContext | None) -> socket.socket:
    """Connect to the first address that answers, and shake hands."""
    failure = OSError("the host name has no address")
    addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        with contextlib.ExitStack() as cleanup:
            sock = cleanup.enter_context(socket.socket(family, kind, protocol))
            # A share for each address, so that one that swallows packets leaves time for the next.
            sock.settimeout(deadline.remaining() / (len(addresses) - position))
            try:
                sock.connect(address)
            except OSError as error:
                failure = error
                continue
            if context is not None:
                sock.settimeout(deadline.remaining())
                sock = context.wrap_socket(sock, server_hostname=endpoint.host)
            cleanup.pop_all()
            return sock
    raise failure


def _read(response: http.client.HTTPResponse, *, limit: int) -> bytes:
    if response.status != http.client.OK:
        raise FetchError(f"the status is {response.status}, not 200")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchError("the answer has a content coding, although none was asked for")
    body = response.read(limit + 1)
    if len(body) > limit:
        raise FetchError(_TOO_LARGE)
    if response.length:
        raise FetchError("the answer ended too early")
    return body


class Fetcher:
    """Gets JSON objects over HTTP. `ssl_context` (None: the system's CAs) is for private CAs."""

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._context = ssl_context

    def get(self, endpoint: Endpoint, *, deadline: Deadline, limit: int) -> dict[str, Any]:
        """Return the JSON object at `endpoint`, of at most `limit` bytes; raises FetchError."""
        try:
            body = self._body(endpoint, deadline=deadline, limit=limit)
            return strict_json.parse_object(body)
        except FetchError as error:
            raise FetchError(f"{endpoint.url}: {error}") from error
        except JOSEError as error:
            raise FetchError(f"{endpoint.url}: the answer is not a JSON object") from error
        # ValueError: http.client and the IDNA codec raise it for some hosts, headers and chunk sizes.
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchError(f"{endpoint.url}: {type(error).__name__}: {error}") from error

    def _body(self, endpoint: Endpoint, *, deadline: Deadline, limit: int) -> bytes:
        with _connect(endpoint, deadline=deadline, context=self._tls(endpoint)) as sock:
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
            # http.client leaves the port out of Host when it is the default one, which depends on TLS.
            connection.default_port = 443 if endpoint.secure else 80
            connection.sock = _BoundedSocket(sock, deadline=deadline, limit=limit + _HEADERS_ALLOWANCE)
            connection.request("GET", endpoint.target, headers=_HEADERS)
            with connection.getresponse() as response:
                return _read(response, limit=limit)

    def _tls(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        if not endpoint.secure:
            return None
        if self._context is None:
            # Here, in the fetching thread: loading the system's CAs takes tens of milliseconds.
            self._context = ssl.create_default_context()
        return self._context
