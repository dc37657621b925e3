"""DPoP below another library's OAuth client, as a transport of httpx2 and httpx (RFC 9449 sections 5 and 7).

The client requests tokens and sends them as Bearer, as before. The network gets a copy of each request, with
a proof: the client's own request has none, so that it can't be copied into a redirected request.
"""

import json
import re
from collections.abc import Callable, Collection, Generator, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from dpop_middleware import _options
from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware._request.uri import normalize
from dpop_middleware._runtime import installed, library_of, system_time
from dpop_middleware.client.bodies import aread_a_little, aread_or_drop, read_a_little, read_or_drop
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.proofs import Proofs, can_repeat, json_object
from dpop_middleware.client.token_request import TokenRequestError
from dpop_middleware.client.urls import OwnOrigins, named_urls, origin_of, request_origin, target_of

__all__ = ["DPoPTransport"]

_ACCESS_TOKEN: Final = re.compile(r"(?:Bearer|DPoP) +([\x21-\x7e]+)", re.ASCII | re.IGNORECASE)
_SCHEME: Final = re.compile(r"\s*(?:Bearer|DPoP)(?:\s|$)", re.ASCII | re.IGNORECASE)
_GRANT: Final = re.compile(rb"(?:\A|&)grant_type=")
# Fields that both libraries rebuild for a body in memory.
_OF_THE_BODY: Final = frozenset((b"content-length", b"content-encoding", b"transfer-encoding"))

if TYPE_CHECKING:
    import httpx
    import httpx2

    # The bases name their own Request and Response, so each complains of the other's.
    class _Transport(httpx2.BaseTransport, httpx2.AsyncBaseTransport, httpx.BaseTransport, httpx.AsyncBaseTransport):  # type: ignore[misc] # pyright: ignore[reportIncompatibleMethodOverride] # fmt: skip # noqa: E501
        pass
else:
    _Transport = type("_Transport", installed("BaseTransport", "AsyncBaseTransport"), {})


