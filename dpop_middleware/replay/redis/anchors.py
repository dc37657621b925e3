"""The anchors: they say whose data the entries beside them are, and since when no entry is missing.

On a single server there is one bucket, in a cluster 1,024 of them. A cluster moves slots, so an anchor must
be in the slot of its entries: each bucket has a hash tag of its own, which all of its entries and its anchor
share.
"""

import math
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.resp import NOTHING_USUAL, Buckets, Usual, command, compare_and_set
from dpop_middleware.replay.redis.vitals import ServerInfo, VitalSigns, is_of_data, is_of_process

__all__ = ["Anchor", "Sight", "Sights", "Standing", "is_moved", "lost_by", "new_anchor"]

# Workers that start together on a new cluster find what the first of them has written so far.
_FIRST_START_TAKES = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One anchor's value, `identity|since|mark`, with `|moves` where there were any.

    `since` is the moment before which entries may be missing, by the entries' clock, with the margin. `mark`
    stays the same as long as the anchor itself is not lost, whichever server has it: the server's second in
    which it was first written, and some random bits. `moves` counts its former identities.
    """

    identity: bytes
    since: float
    mark: bytes
    moves: int = 0

    @classmethod
    def new(cls, identity: bytes, since: float, *, server_time: float | None) -> Self:
        """An anchor of a server that now shows `server_time`, in seconds since the epoch."""
        mark = b"%08x%b" % (int(server_time or 0), secrets.token_hex(4).encode())
        return cls(identity=identity, since=since, mark=mark)

    @classmethod
    def parse(cls, value: bytes | None) -> Self | None:
        """The anchor with this `value`; None where there is none, or where no worker wrote that value."""
        if value is None:
            return None
        identity, _, rest = value.partition(b"|")
        since, _, rest = rest.partition(b"|")
        mark, _, moves = rest.partition(b"|")
        try:
            moment, count = float(since), int(moves or b"0")
            int(mark[:8], 16)
        except ValueError:
            return None
        return None if math.isnan(moment) else cls(identity=identity, since=moment, mark=mark, moves=count)

    @property
    def value(self) -> bytes:
        """The value to store."""
        value = b"%b|%b|%b" % (self.identity, repr(self.since).encode(), self.mark)
        return value + b"|%d" % self.moves if self.moves else value

    @property
    def begun(self) -> int:
        """The second of its server's clock at which it was first written."""
        return int(self.mark[:8], 16)

    def under(self, identity: bytes, *, since: float | None = None) -> Self:
        """The same anchor with another identity: nothing was lost by the move, except before `since`."""
        moves = self.moves + (identity != self.identity)
        return replace(self, identity=identity, since=self.since if since is None else since, moves=moves)

    def follows(self, earlier: Self) -> bool:
        """Whether this can be a later state of the anchor `earlier`: no move of it is missing."""
        return self.moves > earlier.moves or (self.moves, self.identity) == (earlier.moves, earlier.identity)


def new_anchor(vitals: VitalSigns, since: float) -> bytes:
    """The value of an anchor for the data that `vitals` report, with nothing missing from `since` on."""
    server_time = None if vitals.info is None else vitals.info.time
    return Anchor.new(vitals.identity, since, server_time=server_time).value


def is_moved(anchor: Anchor, info: ServerInfo, present: frozenset[bytes]) -> bool:
    """Whether `anchor` came from a master that still has its data, by migration and not to its replica.

    `present` are the identities whose data other masters have, asked for after the anchor was read here.
    """
    return anchor.identity in present and not is_of_data(anchor.identity, info.former_replication_id)


def lost_by(info: ServerInfo, known: Anchor | None, *, started: float, seen: float, now: float) -> float:
    """The moment by which a single server had lost what the anchor `known`, last seen at `seen`, vouched for.

    All by the entries' clock. That is when it `started`, as it reports, if nothing can have happened since.
    """
    if info.was_replica or info.rewriting_commands:
        started = now
    elif known is not None and (is_of_process(known.identity, info.run_id) or started <= seen):
        # Lost by the same server process, or by one that ran beside this one: a replica took over.
        started = now
    return started + WORKER_CLOCK_MARGIN


@dataclass(slots=True)
class Sight:
    """One bucket: the anchor that was last seen, when that was, and a loss that others may not know of.

    `value` is the anchor's; it was `asked` for and received (`at`) by `moments`, and read by the server in
    between. `untold` is the `since` of that loss.
    """

    anchor: Anchor | None = None
    value: bytes = b""
    asked: float = -math.inf
    at: float = -math.inf
    untold: float = -math.inf


