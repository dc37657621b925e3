"""The replay store of a single process (RFC 9449 section 11.1), and signs that there are several processes.

Another process that serves the same application is detected as far as that is possible from inside.
"""

import heapq
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpop_middleware._options import share, whole_number
from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.store import ReplayEntry

__all__ = [
    "MemoryReplayStore",
    "MemoryStoreHealth",
    "configured_workers",
    "sign_here",
    "sign_of_other_workers",
]

_LOG = logging.getLogger("dpop_middleware.replay")

# An entry whose lifetime is zero or negative is still kept for a moment: a store never answers "first" to
# both of two presentations that arrive together.
SHORTEST_LIFETIME = 1.0
# Each `add` forgets at most this many expired entries, so that no request pays for all of them.
FORGOTTEN_PER_ADD = 2
LONGEST_RETRY_AFTER = 60

# Environment variables that set the number of a server's workers.
_VARIABLES = ("WEB_CONCURRENCY", "GRANIAN_WORKERS")
_ARGUMENTS_OF_GUNICORN = "GUNICORN_CMD_ARGS"
_WORKERS = ("--workers", "-w")
_RELOADING = "--reload"
_WORKER_OF_GRANIAN = "granian-worker"


@dataclass(slots=True, eq=False)
class _Share:
    """The part of the store that one client uses: the number of its `entries`."""

    name: str
    entries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStoreHealth:
    """The memory store's current state: `ok` while it has room. Expired `entries` count until removed."""

    ok: bool
    entries: int
    max_entries: int


class MemoryReplayStore:
    """Remembers proofs in this process only: for one worker, tests and development.

    `max_entries` bounds the number of proofs that are remembered. `max_share` is the part of it, above 0 and
    up to 1, that the proofs of one user or client may take, whatever its number of keys, so that one can't
    lock out the others: with the defaults 20,000, which is 210 requests a second during the 95 seconds that
    an entry lives. An entry without `speaks_for` counts for its key.

    An entry lives for as long as it says, by the monotonic clock: a wall clock that jumps ahead and back
    makes the store forget nothing. Safe for several threads and event loops of one process. Other processes
    don't share it: use `RedisReplayStore` for more than one worker. Where this process seems to be one of
    several, a WARNING says so once. Raises `ConfigurationError` for other limits.
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
        """Warn where other processes, which don't share this store, seem to serve the same application."""
        self._look_for_others()

    def __len__(self) -> int:
        """The number of proofs held, including expired ones that are not yet removed."""
        return len(self._entries)

    async def add(self, entry: ReplayEntry) -> bool:
        """Remember `entry`; True the first time, False while it is remembered.

        Raises `Unavailable` when the store is full, or the share of the client that the entry speaks for: it
        refuses new entries rather than forget any; ValueError for an entry without a finite end.
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
            # Expired entries make room at the next `add`.
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
        expires_at = now + max(entry.expires_at - entry.now, SHORTEST_LIFETIME)
        if not expires_at < math.inf:
            raise ValueError("an entry takes a finite end, after which it is forgotten")
        of_client = self._share(entry.speaks_for or entry.jkt, now)
        of_client.entries += 1
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
            # A key that was added again after its expiry has a later expiry: that heap entry is the live one.
            if known is not None and known[0] == expires_at:
                self._remove(key, known[1])

    def _remove(self, key: str, of_client: _Share) -> None:
        del self._entries[key]
        of_client.entries -= 1
        if not of_client.entries:
            del self._shares[of_client.name]


def sign_of_other_workers(
    *, environ: Mapping[str, str], argv: Sequence[str], configured: int | None, parent: int | None
) -> str | None:
    """Return the sign that this process is one of several workers, None where there is none.

    - `environ`, `argv`: of this process.
    - `configured`: the number of workers by the server's own configuration, which decides; None where it is
      unknown.
    - `parent`: the process id of the `multiprocessing` parent, None without one.

    A server that reloads its application runs it in a child process too: its command line says so.
    """
    if configured is not None:
        return f"{configured} workers by the server's configuration" if configured > 1 else None
    arguments = [*environ.get(_ARGUMENTS_OF_GUNICORN, "").split(), *argv]
    named = _named_workers(arguments)
    if named is not None:
        return f"--workers {named}" if named > 1 else None
    for variable in _VARIABLES:
        number = _number(environ.get(variable, ""))
        if number is not None:
            return f"{variable}={number}" if number > 1 else None
    if parent is None or _RELOADING in arguments:
        return None
    return f"a multiprocessing parent, process {parent}"


def configured_workers(process: object, siblings: Mapping[int, object]) -> int | None:
    """Return how many workers the server that started this process starts, None where that is unknown.

    - `process`: this one, as `multiprocessing` knows it. uvicorn and hypercorn give a child their
      configuration, granian gives it its number, counted from 1, so that there are at least that many.
    - `siblings`: the other workers that gunicorn's arbiter knew when it started this one.
    """
    for sibling in siblings.values():
        return _workers_of(getattr(sibling, "cfg", None))
    if getattr(process, "name", None) == _WORKER_OF_GRANIAN:
        return _whole(next(iter(getattr(process, "_args", ())), None))
    config = getattr(process, "_kwargs", {}).get("config")
    # A server that reloads has one worker, whatever number is configured.
    return 1 if getattr(config, "should_reload", False) is True else _workers_of(config)


def sign_here() -> str | None:
    """Return what `sign_of_other_workers` finds for this process."""
    # Not imported here, since that takes long: a process that `multiprocessing` started has it.
    multiprocessing = sys.modules.get("multiprocessing.process")
    process = parent = None
    if multiprocessing is not None:
        process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    arbiter = getattr(sys.modules.get("gunicorn.arbiter"), "Arbiter", None)
    return sign_of_other_workers(
        environ=os.environ,
        argv=sys.argv,
        configured=configured_workers(process, getattr(arbiter, "WORKERS", {})),
        parent=None if parent is None else parent.pid,
    )


def _workers_of(config: object) -> int | None:
    return _whole(getattr(config, "workers", None))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def _named_workers(arguments: Sequence[str]) -> int | None:
    """Return the number in the last `--workers 4`, `--workers=4`, `-w 4` or `-w4`."""
    found = None
    for option, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = option.partition("=")
        if name in _WORKERS:
            found = _number(value or following)
        elif option.startswith("-w") and option[2:].isdecimal():
            found = _number(option[2:])
    return found
