"""The keys of an issuer, fetched and kept fresh.

What happens to them, in the order of their age:

- younger than `lifetime`: used as it is.
- older: still used, and a fetch is started that no request waits for.
- older than twice the lifetime, with no attempt since then (an idle application): requests wait for a fetch,
  so that a key withdrawn hours ago isn't trusted once more.
- older than `max_age`, or nothing held: requests wait for a fetch, and fail when it fails.

Each attempt replaces the whole set, so a key that left it stops being trusted. After a failure the next
attempt waits, longer each time. One fetch serves all requests of all event loops of a process: it runs in a
daemon thread, and what it found out is one immutable value that the thread puts in place before it ends.
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
from dataclasses import dataclass, replace

from dpop_middleware.checks import Check
from dpop_middleware.clock import system_time
from dpop_middleware.errors import Unavailable
from dpop_middleware.tokens.jwks import KeySet

__all__ = ["Lifetimes", "RemoteKeySource"]

logger = logging.getLogger(__name__)

_LONGEST_DELAY = 60.0
_LONGEST_DELAY_WITHOUT_KEYS = 5.0
# The thread ends by its own deadline; this is for name resolution, which has none, and for a busy machine.
_GRACE = 1.0
_CLOSING_TIME = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long fetched keys are used, in seconds.

    - `lifetime`: after which they are fetched again, in the background.
    - `max_age`: after which they are no longer used although the issuer doesn't answer.
    - `cooldown`: least time between fetches for keys that a token names and the set lacks.
    - `timeout`: in which one fetch, discovery included, must be over.
    """

    lifetime: float = 300.0
    max_age: float = 86400.0
    cooldown: float = 10.0
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class _Moment:
    wall: float
    monotonic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What the last attempts came to. `failures` counts those since the last success."""

    keys: KeySet | None = None
    fetched: _Moment = _Moment(-math.inf, -math.inf)
    attempted: _Moment = _Moment(-math.inf, -math.inf)
    failures: int = 0
    reason: str = "the issuer has not answered yet"


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    landed: Future[None]
    started: float


class RemoteKeySource:
    """Keys that are fetched when they are needed and kept fresh (see the top of this module).

    - `fetch`: blocking; returns the keys or raises. It must end within `lifetimes.timeout`.
    - `clock`: seconds since the epoch. An age is what either clock says has passed, whichever is more: a wall
      clock set back makes nothing last longer, and neither does a machine that slept.
    """

    def __init__(
        self,
        fetch: Callable[[], KeySet],
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
        # By process: a flight that was under way when a process forked never lands in the child.
        self._flights: dict[int, _Flight] = {}

    def current(self) -> KeySet | None:
        """Return the keys to use now, None if they must be waited for; starts a fetch when one is due."""
        state = self._state
        if state.keys is None:
            return None
        age = self._age(state.fetched)
        if age < self._lifetimes.lifetime:
            return state.keys
        if self._delay(state) <= 0:
            self._start(state)
        idle = self._age(state.attempted) >= 2 * self._lifetimes.lifetime
        return None if idle or age >= self._lifetimes.max_age else state.keys

    async def load(self) -> KeySet:
        """Return the keys to use now and wait for a fetch if need be.

        Raises Unavailable when there are none and the issuer gives none.
        """
        keys = self.current()
        if keys is not None:
            return keys
        state = self._state
        if self._delay(state) <= 0:
            await self._landing(self._start(state))
        state = self._state
        if state.keys is None or self._age(state.fetched) >= self._lifetimes.max_age:
            raise self._unavailable(state)
        return state.keys

    async def newer_than(self, keys: KeySet) -> KeySet:
        """Return a newer set than `keys`, or `keys` when they were fetched less than `cooldown` ago.

        Raises Unavailable when the issuer doesn't answer: it may have the key or not.
        """
        state = self._state
        if state.keys is keys and self._age(state.fetched) >= self._lifetimes.cooldown:
            if self._delay(state) <= 0:
                await self._landing(self._start(state))
            state = self._state
            if state.keys is keys:
                raise self._unavailable(state)
        return state.keys or keys

    async def aclose(self) -> None:
        """Wait a moment for a fetch under way; a slower one ends by its own time limit in its thread."""
        flight = self._flights.get(os.getpid())
        if flight is not None:
            await self._landing(flight, patience=_CLOSING_TIME)

    def _age(self, moment: _Moment) -> float:
        return max(self._clock() - moment.wall, self._monotonic() - moment.monotonic)

    def _delay(self, state: _State) -> float:
        """Return for how many seconds no attempt may be made."""
        if not state.failures:
            return 0.0
        longest = _LONGEST_DELAY_WITHOUT_KEYS if state.keys is None else _LONGEST_DELAY
        # The exponent is bounded, since 2.0 ** 1024 overflows.
        return min(2.0 ** min(state.failures - 1, 10), longest) - self._age(state.attempted)

    def _unavailable(self, state: _State) -> Unavailable:
        return Unavailable(
            "the keys of the access token's issuer can't be had now",
            retry_after=max(1, math.ceil(self._delay(state))),
            check=Check.TOKEN_KEY,
            actual=state.reason,
        )

    def _start(self, state: _State) -> _Flight:
        """Return the flight under way, or start one; it fetches nothing if one landed since `state`."""
        new = _Flight(Future(), self._monotonic())
        # Running from the beginning: a waiter that is cancelled can't cancel it for the others.
        new.landed.set_running_or_notify_cancel()
        flight = self._flights.setdefault(os.getpid(), new)
        if flight is new:
            thread = threading.Thread(
                target=self._fly, args=(new, state), name="dpop_middleware-jwks", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                self._land(new, self._failed(state, f"no thread could be started: {error}"))
        return flight

    def _fly(self, flight: _Flight, seen: _State) -> None:
        state = self._state
        if state is seen:
            try:
                state = _State(keys=self._fetch(), fetched=self._now(), attempted=self._now())
            except Exception as error:  # noqa: BLE001 - whatever it was, the flight must land
                state = self._failed(state, str(error) or type(error).__name__)
        self._land(flight, state)

    def _failed(self, state: _State, reason: str) -> _State:
        logger.warning("the issuer's keys can't be fetched: %s", reason)
        return replace(state, attempted=self._now(), failures=state.failures + 1, reason=reason)

    def _land(self, flight: _Flight, state: _State) -> None:
        self._state = state
        self._flights.pop(os.getpid(), None)
        flight.landed.set_result(None)

    def _now(self) -> _Moment:
        return _Moment(self._clock(), self._monotonic())

    async def _landing(self, flight: _Flight, *, patience: float | None = None) -> None:
        """Wait for the flight until it should be over."""
        if patience is None:
            patience = flight.started + self._lifetimes.timeout + _GRACE - self._monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(patience, 0)):
                await asyncio.wrap_future(flight.landed)
