"""Where a verifier gets an issuer's keys, and the keys that are given once."""

from dataclasses import dataclass
from typing import Protocol

from dpop_middleware.tokens.jwks import KeySet

__all__ = ["IssuerKeysHealth", "KeySource", "StaticKeySource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeysHealth:
    """An issuer's keys as of now: `ok` when there are some by which tokens are verified.

    - `keys`: how many. `age`: seconds since they were fetched, None for keys that were given.
    - `error`: why the last fetch failed, or that none came to an end yet; None where all is well. With `ok`,
      older keys serve in the meantime.
    - `warnings`: sentences for a person, about keys of the issuer that aren't used.
    """

    ok: bool
    keys: int
    age: float | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


class KeySource(Protocol):
    """Where a verifier gets the issuer's keys. `renewable` says whether they can ever change."""

    renewable: bool

    def current(self) -> KeySet | None:
        """Return the keys to use now, None if they must be waited for; never blocks."""
        ...

    async def load(self) -> KeySet:
        """Return the keys to use now and wait for them if need be; raises `errors.Unavailable`."""
        ...

    async def newer_than(self, keys: KeySet, *, since: float, wanted: str) -> KeySet:
        """Return a newer set than `keys`, or `keys` themselves where `wanted` is known to be in no newer one.

        - `keys`: the set that lacks what is wanted. `since`: when the request came, by the monotonic clock.
        - `wanted`: a digest of what is looked for, the same for all who look for the same.

        A newer set may lack it too: ask again. Raises `errors.Unavailable` when it can't be known whether the
        issuer has such a key.
        """
        ...

    def age(self) -> float | None:
        """Return for how many seconds the keys have been held; None without any, and for given ones."""
        ...

    def open(self) -> None:
        """Begin to get the keys, if there are none; never blocks."""
        ...

    async def health(self) -> IssuerKeysHealth:
        """Return how the keys are; waits for them for a second at most."""
        ...

    async def aclose(self) -> None:
        """Release what is held; the source may be used again."""
        ...


class StaticKeySource:
    """Keys that were given once and never change."""

    renewable = False

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def current(self) -> KeySet:
        """Return the keys."""
        return self._keys

    async def load(self) -> KeySet:
        """Return the keys."""
        return self._keys

    async def newer_than(self, keys: KeySet, *, since: float, wanted: str) -> KeySet:  # noqa: ARG002
        """Return the same keys: there are no newer ones."""
        return keys

    def age(self) -> float | None:
        """Return None: they don't age."""
        return None

    def open(self) -> None:
        """Do nothing."""

    async def health(self) -> IssuerKeysHealth:
        """Return how many keys there are."""
        return IssuerKeysHealth(ok=True, keys=len(self._keys.keys), warnings=self._keys.warnings)

    async def aclose(self) -> None:
        """Do nothing."""