class Sights:
    """All buckets of one store. Belongs to one event loop.

    `since` has for each bucket the moment before which entries may be missing: an entry whose `not_before` is
    earlier can't be judged. `offset` is by how many seconds the entries' clock is ahead of `moments.Moments`,
    None before the first entry. `changed_at` is when this worker last learned that any of the servers has
    other data than before, by `moments`. `of` has what was seen of each bucket.
    """

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self.since = [-math.inf] * len(buckets.anchors)
        self.offset: float | None = None
        self.changed_at = -math.inf
        self.of = defaultdict[int, Sight](Sight)
        self._any_lost = False
        self._first_begun = math.inf

    def meet(self, anchor: Anchor) -> None:
        """Record that the store was used before, and whether it ever lost anything."""
        if anchor.since > -math.inf:
            self._any_lost = True
        else:
            self._first_begun = min(self._first_begun, anchor.begun)

    def may_be_first(self, bucket: int, info: ServerInfo) -> bool:
        """Whether a missing anchor may never have been written: the store is new, or was begun just now.

        `info` is what the server reported of itself.
        """
        sight = self.of[bucket]
        is_known = sight.anchor is not None or sight.untold > -math.inf
        if self._any_lost or is_known or info.was_replica or info.was_flushed:
            return False
        if self._first_begun == math.inf:
            return True
        return info.time is not None and info.time - self._first_begun < _FIRST_START_TAKES

    def doubt(self, bucket: int, learned_at: float) -> float:
        """The moment before which entries of `bucket` may be missing by a loss that this worker learned of.

        A loss known at the last read of the bucket doesn't count. `learned_at` is by `moments`.
        """
        if self.of[bucket].asked >= learned_at:
            return -math.inf
        return learned_at + (self.offset or 0.0) + WORKER_CLOCK_MARGIN


@dataclass(frozen=True, slots=True)
class Due:
    """An anchor to be written in place of `found`, which is None where there is none."""

    found: bytes | None
    value: bytes


class Standing:
    """The buckets of one server.

    `agreed` are anchors that were accepted, `foreign` those that only other masters can judge, `due` what is
    to be written. `owned` are the buckets that the server has, `unread` those of which nothing is known,
    `seen` those whose anchors were present when the connection was opened, before an entry gave the time.

    Where a server reports changes (`watches`, by client tracking), an anchor that was read is unchanged until
    it reports one (`watched`): the report comes before the replies to later commands.
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._usual: dict[int, bytes] = {}
        self.agreed: dict[int, bytes] = {}
        self.foreign: dict[int, bytes] = {}
        self.due: dict[int, Due] = {}
        self.owned: set[int] = set()
        self.unread: set[int] = set()
        self.seen: set[int] = set()
        self.watches = False
        self.watched: set[int] = set()

    @property
    def present(self) -> set[int]:
        """The buckets whose anchors were present here when they were last read."""
        return self.seen | self.agreed.keys()

    @property
    def met(self) -> set[int]:
        """The buckets that were seen here."""
        return {*self.agreed, *self.foreign, *self.due}

    def own(self, buckets: Iterable[int]) -> bool:
        """Record that the server has exactly these buckets now; return whether some must be read."""
        former, self.owned = self.owned, set(buckets)
        for bucket in former ^ self.owned:
            self.drop(bucket)
        self.unread = (self.unread & self.owned) | (self.owned - former)
        return bool(self.unread)

    def read_again(self) -> None:
        """Read all anchors again: those found here now can't be lost with another server's data."""
        self.unread |= self.owned

    def drop(self, bucket: int) -> None:
        """Forget what is known of `bucket` here."""
        self.seen.discard(bucket)
        self.agreed.pop(bucket, None)
        self._usual.pop(bucket, None)
        self.foreign.pop(bucket, None)
        self.due.pop(bucket, None)
        self.watched.discard(bucket)

    def agree(self, bucket: int, value: bytes) -> None:
        """Record that `value` is stored, and correct."""
        is_watched = bucket in self.watched
        self.drop(bucket)
        if is_watched:
            self.watched.add(bucket)
        self.agreed[bucket] = value
        self._usual[bucket] = b"$%d\r\n%b\r\n" % (len(value), value)

    def owe(self, bucket: int, found: bytes | None, value: bytes) -> None:
        """Record that `value` must be written in place of `found`."""
        self.due[bucket] = Due(found, value)

    def watch(self, buckets: Iterable[int]) -> None:
        """Record that the anchors of `buckets` are about to be read."""
        if self.watches:
            self.watched.update(buckets)

    def heed(self, push: object) -> None:
        """Take a push from the server: a key that was read has changed, or all have."""
        match push:
            case [b"invalidate", [*names]]:
                numbers = self._buckets.numbers
                self.watched -= {numbers.get(name, -1) for name in names if isinstance(name, bytes)}
            case [b"invalidate", *_]:
                self.watched.clear()
            case _:
                pass

    def stands(self, bucket: int) -> bool:
        """Whether the anchor of `bucket` is known to be unchanged and correct."""
        return bucket in self.watched and bucket in self.agreed and bucket not in self.due

    def usual(self, buckets: Sequence[int]) -> Usual:
        """The replies to reads of the anchors of `buckets` if nothing happened; none where unknown."""
        try:
            usual = b"".join(map(self._usual.__getitem__, buckets))
        except KeyError:
            return NOTHING_USUAL
        return usual, list(map(self.agreed.__getitem__, buckets))

    def writes(self, buckets: Iterable[int], info: ServerInfo | None, *, with_script: bool) -> list[bytes]:
        """The commands that write the anchors due in `buckets`.

        Depending on `info` the server compares and sets, or a script does; otherwise nothing is compared.
        """
        commands: list[bytes] = []
        if not self.due:
            return commands
        with_ifeq = info is not None and info.answers_ifeq
        for bucket in buckets:
            due = self.due.get(bucket)
            if due is None:
                continue
            name = self._buckets.anchors[bucket]
            if due.found is None:
                commands.append(command(b"SET", name, due.value, b"NX"))
            elif with_ifeq or with_script:
                commands.append(compare_and_set(name, due.found, due.value, with_ifeq=with_ifeq))
            else:
                # One that was lost meanwhile must not seem to be there.
                commands.append(command(b"SET", name, due.value, b"XX"))
        return commands
