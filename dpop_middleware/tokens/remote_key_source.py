"""The keys of an issuer, fetched and kept fresh.

What happens to them, in the order of their age:

- younger than `lifetime`: used as they are.
- older: still used, and a fetch is started for which no request waits.
- older than twice the lifetime, with no attempt since then (an idle application): requests wait for a fetch,
  so that a key that was withdrawn hours ago isn't trusted again.
- older than `max_age`, or no keys yet: requests wait for a fetch, and fail when it fails.

A request that needs a key which the set lacks waits for a set that was fetched after the request came. Such
fetches begin half a `cooldown` apart, so that half of a request's patience remains for the fetch itself. A
key that wasn't found in a set is remembered as missing for that time, and no longer: an attacker may name a
key before the issuer has it.

No request waits longer than `patience`, by default a second; the fetch continues without it.

Each successful fetch replaces the whole set, so a key that was removed is no longer trusted. After a failure
the next attempt waits, longer each time. One fetch serves all requests of all event loops of a process: it
runs in a daemon thread, and its result is one immutable value that the thread stores before it ends.
"""

import asyncio
import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from dpop_middleware._runtime import Moment, system_time
from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.health import IssuerKeysHealth
from dpop_middleware.tokens.admission import MissingKeys, WaitingRoom
from dpop_middleware.tokens.jwks import KeySet

__all__ = ["Lifetimes", "RemoteKeySource"]

_LOG = logging.getLogger(__name__)

_LONGEST_DELAY = 60.0
# The longest delay where requests can't be judged before the issuer answers again.
_LONGEST_DELAY_WHEN_WANTED = 5.0
# The part of a request's patience that must remain when a fetch begins.
_FOR_THE_FETCH = 0.25
_CLOSING_TIME = 1.0


class Lifetimes(NamedTuple):
    """How long fetched keys are used, in seconds.

    - `lifetime`: after which they are fetched again, in the background.
    - `max_age`: after which they are no longer used although the issuer doesn't answer.
    - `cooldown`: in which at most two fetches are made for keys that tokens name and the set lacks; such a
      key is remembered as missing for half of it.
    - `timeout`: within which one fetch, discovery included, must end.
    - `patience`: for which a request waits for one.
    """

    lifetime: float = 300.0
    max_age: float = 86400.0
    cooldown: float = 1.0
    timeout: float = 5.0
    patience: float = 1.0


_NEVER = Moment(-math.inf, -math.inf)


class _State(NamedTuple):
    """The results of the last attempts. `failures` counts those since the last success.

    `fetched` is when the fetch of `keys` began, `attempted` when the last one ended.
    """

    keys: KeySet | None = None
    fetched: Moment = _NEVER
    attempted: Moment = _NEVER
    failures: int = 0
    reason: str = "the issuer has not answered yet"


class _Flight(NamedTuple):
    ended: Future[None]
    started: float


