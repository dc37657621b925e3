"""Where a verifier gets an issuer's keys, and the keys that are given once."""

from typing import Protocol

from dpop_middleware.tokens.jwks import KeySet

__all__ = ["KeySource", "StaticKeySource"]


class KeySource(Protocol):
    """Where a verifier gets the issuer's keys."""

    def current(self) -> KeySet | None:
        """Return the keys to use now, None if they must be waited for; never blocks."""
        ...

    async def load(self) -> KeySet:
        """Return the keys to use now and wait for them if need be; raises `errors.Unavailable`."""
        ...

    async def newer_than(self, keys: KeySet) -> KeySet:
        """Return a newer set than `keys`, which lacks a key that is wanted, or `keys` if they are new.

        Raises `errors.Unavailable` when it can't be known whether the issuer has such a key.
        """
        ...

    async def aclose(self) -> None:
        """Release what is held; the source may be used again."""
        ...


class StaticKeySource:
    """Keys that were given once and never change."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def current(self) -> KeySet:
        """Return the keys."""
        return self._keys

    async def load(self) -> KeySet:
        """Return the keys."""
        return self._keys

    async def newer_than(self, keys: KeySet) -> KeySet:
        """Return the same keys: there are no newer ones."""
        return keys

    async def aclose(self) -> None:
        """Do nothing."""
