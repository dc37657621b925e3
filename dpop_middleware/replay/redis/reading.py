"""The reads of anchors that end a batch, and what they mean for its writes."""

import math
from collections.abc import Sequence
from typing import Final

from redis.exceptions import InvalidResponse

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.pending import PendingWrite
from dpop_middleware.replay.redis.resp import ASKING, FORBIDDEN, ServerError

__all__ = ["REDIRECTIONS", "WRONG_SERVER", "AnchorReading"]

# The server is not, or no longer, the one to write to: another connection may lead to the right one.
WRONG_SERVER: Final = frozenset({"READONLY", "CLUSTERDOWN", "MASTERDOWN"})
REDIRECTIONS: Final = frozenset({"MOVED", "ASK"})


class AnchorReading:
    """Reads the anchor of each bucket of `writes` once, after them.

    `buckets` are those of the writes, `elsewhere` has the ones that the server doesn't have. While a slot
    moves, an entry may be asked for at the node to which it goes, where the anchor comes later: then the node
    that it leaves vouches, which was asked before.
    """

    def __init__(self, writes: Sequence[PendingWrite], fence: Fence) -> None:
        self._fence = fence
        self._since = fence.sights.since
        moving = dict.fromkeys([write.bucket for write in writes if write.asking])
        buckets = dict.fromkeys([write.bucket for write in writes])
        self.buckets = tuple(buckets)
        self._buckets = [bucket for bucket in buckets if bucket not in moving]
        self._moving = list(moving)
        self._values: dict[int, bytes | None] = {}
        self._was_read = False
        self._now = 0.0
        self.usual: tuple[bytes, Sequence[object]] = (b"", ())
        self.elsewhere: dict[int, ServerError] = {}
        self.is_forbidden = False

    @property
    def is_odd(self) -> bool:
        """Whether a write that looks new may have to wait, or to go elsewhere."""
        return bool(self.elsewhere or self._fence.standing.foreign)

    def commands(self) -> list[bytes]:
        """What to send; nothing where the server doesn't let us watch it."""
        fence = self._fence
        self._was_read = fence.active
        if not fence.active:
            return []
        reads, standing = fence.sights.buckets.reads, fence.standing
        if not self._moving:
            usual = standing.usual(self._buckets)
            self.usual = usual, [standing.agreed[bucket] for bucket in self._buckets] if usual else ()
        commands = [reads[bucket] for bucket in self._buckets]
        for bucket in self._moving:
            commands += [ASKING, reads[bucket]]
        return commands

    def take(self, replies: list[object]) -> None:
        """Take what was asked for off the end of `replies`. Raises one that puts the connection in doubt."""
        if not self._was_read:
            return
        for bucket in reversed(self._moving):
            self._read(bucket, replies.pop())
            replies.pop()
        for bucket in reversed(self._buckets):
            self._read(bucket, replies.pop())

    def judge(self, *, now: float, at: float) -> None:
        """Tell the fence what was read. `now` is by the entries' clock, `at` by the event loop's."""
        self._now = now
        for bucket, value in self._values.items():
            if value is not None or bucket not in self._moving:
                self._fence.observe(bucket, value, now, at)

    def since(self, write: PendingWrite) -> float:
        """The moment before which entries beside `write` may be missing."""
        if not self._fence.active:
            return -math.inf
        since = self._since[write.bucket]
        if write.asking and self._values.get(write.bucket) is None and not write.vouched:
            return max(since, self._now + WORKER_CLOCK_MARGIN)
        return since

    def vouches(self, write: PendingWrite) -> bool:
        """Whether the server, which sends `write` elsewhere, still has the anchor of its bucket."""
        is_foreign = write.bucket in self._fence.standing.foreign
        return self._values.get(write.bucket) is not None and not is_foreign

    def _read(self, bucket: int, reply: object) -> None:
        if reply is None or isinstance(reply, bytes):
            self._values[bucket] = reply
        elif not isinstance(reply, ServerError):
            raise InvalidResponse("the server answered an anchor with something else")
        elif reply.code in REDIRECTIONS or reply.code in WRONG_SERVER:
            self.elsewhere[bucket] = reply
            self._fence.standing.drop(bucket)
        elif reply.code == FORBIDDEN:
            self.is_forbidden = True
        else:
            raise reply
