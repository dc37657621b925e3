"""Writes that are sent together, and what their replies mean.

The replies are judged only when all of them have arrived, including the fence's read: a write that was
answered before the connection broke is tried again like the others, and recognised by its owner token.
"""

import math
from collections.abc import Sequence

from dpop_middleware.replay.redis import health
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import ASKING, FORBIDDEN, NOTHING_USUAL, ServerError, Usual, command
from dpop_middleware.replay.redis.retention import Own, PublishedRetentions, farther, judges_from, shorter
from dpop_middleware.replay.redis.writes import (
    CHANGED,
    EVICTED,
    FENCED,
    FORGOTTEN,
    NO_ANSWER,
    REDIRECTIONS,
    REFUSED,
    UNREPLICATED,
    WRONG_SERVER,
    AnchorReading,
    Outcome,
    PendingWrite,
    commands,
    unavailable,
)
from dpop_middleware.replay.store import ReplayEntry, StoreExchange

__all__ = ["Again", "Batch", "NewEntries", "own_retentions"]

# Servers check ten times a second for an expired WAIT; its reply must come before the batch's own deadline.
WAIT_GRANULARITY = 0.105
SHORTEST_WAIT = 0.001

Again = list[tuple[PendingWrite, ServerError]]


def own_retentions(writes: Sequence[PendingWrite]) -> set[Own]:
    """What other workers must know of `writes`: nothing of those whose retention is unknown."""
    return {
        (write.entry.namespace, write.kept, write.entry.ahead) for write in writes if write.entry.retention
    }


class Batch:
    """`writes` in one exchange; `fence` and `settings` are the writer's.

    `with_get` says whether the server knows `SET … NX GET`. `outcome` is None until the replies have arrived:
    then it is the writes that need another try, each with its error, or the error that prevented the replies.
    `held` are writes that can't be judged before the other masters of the cluster are asked; `usual` is as in
    `Replies.expect`.
    """

    usual: Usual = NOTHING_USUAL
    held: Sequence[PendingWrite] = ()
    get_is_unknown = wrong_server = False
    outcome: Again | Exception | None = None
    _look = _waiting = _time = b""
    _publishing: Sequence[bytes] = ()
    _opening: Sequence[bytes] = ()
    _touching: Sequence[bytes] = ()
    _sent = 0.0
    _acknowledged = _after_time = 0

    def __init__(
        self,
        writes: Sequence[PendingWrite],
        settings: Settings,
        fence: Fence,
        retentions: PublishedRetentions,
        with_get: bool,
    ) -> None:
        self._writes, self._settings = writes, settings
        self._fence, self._retentions, self._with_get = fence, retentions, with_get
        self._asking: list[int] = []

    def compose(self, *, now: float, at: float, timeout: float) -> tuple[bytes, int]:
        """The bytes to send, and how many replies they get.

        `now` is by the entries' clock, `at` by `moments`; `timeout` in seconds is for `WAIT`.
        """
        self._sent = at
        self._reading = AnchorReading(self._writes, self._fence)
        self._opening = self._fence.opening(now, self._reading.buckets)
        self._look = self._fence.vitals.look(at)
        if self._look:
            # The server's reports may not arrive all the same: they are relied on for one second.
            self._fence.standing.watched.clear()
        if self._settings.wait_replicas:
            self._wait(timeout)
        stores = commands(self._writes, with_get=self._with_get)
        for index, write in enumerate(self._writes):
            if write.asking:
                self._asking.append(index)
                stores[index] = ASKING + stores[index]
        self._publishing = self._retentions.exchange(own_retentions(self._writes), at=at, now=now)
        anchors, self.usual = self._reading.commands()
        self._time = self._fence.vitals.time()
        self._after_time = len(anchors)
        before = (*self._publishing, self._look, *self._opening)
        after = (*self._touching, self._waiting, self._time, *anchors)
        sent = list(filter(None, (*before, *stores, *after)))
        return b"".join(sent), len(sent) + len(self._asking)

    def receive(self, replies: list[object], *, now: float, at: float) -> None:
        """Take the replies to this batch, and answer the requests whose outcome is known.

        `now` is by the entries' clock, `at` by `moments`. Raises an error that puts the connection in doubt.
        """
        if self._publishing:
            self._read_retentions(replies.pop(0), replies.pop(0), now)
        if self._look:
            self._fence.vitals.told(replies.pop(0), at)
        if self._time:
            self._read_time(replies.pop(-1 - self._after_time), at)
        self._fence.heed(at=at, now=now)
        new = NewEntries(self._settings, self._fence, now)
        self._reading.take(replies)
        if self._waiting:
            self._read_waiting(replies.pop(), [replies.pop() for _ in self._touching])
        if self._opening:
            health.heed_refusals(replies[: len(self._opening)], self._fence, self._settings.notices)
            del replies[: len(self._opening)]
        for index in self._asking:
            del replies[index]
        # All of them before any is answered: a stray reply puts the others in doubt.
        outcomes = [
            reply if isinstance(reply, ServerError) else write.judge(reply)
            for write, reply in zip(self._writes, replies, strict=True)
        ]
        if self._reading.is_forbidden:
            self._fence.off()
            health.warn_of_refused("GET", self._settings.notices)
        self._reading.judge(replies, now=now, at=at)
        health.warn_of_findings(self._fence, self._settings.notices, now)
        self.outcome = self._settled(outcomes, new)

    def report(self, at: float) -> None:
        """Report the exchange, which ended `at`, by `moments`, to `on_exchange`."""
        answered, entries = not isinstance(self.outcome, Exception), len(self._writes)
        self._settings.report(StoreExchange(entries=entries, seconds=at - self._sent, answered=answered))

    def _read_retentions(self, told: object, alive: object, now: float) -> None:
        self._retentions.read(told, alive, now=now)
        if self._retentions.is_forbidden:
            health.warn_of_refused("ZADD or ZRANGEBYSCORE", self._settings.notices)

    def _read_time(self, reply: object, at: float) -> None:
        try:
            self._fence.vitals.timed(reply, sent=self._sent, at=at)
        except ServerError:
            health.warn_of_refused("TIME", self._settings.notices)

    def _wait(self, timeout: float) -> None:
        # WAIT counts from the connection's last write. A repeat of an earlier connection's write may write
        # nothing, so that WAIT would have nothing to wait for.
        repeat = next((write for write in self._writes if write.unknown), None)
        if repeat is not None:
            touch = command(b"SET", self._fence.sights.buckets.touched[repeat.bucket], b"1", b"PX", b"1000")
            self._touching = [ASKING, touch] if repeat.asking else [touch]
        milliseconds = max(SHORTEST_WAIT, timeout - WAIT_GRANULARITY) * 1000
        self._waiting = command(b"WAIT", b"%d" % self._settings.wait_replicas, b"%d" % int(milliseconds))

    def _read_waiting(self, reply: object, touched: list[object]) -> None:
        if isinstance(reply, ServerError) and reply.code == FORBIDDEN:
            health.warn_of_refused("WAIT", self._settings.notices)
        # Where the slot has moved, nothing was written.
        if isinstance(reply, int) and touched[:1] in ([], [b"OK"]):
            self._acknowledged = reply

    def _settled(self, outcomes: Sequence[Outcome | ServerError], new: "NewEntries") -> Again:
        """Resolve the writes whose outcome is known; return the others, each with its error."""
        replicated = self._acknowledged >= self._settings.wait_replicas
        reading, again = self._reading, Again()
        for write, found in zip(self._writes, outcomes, strict=True):
            if isinstance(found, ServerError):
                if self._is_for_another_try(write, found):
                    again.append((write, found))
                else:
                    write.resolve(unavailable(REFUSED, found))
                continue
            outcome = found
            if outcome is True:
                if reading.is_odd and self._waits(write, again):
                    continue
                if replicated:
                    outcome = new.outcome(write.entry, reading.since(write))
                else:
                    outcome = unavailable(UNREPLICATED)
            write.resolve(outcome)
        return again

    def _waits(self, write: PendingWrite, again: Again) -> bool:
        """Whether `write`, which looks new, can't be judged by what was read on this server."""
        error = self._reading.elsewhere.get(write.bucket)
        if error is not None:
            self._follow_anchor(write, error, again)
            return True
        if write.bucket in self._reading.changed:
            # Not counted as a try: the anchor is read after the next one.
            write.unknown, write.tries = True, write.tries - 1
            again.append((write, CHANGED))
            return True
        if write.bucket in self._fence.standing.foreign:
            write.unknown = True
            self.held = [*self.held, write]
            return True
        return False

    def _follow_anchor(self, write: PendingWrite, error: ServerError, again: Again) -> None:
        """Retry `write` where its anchor is; while the slot moves the outcome can't be known."""
        if error.code == "ASK":
            write.resolve(unavailable(NO_ANSWER, error))
            return
        self._is_for_another_try(write, error)
        write.unknown = True
        again.append((write, error))

    def _is_for_another_try(self, write: PendingWrite, error: ServerError) -> bool:
        if error.code in REDIRECTIONS:
            write.vouched = self._reading.vouches(write)
            return True
        if error.code in WRONG_SERVER:
            self.wrong_server = True
            return True
        if write.is_repeat and "syntax error" in error.rest:
            self.get_is_unknown = True
            # The server refused the whole command, so this doesn't count as a try.
            write.tries -= 1
            return True
        return False


