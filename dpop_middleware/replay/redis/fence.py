"""Notices that a server lost entries: by a restart, a flush, a promotion, or slots that came without data.

Beside each bucket's entries is an anchor, a key without lifetime (`anchors`): it says whose data they are,
and the moment (`since`) before which entries may be missing: a proof whose `not_before` precedes it can't be
judged. Each batch ends with a read of the anchor of each of its buckets, unless the server reports changes.

    the anchor                                             | since
    -------------------------------------------------------+-------------------------------------------------
    unchanged                                              | unchanged
    missing; the store is new here (`may_be_first`)        | never lost anything
    missing, else                                          | now + margin
    of this identity, another mark than known here         | its own, if later than the last look
                                                           |   else now + margin, for all workers
    of this process under another id, never a replica      | its own
    of this process, perhaps newer than known here         | the server is asked again first
    whose data another master of this cluster still has,   | its own: it was moved here from there
      by a clock that isn't behind (asked after the anchor |   at least the time of the last known loss at any
      was read here), of which this server was no replica; |   server + margin, if last read before that
      it was last read after this server last lost data    |   now + margin, if new to a store that waits
    with fewer moves than known here, or as many but       | now + margin: it came from there by a server that
      another identity                                     |   has lost its data
    of any other identity                                  | now + margin, or the start of the server + margin

The moment is taken from the entries' `now`, plus the margin by which two clocks may differ: another worker
may have dated the lost entries. A single server that restarted lost its entries when it started, if its
report of now, and the next one, show nothing else; in a cluster a slot may have come from elsewhere since.

A worker that finds an anchor missing or wrong replaces it, if it is still what was read. One whose `since` is
before a loss that this worker noticed is raised.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.anchors import Anchor, Sights, Standing, is_moved, lost_by, new_anchor
from dpop_middleware.replay.redis.vitals import ServerChanged, ServerInfo, VitalSigns, still_has

__all__ = ["Fence", "NewServer"]

NewServer = Literal["wait", "accept"]
FARTHEST: Final = 2 * WORKER_CLOCK_MARGIN  # the date of a loss may be so far ahead of a correct clock


class Fence:
    """The entries for which one server vouches, as far as one worker knows.

    `sights` is shared by the fences of a cluster, `new_server` is the store's option. Every `now` is the
    present time by the entries' clock, every `at` by `moments`.
    """

    def __init__(self, sights: Sights, new_server: NewServer, *, heeds_evictions: bool = True) -> None:
        self.sights, self.standing = sights, Standing(sights.buckets)
        self.vitals = VitalSigns(heeds_evictions=heeds_evictions)
        self._new_server, self._missing_at_first, self.has_to_tell = new_server, set[int](), False
        # Whether the user may run a script: without it, anchors are replaced without a comparison.
        self.with_script = True
        self.too_far_ahead: float | None = None

    @property
    def active(self) -> bool:
        """Whether the server can be watched."""
        return self.vitals.info is not None

    @property
    def has_to_write(self) -> bool:
        """Whether anchors must be written or read without waiting for an entry."""
        return bool(self.standing.due or self.standing.unread or self.vitals.has_lost)

    def off(self) -> None:
        """Switch the fence off: the server doesn't allow what it needs, and isn't asked for its state now."""
        self.vitals.info, self.vitals.is_evicting, self.vitals.looks.can_ask = None, False, False
        self._forget()

    def connected(
        self,
        info: ServerInfo | None,
        anchors: Mapping[int, bytes | None],
        *,
        lived: float,
        asked: tuple[float, float],
    ) -> None:
        """Record a new connection, on which the `anchors` were read; otherwise as `VitalSigns.connected`."""
        self._forget()
        if self.vitals.connected(info, lived=lived, asked=asked):
            self._changed(asked[1])
        if self.active:
            self.standing.owned = set(anchors)
            self.surveyed(anchors, anchors.values(), asked[1])

    def opening(self, now: float, buckets: Iterable[int]) -> list[bytes]:
        """The commands that write anchors before entries in `buckets`: none once all are known."""
        self.too_far_ahead = None
        if self.vitals.has_lost:
            self._lose_all(now)
        self._begin()
        return self.standing.writes(buckets, self.vitals.info, with_script=self.with_script)

    def survey(self, at: float) -> tuple[list[bytes], list[int]]:
        """The commands that write anchors without any entry, where possible, and the buckets to read."""
        offset, standing = self.sights.offset, self.standing
        if offset is not None and self.vitals.has_lost:
            self._lose_all(at + offset)
        self._begin()
        writes = standing.writes(standing.due, self.vitals.info, with_script=self.with_script)
        unread, standing.unread = standing.unread, set()
        return writes, [*standing.due, *(unread - standing.due.keys())]

    def surveyed(self, buckets: Iterable[int], values: Iterable[object], at: float) -> None:
        """Record what was read after a survey: an error where the bucket is elsewhere."""
        offset = self.sights.offset
        if self.vitals.has_lost:
            self._changed(at)
        for bucket, value in zip(buckets, values, strict=True):
            if value is not None and not isinstance(value, bytes):
                self.standing.drop(bucket)
            elif offset is None:
                self._see(bucket, value, at)
            else:
                self.observe(bucket, value, at + offset, at)

    def observe(self, bucket: int, value: bytes | None, now: float, at: float) -> None:
        """Record the anchor of `bucket` that was read after a batch."""
        info, standing, sight = self.vitals.info, self.standing, self.sights.of[bucket]
        is_far = self.sights.since[bucket] > now + FARTHEST
        if value is not None and value == standing.agreed.get(bucket) == sight.value and not is_far:
            sight.asked, sight.at = self.vitals.sent_at, at
            return
        if info is None:
            return
        standing.unread.discard(bucket)
        if value is None and bucket in standing.present:
            # The cause that emptied this bucket may have emptied the others.
            standing.unread |= standing.present - {bucket}
        anchor, due = Anchor.parse(value), standing.due.get(bucket)
        if value is None or anchor is None:
            self._missing(bucket, value, info, now, at)
        elif due is not None and value == due.value:
            self._agree(bucket, anchor, value, anchor.since, at)
        elif still_has(info, anchor.identity):
            self._trust(bucket, anchor, value, now, at)
        elif self.vitals.may_be_behind(anchor.identity, at):
            raise ServerChanged("another worker knows the server's data by another id")
        elif self.sights.buckets.spread and sight.asked >= self.vitals.changed_at:
            standing.drop(bucket)
            standing.foreign[bucket] = value
        else:
            self._lose(bucket, self._lost_by(bucket, info, now, at), value)

    def own(self, buckets: Iterable[int]) -> bool:
        """Record the buckets that the server has now; return whether some must be read."""
        return self.active and self.standing.own(buckets)

    def settle(self, asked: Mapping[int, bytes], present: frozenset[bytes], at: float) -> None:
        """Judge the foreign anchors in `asked`; other masters have the data of `present`."""
        now, info = at + (self.sights.offset or 0.0), self.vitals.info
        for bucket, value in asked.items():
            if info is None or self.standing.foreign.get(bucket) != value:
                continue
            anchor = None if self._waits(bucket) else Anchor.parse(value)
            if anchor is not None and is_moved(anchor, info, present):
                doubt = self.sights.doubt(bucket, self.sights.changed_at)
                self._trust(bucket, anchor, value, now, at, doubt=doubt)
            else:
                self._lose(bucket, now + WORKER_CLOCK_MARGIN, value)

    def heed(self, *, at: float, now: float) -> None:
        """Handle a loss that leaves the anchors, if the vital signs show one."""
        if self.vitals.has_lost:
            self._changed(at)
            self._lose_all(now)

    def _changed(self, at: float) -> None:
        """Record that the server has other data than before."""
        self.sights.changed_at, self.has_to_tell = at, True

    def _forget(self) -> None:
        self._missing_at_first, self.standing = set(), Standing(self.sights.buckets)

    def _see(self, bucket: int, value: bytes | None, at: float) -> None:
        """Record what was read before an entry gave the time: enough to notice a loss or to begin a store."""
        standing, sight, anchor = self.standing, self.sights.of[bucket], Anchor.parse(value)
        standing.due.pop(bucket, None)
        if anchor is not None:
            self.sights.meet(anchor)
        elif value is None:
            self._missing_at_first.add(bucket)
        if anchor is not None and anchor.identity == self.vitals.identity and sight.anchor in {None, anchor}:
            sight.anchor, sight.value, sight.asked, sight.at = anchor, value or b"", self.vitals.sent_at, at
            standing.seen.add(bucket)
        else:
            standing.unread.add(bucket)

    def _missing(self, bucket: int, value: bytes | None, info: ServerInfo, now: float, at: float) -> None:
        """Handle a missing anchor, or one that can't be parsed."""
        if bucket in self.standing.due:
            # It was written, and was then lost or refused.
            self._lose(bucket, now + WORKER_CLOCK_MARGIN, value)
        elif value is not None or not self._begins(bucket, info):
            self._lose(bucket, self._lost_by(bucket, info, now, at), value)

    def _trust(
        self, bucket: int, anchor: Anchor, value: bytes, now: float, at: float, *, doubt: float = -math.inf
    ) -> None:
        """Accept `anchor`, unless this worker knows more; entries from before `doubt` may be missing."""
        sights, sight, vitals = self.sights, self.sights.of[bucket], self.vitals
        told = learned = anchor.since
        doubt = max(doubt, sight.untold, sights.doubt(bucket, vitals.lost_at))
        sights.meet(anchor)
        if (farthest := max(told, sights.since[bucket])) > now + FARTHEST:
            # No correct clock shows that. A wrong one, even this worker's, must not cause refusals for ever.
            self.too_far_ahead = farthest - now
            sights.since[bucket] = now + WORKER_CLOCK_MARGIN
            self._lose(bucket, sights.since[bucket], value)
            return
        if sight.anchor is not None and sight.anchor.mark != anchor.mark:
            if told <= sight.at + (now - at):
                # A worker that noticed the loss after the last look here dated it later, by any clock.
                learned = now + WORKER_CLOCK_MARGIN
        elif sight.anchor is not None and not anchor.follows(sight.anchor):
            # It moved to another server, and came back as it was before.
            doubt = now + WORKER_CLOCK_MARGIN
        if told < doubt or told < learned:
            # The worker that wrote it knew less than this one: the others must learn of it too.
            sight.anchor, sight.value, sight.asked, sight.at = anchor, value, vitals.sent_at, at
            self._lose(bucket, max(learned, doubt), value, is_ours=True)
            return
        self._agree(bucket, anchor, value, learned, at)
        is_former = anchor.identity != vitals.identity and not vitals.may_be_behind(anchor.identity, at)
        if is_former and vitals.info is not None and vitals.info.is_told and bucket in self.standing.owned:
            self.standing.owe(bucket, value, anchor.under(vitals.identity).value)

    def _agree(self, bucket: int, anchor: Anchor, value: bytes, since: float, at: float) -> None:
        sights, sight = self.sights, self.sights.of[bucket]
        sights.meet(anchor)
        sights.since[bucket] = max(sights.since[bucket], since)
        sight.anchor, sight.value, sight.asked, sight.at = anchor, value, self.vitals.sent_at, at
        sight.untold = -math.inf
        self.standing.agree(bucket, value)

    def _lose(self, bucket: int, since: float, found: bytes | None, *, is_ours: bool = False) -> None:
        """Record that entries from before `since` may be missing in `bucket`; `found` is its anchor.

        `is_ours` says that the anchor is about the data here, even where it has another identity.
        """
        sights = self.sights
        since = sights.since[bucket] = max(sights.since[bucket], since)
        sights.of[bucket].untold = since
        anchor = Anchor.parse(found)
        self.standing.drop(bucket)
        if anchor is not None and (is_ours or anchor.identity == self.vitals.identity):
            # The same anchor with a later `since`: workers that know it see that nothing else happened to it.
            self.standing.owe(bucket, found, anchor.under(self.vitals.identity, since=since).value)
        else:
            self.standing.owe(bucket, found, new_anchor(self.vitals, since))

    def _lose_all(self, now: float) -> None:
        """Record that every bucket of this server lost entries before `now`, by any worker's clock."""
        self.vitals.has_lost = False
        standing = self.standing
        for bucket in standing.owned | standing.met:
            due, found = standing.due.get(bucket), standing.agreed.get(bucket)
            self._lose(bucket, now + WORKER_CLOCK_MARGIN, found if due is None else due.found)
            if found is None and due is None:
                # Lost, whatever its anchor turns out to be; its `since` is raised then.
                standing.drop(bucket)
                standing.unread.add(bucket)

    def _lost_by(self, bucket: int, info: ServerInfo, now: float, at: float) -> float:
        """When `bucket` was lost, at the latest."""
        known, told_at = self.sights.of[bucket], self.vitals.looks.answered_at
        is_told_now = info.is_told and told_at >= self.vitals.sent_at
        if self._waits(bucket) or self.sights.buckets.spread or not is_told_now:
            # Its clock was set forward since the start, the bucket came only now, or the server was flushed.
            return now + WORKER_CLOCK_MARGIN
        self.vitals.rely_on(info)
        started = now - (at - told_at) - max(0, (info.uptime or 0) - 1)
        return lost_by(info, known.anchor, started=started, seen=known.at + (now - at), now=now)

    def _waits(self, bucket: int) -> bool:
        """Whether entries of `bucket`, which this worker has never seen, count as lost."""
        return self._new_server == "wait" and self.sights.of[bucket].anchor is None

    def _begins(self, bucket: int, info: ServerInfo) -> bool:
        """Whether no worker can have used the store on this server before; then the first anchor is due."""
        may_be_new = self._new_server == "accept" and self.vitals.is_older
        if is_first := may_be_new and self.sights.may_be_first(bucket, info):
            self.vitals.rely_on(info)
            self.standing.owe(bucket, None, new_anchor(self.vitals, -math.inf))
        return is_first

    def _begin(self) -> None:
        """Begin a new store, all of whose servers were asked, or ask for the start, which dates a loss."""
        missing, self._missing_at_first = self._missing_at_first, set()
        if (info := self.vitals.info) is not None:
            for bucket in missing:
                self._begins(bucket, info)
        if self.standing.unread and not self.sights.buckets.spread:
            self.vitals.looks.hurry()
