"""Access tokens that are renewed before they expire, by one request at a time (RFC 6749 section 6)."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Unpack

from dpop_middleware import _options
from dpop_middleware._runtime import Deferred, Moment, begin, installed, system_time
from dpop_middleware.client.form_request import (
    check_options,
    checked_request,
    checked_resources,
    keyword_arguments,
)
from dpop_middleware.client.token_request import (
    ClientCredentials,
    Grant,
    RefreshToken,
    TokenRequestError,
    TokenRequestOptions,
    TokenResponse,
    checked_grant,
    fetch_token,
    fetch_token_async,
)
from dpop_middleware.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx
    import httpx2
else:
    httpx, httpx2 = Deferred("httpx"), Deferred("httpx2")

__all__ = ["TokenSource"]


class _Asked(NamedTuple):
    """When a token was asked for; `number` is greater than that of each question before, by any clock."""

    at: Moment
    number: int


_LONG_AGO: Final = _Asked(Moment(0.0, 0.0), 0)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens that the source has; `lifetime` and `renew_after` of the access token are since `asked`.

    They are in seconds, and None where there is no access token, and where its life isn't known.
    """

    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    asked: _Asked = _LONG_AGO
    renew_after: float | None = None
    lifetime: float | None = None


_NOTHING: Final = _Tokens()
# What says that there is no new token: the server, or a client that can't reach it or read its Location.
_NO_TOKEN: Final = (TokenRequestError, *installed("HTTPError", "InvalidURL"))
_SHORTEST_PAUSE: Final = 1.0


class _Process:
    """What the callers of one process share: in a child nothing ends that was under way when it was forked.

    `flight` is the request of an event loop, maybe of an earlier one.
    """

    def __init__(self) -> None:
        # A listener, or a hook of the client, may call `discard` during a request.
        self.lock = RLock()
        self.flight: asyncio.Task[str] | None = None


