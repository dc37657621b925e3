"""The health of a resource server: one value for readiness probes, for any verifier and store.

api.health() -> one check for all probes within a second -> the parts' own `health()`, limited in time
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from dpop_middleware._runtime import begin, is_cancellation

__all__ = ["HealthCheck", "IssuerKeysHealth", "PartHealth", "ServerHealth", "health_of", "health_of_each"]

_PATIENCE: Final = 2.0
# Less, so that a part that asks others answers in time.
_PATIENCE_OF_A_PART: Final = 1.5
_GOOD_FOR: Final = 1.0
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHealth:
    """The current health of one part of a resource server.

    - `ok`: whether requests can be judged with it; True for a part that has no method `health()`.
    - `error`: what is wrong, for logs; if `ok` is true, it doesn't prevent accepting requests yet.
    - `details`: the part's own report, None if it has none: `IssuerKeysHealth` for the keys of
      an issuer, `StoreHealth` and `MemoryStoreHealth` for the stores of this package.
    """

    ok: bool
    error: str | None = None
    details: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHealth:
    """The current health of a resource server: `ready` when requests can be judged.

    `issuer_keys` is the access token verifier's part: it is ok while cached keys can be used, even if the
    issuer is down. `replay_store` is the store's. Their values other than `ok` are for operators, not for the
    public.
    """

    ready: bool
    issuer_keys: PartHealth
    replay_store: PartHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeysHealth:
    """The current state of an issuer's keys: `ok` when there are keys that verify tokens.

    - `keys`: how many. `age`: seconds since they were fetched, None for keys that were given.
    - `error`: why the last fetch failed, or that none has finished yet; None if there is no error. If `ok` is
      true, older keys are used in the meantime.
    - `warnings`: sentences for a person, about keys of the issuer that aren't used.
    """

    ok: bool
    keys: int
    age: float | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


class _Latest(NamedTuple):
    loop: asyncio.AbstractEventLoop
    begun: float
    look: asyncio.Task[ServerHealth]

    def is_over(self, now: float) -> bool:
        return self.look.done() and (self.look.cancelled() or now - self.begun >= _GOOD_FOR)


class HealthCheck:
    """Asks the parts of one resource server for their health, once for all probes within a second."""

    def __init__(self, *, verifier: object, store: object) -> None:
        self._verifier = verifier
        self._store = store
        self._latest: _Latest | None = None

    async def health(self) -> ServerHealth:
        """Return the health, at most a second old, within two seconds; never raises."""
        while True:
            look = self._latest_look()
            try:
                # If one probe is cancelled, the others still get the answer.
                return await asyncio.shield(look)
            except asyncio.CancelledError as error:
                if not look.cancelled() or is_cancellation(error):
                    raise
                # The check itself was cancelled, together with everything else that ran.

    def _latest_look(self) -> asyncio.Task[ServerHealth]:
        loop, latest = asyncio.get_running_loop(), self._latest
        now = loop.time()
        if latest is None or latest.loop is not loop or latest.is_over(now):
            look = begin(self._look(), name="dpop health check")
            latest = self._latest = _Latest(loop, now, look)
        return latest.look

    async def _look(self) -> ServerHealth:
        keys, store = await asyncio.gather(health_of(self._verifier), health_of(self._store))
        return ServerHealth(ready=keys.ok and store.ok, issuer_keys=keys, replay_store=store)


async def health_of(part: object, *, patience: float = _PATIENCE) -> PartHealth:
    """Return the health of `part` by its `health()`, if any, within `patience` seconds; never raises."""
    ask = getattr(part, "health", None)
    if ask is None:
        return PartHealth(ok=True)
    try:
        async with asyncio.timeout(patience):
            details = await ask()
        return PartHealth(ok=_ok(details), error=_error(details), details=details)
    except (Exception, asyncio.CancelledError) as error:  # any error of the user's own part is its verdict
        if is_cancellation(error):
            raise
        words = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        return PartHealth(ok=False, error=f"{type(error).__name__}: {words}".removesuffix(": "))


async def health_of_each(parts: Iterable[object]) -> list[PartHealth]:
    """Return the health of each of `parts`, of which one part consists, within 1.5 seconds; never raises."""
    return await asyncio.gather(*(health_of(part, patience=_PATIENCE_OF_A_PART) for part in parts))


def _ok(details: object) -> bool:
    """Whether a part is healthy: by its report's `ok`, by a bool, or else because it didn't raise."""
    said = _member(details, "ok", _NOTHING)
    return details is not False if said is _NOTHING else bool(said)


def _member(report: object, name: str, otherwise: object) -> object:
    """Return what a report says by an attribute or, if it is a mapping, by a key."""
    if isinstance(report, Mapping):
        return report.get(name, otherwise)
    return getattr(report, name, otherwise)


def _error(details: object) -> str | None:
    """Return the error that a part reports; a store with several servers reports one for each."""
    error = _member(details, "error", None)
    if error is not None:
        return str(error)
    nodes = getattr(details, "nodes", ())
    if not isinstance(nodes, tuple):
        return None
    found = ((getattr(node, "address", ""), getattr(node, "error", None)) for node in nodes)
    return "; ".join(f"{address}: {error}" for address, error in found if error is not None) or None
