"""What one worker has seen of the anchors of each bucket, wherever in a cluster it lay then."""

import math
from dataclasses import dataclass

from dpop_middleware.replay.anchor import Anchor
from dpop_middleware.replay.buckets import Buckets

__all__ = ["Sight", "Sights"]

# Workers that start together on a new cluster find what the first of them has written so far.
FIRST_START_TAKES = 10.0


@dataclass(slots=True)
class Sight:
    """One bucket: the anchor that was seen last, when that was, and a loss that others may not know.

    `at` is of the event loop's clock, `untold` is a `since`.
    """

    anchor: Anchor | None = None
    at: float = -math.inf
    untold: float = -math.inf


class Sights:
    """All buckets of one store. Belongs to one event loop.

    `since` has for each bucket the moment before which entries may be missing: an entry whose `not_before` is
    earlier can't be judged. `ahead` is by how many seconds the entries' clock is before the event loop's,
    None where no entry has told it.
    """

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self.since = [-math.inf] * len(buckets.anchors)
        self.ahead: float | None = None
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

    def may_be_first(self, server_time: float | None) -> bool:
        """Whether a missing anchor may never have been written: the store is new, or was begun just now.

        `server_time` is what the server's clock shows.
        """
        if self._any_lost:
            return False
        if self._first_begun == math.inf:
            return True
        return server_time is not None and server_time - self._first_begun < FIRST_START_TAKES