class TokenSource:
    """Gets an access token at the first call, and the next one before that token expires.

        source = TokenSource(client, token_endpoint, ClientCredentials(), key=key, client_id="my_client")
        auth = DPoPAuth(key, source.token)  # or source.token_async, with an AsyncClient

    - `client`: the httpx2 or httpx client that sends the requests, sync for `token`, async for `token_async`,
      without `auth` of its own. Its time-outs bound the wait for a connection and for each part
      of an answer, not for the whole: under asyncio, `asyncio.timeout` around `token_async` does.
    - `grant`: how the first token is requested. A code is used once: later tokens need a refresh token.
    - `leeway`: seconds before its expiry at which a token is renewed, at most half of its lifetime.
    - `on_response`: called with each `TokenResponse`, for example to store a new refresh token.
    - `clock`: seconds since the epoch. Where it is set back, a token lasts no longer.

    The other arguments are those of `fetch_token`. Of several callers at the same time one sends the request,
    and the others get its token or its error: a refresh token is sent once. If the server refuses a refresh
    token as an invalid grant, `grant` is used again where that is `ClientCredentials`. If no new token can be
    got, the current one is used until it expires, and half of its remaining lifetime passes before the next
    attempt. A token whose lifetime the server doesn't state is used until `discard`. Make a source, and its
    client, after a fork: two processes would share the client's connections and send one refresh token twice.

    Raises what `fetch_token` raises, and TokenRequestError with status 0 where a token expired and no grant
    can get another one. Not checked: whether the API accepts the token.
    """

    def __init__(
        self,
        client: "httpx2.Client | httpx.Client | httpx2.AsyncClient | httpx.AsyncClient",
        token_endpoint: str,
        grant: Grant,
        *,
        leeway: float = 30,
        on_response: Callable[[TokenResponse], object] | None = None,
        clock: Callable[[], float] = system_time,
        **options: Unpack[TokenRequestOptions],
    ) -> None:
        self._client: Any = client
        self._endpoint = token_endpoint
        self._grant = grant
        self._leeway = _options.seconds("leeway", leeway, minimum=0)
        self._on_response = _options.listener("on_response", on_response)
        self._clock = _options.clock(clock)
        own = ("leeway", "on_response", "clock")
        self._options = keyword_arguments("TokenSource", options, TokenRequestOptions, *own)
        # What the first request would raise about its arguments is raised now.
        checked_grant(grant)
        check_options(**self._options)
        checked_request(client, "token_endpoint", token_endpoint, options.get("insecure_http_hosts", ()))
        if "scopes" in options:
            self._options["scopes"] = _options.strings("scopes", options["scopes"])
        if "resource" in options:
            self._options["resource"] = checked_resources(options["resource"])
        self._held = _NOTHING
        self._numbers = count(1)
        self._processes: dict[int, _Process] = {}
        self._failures = 0
        self._failure: BaseException | None = None

    def token(self) -> str:
        """Return an access token that is valid for a while; request it first where there is none."""
        failures, current = self._failures, self._current()
        if current is not None:
            return current
        with self._here.lock:
            current = self._current()
            if current is not None:
                return current
            if self._failure is not None and self._failures != failures:
                raise self._failure
            try:
                return self._renewed()
            except Exception as error:
                self._failures, self._failure = self._failures + 1, error
                raise

    async def token_async(self) -> str:
        """Do as `token` does, with an async client, under asyncio.

        Raises ConfigurationError where another event loop requests the token at the same time. Cancelling a
        caller doesn't end the request for which others wait.
        """
        current = self._current()
        if current is not None:
            return current
        return await asyncio.shield(self._shared_flight())

    @property
    def _here(self) -> _Process:
        return self._processes.setdefault(os.getpid(), _Process())

    def _shared_flight(self) -> "asyncio.Task[str]":
        here = self._here
        with here.lock:
            flight = here.flight
            # A loop that ended with requests in flight never finishes them.
            if flight is None or flight.done() or not flight.get_loop().is_running():
                flight = here.flight = begin(self._renewed_async(), name="dpop token request")
                # Where every caller was cancelled, nothing else retrieves its error.
                flight.add_done_callback(lambda task: task.cancelled() or task.exception())
            elif flight.get_loop() is not asyncio.get_running_loop():
                raise ConfigurationError(
                    "the token is being requested in another event loop: "
                    "make a TokenSource, and an AsyncClient, for each event loop"
                )
            return flight

    def discard(self, access_token: str) -> None:
        """Renew this token at the next call, if it is the current one: after the API's `invalid_token`."""
        with self._here.lock:
            if self._held.access_token == access_token:
                self._held = _Tokens(refresh_token=self._held.refresh_token, asked=self._held.asked)

    def _current(self) -> str | None:
        held = self._held
        fresh = held.renew_after is None or self._age(held.asked) < held.renew_after
        return held.access_token if fresh else None

    def _now(self) -> _Asked:
        return _Asked(Moment(self._clock(), time.monotonic()), next(self._numbers))

    def _age(self, asked: _Asked) -> float:
        return asked.at.age(wall=self._clock(), monotonic=time.monotonic())

    def _renewed(self) -> str:
        while True:
            asked, sent = self._now(), self._held.refresh_token
            try:
                grant = self._next_grant()
                response = fetch_token(self._client, self._endpoint, grant, **self._options)
            except _NO_TOKEN as error:
                if self._goes_on_after(error, sent):
                    continue
                if (alive := self._still_alive()) is None:
                    raise
                return alive
            return self._kept(response, asked)

    async def _renewed_async(self) -> str:
        while True:
            asked, sent = self._now(), self._held.refresh_token
            try:
                grant = self._next_grant()
                response = await fetch_token_async(self._client, self._endpoint, grant, **self._options)
            except _NO_TOKEN as error:
                # Another event loop may have got one while this one was paused.
                if (current := self._current()) is not None:
                    return current
                if self._goes_on_after(error, sent):
                    continue
                if (alive := self._still_alive()) is None:
                    raise
                return alive
            return self._kept(response, asked)

    def _next_grant(self) -> Grant:
        if self._held.refresh_token is not None:
            return RefreshToken(refresh_token=self._held.refresh_token)
        if self._held is _NOTHING or isinstance(self._grant, ClientCredentials):
            return self._grant
        raise TokenRequestError("the access token expired and there is no refresh token", status=0)

    def _goes_on_after(self, error: Exception, sent: str | None) -> bool:
        """Whether there is another grant than the refresh token `sent`, which the server may have refused."""
        if sent is None or not isinstance(error, TokenRequestError) or error.error != "invalid_grant":
            return False
        if self._held.refresh_token != sent:
            return True
        if isinstance(self._grant, ClientCredentials):
            self._held = replace(self._held, refresh_token=None)
            return True
        return False

    def _still_alive(self) -> str | None:
        """Return the token that none can follow now, if it lives; the next attempt comes after a pause."""
        age, lifetime = self._age(self._held.asked), self._held.lifetime
        if lifetime is None or age >= lifetime:
            return None
        pause = max((lifetime - age) / 2, _SHORTEST_PAUSE)
        self._held = replace(self._held, renew_after=min(age + pause, lifetime))
        return self._held.access_token

    def _kept(self, response: TokenResponse, asked: _Asked) -> str:
        sent = self._grant.refresh_token if isinstance(self._grant, RefreshToken) else None
        lifetime, renew_after = response.expires_in, None
        if lifetime is not None:
            renew_after = lifetime - min(self._leeway, lifetime / 2)
        with self._here.lock:
            if self._held.asked.number > asked.number:
                # Another event loop got newer ones while this one was paused.
                return self._held.access_token or response.access_token
            refresh_token = response.refresh_token or self._held.refresh_token or sent
            self._held = _Tokens(response.access_token, refresh_token, asked, renew_after, lifetime)
        if self._on_response is not None:
            self._on_response(response)
        return response.access_token