class NewEntries:
    """Judges entries that look new: whether they, or others of their age, may have been lost or forgotten.

    `now` is by the entries' clock.
    """

    def __init__(self, settings: Settings, fence: Fence, now: float) -> None:
        self._notices, self._fence, self._now = settings.notices, fence, now
        self._shortest, self._ahead = settings.living.shortest(now), settings.living.ahead

    def outcome(self, entry: ReplayEntry, since: float) -> Outcome:
        """True unless it can't be known; entries from before `since` may be missing."""
        begin = entry.not_before
        if self._ahead and entry.by_iat:
            # Others may have accepted it earlier. One judged by its nonce is no older than that.
            begin = min(begin, entry.iat - self._ahead.get(entry.namespace, entry.ahead))
        if begin < since:
            return self._lost(entry, begin, since)
        if entry.retention > (shortest := self._shortest.get(entry.namespace, math.inf)):
            return self._judge_age(entry, shortest)
        return True

    def _lost(self, entry: ReplayEntry, begin: float, since: float) -> Outcome:
        seconds = math.ceil(since - begin)
        if entry.not_before >= since:
            self._notices.warn(farther(entry.iat - begin, entry.ahead), again_after=600)
        if self._fence.vitals.is_evicting:
            return unavailable(EVICTED, retry_after=seconds)
        health.warn_of_loss(self._notices)
        return unavailable(FENCED, retry_after=seconds, judges_from=since)

    def _judge_age(self, entry: ReplayEntry, shortest: float) -> Outcome:
        """Whether everybody who may have accepted the proof of `entry` still remembers it."""
        if entry.made_at >= judges_from(shortest, self._now):
            return True
        self._notices.warn(shorter(shortest, entry.retention), again_after=600)
        return unavailable(FORGOTTEN, judges_from=judges_from(shortest, self._now))
