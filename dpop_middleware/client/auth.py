"""DPoP as an `auth=` of httpx2 and of httpx, for their sync and their async clients (RFC 9449 section 7).

The two libraries share the interface of `Auth` but not the class, so one class derives from whichever of the
two base classes are installed. Redirects need care: where the client itself follows them, it does so below
`Auth`, with a copy of the headers, and the copied proof is for another URL.
"""

import inspect
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    ItemsView,
    Iterable,
    Iterator,
    MutableMapping,
)
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from dpop_middleware import _options
from dpop_middleware._runtime import installed, system_time
from dpop_middleware.client.bodies import aread_a_little, aread_or_drop, read_a_little, read_or_drop
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.proofs import Proofs, can_repeat
from dpop_middleware.client.urls import OwnOrigins

__all__ = ["DPoPAuth", "UncopiedHeaders"]

_MAX_REDIRECTS: Final = 20


if TYPE_CHECKING:
    import httpx
    import httpx2

    # The bases name their own Request and Response, so each complains of the other's.
    class _Auth(httpx2.Auth, httpx.Auth):  # type: ignore[misc] # pyright: ignore[reportIncompatibleMethodOverride]
        pass
else:
    _Auth = type("_Auth", installed("Auth"), {})


class UncopiedHeaders(MutableMapping[str, str]):
    """The header fields of one request, whose copies by the client have neither its proof nor its DPoP token.

    A client that follows redirects makes the next request's fields with `Headers(request.headers)`. From a
    mapping of any other class, `Headers` takes the `items()`, and for the client they leave out `DPoP` and an
    `Authorization` of the scheme DPoP. Anybody else gets all fields: many transports send a copy of the
    request, as those of OpenTelemetry and aiohttp do. What such a transport puts in place of these fields
    isn't left out of a redirect. Everything else comes from `headers`, which are httpx2's or httpx's.
    """

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def items(self) -> ItemsView[str, str]:
        """Return the fields; the client itself gets those that a request to another URL may have."""
        kept = dict(self._headers.items())
        if _is_asked_by_client_of(self._headers):
            kept.pop("dpop", None)
            if kept.get("authorization", "").lower().startswith("dpop "):
                del kept["authorization"]
        return kept.items()

    def __getitem__(self, name: str) -> str:
        return str(self._headers[name])

    def __setitem__(self, name: str, value: str) -> None:
        self._headers[name] = value

    def __delitem__(self, name: str) -> None:
        del self._headers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copied or unpickled object has no `_headers` yet
            raise AttributeError(name)
        return getattr(self._headers, name)

    def __repr__(self) -> str:
        return repr(self._headers)


def _is_asked_by_client_of(headers: Any) -> bool:
    """Whether the library of `headers` itself reads them: not for another caller of its public classes."""
    library = type(headers).__module__.partition(".")[0]
    module = cast("FunctionType", type(headers).__init__).__globals__["__name__"]
    frame, asking = inspect.currentframe(), library
    while frame is not None and (asking := str(frame.f_globals.get("__name__"))) in {__name__, module}:
        frame = frame.f_back
    return asking.partition(".")[0] == library


