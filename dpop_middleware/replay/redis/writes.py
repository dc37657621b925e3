"""Writes under way: how each can end without an answer, and the anchors that are read after them."""

import asyncio
import math
import os
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

from redis.exceptions import InvalidResponse

from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import (
    ASKING,
    FORBIDDEN,
    NOTHING_USUAL,
    Buckets,
    ServerError,
    ServerUnfit,
    Usual,
    set_once,
)
from dpop_middleware.replay.store import ReplayEntry, check_entry

__all__ = [
    "CHANGED",
    "CROWDED",
    "EVICTED",
    "FENCED",
    "FORGOTTEN",
    "NO_ANSWER",
    "OWNER_SIZE",
    "REDIRECTIONS",
    "REFUSED",
    "UNREPLICATED",
    "WRONG_SERVER",
    "AnchorReading",
    "Outcome",
    "PendingWrite",
    "commands",
    "refuse",
    "unavailable",
]

# The server is not, or no longer, the one to write to: a new connection may reach the right one.
WRONG_SERVER: Final = frozenset({"READONLY", "CLUSTERDOWN", "MASTERDOWN"})
REDIRECTIONS: Final = frozenset({"MOVED", "ASK"})

NO_ANSWER: Final = "the replay store did not answer"
REFUSED: Final = "the replay store refused the entry"
CROWDED: Final = "too many requests wait for the replay store"
UNREPLICATED: Final = "too few replicas of the replay store confirmed the entry"
FENCED: Final = "the replay store lost entries: a newer proof is needed"
FORGOTTEN: Final = "other servers no longer remember proofs of that age: a newer proof is needed"
EVICTED: Final = "the replay store evicts entries"
# No server sends this: an anchor changed while the writes beside it were under way.
CHANGED: Final = ServerError("CHANGED the anchor")

OWNER_SIZE: Final = 16

Outcome = bool | Unavailable


def unavailable(
    description: str,
    cause: BaseException | None = None,
    *,
    retry_after: int = 1,
    judges_from: float | None = None,
) -> Unavailable:
    """The error for one request; of `cause` the log gets the server's error code or the class."""
    error = Unavailable(
        description,
        retry_after=retry_after,
        newer_proof=judges_from is not None,
        judges_from=judges_from,
        check=Check.JTI,
        actual=None if cause is None else getattr(cause, "code", type(cause).__name__),
    )
    error.__cause__ = cause
    return error


