"""DPoP as an `auth=` of httpx2 and of httpx, for their sync and their async clients (RFC 9449 section 7).

The two libraries share the interface of `Auth` but not the class, so one class derives from whichever of the
two base classes are installed. Redirects need care: a client that follows them by itself does so below
`Auth`, with a copy of the headers, and the copied proof is for another URL.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Iterable
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from dpop_middleware._clock import system_time
from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware.client.headers import UncopiedHeaders
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.nonces import NonceMemory, demands_nonce, one_nonce
from dpop_middleware.client.target import origin_of, percent_encoded

__all__ = ["DPoPAuth", "TokenSource"]

TokenSource: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]] | None

_MAX_REDIRECTS: Final = 20


def _installed_bases() -> tuple[type, ...]:
    found: list[type] = []
    for name in ("httpx2", "httpx"):
        try:
            found.append(import_module(name).Auth)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    if not found:
        raise ModuleNotFoundError(
            "DPoPAuth needs httpx2 or httpx: "
            "in a checkout of dpop_middleware, python -m pip install '.[client]'",
            name="httpx2",
        )
    return tuple(found)


if TYPE_CHECKING:
    import httpx
    import httpx2

    # The bases name their own Request and Response, so each complains of the other's.
    class _Auth(httpx2.Auth, httpx.Auth):  # type: ignore[misc] # pyright: ignore[reportIncompatibleMethodOverride]
        pass
else:
    _Auth = type("_Auth", _installed_bases(), {})


class DPoPAuth(_Auth):
    """Puts a fresh proof, and the access token, on every request to the token's own origin.

    - `key`: signs the proofs; the one that the token is bound to.
    - `token`: the access token, or a callable that returns it (awaitable for async clients), called once
      for each request. None sends proofs only, as a token endpoint wants them.
    - `origin`: where the token may go: an http or https URL, or several, of which scheme, host and port
      count. By default the origin of the first request made with this object. Requests to other origins
      are sent without token and proof.
    - `follow_redirects`: follow redirects here, each with a fresh proof; leave the client's own setting
      off. A chain that leaves the token's origin goes on without token and proof, also when it comes back.
    - `clock`: seconds since the epoch, for the proofs' `iat`.
    - `insecure_http_hosts`: hosts that token and proof may go to by plain http, besides loopback ones.

    Nonces are taken from every response and remembered per origin. A request that is refused with
    `use_dpop_nonce` is sent once more. A client that follows redirects by itself sends them without token
    and proof; if that is refused by the token's origin with 401, the request goes out again with its own. A
    streamed body can't be sent twice, so its refusal is returned; set `requires_request_body = True` on this
    object to read such bodies into memory first. Characters that a path can't have are percent-encoded.

    Raises ValueError for an origin that is not an http or https URL, ConfigurationError (a ValueError) for
    one by plain http that isn't named, also at the first request, and at a request TypeError where a sync
    client meets an async `token` (RFC 9449 sections 4, 7.1, 8 and 9).
    """

    def __init__(
        self,
        key: DPoPKey,
        token: TokenSource = None,
        *,
        origin: str | Iterable[str] | None = None,
        follow_redirects: bool = False,
        clock: Callable[[], float] = system_time,
        insecure_http_hosts: Collection[str] = (),
    ) -> None:
        self.key = key
        self.follow_redirects = follow_redirects
        self._token = token
        self._clock = clock
        self._nonces = NonceMemory()
        self._lock = Lock()
        named = (origin,) if isinstance(origin, str) else tuple(origin or ())
        self._hosts = checked_hosts(insecure_http_hosts)
        self._origins = frozenset(origin_of(one) for one in named)
        for one in self._origins:
            checked_url("origin", one, insecure_http_hosts=self._hosts)

    @property
    def has_token(self) -> bool:
        """Whether an access token goes with the proofs."""
        return self._token is not None

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Authenticate one request of a sync client; called by httpx2 and httpx."""
        if not self._may_authenticate(request):
            yield _bare(request)
            return
        if self.requires_request_body:
            request.read()
        flow = self._flow(request, self._sync_token())
        outgoing = next(flow)
        while True:
            response = yield outgoing
            if _error_is_in_body(response):
                response.read()
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Authenticate one request of an async client; called by httpx2 and httpx."""
        if not self._may_authenticate(request):
            yield _bare(request)
            return
        if self.requires_request_body:
            await request.aread()
        flow = self._flow(request, await self._async_token())
        outgoing = next(flow)
        while True:
            response = yield outgoing
            if _error_is_in_body(response):
                await response.aread()
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return

    def _flow(self, request: Any, token: str | None) -> Generator[Any, Any, None]:
        """Yield what to send, receive each response: the same for sync and async clients."""
        can_repeat = _can_repeat(request)
        may_retry = True
        for _ in range(_MAX_REDIRECTS):
            response = yield self._signed(request, token)
            nonce = self._learned_nonce(response)
            if response.request is not request:
                if not self._refused_after_redirect(response):
                    return
                request, may_retry = response.request, True
            elif may_retry and nonce is not None and _demands_nonce(response):
                may_retry = False
            elif self.follow_redirects and response.next_request is not None:
                request, may_retry = response.next_request, True
            else:
                return
            can_repeat = can_repeat or _can_repeat(request)
            if not can_repeat:
                return
            if not self._is_own(request):
                yield from _followed_bare(request)
                return

    def _signed(self, request: Any, token: str | None) -> Any:
        request.url = _percent_encoded(request.url)
        if not isinstance(request.headers, UncopiedHeaders):
            request.headers = UncopiedHeaders(request.headers)
        request.headers["DPoP"] = self.key.proof(
            request.method,
            request.url,
            access_token=token,
            nonce=self._nonces.get(_origin(request)),
            now=self._clock(),
        )
        if token is not None:
            request.headers["Authorization"] = f"DPoP {token}"
        return request

    def _learned_nonce(self, response: Any) -> str | None:
        nonce = None
        for answer in (*response.history, response):
            nonce = one_nonce(answer.headers.get_list("DPoP-Nonce"))
            if nonce is not None and self._is_own(answer.request):
                self._nonces.remember(_origin(answer.request), nonce)
        return nonce

    def _refused_after_redirect(self, response: Any) -> bool:
        hops = (*response.history, response)
        return response.status_code == 401 and all(self._is_own(hop.request) for hop in hops)

    def _may_authenticate(self, request: Any) -> bool:
        # Without a named origin the first request decides, and two threads may come first.
        with self._lock:
            if not self._origins:
                origin = _origin(request)
                checked_url("the request's URL", origin, insecure_http_hosts=self._hosts)
                self._origins = frozenset((origin,))
        return self._is_own(request)

    def _is_own(self, request: Any) -> bool:
        try:
            return _origin(request) in self._origins
        except ValueError:
            # A redirect may name what is no http URL; the client then says what it thinks of it.
            return False

    def _sync_token(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            if inspect.iscoroutine(token):
                token.close()
            raise TypeError("the token callable is async: use it with an AsyncClient")
        return token

    async def _async_token(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        return await token if inspect.isawaitable(token) else token


def _origin(request: Any) -> str:
    return origin_of(str(request.url))


def _percent_encoded(url: Any) -> Any:
    path, mark, query = url.raw_path.partition(b"?")
    encoded = percent_encoded(path.decode("latin-1")).encode("ascii")
    return url if encoded == path else url.copy_with(raw_path=encoded + mark + query)


def _bare(request: Any) -> Any:
    """Return `request` without what an earlier hop may have left in its headers."""
    request.headers.pop("DPoP", None)
    if request.headers.get("Authorization", "").lower().startswith("dpop "):
        del request.headers["Authorization"]
    return request


def _followed_bare(request: Any) -> Generator[Any, Any, None]:
    for _ in range(_MAX_REDIRECTS):
        response = yield _bare(request)
        if response.next_request is None:
            return
        request = response.next_request


def _can_repeat(request: Any) -> bool:
    try:
        return isinstance(request.content, bytes)
    except RuntimeError:
        # RequestNotRead, of either library: a stream that may be consumed by its first use.
        return False


def _error_is_in_body(response: Any) -> bool:
    headers = response.headers
    return (
        response.status_code in (400, 401)
        and "DPoP-Nonce" in headers
        and "json" in headers.get("Content-Type", "")
        and not demands_nonce(headers.get_list("WWW-Authenticate"), None)
    )


def _demands_nonce(response: Any) -> bool:
    challenges = response.headers.get_list("WWW-Authenticate") if response.status_code == 401 else ()
    return demands_nonce(challenges, _json(response) if _error_is_in_body(response) else None)


def _json(response: Any) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):  # not JSON, or nested too deep for Python
        return None
