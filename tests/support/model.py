"""The common part of the replay store's model tests: proofs, when they count, and each answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN

__all__ = ["LIFETIME", "MARGIN", "NOW", "SKEW", "Proof", "Proofs", "told_time"]

SKEW, LIFETIME = 15.0, 60.0
MARGIN = WORKER_CLOCK_MARGIN
NOW = 1_800_000_000.0


def told_time(moment: float) -> list[bytes]:
    """What a server answers to TIME whose clock shows `moment`."""
    seconds, microseconds = divmod(int(moment * 1e6), 1_000_000)
    return [b"%d" % seconds, b"%d" % microseconds]


@dataclass(slots=True, eq=False)
class Proof:
    """One proof by the name of its entry; `bucket` and `owner` count on a cluster only."""

    name: bytes
    iat: float
    bucket: int = 0
    owner: bytes = b""
    accepted: int = 0
    presented: int = 0

    def is_acceptable(self, now: float) -> bool:
        """Whether a worker whose clock shows `now` would ask the store about it."""
        return self.iat - SKEW <= now <= self.iat + LIFETIME + SKEW

    def judge(self, outcome: bool | None, *, noticed: float, told: str) -> None:
        """The store's answer: first use, used, or None for unknown.

        `noticed` is when the last loss was noticed, by the model's time, `told` says which run this is.
        """
        assert outcome is not False or self.presented, f"{told}: a fresh proof was called used"
        self.presented += 1
        self.accepted += outcome is True
        assert self.accepted <= 1, f"{told}: accepted twice"
        if outcome is None:
            late = self.iat - SKEW - NOW - noticed
            assert late < 2 * MARGIN, f"{told}: 503 for a proof from {late} s after the loss was noticed"


class Proofs(list[Proof]):
    """All proofs of a run; `new` makes one with an `iat`."""

    def __init__(self, chance: random.Random, new: Callable[[float], Proof]) -> None:
        super().__init__()
        self._chance = chance
        self._new = new

    def some(self, time: float) -> Proof:
        """A new proof of a client whose clock is right within the skew, or one that was made before."""
        if self and self._chance.random() >= 0.5:
            return self._chance.choice(self[-40:])
        self.append(self._new(NOW + time + self._chance.uniform(-SKEW, SKEW)))
        return self[-1]
