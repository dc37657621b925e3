"""How many questions untrusted senders can cause: tokens that nobody issued cost so much, and no more.

The questions about unknown tokens are bounded in number and a second; those about tokens that turn out to be
active are given back, so that honest clients who come all at once, after a deploy, aren't held up. Where most
unknown tokens turn out to be made up, those who can't be served are answered 503 so often, and then 401.
"""

import logging
import math
from typing import Final

__all__ = ["Admission"]

logger = logging.getLogger(__name__)

MAX_UNAVAILABLE: Final = 100
UNAVAILABLE_PER_SECOND: Final = 10
_SECONDS_BETWEEN_WARNINGS: Final = 60.0
# How much one answer counts in the share of tokens that are made up.
_WEIGHT: Final = 0.05
_MANY: Final = 0.5


class _Bucket:
    """So many at once, and so many a second in the long run; times are monotonic, in seconds."""

    def __init__(self, *, size: int, per_second: int) -> None:
        self._size = float(size)
        self._per_second = per_second
        self._left = self._size
        self._counted = -math.inf

    def pause(self, now: float) -> float:
        """Take one and return 0.0, or return the seconds until there is one again."""
        refilled = max(now - self._counted, 0.0) * self._per_second
        self._left = min(self._left + refilled, self._size)
        self._counted = now
        if self._left < 1:
            return (1 - self._left) / self._per_second
        self._left -= 1
        return 0.0

    def give_back(self) -> None:
        self._left = min(self._left + 1, self._size)


class Admission:
    """Counts what unknown tokens cost, for all event loops of a process; `now` is monotonic, in seconds."""

    def __init__(self, *, per_second: int) -> None:
        self._questions = _Bucket(size=per_second, per_second=per_second)
        self._unavailable = _Bucket(size=MAX_UNAVAILABLE, per_second=UNAVAILABLE_PER_SECOND)
        self._made_up = 0.0
        self._warned = -math.inf

    def pause(self, now: float) -> float:
        """Count one more question and return 0.0, or return for how many seconds it must wait."""
        return self._questions.pause(now)

    def answered(self, *, active: bool) -> None:
        """A question about an unknown token was answered."""
        if active:
            self._questions.give_back()
        self._made_up += ((not active) - self._made_up) * _WEIGHT

    def may_be_unavailable(self, now: float) -> bool:
        """Whether one who can't be served is told so; False where made-up tokens bring it about too often."""
        if self._made_up < _MANY or self._unavailable.pause(now) == 0.0:
            return True
        if now - self._warned >= _SECONDS_BETWEEN_WARNINGS:
            self._warned = now
            logger.warning(
                "too many unknown access tokens wait to be asked about, and most that came were not active: "
                "those beyond %d, and %d a second, are answered 401 instead of 503",
                MAX_UNAVAILABLE,
                UNAVAILABLE_PER_SECOND,
            )
        return False
