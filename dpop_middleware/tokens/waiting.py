"""What strangers can make us do with keys that nobody has: who waits for them, and who is told what.

A token may name any key, and until the issuer was asked again nobody knows whether it has that key. So a
request may wait for the next fetch, and is answered 503 where that doesn't tell either. Both are bounded
here, and so is what is remembered; the excess is answered as if the issuer didn't have the key.
"""

import logging
import math
import os
from collections.abc import Generator
from contextlib import contextmanager

from dpop_middleware.tokens.jwks import KeySet

__all__ = ["MissingKeys", "WaitingRoom"]

logger = logging.getLogger(__name__)

MAX_WAITING = 2000
# 503 for keys that we don't know: so many at once, and so many a second in the long run.
MAX_UNAVAILABLE = 100
UNAVAILABLE_PER_SECOND = 10
MAX_MISSING = 4096
_SECONDS_BETWEEN_WARNINGS = 60.0


class WaitingRoom:
    """Bounds how many requests of a process wait for keys, and how many are told that keys can't be known.

    `now` is monotonic, in seconds. Threads that meet here may count one request too many, never lose a place.
    """

    def __init__(self) -> None:
        # By process: those who waited when a process forked never leave in the child.
        self._waiting: dict[int, set[object]] = {}
        self._left = float(MAX_UNAVAILABLE)
        self._counted = -math.inf
        self._warned = -math.inf

    @contextmanager
    def place(self) -> Generator[bool]:
        """Hold a place while the block runs; yields False where there is none left."""
        waiting = self._waiting.setdefault(os.getpid(), set())
        if len(waiting) >= MAX_WAITING:
            yield False
            return
        place = object()
        waiting.add(place)
        try:
            yield True
        finally:
            waiting.discard(place)

    def may_be_unavailable(self, now: float) -> bool:
        """Count one more 503; False where there were too many of late."""
        refilled = (now - self._counted) * UNAVAILABLE_PER_SECOND
        left = min(self._left + max(refilled, 0.0), MAX_UNAVAILABLE)
        self._counted = now
        self._left = max(left - 1, 0.0) if left >= 1 else left
        if left >= 1:
            return True
        if now - self._warned >= _SECONDS_BETWEEN_WARNINGS:
            self._warned = now
            logger.warning(
                "too many access tokens name keys or issuers that can't be looked up now: "
                "those beyond %d, and %d a second, are answered 401 instead of 503",
                MAX_UNAVAILABLE,
                UNAVAILABLE_PER_SECOND,
            )
        return False


class MissingKeys:
    """What was looked for in the newest set: asked for once more, it can't be there."""

    def __init__(self) -> None:
        # One value, so that threads never see what was looked for in another set.
        self._looked: tuple[KeySet | None, set[str]] = (None, set())

    def add(self, wanted: str, keys: KeySet) -> None:
        """Remember that `wanted` is looked for in `keys`; forget what was looked for in an older set."""
        newest, looked_for = self._looked
        if newest is not keys:
            looked_for = set()
            self._looked = (keys, looked_for)
        if len(looked_for) < MAX_MISSING:
            looked_for.add(wanted)

    def has(self, wanted: str, keys: KeySet | None) -> bool:
        """Whether `wanted` was looked for in `keys`."""
        newest, looked_for = self._looked
        return newest is keys and wanted in looked_for
