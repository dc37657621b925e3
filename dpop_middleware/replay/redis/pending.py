"""One write on its way, and how it can end without an answer."""

import asyncio
import os
from collections import deque
from collections.abc import Iterable
from typing import Final

from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.redis.anchor import Buckets
from dpop_middleware.replay.redis.resp import ServerError, lifetime, set_if_absent, set_once
from dpop_middleware.replay.redis.server import ServerUnfit
from dpop_middleware.replay.store import ReplayEntry

__all__ = [
    "CROWDED",
    "EVICTED",
    "FENCED",
    "FORGOTTEN",
    "NO_ANSWER",
    "OWNER_SIZE",
    "REFUSED",
    "UNREPLICATED",
    "Outcome",
    "PendingWrite",
    "refuse",
    "take",
    "unavailable",
]

NO_ANSWER: Final = "the replay store did not answer"
REFUSED: Final = "the replay store refused the entry"
CROWDED: Final = "too many requests wait for the replay store"
UNREPLICATED: Final = "too few replicas of the replay store confirmed the entry"
FENCED: Final = "the replay store lost entries: a newer proof is needed"
FORGOTTEN: Final = "other servers no longer remember proofs of that age: a newer proof is needed"
EVICTED: Final = "the replay store evicts entries"

OWNER_SIZE: Final = 16

Outcome = bool | Unavailable


def unavailable(
    description: str,
    cause: BaseException | None = None,
    *,
    retry_after: int = 1,
    judges_from: float | None = None,
) -> Unavailable:
    """The error for one request; of `cause` the log sees the server's error code or the class."""
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
    """An entry until the server has answered for it; times of the event loop's clock unless said.

    `owner` is 128 random bits that this call alone knows: found under the entry's name they say that an
    earlier try of the same call was applied. `answer` resolves to the outcome, an error included: an
    exception that nobody fetches, because the request was cancelled, would be reported as a bug.
    """

    __slots__ = (
        "answer",
        "asking",
        "bucket",
        "deadline",
        "held",
        "made_at",
        "milliseconds",
        "name",
        "namespace",
        "not_before",
        "now",
        "owner",
        "redirects",
        "retention",
        "started",
        "tries",
        "unknown",
        "vouched",
    )

    def __init__(
        self, entry: ReplayEntry, buckets: Buckets, timeout: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.bucket, self.name = buckets.place(entry.key)
        self.owner = os.urandom(OWNER_SIZE)
        self.milliseconds = lifetime(entry.now, max(entry.expires_at, entry.now + entry.retention))
        self.namespace = entry.namespace
        self.made_at = entry.made_at
        self.retention = entry.retention
        self.now = entry.now
        self.not_before = entry.not_before
        self.started = loop.time()
        self.deadline = self.started + timeout
        self.answer: asyncio.Future[Outcome] = loop.create_future()
        self.tries = 0
        self.redirects = 0
        # How often it waited until another master was asked for its data.
        self.held = 0
        self.asking = False
        # While its slot moves: the node from which it comes still had the anchor.
        self.vouched = False
        # A try was sent and its reply never came: it may have been applied.
        self.unknown = False

    @property
    def ahead(self) -> float:
        """By how many seconds the entries' clock is before the event loop's."""
        return self.now - self.started

    def command(self, *, with_get: bool) -> bytes:
        """The write as the server is to see it; `with_get` where it knows `SET … NX GET`."""
        if with_get:
            return set_once(self.name, self.owner, self.milliseconds)
        return set_if_absent(self.name, self.owner, self.milliseconds)

    def resolve(self, outcome: Outcome) -> None:
        """Give the waiting request its outcome, unless it has gone."""
        if not self.answer.done():
            self.answer.set_result(outcome)


def refuse(writes: Iterable[PendingWrite], cause: BaseException | None = None) -> None:
    """Answer those of `writes` that nobody has answered: because of `cause` it can't be known."""
    description = REFUSED if isinstance(cause, ServerError | ServerUnfit) else NO_ANSWER
    for write in writes:
        if not write.answer.done():
            write.resolve(unavailable(description, cause))


def take(queue: deque[PendingWrite], most: int, now: float) -> tuple[list[PendingWrite], list[PendingWrite]]:
    """Take `most` writes off `queue`, and those before them whose time is over; nobody waits for the rest."""
    writes: list[PendingWrite] = []
    late: list[PendingWrite] = []
    while queue and len(writes) < most:
        write = queue.popleft()
        if not write.answer.done():
            (late if write.deadline <= now else writes).append(write)
    return writes, late
