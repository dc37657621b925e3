"""Bounds against made-up tokens: how often others are asked about them, how many wait, how many get 503.

Anybody can send a token that nobody issued: one that names a key or an issuer that may or may not exist, or
one that only its issuer can read. Only the issuer or a resolver knows. So a request may wait for their
answer, and is answered 503 where there is none. Both are bounded here, and so is what is remembered; the
excess is answered 401, as if there were no such key, issuer or token.
"""

import logging
import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from dpop_middleware.tokens.jwks import KeySet

__all__ = [
    "MAX_MISSING",
    "MAX_UNAVAILABLE",
    "MAX_WAITING",
    "UNAVAILABLE_PER_SECOND",
    "Admission",
    "Bucket",
    "MissingKeys",
    "Tendency",
    "UnavailableAnswers",
    "WaitingRoom",
]

_LOG = logging.getLogger(__name__)

MAX_WAITING: Final = 2000
"""How many requests of a process wait for keys at the same time."""

MAX_UNAVAILABLE: Final = 100
"""How many answers 503 there may be at once for what isn't known."""

UNAVAILABLE_PER_SECOND: Final = 10
"""How many more there may be per second."""

MAX_MISSING: Final = 4096
"""How many keys that a set lacks are remembered."""

_SECONDS_BETWEEN_WARNINGS: Final = 60.0
# The weight of one outcome in a moving average.
_WEIGHT: Final = 0.05
_MOST: Final = 0.5
# So many seconds after the last answer about something made up, earlier ones say nothing of who comes now.
_FORGOTTEN_AFTER: Final = 600.0


class Bucket:
    """A token bucket: a burst of `size`, and then `per_second`; times are monotonic, in seconds."""

    def __init__(self, *, size: int, per_second: float) -> None:
        self._size = float(size)
        self._per_second = per_second
        self._left = self._size
        self._counted = -math.inf

    def is_empty(self, now: float) -> bool:
        """Whether none is available."""
        refilled = max(now - self._counted, 0.0) * self._per_second
        self._left = min(self._left + refilled, self._size)
        self._counted = now
        return self._left < 1

    def pause(self, now: float) -> float:
        """Take one and return 0.0, or return the seconds until one is available."""
        if self.is_empty(now):
            return (1 - self._left) / self._per_second
        self._left -= 1
        return 0.0

    def give_back(self) -> None:
        """Put back one that was taken."""
        self._left = min(self._left + 1, self._size)


class Tendency:
    """Whether something is true of most of the last outcomes, by a moving average; at first it isn't."""

    def __init__(self) -> None:
        self._average = 0.0

    @property
    def is_most(self) -> bool:
        """Whether it is true of at least half of the last outcomes."""
        return self._average >= _MOST

    def note(self, outcome: bool) -> None:
        """Count one more outcome: whether it is true of that."""
        self._average += (outcome - self._average) * _WEIGHT


class UnavailableAnswers:
    """Bounds the answers 503; logs at most once a minute that the excess gets none."""

    def __init__(self, warning: str) -> None:
        self._bucket = Bucket(size=MAX_UNAVAILABLE, per_second=UNAVAILABLE_PER_SECOND)
        self._warning = warning
        self._warned = -math.inf

    def may_answer(self, now: float) -> bool:
        """Count one more; False where there were too many recently."""
        if self._bucket.pause(now) == 0.0:
            return True
        if now - self._warned >= _SECONDS_BETWEEN_WARNINGS:
            self._warned = now
            _LOG.warning(
                "%s: those beyond %d, and %d a second, are answered 401 instead of 503",
                self._warning,
                MAX_UNAVAILABLE,
                UNAVAILABLE_PER_SECOND,
            )
        return False


class WaitingRoom:
    """Bounds how many requests of a process wait for keys, and how many get 503 because keys are unknown.

    `now` is monotonic, in seconds. Threads that run at the same time may count one request too many, but
    never lose a place.
    """

    def __init__(self) -> None:
        # By process: requests that waited when a process forked never end in the child.
        self._waiting: dict[int, set[object]] = {}
        self._unavailable = UnavailableAnswers("too many access tokens name keys that can't be looked up now")

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
        """Count one more 503; False where there were too many recently."""
        return self._unavailable.may_answer(now)


class MissingKeys:
    """The keys that were not found in the newest set: another search of that set can't find them either."""

    def __init__(self) -> None:
        # One value, so that threads never combine a set with the searches in another one.
        self._looked: tuple[KeySet | None, set[str]] = (None, set())

    def add(self, wanted: str, keys: KeySet) -> None:
        """Remember that `wanted` was looked for in `keys`; forget the searches in an older set."""
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


class Admission:
    """Counts the questions about unknown tokens, or about unknown issuers, for all event loops of a process.

    `now` is monotonic, in seconds. Questions are bounded in number and per second; those about tokens that
    turn out to be active, and about trusted issuers, don't count, so that many honest clients at once, after
    a deploy, aren't delayed. Where most turn out to be made up, a bounded number of those that can't be
    served are answered 503, and the excess 401; ten minutes after the last one, this has ended.
    """

    def __init__(self, *, per_second: int) -> None:
        self._per_second = per_second
        self._questions = Bucket(size=per_second, per_second=per_second)
        # A small part of the rate, so that this stays empty while many questions are about made-up tokens.
        self._in_vain = Bucket(size=per_second, per_second=per_second / 10)
        self._unavailable = UnavailableAnswers(
            "too many unknown access tokens or issuers wait for a look-up, and most that came were made up"
        )
        # Of the answers, and of all questions, including those without an answer.
        self._made_up, self._useless = Tendency(), Tendency()
        self._last_made_up = -math.inf

    def pause(self, now: float) -> float:
        """Count one more question and return 0.0, or return the seconds for which it must wait."""
        return self._questions.pause(now)

    def answered(self, now: float, *, active: bool) -> None:
        """Note that a question was answered: `active` where what it was about isn't made up."""
        self._forget_a_flood_long_past(now)
        self._made_up.note(not active)
        if active:
            self._questions.give_back()
        else:
            self._last_made_up = now
        self._ended(now, in_vain=not active)

    def blocked(self, now: float) -> None:
        """Note that a question got no answer, maybe because of the token that it was about."""
        self._ended(now, in_vain=True)

    def is_spent(self, now: float) -> bool:
        """Whether a question would have to wait."""
        return self._questions.is_empty(now)

    def is_flooded(self, waiting: int, now: float) -> bool:
        """Whether questions in vain took this second's share, and `waiting` ones take the next second's.

        After a flood has ended, there is none: many honest clients may come then, and wait for their turn.
        """
        if not self._useless.is_most or waiting < self._per_second:
            return False
        return self.is_spent(now) and self._in_vain.is_empty(now)

    def may_be_unavailable(self, now: float) -> bool:
        """Whether a request that can't be served gets 503; False where made-up tokens are too many."""
        self._forget_a_flood_long_past(now)
        return not self._made_up.is_most or self._unavailable.may_answer(now)

    def _forget_a_flood_long_past(self, now: float) -> None:
        if now - self._last_made_up >= _FORGOTTEN_AFTER:
            self._made_up = Tendency()

    def _ended(self, now: float, *, in_vain: bool) -> None:
        if in_vain:
            self._in_vain.pause(now)
        self._useless.note(in_vain)
