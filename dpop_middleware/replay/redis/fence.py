"""Notices that a server lost entries: by a restart, a flush, a promotion, slots that come without data.

Beside each bucket's entries lies an anchor, a key without lifetime (`anchors`): whose data they are, and the
moment (`since`) before which entries may be missing: a proof whose `not_before` precedes it can't be judged.
Each batch of writes ends with a read of the anchor of each bucket that it wrote to, unless the server would
have told of a change since the last.

    the anchor                                             | since
    -------------------------------------------------------+-------------------------------------------------
    as it was                                              | as it was
    missing; the store is new here (`may_be_first`)        | never lost anything
    missing, else                                          | now + margin
    of this identity, another mark than we knew            | its own, if later than our last look
                                                           |   else now + margin
    of this process under another replication id, which    | its own
      never was a replica                                  |
    of this process, and ours was told before this one     | the server is asked again first
    whose data another master of this cluster still has    | its own: it was moved here from there
      (asked after the anchor was read here), of which     |   at least our learning of the last loss at any
      this server was no replica; it was asked for there   |   server + margin, if we asked for it before
      since this server last lost its data                 |   that
    with fewer moves than we knew, or as many but another  | now + margin: it came from there by a server that
      identity                                             |   has lost what it was
    of any other identity                                  | now + margin, or the start of the server + margin

The moment is taken from the entries' `now`, and is as much later as two clocks may differ: what was used
before was dated by another worker's. A single server that restarted lost its entries when it started, where
nothing else can have happened; in a cluster a slot may have come from elsewhere since.

Whoever finds that an anchor is missing or wrong writes it anew, where it is still what was read. One that
tells less than a loss that we noticed is raised.
Not seen: evictions and two changes of role within a second, what a proxy hides, a partitioned master.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.anchors import Anchor, Sights, Standing, is_moved, lost_by, new_anchor
from dpop_middleware.replay.redis.vitals import ServerChanged, ServerInfo, VitalSigns, still_has

__all__ = ["Fence", "NewServer"]

NewServer = Literal["wait", "accept"]
# By how much a loss may be dated ahead of a clock that is right.
FARTHEST: Final = 2 * WORKER_CLOCK_MARGIN


class Fence:
    """What one server vouches for, as far as one worker knows.

    `sights` is shared by the fences of a cluster, `new_server` is the store's option. Every `now` is the
    present by the entries' clock, every `at` by the event loop's.
    """

    def __init__(self, sights: Sights, new_server: NewServer, *, heeds_evictions: bool = True) -> None:
        self.sights = sights
        self.standing = Standing(sights.buckets)
        self.vitals = VitalSigns(heeds_evictions=heeds_evictions)
        self._new_server = new_server
        self._missing_at_first: set[int] = set()
        # Whether the user may run one: without it anchors are replaced without comparing.
        self.with_script = True
        self.too_far_ahead: float | None = None
        self.has_to_tell = False

    @property
    def active(self) -> bool:
        """Whether the server lets us watch it."""
        return self.vitals.info is not None

    @property
    def has_to_write(self) -> bool:
        """Whether anchors are to be written, or to be read, without waiting for an entry."""
        return bool(self.standing.due or self.standing.unread or self.vitals.has_lost)

    def off(self) -> None:
        """The server does not allow what the fence needs: go on without."""
        self.vitals.info = None
        self._forget()

    def connected(
        self,
        info: ServerInfo | None,
        anchors: Mapping[int, bytes | None],
        *,
        lived: float,
        asked: tuple[float, float],
    ) -> None:
        """A new connection stands, over which the `anchors` were read; else as `VitalSigns.connected`."""
        self._forget()
        if self.vitals.connected(info, lived=lived, asked=asked) or self.vitals.has_lost:
            self._changed(asked[1])
        if self.active:
            self.standing.owned = set(anchors)
            self.surveyed(anchors, anchors.values(), asked[1])

    def opening(self, now: float, buckets: Iterable[int]) -> list[bytes]:
        """The anchors to write before a batch with entries in `buckets`: none once all are known."""
        self.too_far_ahead = None
        if self.vitals.has_lost:
            self._lose_all(now)
        self._begin()
        return self.standing.writes(buckets, self.vitals.info, with_script=self.with_script)

    def survey(self, at: float) -> tuple[list[bytes], list[int]]:
        """The anchors to write without any entry, as far as their moment is known, and what to read."""
        offset, standing = self.sights.offset, self.standing
        if offset is not None and self.vitals.has_lost:
            self._lose_all(at + offset)
        self._begin()
        writes = standing.writes(standing.due, self.vitals.info, with_script=self.with_script)
        unread, standing.unread = standing.unread, set()
        return writes, [*standing.due, *(unread - standing.due.keys())]

    def surveyed(self, buckets: Iterable[int], values: Iterable[object], at: float) -> None:
        """Take note of what was read after a survey: an error where the bucket is elsewhere."""
        offset = self.sights.offset
        for bucket, value in zip(buckets, values, strict=True):
            if value is not None and not isinstance(value, bytes):
                self.standing.drop(bucket)
            elif offset is None:
                self._see(bucket, value, at)
            else:
                self.observe(bucket, value, at + offset, at)

    def observe(self, bucket: int, value: bytes | None, now: float, at: float) -> None:
        """Take note of the anchor of `bucket` that was read after a batch."""
        info, standing, sight = self.vitals.info, self.standing, self.sights.of(bucket)
        is_far = self.sights.since[bucket] > now + FARTHEST
        if value is not None and value == standing.agreed.get(bucket) == sight.value and not is_far:
            sight.asked, sight.at = self.vitals.sent_at, at
            return
        if info is None:
            return
        standing.unread.discard(bucket)
        if value is None and bucket in standing.present:
            # Whatever emptied this bucket may have emptied the others.
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
        """Take note of the buckets that the server has now; return whether some are to be looked at."""
        return self.active and self.standing.own(buckets)

    def settle(self, asked: Mapping[int, bytes], present: frozenset[bytes], at: float) -> None:
        """Judge what was foreign when the other masters were asked, who have the data of `present`."""
        now, info = at + (self.sights.offset or 0.0), self.vitals.info
        for bucket, value in asked.items():
            anchor = Anchor.parse(value)
            if info is None or anchor is None or self.standing.foreign.get(bucket) != value:
                continue
            if is_moved(anchor, info, present):
                doubt = self.sights.doubt(bucket, self.sights.changed_at)
                self._trust(bucket, anchor, value, now, at, doubt=doubt)
            else:
                self._lose(bucket, now + WORKER_CLOCK_MARGIN, value)

    def heed(self, *, at: float, now: float) -> None:
        """Deal with a loss that leaves the anchors as they are, if the vital signs show one."""
        if self.vitals.has_lost:
            self._changed(at)
            self._lose_all(now)

    def _changed(self, at: float) -> None:
        """Take note that the server has other data than it had."""
        self.sights.changed_at = at
        self.has_to_tell = True

    def _forget(self) -> None:
        self._missing_at_first, self.standing = set(), Standing(self.sights.buckets)

    def _see(self, bucket: int, value: bytes | None, at: float) -> None:
        """What was read before an entry told the clock: enough to notice a loss, and to begin a new store."""
        standing, sight = self.standing, self.sights.of(bucket)
        standing.due.pop(bucket, None)
        anchor = Anchor.parse(value)
        if anchor is not None and anchor.identity == self.vitals.identity and sight.anchor in {None, anchor}:
            self.sights.meet(anchor)
            sight.anchor, sight.value, sight.asked, sight.at = anchor, value or b"", self.vitals.sent_at, at
            standing.seen.add(bucket)
        else:
            standing.unread.add(bucket)
            if anchor is not None:
                self.sights.meet(anchor)
            elif value is None:
                self._missing_at_first.add(bucket)

    def _missing(self, bucket: int, value: bytes | None, info: ServerInfo, now: float, at: float) -> None:
        """There is no anchor, or none that we understand."""
        if bucket in self.standing.due:
            # It was written, and is gone again or was refused.
            self._lose(bucket, now + WORKER_CLOCK_MARGIN, value)
        elif value is None and self._is_first(bucket, info):
            self.standing.owe(bucket, None, new_anchor(self.vitals, -math.inf))
        else:
            self._lose(bucket, self._lost_by(bucket, info, now, at), value)

    def _trust(
        self, bucket: int, anchor: Anchor, value: bytes, now: float, at: float, *, doubt: float = -math.inf
    ) -> None:
        """Believe `anchor`, but where we know better; entries from before `doubt` may be missing."""
        sights, sight = self.sights, self.sights.of(bucket)
        told = learned = anchor.since
        doubt = max(doubt, sight.untold, self.sights.doubt(bucket, self.vitals.lost_at))
        sights.meet(anchor)
        if (farthest := max(told, sights.since[bucket])) > now + FARTHEST:
            # No right clock can have shown that. A wrong one, be it our own, is to lock nobody out for good.
            self.too_far_ahead = farthest - now
            sights.since[bucket] = min(sights.since[bucket], now + WORKER_CLOCK_MARGIN)
            self._lose(bucket, now + WORKER_CLOCK_MARGIN, value)
            return
        if sight.anchor is not None and sight.anchor.mark != anchor.mark:
            if told <= sight.at + (now - at):
                # Whoever noticed the loss after we last looked dated it later than that, by any clock.
                learned = now + WORKER_CLOCK_MARGIN
        elif sight.anchor is not None and not anchor.follows(sight.anchor):
            # It went somewhere, and came back as it was before.
            doubt = now + WORKER_CLOCK_MARGIN
        if told < doubt or (told == -math.inf and learned > told):
            # Whoever wrote that knew less than we: the others are to know it too.
            sight.anchor, sight.value, sight.asked, sight.at = anchor, value, self.vitals.sent_at, at
            self._lose(bucket, max(learned, doubt), value, is_ours=True)
            return
        self._agree(bucket, anchor, value, learned, at)
        if anchor.identity != self.vitals.identity and bucket in self.standing.owned:
            self.standing.owe(bucket, value, anchor.under(self.vitals.identity).value)

    def _agree(self, bucket: int, anchor: Anchor, value: bytes, since: float, at: float) -> None:
        sights, sight = self.sights, self.sights.of(bucket)
        sights.meet(anchor)
        sights.since[bucket] = max(sights.since[bucket], since)
        sight.anchor, sight.value, sight.asked, sight.at = anchor, value, self.vitals.sent_at, at
        sight.untold = -math.inf
        self.standing.agree(bucket, value)

    def _lose(self, bucket: int, since: float, found: bytes | None, *, is_ours: bool = False) -> None:
        """Nothing in `bucket` that could be accepted before `since` is vouched for; `found` is the anchor.

        `is_ours` says that it tells of the data here, even where it doesn't bear their identity.
        """
        sights = self.sights
        since = sights.since[bucket] = max(sights.since[bucket], since)
        sights.of(bucket).untold = since
        anchor = Anchor.parse(found)
        self.standing.drop(bucket)
        if anchor is not None and (is_ours or anchor.identity == self.vitals.identity):
            # The same anchor tells more: those who know it learn that, and nothing else happened to it.
            self.standing.owe(bucket, found, anchor.under(self.vitals.identity, since=since).value)
        else:
            self.standing.owe(bucket, found, new_anchor(self.vitals, since))

    def _lose_all(self, now: float) -> None:
        """Every bucket of this server lost entries before `now`, by anybody's clock."""
        self.vitals.has_lost = False
        standing = self.standing
        for bucket in standing.owned | standing.met:
            due, found = standing.due.get(bucket), standing.agreed.get(bucket)
            self._lose(bucket, now + WORKER_CLOCK_MARGIN, found if due is None else due.found)
            if found is None and due is None:
                # Lost whatever its anchor turns out to tell, which is raised then.
                standing.drop(bucket)
                standing.unread.add(bucket)

    def _lost_by(self, bucket: int, info: ServerInfo, now: float, at: float) -> float:
        """When `bucket` was lost, at the latest."""
        if self.sights.buckets.spread:
            # It may have come here only now.
            return now + WORKER_CLOCK_MARGIN
        known, asked = self.sights.of(bucket), now - (at - self.vitals.asked_at)
        started = asked - max(0, (info.uptime or 0) - 1)
        return lost_by(info, known.anchor, started=started, seen=known.at + (now - at), now=now)

    def _is_first(self, bucket: int, info: ServerInfo) -> bool:
        """Whether nobody can have used the store on this server before."""
        may_be_new = self._new_server == "accept" and self.vitals.is_older
        return may_be_new and self.sights.may_be_first(bucket, info)

    def _begin(self) -> None:
        """Begin a new store. By now all servers of a cluster were met that can be."""
        info = self.vitals.info
        missing, self._missing_at_first = self._missing_at_first, set()
        for bucket in missing:
            if info is not None and self._is_first(bucket, info):
                self.standing.owe(bucket, None, new_anchor(self.vitals, -math.inf))
