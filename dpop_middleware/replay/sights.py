"""What one worker has seen of the anchors of each bucket, wherever in a cluster it lay then."""

import math
from dataclasses import dataclass

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.anchor import Anchor
from dpop_middleware.replay.buckets import Buckets
from dpop_middleware.replay.info import ServerInfo

__all__ = ["Sight", "Sights"]

# Workers that start together on a new cluster find what the first of them has written so far.
FIRST_START_TAKES = 10.0


@dataclass(slots=True)
class Sight:
    """One bucket: the anchor that was seen last, when that was, and a loss that others may not know.

    `value` is the anchor's, `at` is of the event loop's clock, `untold` is a `since`.
    """

    anchor: Anchor | None = None
    value: bytes = b""
    at: float = -math.inf
    untold: float = -math.inf


class Sights:
    """All buckets of one store. Belongs to one event loop.

    `since` has for each bucket the moment before which entries may be missing: an entry whose `not_before` is
    earlier can't be judged. `ahead` is by how many seconds the entries' clock is before the event loop's,
    None where no entry has told it. `changed_at` is when we last learned that one of the servers, any of
    them, has other data than it had: by the event loop's clock.
    """

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self.since = [-math.inf] * len(buckets.anchors)
        self.ahead: float | None = None
        self.changed_at = -math.inf
        self._sights: dict[int, Sight] = {}
        self._any_lost = False
        self._first_begun = math.inf

    def of(self, bucket: int) -> Sight:
        """What was seen of `bucket`."""
        sight = self._sights.get(bucket)
        if sight is None:
            sight = self._sights[bucket] = Sight()
        return sight

    def meet(self, anchor: Anchor) -> None:
        """Take note that the store was used before, and whether it ever lost anything."""
        if anchor.since > -math.inf:
            self._any_lost = True
        else:
            self._first_begun = min(self._first_begun, anchor.begun)

    def may_be_first(self, bucket: int, info: ServerInfo) -> bool:
        """Whether an anchor that is missing may never have been written: the store is new, or just begun.

        `info` is what the server said of itself.
        """
        sight = self.of(bucket)
        is_known = sight.anchor is not None or sight.untold > -math.inf
        if self._any_lost or is_known or info.was_replica or info.was_flushed:
            return False
        if self._first_begun == math.inf:
            return True
        return info.time is not None and info.time - self._first_begun < FIRST_START_TAKES

    def doubt(self, bucket: int, learned_at: float) -> float:
        """The moment before which entries of `bucket` may be missing by a loss that we learned of.

        Nothing was lost before we saw the bucket last. `learned_at` is of the event loop's clock.
        """
        if self.of(bucket).at >= learned_at:
            return -math.inf
        return learned_at + (self.ahead or 0.0) + WORKER_CLOCK_MARGIN
