"""HTTP to an introspection endpoint, for one event loop: bounded connections, bodies read within a limit.

The limit holds for what is read, and again after decompression. No cookie is kept. The errors say why there
was no answer, in messages for logs.
"""

import ssl
from typing import Final

from dpop_middleware.tokens.connections import TOO_LARGE, FetchError, Proxy, ProxyChoice
from dpop_middleware.tokens.fetch import decoded

try:
    import httpx2
except ModuleNotFoundError as error:
    if error.name != "httpx2":
        raise
    raise ModuleNotFoundError(
        "dpop_middleware.introspection needs httpx2: "
        "in a checkout of dpop_middleware, python -m pip install '.[introspection]'",
        name="httpx2",
    ) from error

__all__ = [
    "BoundedTransport",
    "ConnectionLostError",
    "EndpointError",
    "NotNamedError",
    "error_of_status",
    "httpx2",
]

# Shorter than the servers' own limits, so that they seldom close a connection while a question is being sent.
_KEPT_OPEN: Final = 4.0
_OK: Final = 200
# They described the body as it was sent; a cookie would be sent with later questions, about other tokens.
_LEFT_OUT: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding", b"set-cookie"})
_LONGEST_RETRY_AFTER: Final = 60
# Nothing can be asked now, or this server may not ask. Any other status is about one token.
_OVERLOADED: Final = frozenset({408, 429, 502, 503, 504})
_UNAUTHORIZED: Final = frozenset({401, 403})
_NOT_ALLOWED: Final = _UNAUTHORIZED | {404, 405, 407, *range(300, 400)}


class EndpointError(Exception):
    """There is no answer.

    `of_token` says that the server is there, and couldn't or wouldn't judge this one token; `declined` that
    it would judge others; `blocked` that the token may be the reason: a filter in front of the server may
    object to it. `retry_after` is in seconds, None where the server doesn't say.
    """

    def __init__(
        self,
        reason: str,
        *,
        of_token: bool = False,
        declined: bool = False,
        blocked: bool = False,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.of_token = of_token
        self.declined = declined
        self.blocked = blocked
        self.retry_after = retry_after


class ConnectionLostError(EndpointError):
    """The connection ended before the answer did."""


class NotNamedError(EndpointError):
    """The issuer's metadata was read, and names no acceptable endpoint or is another issuer's."""


def error_of_status(url: str, status: int, retry_after: str) -> EndpointError:
    """Return the error for an answer of `url` with a status other than 200, and with this `Retry-After`."""
    of_token = status not in _OVERLOADED | _NOT_ALLOWED
    likely = ": does the issuer know this client_authentication?" if status in _UNAUTHORIZED else ""
    return EndpointError(
        f"{url}: the status is {status}, not 200{likely}",
        of_token=of_token,
        declined=of_token and status in range(400, 500),
        blocked=status in _NOT_ALLOWED,
        retry_after=_seconds_to_wait(retry_after),
    )


def _seconds_to_wait(retry_after: str) -> int | None:
    """Return the seconds that the server asks for, within bounds; None for a date and for anything else."""
    if not retry_after.isascii() or not retry_after.isdecimal() or len(retry_after) > 9:
        return None
    return min(max(int(retry_after), 1), _LONGEST_RETRY_AFTER)


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Sends requests over at most `max_connections` connections and reads at most `limit` bytes of a body.

    No content coding is requested; gzip is accepted all the same. Through `proxy` go https URLs; it may
    choose none for some hosts, and then those have as many connections of their own.
    """

    def __init__(
        self, *, ssl_context: ssl.SSLContext, max_connections: int, limit: int, proxy: ProxyChoice
    ) -> None:
        self._ssl_context = ssl_context
        self._limits = httpx2.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=_KEPT_OPEN,
        )
        self._limit = limit
        self._proxy = proxy
        self._inner: dict[Proxy | None, httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request and return its answer with the whole body; raises FetchError.

        A refusal whose body can't be read has none: its status and its fields count.
        """
        answer = await self._sent(request)
        try:
            body = await self._read(answer)
        except (FetchError, httpx2.RemoteProtocolError, httpx2.ReadError):
            if answer.status_code == _OK:
                raise
            body = b""
        finally:
            await answer.aclose()
        return httpx2.Response(
            answer.status_code,
            headers=[field for field in answer.headers.raw if field[0].lower() not in _LEFT_OUT],
            content=body,
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for transport in tuple(self._inner.values()):
            await transport.aclose()

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        proxy = self._proxy.for_host(request.url.host) if request.url.scheme == "https" else None
        try:
            return await self._transport(proxy).handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            if proxy is None:
                raise
            raise type(error)(f"through the proxy {proxy.host}:{proxy.port}: {error}") from error

    def _transport(self, proxy: Proxy | None) -> httpx2.AsyncHTTPTransport:
        transport = self._inner.get(proxy)
        if transport is None:
            transport = self._inner[proxy] = httpx2.AsyncHTTPTransport(
                verify=self._ssl_context,
                trust_env=False,
                limits=self._limits,
                proxy=None if proxy is None else _httpx2_proxy(proxy),
            )
        return transport

    async def _read(self, answer: httpx2.Response) -> bytes:
        body = bytearray()
        stream = answer.stream
        assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101 - for the types: it came from an async pool
        async for piece in stream:
            body += piece
            if len(body) > self._limit:
                raise FetchError(TOO_LARGE)
        return decoded(bytes(body), answer.headers.get("Content-Encoding"), limit=self._limit)


def _httpx2_proxy(proxy: Proxy) -> httpx2.Proxy:
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    return httpx2.Proxy(f"http://{host}:{proxy.port}", headers=headers)
