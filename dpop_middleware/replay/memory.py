"""The replay store of a single process (RFC 9449 section 11.1)."""

import heapq
import math
import threading
import time
from dataclasses import dataclass

from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.replay.store import ReplayEntry

__all__ = ["MemoryReplayStore", "MemoryStoreHealth"]

# An entry whose lifetime is nil or negative is still kept for a moment: a store never answers "first" twice
# for two presentations that arrive together.
SHORTEST_LIFETIME = 1.0
# Each `add` forgets at most this many expired entries, so that no request pays for all of them and one
# wrong `now` far ahead does not empty the store.
FORGOTTEN_PER_ADD = 2
LONGEST_RETRY_AFTER = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStoreHealth:
    """The memory store as of now: `ok` while it has room. `entries` counts expired ones not yet forgotten."""

    ok: bool
    entries: int
    max_entries: int


class MemoryReplayStore:
    """Remembers proofs in this process only: the written choice for one worker, tests and development.

    `max_entries` bounds the number of proofs that are remembered. `max_share` is the part of it, above 0
    and up to 1, that the proofs of one key (`jkt`) may take, so that one client can't lock out the rest:
    with the defaults 20,000, which is 250 requests a second during the 80 seconds that an entry lives.

    Expiry is exact on the times that the entries carry; the store reads no clock. Safe for several threads
    and event loops of one process. Other processes do not see it: use `RedisReplayStore` for more than one
    worker. Raises `ConfigurationError` for other limits.
    """

    def __init__(self, *, max_entries: int = 200_000, max_share: float = 0.1) -> None:
        if isinstance(max_entries, bool) or not isinstance(max_entries, int) or max_entries < 1:
            raise ConfigurationError(f"max_entries takes a whole number of at least 1, not {max_entries!r}")
        if isinstance(max_share, bool) or not isinstance(max_share, (int, float)) or not 0 < max_share <= 1:
            raise ConfigurationError(f"max_share takes a number above 0 and at most 1, not {max_share!r}")
        self._max_entries = max_entries
        self._max_per_jkt = max(1, math.floor(max_entries * max_share))
        self._entries: dict[str, tuple[float, str]] = {}
        self._per_jkt: dict[str, int] = {}
        self._expiries: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """The number of proofs held, expired ones that are not yet forgotten included."""
        return len(self._entries)

    async def add(self, entry: ReplayEntry) -> bool:
        """Remember `entry`; True the first time, False while it is remembered.

        Raises `Unavailable` when the store or the share of the entry's `jkt` is full: it refuses rather
        than forgets.
        """
        with self._lock:
            return self._add(entry)

    async def health(self) -> MemoryStoreHealth:
        """Return whether there is room for another proof, for readiness probes."""
        with self._lock:
            entries = len(self._entries)
            # What has expired makes room at the next `add`. Nobody hands in the time of a probe.
            ok = entries < self._max_entries or self._expiries[0][0] < time.time()
        return MemoryStoreHealth(ok=ok, entries=entries, max_entries=self._max_entries)

    def _add(self, entry: ReplayEntry) -> bool:
        key, jkt, now = entry.key, entry.jkt, entry.now
        self._forget(now, FORGOTTEN_PER_ADD)
        known = self._entries.get(key)
        if known is not None:
            if now <= known[0]:
                return False
            self._remove(key, known[1])
        self._require_room(jkt, now)
        expires_at = max(entry.expires_at, now + SHORTEST_LIFETIME)
        self._entries[key] = (expires_at, jkt)
        self._per_jkt[jkt] = self._per_jkt.get(jkt, 0) + 1
        heapq.heappush(self._expiries, (expires_at, key))
        return True

    def _require_room(self, jkt: str, now: float) -> None:
        if len(self._entries) < self._max_entries and self._per_jkt.get(jkt, 0) < self._max_per_jkt:
            return
        self._forget(now, len(self._expiries))
        if len(self._entries) >= self._max_entries:
            raise Unavailable("the replay store is full", retry_after=self._retry_after(now), check=Check.JTI)
        if self._per_jkt.get(jkt, 0) >= self._max_per_jkt:
            raise Unavailable(
                "too many proofs of this key are in use", retry_after=self._retry_after(now), check=Check.JTI
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

    def _remove(self, key: str, jkt: str) -> None:
        del self._entries[key]
        left = self._per_jkt[jkt] - 1
        if left:
            self._per_jkt[jkt] = left
        else:
            del self._per_jkt[jkt]
