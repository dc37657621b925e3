"""The replay store of a single process (RFC 9449 section 11.1)."""

import heapq
import logging
import math
import threading
import time
from dataclasses import dataclass

from dpop_middleware._options import share, whole_number
from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.other_workers import sign_here
from dpop_middleware.replay.store import ReplayEntry

__all__ = ["MemoryReplayStore", "MemoryStoreHealth"]

_LOG = logging.getLogger("dpop_middleware.replay")

# An entry whose lifetime is nil or negative is still kept for a moment: a store never answers "first" twice
# for two presentations that arrive together.
SHORTEST_LIFETIME = 1.0
# Each `add` forgets at most this many expired entries, so that no request pays for all of them.
FORGOTTEN_PER_ADD = 2
LONGEST_RETRY_AFTER = 60


@dataclass(slots=True, eq=False)
class _Share:
    """What is remembered for one client: `entries` of them."""

    name: str
    entries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStoreHealth:
    """The memory store as of now: `ok` while it has room. `entries` counts expired ones not yet forgotten."""

    ok: bool
    entries: int
    max_entries: int


class MemoryReplayStore:
    """Remembers proofs in this process only: the written choice for one worker, tests and development.

    `max_entries` bounds the number of proofs that are remembered. `max_share` is the part of it, above 0
    and up to 1, that the proofs of one user or client may take, however many keys it has, so that one can't
    lock out the rest: with the defaults 20,000, which is 210 requests a second during the 95 seconds that an
    entry lives. An entry without `speaks_for` counts for its key.

    An entry lives for as long as it says, by a clock that nobody sets: one on the wall that jumps ahead and
    back makes the store forget nothing. Safe for several threads and event loops of one process. Other
    processes do not see it: use `RedisReplayStore` for more than one worker. Where this process seems to be
    one of several, a WARNING says so once. Raises `ConfigurationError` for other limits.
    """

    def __init__(self, *, max_entries: int = 200_000, max_share: float = 0.1) -> None:
        self._max_entries = whole_number("max_entries", max_entries, minimum=1)
        self._most_of_a_share = max(1, math.floor(max_entries * share("max_share", max_share)))
        self._entries: dict[str, tuple[float, _Share]] = {}
        self._shares: dict[str, _Share] = {}
        self._expiries: list[tuple[float, str]] = []
        self._lock = threading.Lock()
        self._looked_for_others = False

    async def open(self) -> None:
        """Warn where other processes, which don't see this store, seem to serve the same application."""
        self._look_for_others()

    def __len__(self) -> int:
        """The number of proofs held, expired ones that are not yet forgotten included."""
        return len(self._entries)

    async def add(self, entry: ReplayEntry) -> bool:
        """Remember `entry`; True the first time, False while it is remembered.

        Raises `Unavailable` when the store is full, or the share of whom the entry speaks for: it refuses
        rather than forgets.
        """
        if not self._looked_for_others:
            self._look_for_others()
        with self._lock:
            return self._add(entry)

    def _look_for_others(self) -> None:
        if self._looked_for_others:
            return
        self._looked_for_others = True
        sign = sign_here()
        if sign is not None:
            _LOG.warning(
                "MemoryReplayStore remembers proofs in one process only, and this one seems to be one of "
                "several (%s): a proof passes once in each. Use RedisReplayStore for more than one worker",
                sign,
            )

    async def health(self) -> MemoryStoreHealth:
        """Return whether there is room for another proof, for readiness probes."""
        with self._lock:
            entries = len(self._entries)
            # What has expired makes room at the next `add`.
            ok = entries < self._max_entries or self._expiries[0][0] < time.monotonic()
        return MemoryStoreHealth(ok=ok, entries=entries, max_entries=self._max_entries)

    def _add(self, entry: ReplayEntry) -> bool:
        key, now = entry.key, time.monotonic()
        self._forget(now, FORGOTTEN_PER_ADD)
        known = self._entries.get(key)
        if known is not None:
            if now <= known[0]:
                return False
            self._remove(key, known[1])
        of_client = self._share(entry.speaks_for or entry.jkt, now)
        of_client.entries += 1
        expires_at = now + max(entry.expires_at - entry.now, SHORTEST_LIFETIME)
        self._entries[key] = (expires_at, of_client)
        heapq.heappush(self._expiries, (expires_at, key))
        return True

    def _share(self, name: str, now: float) -> _Share:
        """Return the share of `name`, which has room for one more entry, or raise Unavailable."""
        of_client = self._shares.get(name) or _Share(name)
        if len(self._entries) >= self._max_entries or of_client.entries >= self._most_of_a_share:
            self._forget(now, len(self._expiries))
            of_client = self._shares.get(name) or _Share(name)
            self._require_room(of_client, now)
        self._shares[name] = of_client
        return of_client

    def _require_room(self, of_client: _Share, now: float) -> None:
        if len(self._entries) >= self._max_entries:
            raise Unavailable("the replay store is full", retry_after=self._retry_after(now), check=Check.JTI)
        if of_client.entries >= self._most_of_a_share:
            raise Unavailable(
                "too many proofs of this client are in use",
                retry_after=self._retry_after(now),
                check=Check.JTI,
            )

    def _retry_after(self, now: float) -> int:
        return min(max(1, math.ceil(self._expiries[0][0] - now)), LONGEST_RETRY_AFTER)

    def _forget(self, now: float, most: int) -> None:
        expiries = self._expiries
        while most and expiries and expiries[0][0] < now:
            expires_at, key = heapq.heappop(expiries)
            most -= 1
            known = self._entries.get(key)
            # A key that came back after its expiry has a later one: that heap entry is the live one.
            if known is not None and known[0] == expires_at:
                self._remove(key, known[1])

    def _remove(self, key: str, of_client: _Share) -> None:
        del self._entries[key]
        of_client.entries -= 1
        if not of_client.entries:
            del self._shares[of_client.name]