class RemoteKeySource:
    """Keys that are fetched when they are needed and kept fresh (see the top of this module).

    - `fetch`: blocking; returns the keys or raises, within `lifetimes.timeout`. It gets the event loop of the
      request that it begins for.
    - `clock`: seconds since the epoch. An age is the longer one by this clock and by `monotonic`.
    """

    renewable = True
    """Whether there may ever be other keys."""

    def __init__(
        self,
        fetch: Callable[[asyncio.AbstractEventLoop], KeySet],
        *,
        lifetimes: Lifetimes,
        clock: Callable[[], float] = system_time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._lifetimes = lifetimes
        self._clock = clock
        self._monotonic = monotonic
        self._state = _State()
        # By process: a flight that was under way when a process forked never ends in the child.
        self._flights: dict[int, _Flight] = {}
        # When the last fetch for a missing key began.
        self._wanted = _NEVER
        self._missing = MissingKeys()
        self._room = WaitingRoom()

    def age(self) -> float | None:
        """Return for how many seconds the keys have been held, None without any."""
        return None if self._state.keys is None else self._age(self._state.fetched)

    def open(self) -> None:
        """Begin to fetch, if there are no keys yet; no request waits for it."""
        state = self._state
        if state.keys is None and self._delay(state) <= 0:
            self._start(state)

    def current(self) -> KeySet | None:
        """Return the keys to use now, None where a request must wait; starts a fetch when one is due."""
        state = self._state
        if state.keys is None:
            return None
        age = state.fetched.age(wall=self._clock(), monotonic=self._monotonic())
        if age < self._lifetimes.lifetime:
            return state.keys
        if self._delay(state) <= 0:
            self._start(state)
        idle = self._age(state.attempted) >= 2 * self._lifetimes.lifetime and not self._hangs()
        return None if idle or age >= self._lifetimes.max_age else state.keys

    async def load(self) -> KeySet:
        """Return the keys to use now and wait for a fetch if need be.

        Raises Unavailable when there are none and the issuer gives none.
        """
        keys = self.current()
        if keys is not None:
            return keys
        state = self._state
        if self._delay(state, wanted=True) <= 0:
            flight = self._start(state)
            with self._room.place() as admitted:
                if admitted:
                    await self._end_of(flight, patience=self._lifetimes.patience)
        state = self._state
        if state.keys is None or self._age(state.fetched) >= self._lifetimes.max_age:
            raise self._unavailable(state)
        return state.keys

    async def newer_than(self, keys: KeySet, *, since: float, wanted: str) -> KeySet:
        """Return a newer set than `keys`, or `keys` themselves where `wanted` is known to be in no newer one.

        `wanted` is a digest of what is looked for, the same for all requests that look for it. A newer set
        may lack it too: ask again. That none has it is known where `keys` were fetched after `since`, when
        the request came, or where it was looked for in them a moment ago. `keys` are returned too where too
        many requests wait, or too many got 503. Raises Unavailable when the issuer doesn't answer in time.
        """
        state = self._state
        if state.keys is not keys and state.keys is not None:
            return state.keys
        if state.fetched.monotonic >= since:
            self._missing.add(wanted, keys)
            return keys
        if self._age(state.fetched) < self._lifetimes.cooldown / 2 and self._missing.has(wanted, keys):
            return keys
        with self._room.place() as admitted:
            if admitted:
                await self._change_of(keys, patience=since + self._lifetimes.patience - self._monotonic())
        state = self._state
        if state.keys is keys and self._room.may_be_unavailable(self._monotonic()):
            raise self._unavailable(state)
        return state.keys or keys

    async def health(self) -> IssuerKeysHealth:
        """Return the state of the keys; waits for a fetch where there are none to use."""
        with contextlib.suppress(Unavailable):
            await self.load()
        state = self._state
        age = self._age(state.fetched)
        error = state.reason if state.keys is None or state.failures else None
        if state.keys is None or age >= self._lifetimes.max_age:
            return IssuerKeysHealth(ok=False, keys=0, error=error)
        return IssuerKeysHealth(
            ok=True, keys=len(state.keys.keys), age=age, error=error, warnings=state.keys.warnings
        )

    async def aclose(self) -> None:
        """Wait a moment for a fetch under way; a slower one ends in its thread, by its own time limit."""
        flight = self._flights.get(os.getpid())
        if flight is not None:
            await self._end_of(flight, patience=_CLOSING_TIME)

    async def _change_of(self, keys: KeySet, *, patience: float) -> None:
        """Wait until there are other keys, or until it is clear that none will come in time."""
        clock = asyncio.get_running_loop().time
        time_is_up = clock() + patience
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(time_is_up):
                while self._state.keys is keys:
                    state = self._state
                    flight = self._flights.get(os.getpid())
                    if flight is None:
                        pause = self._pause(state)
                        if clock() + pause > time_is_up - _FOR_THE_FETCH:
                            return
                        if pause > 0:
                            await asyncio.sleep(pause)
                            continue
                        self._wanted = self._now()
                        flight = self._start(state)
                    await asyncio.wrap_future(flight.ended)

    def _pause(self, state: _State) -> float:
        """Return for how many seconds no attempt may be made for a key that the set lacks."""
        if state.failures:
            return self._delay(state, wanted=True)
        return self._lifetimes.cooldown / 2 - self._age(self._wanted)

    def _age(self, moment: Moment) -> float:
        return moment.age(wall=self._clock(), monotonic=self._monotonic())

    def _delay(self, state: _State, *, wanted: bool = False) -> float:
        """Return for how many seconds no attempt may be made; fewer where requests wait for it."""
        if not state.failures:
            return 0.0
        longest = _LONGEST_DELAY_WHEN_WANTED if wanted or state.keys is None else _LONGEST_DELAY
        # The exponent is bounded, since 2.0 ** 1024 overflows.
        return min(2.0 ** min(state.failures - 1, 10), longest) - self._age(state.attempted)

    def _unavailable(self, state: _State) -> Unavailable:
        return Unavailable(
            "the keys of the access token's issuer can't be fetched now",
            retry_after=1 if os.getpid() in self._flights else math.ceil(max(self._pause(state), 1)),
            check=Check.TOKEN_KEY,
            actual=state.reason,
        )

    def _start(self, state: _State) -> _Flight:
        """Return the flight under way, or start one; it fetches nothing if another ended since `state`."""
        new, here = _Flight(Future(), self._monotonic()), asyncio.get_running_loop()
        # Marked as running at once: a cancelled waiter can't cancel it for the others.
        new.ended.set_running_or_notify_cancel()
        flight = self._flights.setdefault(os.getpid(), new)
        if flight is new:
            thread = threading.Thread(
                target=self._run, args=(new, state, here), name="dpop_middleware-jwks", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                self._end(new, self._failed(state, f"no thread could be started: {error}"))
        return flight

    def _run(self, flight: _Flight, seen: _State, loop: asyncio.AbstractEventLoop) -> None:
        state = self._state
        if state is seen:
            try:
                begun = self._now()
                state = _State(keys=self._fetch(loop), fetched=begun, attempted=self._now())
            except Exception as error:  # noqa: BLE001 - whatever it was, the flight must end
                state = self._failed(state, str(error) or type(error).__name__)
        self._end(flight, state)

    def _failed(self, state: _State, reason: str) -> _State:
        _LOG.warning("the issuer's keys can't be fetched: %s", reason)
        return state._replace(attempted=self._now(), failures=state.failures + 1, reason=reason)

    def _end(self, flight: _Flight, state: _State) -> None:
        self._state = state
        self._flights.pop(os.getpid(), None)
        flight.ended.set_result(None)

    def _now(self) -> Moment:
        return Moment(self._clock(), self._monotonic())

    def _hangs(self) -> bool:
        """Whether a fetch is under way for which requests have waited already."""
        flight = self._flights.get(os.getpid())
        return flight is not None and self._monotonic() - flight.started >= self._lifetimes.patience

    async def _end_of(self, flight: _Flight, *, patience: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.wrap_future(flight.ended)
