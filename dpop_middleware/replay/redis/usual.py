"""The usual batch: entries on one server, beside which only its clock and its one anchor are read.

Nearly every batch is usual, and most have one entry. A usual one is sent and judged in a fraction of the
steps that `Batch` takes, with the same bytes and outcomes. Where anything else is due, or a reply is another
one, `Batch` does it.
"""

from operator import attrgetter
from typing import Final

from dpop_middleware.replay.redis.batch import Batch, NewEntries, own_retentions
from dpop_middleware.replay.redis.health import warn_of_findings
from dpop_middleware.replay.redis.resp import TIME
from dpop_middleware.replay.redis.writes import commands

__all__ = ["UsualBatch"]

# Without a cluster there is one bucket.
_ONLY: Final = 0
_UNKNOWN: Final = attrgetter("unknown")


class UsualBatch(Batch):
    """A `Batch` that takes fewer steps where it `is_usual`."""

    is_usual = False

    def compose(self, *, now: float, at: float, timeout: float) -> tuple[bytes, int]:
        """The bytes to send, and how many replies they get, as `Batch.compose`."""
        self.is_usual = self._looks_usual(at)
        if not self.is_usual:
            return super().compose(now=now, at=at, timeout=timeout)
        fence, stores = self._fence, commands(self._writes, with_get=self._with_get)
        self._sent = fence.vitals.sent_at = at
        fence.too_far_ahead = None
        return b"".join((*stores, TIME, fence.sights.buckets.reads[_ONLY])), len(stores) + 2

    def receive(self, replies: list[object], *, now: float, at: float) -> None:
        """Take the replies to this batch, as `Batch.receive`."""
        if self.is_usual:
            if self._take_usual(replies, now=now, at=at):
                return
            # It reads the replies by what it would have sent, which is the same.
            super().compose(now=now, at=self._sent, timeout=0.0)
        super().receive(replies, now=now, at=at)

    def _looks_usual(self, at: float) -> bool:
        """Whether these are first tries, and nothing else is due before or after them."""
        fence, vitals, standing = self._fence, self._fence.vitals, self._fence.standing
        known = None if fence.sights.buckets.spread else standing.agreed.get(_ONLY)
        if (
            known is None
            or standing.due
            or standing.watches
            or vitals.has_lost
            or (at >= vitals.looks.due and vitals.look(at))
            or vitals.info is None
            or not vitals.may_ask_time
            or self._settings.wait_replicas
            or any(map(_UNKNOWN, self._writes))
            or not self._retentions.are_told(own_retentions(self._writes), at)
        ):
            return False
        self.usual = b"$%d\r\n%b\r\n" % (len(known), known), (known,)
        return True

    def _take_usual(self, replies: list[object], *, now: float, at: float) -> bool:
        """Judge the entries if each was stored, or was there, and nothing has changed; return whether so."""
        *stored, time, anchor = replies
        fence = self._fence
        known = fence.standing.agreed.get(_ONLY)
        are_usual = stored.count(b"OK") + stored.count(None) == len(stored) and anchor == known
        if not are_usual or not isinstance(time, list):
            return False
        fence.vitals.timed(time, sent=self._sent, at=at)
        fence.heed(at=at, now=now)
        fence.observe(_ONLY, known, now, at)
        new, since = NewEntries(self._settings, fence, now), fence.sights.since[_ONLY]
        for write, reply in zip(self._writes, stored, strict=True):
            write.resolve(new.outcome(write.entry, since) if reply else False)
        if fence.vitals.is_evicting or fence.too_far_ahead is not None:
            warn_of_findings(fence, self._settings.notices, now)
        self.outcome = []
        return True