class DPoPTransport(_Transport):
    """Makes the token requests and the API's requests of an httpx2 or httpx client DPoP-bound.

    - `key`: signs the proofs; the one that the tokens will be bound to.
    - `transport`: the transport below, sync or async as the client is; by default the library's own
      `HTTPTransport` or `AsyncHTTPTransport`, with its defaults. Give your own for HTTP/2, other trust, or a
      proxy: the client sends what its own `proxy` and `mounts` are for past this transport, as Bearer.
    - `origin`: where an access token may go: an http or https URL, or several, of which scheme, host and
      port count. By default the origin of the first request that carries one. An access token is removed from
      requests to other origins.
    - `token_endpoint`: the URL, or several, at which tokens are requested. By default each POST of a form
      with a `grant_type` is a token request (RFC 6749).
    - `translate_token_type`: whether the client sees `token_type` "Bearer" where the token endpoint said
      "DPoP", since most libraries require it.
    - `clock`: seconds since the epoch, for the proofs' `iat`.
    - `correct_clock`: when a proof is refused, learn from the response's `Date` how far off this clock is for
      that origin, and send the request once more: over https only, by at most 5 minutes.
    - `insecure_http_hosts`: hosts that tokens and proofs may go to by plain http, besides loopback ones.

    A request to `origin` with an access token, as Bearer or as DPoP, is sent as DPoP with a fresh proof. A
    token request is sent with a proof and without access token. A request that already has a proof is sent
    unchanged, and so is any other request to `origin`. Nonces are remembered per origin, those of token
    endpoints separately. A request that is refused with `use_dpop_nonce` is sent once more, unless its body
    is a stream. The content of the token is not checked.

    Raises ConfigurationError (a ValueError) for an argument of another type, for an origin or endpoint that
    is not an http or https URL and for one by plain http that isn't named, also at a request; and at a token
    request TokenRequestError where the answer is a token that is not bound to the key, or a redirect to
    another origin or to an endpoint that isn't named, which would receive the code or the refresh token.
    """

    def __init__(
        self,
        key: DPoPKey,
        transport: Any = None,
        *,
        origin: str | Iterable[str] | None = None,
        token_endpoint: str | Iterable[str] | None = None,
        translate_token_type: bool = True,
        clock: Callable[[], float] = system_time,
        correct_clock: bool = False,
        insecure_http_hosts: Collection[str] = (),
    ) -> None:
        _options.part("key", key, "a DPoPKey", fits=isinstance(key, DPoPKey))
        takes = "a transport of httpx2 or httpx, such as httpx2.HTTPTransport(http2=True)"
        _options.part("transport", transport, takes, fits=transport is None or _is_transport(transport))
        self._inner = transport
        self._lock = Lock()
        self._origins = OwnOrigins(origin, insecure_http_hosts)
        self._endpoints = _TokenEndpoints(token_endpoint, insecure_http_hosts, translate=translate_token_type)
        self._for_apis = Proofs(key, heeded=self._origins, clock=clock, correct_clock=correct_clock)
        self._for_endpoints = Proofs(key, heeded=self._endpoints, clock=clock, correct_clock=correct_clock)

    def handle_request(self, request: Any) -> Any:
        """Send one request of a sync client; called by httpx2 and httpx."""
        inner = self._sender(request, "HTTPTransport")
        flow = self._flow(request)
        outgoing = next(flow)
        while True:
            response = inner.handle_request(outgoing)
            try:
                if self._is_read(outgoing, response) and read_a_little(response):
                    response = _in_memory(response, response.content)
                response.request = outgoing
                outgoing = flow.send(response)
                read_or_drop(response)
            except StopIteration as end:
                return end.value
            except BaseException:
                response.close()
                raise

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request of an async client; called by httpx2 and httpx."""
        inner = self._sender(request, "AsyncHTTPTransport")
        flow = self._flow(request)
        outgoing = next(flow)
        while True:
            response = await inner.handle_async_request(outgoing)
            try:
                if self._is_read(outgoing, response) and await aread_a_little(response):
                    response = _in_memory(response, response.content)
                response.request = outgoing
                outgoing = flow.send(response)
                await aread_or_drop(response)
            except StopIteration as end:
                return end.value
            except BaseException:
                await response.aclose()
                raise

    def close(self) -> None:
        """Close the transport below; called by a sync client."""
        if self._inner is not None:
            self._inner.close()

    async def aclose(self) -> None:
        """Close the transport below; called by an async client."""
        if self._inner is not None:
            await self._inner.aclose()

    def _sender(self, request: Any, default: str) -> Any:
        with self._lock:
            if self._inner is None:
                self._inner = getattr(library_of(request), default)()
            return self._inner

    def _is_read(self, request: Any, response: Any) -> bool:
        return request in self._endpoints or self._for_apis.needs_body(response)

    def _flow(self, request: Any) -> Generator[Any, Any, Any]:
        """Yield each request to send, receive its response, and return the response for the client."""
        if "DPoP" in request.headers:
            return (yield request)
        if request in self._endpoints:
            self._endpoints.require_secure(request)
            response = yield from self._for_endpoints.exchange(_without_token(_copy(request)), None)
            body = self._endpoints.for_the_client(response)
            return response if body is None else _in_memory(response, body)
        token = _access_token(request)
        if token is not None and self._origins.claim(request):
            return (yield from self._for_apis.exchange(_copy(request), token))
        response = yield request if request in self._origins else _without_token(_copy(request))
        self._for_apis.learn(response)
        return response


def _is_transport(given: object) -> bool:
    return any(_options.provides(given, name) for name in ("handle_request", "handle_async_request"))


def _access_token(request: Any) -> str | None:
    values = request.headers.get_list("Authorization")
    found = _ACCESS_TOKEN.fullmatch(values[0].strip(" \t")) if len(values) == 1 else None
    return None if found is None else found[1]


def _copy(request: Any) -> Any:
    """Return a copy that can be changed; the body is the same object."""
    return type(request)(
        request.method,
        request.url,
        headers=request.headers.raw,
        stream=request.stream,
        extensions=request.extensions,
    )


def _without_token(request: Any) -> Any:
    if any(_SCHEME.match(value) for value in request.headers.get_list("Authorization")):
        del request.headers["Authorization"]
    return request


def _in_memory(response: Any, body: bytes) -> Any:
    """Return the same response with `body`, not consumed."""
    headers = [pair for pair in response.headers.raw if pair[0].lower() not in _OF_THE_BODY]
    return type(response)(response.status_code, headers=headers, content=body, extensions=response.extensions)


class _TokenEndpoints:
    """The named token endpoints; where none is named, every POST of a form with a `grant_type` goes to one.

    `translate` says whether the client sees the type Bearer for a DPoP token.
    """

    def __init__(
        self, named: str | Iterable[str] | None, insecure_http_hosts: Collection[str], *, translate: bool
    ) -> None:
        self._hosts = checked_hosts(insecure_http_hosts)
        self._translate = _options.flag("translate_token_type", translate)
        urls = named_urls("token_endpoint", named, self._hosts)
        self._named = frozenset(normalize(target_of(url)) for url in urls)

    def __contains__(self, request: Any) -> bool:
        if request.method != "POST":
            return False
        if self._named:
            return _target(request) in self._named
        content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type != "application/x-www-form-urlencoded" or not can_repeat(request):
            return False
        return _GRANT.search(b"".join(request.stream)) is not None

    def require_secure(self, request: Any) -> None:
        """Raise ConfigurationError for a request by plain http that crosses a network and isn't named."""
        checked_url("the token endpoint", request_origin(request), insecure_http_hosts=self._hosts)

    def for_the_client(self, response: Any) -> bytes | None:
        """Return the body to give to the client in place of the response's own, None to keep that.

        Raises TokenRequestError for a token that is not bound, for an answer too long to be read, which may
        have one, and for a redirect to another origin or to an endpoint that isn't named.
        """
        status = response.status_code
        if response.has_redirect_location:
            target = _redirected_to(response)
            if target is None:
                raise TokenRequestError("the token endpoint redirects to another origin", status=status)
            if self._named and target not in self._named:
                raise TokenRequestError("the token endpoint redirects to another endpoint", status=status)
        if response.is_success and not response.is_stream_consumed:
            raise TokenRequestError("the token endpoint's answer is longer than 64 KiB", status=status)
        answer = json_object(response) if response.is_success else {}
        token_type = str(answer.get("token_type")).lower()
        if token_type == "bearer" and "access_token" in answer:
            raise TokenRequestError(
                "the token endpoint did not bind the token to the key: its token_type is Bearer, not DPoP",
                status=status,
            )
        if token_type != "dpop" or not self._translate:
            return None
        return json.dumps(answer | {"token_type": "Bearer"}).encode()


def _target(request: Any) -> str | None:
    try:
        return normalize(target_of(str(request.url)))
    except ValueError:
        return None


def _redirected_to(response: Any) -> str | None:
    """Return the target of a redirect in normal form, None for one to another origin."""
    try:
        # Parsed as the client parses it: another parser could find another target.
        location = type(response.request.url)(response.headers["Location"])
        if location.scheme and not location.host:  # the client resolves this to the same host at another port
            return None
        url = str(response.request.url.join(location))
        return normalize(target_of(url)) if origin_of(url) == request_origin(response.request) else None
    except (ValueError, *installed("InvalidURL")):
        return None
