"""What one worker has seen of the anchors: of each bucket, wherever it lay then, and of each server."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.anchor import Anchor, Buckets
from dpop_middleware.replay.redis.resp import command, compare_and_set
from dpop_middleware.replay.redis.server import ServerInfo

__all__ = ["Sight", "Sights", "Standing"]

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


@dataclass(frozen=True, slots=True)
class Due:
    """An anchor to be written where `found` stands, None where nothing does."""

    found: bytes | None
    value: bytes


class Standing:
    """The buckets of one server.

    `agreed` are anchors that need no judgement, `foreign` those that only others can judge, `due` what is to
    be written. `owned` are the buckets that the server has, `unread` those of which nothing is known.
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._usual: dict[int, bytes] = {}
        self.agreed: dict[int, bytes] = {}
        self.foreign: dict[int, bytes] = {}
        self.due: dict[int, Due] = {}
        self.owned: set[int] = set()
        self.unread: set[int] = set()

    @property
    def met(self) -> set[int]:
        """The buckets that were seen here."""
        return {*self.agreed, *self.foreign, *self.due}

    def own(self, buckets: Iterable[int]) -> bool:
        """The server has these buckets now, and no others; return whether some are to be read."""
        former, self.owned = self.owned, set(buckets)
        for bucket in former ^ self.owned:
            self.drop(bucket)
        self.unread = (self.unread & self.owned) | (self.owned - former)
        return bool(self.unread)

    def read_again(self) -> None:
        """Read all anchors once more: what is seen here now wasn't on another server before."""
        self.unread |= self.owned

    def drop(self, bucket: int) -> None:
        """What is known of `bucket` here doesn't count any more."""
        self.agreed.pop(bucket, None)
        self._usual.pop(bucket, None)
        self.foreign.pop(bucket, None)
        self.due.pop(bucket, None)

    def agree(self, bucket: int, value: bytes) -> None:
        """`value` stands, and that is right."""
        self.drop(bucket)
        self.agreed[bucket] = value
        self._usual[bucket] = b"$%d\r\n%b\r\n" % (len(value), value)

    def owe(self, bucket: int, found: bytes | None, value: bytes) -> None:
        """`value` is to be written where `found` stands."""
        self.due[bucket] = Due(found, value)

    def usual(self, buckets: Iterable[int]) -> bytes:
        """What reads of the anchors of `buckets` answer if nothing happened; empty where that isn't known."""
        usual = self._usual
        try:
            return b"".join([usual[bucket] for bucket in buckets])
        except KeyError:
            return b""

    def writes(self, buckets: Iterable[int], info: ServerInfo | None, *, with_script: bool) -> list[bytes]:
        """The commands that write what is due in `buckets`.

        By what `info` says the server compares as it sets, or a script does; else nothing is compared.
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
                commands.append(command(b"SET", name, due.value))
        return commands