class DPoPAuth(_Auth):
    """Puts a fresh proof, and the access token, on every request to the token's own origin.

    - `key`: signs the proofs; the one that the token is bound to.
    - `token`: the access token, or a callable that returns it (awaitable for async clients), called once
      for each request. None sends proofs only, as a token endpoint requires.
    - `origin`: where the token may go: an http or https URL, or several, of which scheme, host and port
      count. By default the origin of the first request made with this object. Requests to other origins
      are sent without token and proof.
    - `follow_redirects`: follow redirects here, each with a fresh proof; leave the client's own setting
      off. A chain of redirects that leaves the token's origin continues without token and proof, even if it
      returns there.
    - `clock`: seconds since the epoch, for the proofs' `iat`.
    - `correct_clock`: when a proof is refused, learn from the response's `Date` how far off this clock is for
      that origin, and send the request once more: over https only, by at most 5 minutes.
    - `insecure_http_hosts`: hosts that token and proof may go to by plain http, besides loopback ones.

    Nonces are taken from every response and remembered per origin. A request that is refused with
    `use_dpop_nonce` is sent once more. A client that follows redirects itself sends those requests without
    token and proof; if the token's origin refuses one with 401, it is sent again with a token and a proof of
    its own. A streamed body can't be sent twice, so its refusal is returned; to read such bodies into memory
    first, set `requires_request_body = True` on this object. Characters that a path can't contain are
    percent-encoded.

    Raises ConfigurationError (a ValueError) for an argument of another type, for an origin that is not an
    http or https URL and for one by plain http that isn't named, also at the first request; and at a request
    ValueError for a token that no header field can hold or that the callable doesn't return, and TypeError
    where a sync client is used with an async `token` (RFC 9449 sections 4, 7.1, 8 and 9).
    """

    def __init__(
        self,
        key: DPoPKey,
        token: str | Callable[[], str] | Callable[[], Awaitable[str]] | None = None,
        *,
        origin: str | Iterable[str] | None = None,
        follow_redirects: bool = False,
        clock: Callable[[], float] = system_time,
        correct_clock: bool = False,
        insecure_http_hosts: Collection[str] = (),
    ) -> None:
        self.key = _options.part("key", key, "a DPoPKey", fits=isinstance(key, DPoPKey))
        self.follow_redirects = _options.flag("follow_redirects", follow_redirects)
        takes = "an access token as a string, a function that returns it, such as source.token, or None"
        _options.part("token", token, takes, fits=token is None or isinstance(token, str) or callable(token))
        self._token = token
        self._origins = OwnOrigins(origin, insecure_http_hosts)
        self._proofs = Proofs(key, heeded=self._origins, clock=clock, correct_clock=correct_clock)

    @property
    def has_token(self) -> bool:
        """Whether an access token goes with the proofs."""
        return self._token is not None

    def covers(self, request: Any) -> bool:
        """Whether a request of httpx2 or httpx gets a proof; if no origin is named, the first one's is it."""
        return self._origins.claim(request)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Authenticate one request of a sync client; called by httpx2 and httpx."""
        if not self._origins.claim(request):
            yield _bare(request)
            return
        if self.requires_request_body:
            request.read()
        flow = self._flow(request, self._sync_token())
        outgoing = next(flow)
        while True:
            response = yield outgoing
            if self._proofs.needs_body(response):
                read_a_little(response)
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return
            read_or_drop(response)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Authenticate one request of an async client; called by httpx2 and httpx."""
        if not self._origins.claim(request):
            yield _bare(request)
            return
        if self.requires_request_body:
            await request.aread()
        flow = self._flow(request, await self._async_token())
        outgoing = next(flow)
        while True:
            response = yield outgoing
            if self._proofs.needs_body(response):
                await aread_a_little(response)
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return
            await aread_or_drop(response)

    def _flow(self, request: Any, token: str | None) -> Generator[Any, Any, None]:
        """Yield each request to send and receive its response: the same for sync and async clients."""
        for _ in range(_MAX_REDIRECTS):
            if not isinstance(request.headers, UncopiedHeaders):
                request.headers = UncopiedHeaders(request.headers)
            response = yield from self._proofs.exchange(request, token)
            if response.request is not request:
                if not self._refused_after_redirect(response):
                    return
                request = response.request
            elif self.follow_redirects and response.next_request is not None:
                request = response.next_request
            else:
                return
            if not can_repeat(request):
                return
            if request not in self._origins:
                yield from _followed_bare(request)
                return

    def _refused_after_redirect(self, response: Any) -> bool:
        hops = (*response.history, response)
        return response.status_code == 401 and all(hop.request in self._origins for hop in hops)

    def _sync_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        token = self._token()
        if inspect.isawaitable(token):
            if inspect.iscoroutine(token):
                token.close()
            raise TypeError("the token callable is async: use it with an AsyncClient")
        return _returned(token)

    async def _async_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        token = self._token()
        return _returned(await token if inspect.isawaitable(token) else token)


def _returned(token: Any) -> str:
    """Return what a function for the token returned; raises ValueError for None and anything else."""
    if not isinstance(token, str):
        # Without a token the request would go out with a proof alone.
        raise ValueError(f"the token callable returned a {type(token).__name__}, not an access token")
    return token


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