class PendingWrite:
    """An entry until the server has answered; `deadline` is by the event loop's clock.

    It is kept for `kept` seconds at least; the entries' clock is ahead of `moments` by `offset` seconds. A
    try is `SET … NX`. A repeat, after one that may have been applied (`unknown`), has a `GET` too: `owner`,
    128 random bits that only this call knows, shows under the entry's name that an earlier try was applied.
    `answer` resolves to the outcome, even an error: an exception that a cancelled request leaves would be
    reported as a bug.
    """

    __slots__ = (
        "answer",
        "asking",
        "bucket",
        "deadline",
        "entry",
        "expires_at",
        "held",
        "is_repeat",
        "kept",
        "name",
        "offset",
        "owner",
        "redirects",
        "tries",
        "unknown",
        "vouched",
    )

    def __init__(
        self, entry: ReplayEntry, buckets: Buckets, settings: Settings, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.entry = entry
        self.bucket, self.name = buckets.locate(entry.key)
        kept = self.kept = max(entry.retention, settings.retention)
        # Others may count its age from its `iat`, which a client whose clock is ahead puts later than now.
        self.expires_at = max(entry.expires_at, entry.now + kept, entry.iat + kept)
        # Later it would fail all others of its batch.
        check_entry(entry, self.expires_at)
        self.offset = entry.now - settings.moments.at(started := loop.time())
        self.deadline = started + settings.timeout
        self.answer: asyncio.Future[Outcome] = loop.create_future()
        self.owner = b""
        # `held`: how often it waited until another master was asked about its data.
        self.tries = self.redirects = self.held = 0
        # `vouched`: while its slot moves, the node that it leaves still had the anchor. `unknown`: an earlier
        # try may have been applied, since its reply never came, or couldn't be judged.
        self.asking = self.vouched = self.unknown = self.is_repeat = False

    def command(self, owner: bytes, *, with_get: bool) -> bytes:
        """The write's command; `with_get` where the server knows `SET … NX GET`.

        `GET` costs the server more, so only a repeat has it. `owner` is kept from the first try on.
        """
        self.owner = self.owner or owner
        self.is_repeat = with_get and self.unknown
        seconds = self.expires_at - self.entry.now
        return set_once(self.name, self.owner, seconds, with_get=self.is_repeat)

    def judge(self, reply: object) -> Outcome:
        """Whether the entry was stored by this call, as `reply`, which is no error, says.

        Raises `InvalidResponse` for what can't be the reply to `command`: a stray one on the connection.
        """
        if self.is_repeat:
            if reply is None or (isinstance(reply, bytes) and len(reply) == OWNER_SIZE):
                return reply is None or reply == self.owner
        elif reply == b"OK":
            return True
        elif reply is None:
            # Where an earlier try of this same call may have stored it, it must not be called a replay.
            return unavailable(NO_ANSWER) if self.unknown else False
        raise InvalidResponse("the server sent an unexpected reply to an entry")

    def resolve(self, outcome: Outcome) -> None:
        """Give the waiting request its outcome, unless it has gone."""
        if not self.answer.done():
            self.answer.set_result(outcome)


_BUCKET, _ASKING = attrgetter("bucket"), attrgetter("asking")


def commands(writes: Sequence[PendingWrite], *, with_get: bool) -> list[bytes]:
    """The command of each write, with an owner of its own."""
    # From one call: each would take as long as all the rest of a command.
    octets, sent = os.urandom(OWNER_SIZE * len(writes)), []
    for number, write in enumerate(writes):
        owner = octets[OWNER_SIZE * number : OWNER_SIZE * (number + 1)]
        sent.append(write.command(owner, with_get=with_get))
    return sent


def refuse(writes: Iterable[PendingWrite], cause: BaseException | None = None) -> None:
    """Answer those of `writes` that have no answer yet: because of `cause` it can't be known."""
    description = REFUSED if isinstance(cause, ServerError | ServerUnfit) else NO_ANSWER
    for write in writes:
        if not write.answer.done():
            write.resolve(unavailable(description, cause))


class AnchorReading:
    """Reads the anchor of each bucket of `writes` once, after them, where the server doesn't report changes.

    `buckets` are those of the writes, `elsewhere` has those that the server doesn't have, `changed` those
    whose anchors have changed since they were read. `is_odd`: a write that looks new may have to wait, or to
    be sent elsewhere. While a slot moves, an entry may be written at the node to which it goes, where the
    anchor comes later: the node that it leaves, asked before, vouches then.
    """

    def __init__(self, writes: Sequence[PendingWrite], fence: Fence) -> None:
        self._writes, self._fence = writes, fence
        self.buckets = tuple(dict.fromkeys(map(_BUCKET, writes)))
        self._read_after: tuple[int, ...] = ()
        self._watched: set[int] = set()
        self._moving = tuple(dict.fromkeys(map(_BUCKET, filter(_ASKING, writes))))
        self._values: dict[int, bytes | None] = {}
        self._now = 0.0
        self.elsewhere: dict[int, ServerError] = {}
        self.changed: set[int] = set()
        self._was_read = self.is_forbidden = self.is_odd = False

    def commands(self) -> tuple[list[bytes], Usual]:
        """The commands to send, none where the server can't be watched, and the usual replies to them."""
        fence = self._fence
        self._was_read = fence.active
        if not self._was_read:
            return [], NOTHING_USUAL
        here, reads, standing = self.buckets, fence.sights.buckets.reads, fence.standing
        if self._moving:
            here = tuple(bucket for bucket in here if bucket not in self._moving)
        if standing.watched:
            self._watched = set(filter(standing.stands, here))
            here = tuple(bucket for bucket in here if bucket not in self._watched)
        self._read_after = here
        standing.watch(here)
        commands = list(map(reads.__getitem__, here))
        for bucket in self._moving:
            commands += [ASKING, reads[bucket]]
        return commands, NOTHING_USUAL if self._moving else standing.usual(here)

    def take(self, replies: list[object]) -> None:
        """Take the anchors off the end of `replies`. Raises an error that puts the connection in doubt."""
        if not self._was_read:
            return
        for bucket in reversed(self._moving):
            self._read(bucket, replies.pop())
            replies.pop()
        for bucket in reversed(self._read_after):
            self._read(bucket, replies.pop())

    def judge(self, replies: Sequence[object], *, now: float, at: float) -> None:
        """Report to the fence what was read, and which anchors are unchanged by the `replies` to the writes.

        `now` is by the entries' clock, `at` by `moments`.
        """
        self._now = now
        if self._watched and not self.is_forbidden:
            self._look_at_watched(replies)
        for bucket, value in self._values.items():
            if value is not None or bucket not in self._moving:
                self._fence.observe(bucket, value, now, at)
        self.is_odd = bool(self.elsewhere or self.changed or self._fence.standing.foreign)

    def since(self, write: PendingWrite) -> float:
        """The moment before which entries beside `write` may be missing."""
        if self._fence.vitals.info is None:
            return -math.inf
        since = self._fence.sights.since[write.bucket]
        if write.asking and self._values.get(write.bucket) is None and not write.vouched:
            return max(since, self._now + WORKER_CLOCK_MARGIN)
        return since

    def vouches(self, write: PendingWrite) -> bool:
        """Whether the server, which sends `write` elsewhere, still has the anchor of its bucket."""
        is_foreign = write.bucket in self._fence.standing.foreign
        return self._values.get(write.bucket) is not None and not is_foreign

    def _look_at_watched(self, replies: Sequence[object]) -> None:
        """Infer anchors: a server that answered a write had the bucket's, unless it reported a change."""
        standing, answered = self._fence.standing, set[int]()
        for write, reply in zip(self._writes, replies, strict=True):
            if not isinstance(reply, ServerError) or reply.code == "ASK":
                answered.add(write.bucket)
            elif write.bucket in self._watched:
                self._is_elsewhere(write.bucket, reply)
        for bucket in (answered & self._watched) - self.elsewhere.keys():
            if standing.stands(bucket):
                self._values[bucket] = standing.agreed[bucket]
            else:
                self.changed.add(bucket)

    def _read(self, bucket: int, reply: object) -> None:
        if reply is None or isinstance(reply, bytes):
            self._values[bucket] = reply
        elif not isinstance(reply, ServerError):
            raise InvalidResponse("the server sent an unexpected reply for an anchor")
        elif not self._is_elsewhere(bucket, reply):
            if reply.code != FORBIDDEN:
                raise reply
            self.is_forbidden = True

    def _is_elsewhere(self, bucket: int, error: ServerError) -> bool:
        """Whether `error` says that another server has `bucket`."""
        is_elsewhere = error.code in REDIRECTIONS or error.code in WRONG_SERVER
        if is_elsewhere:
            self.elsewhere[bucket] = error
            self._fence.standing.drop(bucket)
        return is_elsewhere
