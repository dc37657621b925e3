"""Connections for one fetch, directly or by a proxy: one deadline for everything, one limit for all bytes.

A peer that sends bytes slowly gains nothing. All of it blocks, and runs in a thread of its own. The operating
system resolves names; only its resolver's own time-outs bound that.

An egress proxy opens a tunnel by CONNECT (RFC 9110 section 9.3.6). TLS through it is with the issuer itself,
so that the proxy can neither read nor change a key. No message contains the proxy's password.
"""

import base64
import contextlib
import io
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from dpop_middleware._log import plain
from dpop_middleware._options import refused
from dpop_middleware._request.uri import URIError, parse_base_url
from dpop_middleware.errors import ConfigurationError

__all__ = [
    "TOO_LARGE",
    "BoundedSocket",
    "Deadline",
    "FetchError",
    "Proxy",
    "ProxyChoice",
    "checked_proxy",
    "checked_ssl_context",
    "connected",
]

TOO_LARGE = "the answer is larger than the limit"
_TAKES: Final = "'environment', None or the URL of a proxy, such as 'http://user:password@proxy:3128'"
_LONGEST_ANSWER: Final = 16 * 1024
_END: Final = b"\r\n\r\n"


class FetchError(Exception):
    """A document could not be fetched; the message is for logs."""


class Deadline:
    """The moment, `seconds` from now, by which several steps together must end."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether there is no time left."""
        return time.monotonic() >= self._end

    def remaining(self) -> float:
        """Return the seconds left; raises FetchError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchError("no complete answer within the time limit")
        return left


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
            raise FetchError(TOO_LARGE)
        return count


class BoundedSocket:
    """The part of a socket that http.client uses; `limit` is in bytes."""

    def __init__(self, sock: socket.socket, *, deadline: Deadline, limit: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._reader: io.BufferedReader = io.BufferedReader(_Reader(sock, deadline=deadline, limit=limit))

    def sendall(self, data: bytes) -> None:
        """Send all of it before the deadline."""
        self._sock.settimeout(self._deadline.remaining())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the one reader, which enforces both bounds: what it has read ahead is not lost."""
        return self._reader

    def close(self) -> None:
        """Leave the socket open: http.client closes it before the answer is read."""


def connected(host: str, port: int, *, deadline: Deadline) -> socket.socket:
    """Return a connection to the first address of `host` that answers; raises OSError for none."""
    failure = OSError("the host name has no address")
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        # A share for each address, so that one that drops packets leaves time for the next.
        share = deadline.remaining() / (len(addresses) - position)
        with contextlib.ExitStack() as cleanup:
            try:
                # A kernel without IPv6 has no socket for an address that the name has all the same.
                sock = cleanup.enter_context(socket.socket(family, kind, protocol))
                sock.settimeout(share)
                sock.connect(address)
            except OSError as error:
                failure = error
                continue
            cleanup.pop_all()
            return sock
    raise failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that opens tunnels; `authorization` is the value of `Proxy-Authorization`, empty for none."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def tunnel(self, host: str, port: int, *, deadline: Deadline) -> socket.socket:
        """Return a connection to `host` through the proxy; raises FetchError and OSError."""
        try:
            sock = connected(self.host, self.port, deadline=deadline)
        except OSError as error:
            why = f"{type(error).__name__}: {plain(str(error))}"
            raise FetchError(f"the proxy {self.host}:{self.port} can't be reached: {why}") from error
        try:
            self._ask(sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", deadline=deadline)
        except BaseException:
            sock.close()
            raise
        return sock

    def _ask(self, sock: socket.socket, authority: str, *, deadline: Deadline) -> None:
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self.authorization:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        sock.settimeout(deadline.remaining())
        sock.sendall("\r\n".join(lines).encode("ascii") + _END)
        answer = b""
        while _END not in answer:
            sock.settimeout(deadline.remaining())
            piece = sock.recv(4096)
            if not piece or len(answer) > _LONGEST_ANSWER:
                raise FetchError(f"the proxy {self.host}:{self.port} doesn't answer as a proxy")
            answer += piece
        version, _, status = answer.partition(b"\r\n")[0].partition(b" ")
        # A TLS server doesn't speak first: bytes after the answer don't come from the requested server.
        if not version.startswith(b"HTTP/1.") or status[:1] != b"2" or not answer.endswith(_END):
            raise FetchError(
                f"the proxy {self.host}:{self.port} opens no tunnel to {authority}: it answers {status[:3]!a}"
            )


class ProxyChoice:
    """The proxy for each host: one for all, or by `HTTPS_PROXY` and `NO_PROXY` as they were at the start."""

    def __init__(self, proxy: Proxy | None, *, bypassing: str | None = None) -> None:
        self._proxy = proxy
        self._bypassing = {"no": bypassing} if bypassing else {}

    def for_host(self, host: str) -> Proxy | None:
        """Return the proxy for an https URL of this host, None to connect to it directly."""
        return None if proxy_bypass_environment(host, self._bypassing) else self._proxy


def checked_proxy(option: str, value: object) -> ProxyChoice:
    """Return what an option asks for that names a proxy; raises ConfigurationError, without the value."""
    if value is None:
        return ProxyChoice(None)
    if value != "environment":
        return ProxyChoice(_parsed(value, f"{option} takes {_TAKES}"))
    found = getproxies_environment()
    proxy = found.get("https", found.get("all", ""))
    if "://" not in proxy:
        # curl reads it so too.
        proxy = f"http://{proxy}" if proxy else ""
    what = f"{option}='environment' finds no http:// URL of a proxy in HTTPS_PROXY or ALL_PROXY"
    return ProxyChoice(_parsed(proxy, what) if proxy else None, bypassing=found.get("no"))


def _parsed(url: object, refusal: str) -> Proxy:
    try:
        if not isinstance(url, str) or not url.isascii():
            raise URIError("a URL is an ASCII string")
        parts = urlsplit(url)
        user, at, address = parts.netloc.rpartition("@")
        base = parse_base_url(f"{parts.scheme}://{address}{parts.path}")
        port = parts.port or 80
    except ValueError:
        # The cause may quote the password.
        raise ConfigurationError(refusal) from None
    if base.scheme != "http" or base.path or parts.query or parts.fragment:
        raise ConfigurationError(f"{refusal}: TLS goes through the proxy, to the issuer")
    basic = base64.b64encode(unquote(user).encode()).decode("ascii")
    return Proxy(host=base.host, port=port, authorization=f"Basic {basic}" if at else "")


def checked_ssl_context(context: object) -> ssl.SSLContext | None:
    """Return the option `ssl_context`, or raise ConfigurationError for one that trusts everybody."""
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        raise refused("ssl_context", "an ssl.SSLContext", context)
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigurationError(
            "ssl_context takes one that checks certificates and host names: for a private CA use "
            "ssl.create_default_context(cafile=...)"
        )
    return context
