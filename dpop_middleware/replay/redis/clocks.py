"""The two clocks beside that of the entries: the event loop's, and a server's.

The event loop's clock stands still while the machine sleeps. `Moments` count that time too: otherwise a sleep
would hide what happened meanwhile, and would seem a step of the server's clock.

A server's clock may step: forward, it makes entries expire too early. `Looks` say when a server is asked for
its state, and what two of its reports show: its clock stepped, or it evicted keys.
"""

import math
import time

from redis.exceptions import InvalidResponse

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.resp import FASTEST, LARGEST_STEP, command

__all__ = ["Looks", "Moments", "is_behind", "time_shown"]

# A clock that goes on while the machine sleeps, where there is one. What the system's clock gains may be no
# sleep: it may be set forward and back, and a server's with it.
_WITH_SLEEP: int | None = getattr(time, "CLOCK_BOOTTIME", None)

_LOOK_EVERY = 1.0
# What is put down to a correction at most, that of a minute. Entries allow for what happens while they live,
# and nobody knows when the clock went ahead: perhaps at once, when others' younger entries were there.
_MINUTE = 60.0
_FARTHEST_AHEAD = LARGEST_STEP + _MINUTE * (FASTEST - 1)
_UNEXPECTED = "the server sent an unexpected reply to TIME"
# A clock that is behind may be set right as long as entries live that were written in between.
_WARY_FOR = 3600.0
_SECTIONS = (b"server", b"replication", b"stats", b"commandstats")


class Moments:
    """Counts the time since it was made, also that for which the machine slept.

    Most event loops' clocks stand still then. Only Linux counts its sleep, and a virtual machine that is
    paused may not know that it was.
    """

    def __init__(self) -> None:
        self._made, self._least, self._most = time.monotonic(), 0.0, -math.inf
        self._least = self.at(0.0)

    def at(self, loop_time: float) -> float:
        """The moment at which an event loop's clock shows `loop_time`, if that is now."""
        # In this order: a process that is stopped in between must not take that for sleep.
        with_sleep = time.monotonic() if _WITH_SLEEP is None else time.clock_gettime(_WITH_SLEEP)
        gained = with_sleep - time.monotonic()
        if gained > self._most:  # noqa: PLR1730 - for each entry, and `max` takes longer than all the rest
            self._most = gained
        return loop_time + self._most - self._least

    def slept(self) -> float:
        """For how many seconds the machine slept."""
        return self.at(0.0)

    def lived(self) -> float:
        """For how many seconds this has counted."""
        return self.at(time.monotonic() - self._made)


def time_shown(reply: object) -> float:
    """The seconds since the epoch that a reply to `TIME` shows."""
    try:
        if isinstance(reply, list) and len(reply) == 2:
            # Without patterns, which take a microsecond: this runs for every batch.
            seconds, microseconds = reply
            if type(seconds) is type(microseconds) is bytes and seconds.isdigit() and microseconds.isdigit():
                return int(seconds) + int(microseconds) / 1e6
            if type(seconds) is type(microseconds) is int:  # as Dragonfly replies
                return seconds + microseconds / 1e6
    except (ValueError, OverflowError) as error:
        # Too many digits.
        raise InvalidResponse(_UNEXPECTED) from error
    raise InvalidResponse(_UNEXPECTED)


def is_behind(at_most: float, other: float) -> bool:
    """Whether a clock that is ahead of a third one by `at_most` is behind one that is by `other`.

    An entry that a server moves to another one, or to its replica, expires at the same moment by its clock:
    too early there, if that clock is ahead by more than entries allow for.
    """
    return other - at_most > LARGEST_STEP


class Looks:
    """The reports of one server: `asked` and `answered_at` are of the last `INFO` that it answered.

    The server is to be asked when it is `due`, if one `can_ask` at all. Its clock is `ahead` of `moments` by
    so many seconds at least and at most. Times are by `moments`, except what the server's own clock showed.
    """

    def __init__(self) -> None:
        self._sent = self.due = -math.inf
        self.asked = self.answered_at = -math.inf
        self._clock: tuple[str, float, float, float] | None = None
        self.ahead = -math.inf, math.inf
        self.can_ask = True
        self._minute = -math.inf, -math.inf
        self._evicted: tuple[str, int] | None = None
        self._wary_until = -math.inf

    def question(self, at: float, *, by_sections: bool) -> bytes:
        """The question, sent at `at`; `by_sections` says whether the server takes several sections."""
        self._sent = at
        return command(b"INFO", *(_SECTIONS if by_sections else (b"all",)))

    def patience(self, at: float, offset: float | None) -> float | None:
        """For how many seconds a server that gets no entries isn't asked at most; None for any time.

        Where its clock is behind the entries', by an `offset` as in `anchors.Sights`, or behind what it was,
        or that of the server that was replaced, it may be set right: then entries that were written before
        expire too early, which only the workers that wrote them can see.
        """
        # By so much workers' clocks may differ.
        is_behind_entries = offset is not None and offset - self.ahead[1] > WORKER_CLOCK_MARGIN
        is_watched = self.can_ask and (is_behind_entries or at < self._wary_until)
        return _LOOK_EVERY if is_watched else None

    def hurry(self) -> None:
        """Make the question due, however recent the last one was."""
        self.due = -math.inf

    def connected(self, sent: float, answered: float) -> None:
        """Record that a connection was opened, and that the question was asked and answered on it."""
        self._sent = sent
        self.answered(answered)

    def answered(self, at: float) -> None:
        """Record that the answer to the last question was received."""
        self.answered_at, self.asked = at, self._sent
        self.due = at + _LOOK_EVERY

    def note(self, run_id: str, *, evicted: int, shown: float | None) -> tuple[bool, bool]:
        """Whether the server has evicted keys since the last look, and whether its clock stepped forward.

        `run_id` is its process, `evicted` the keys that this has evicted, `shown` what its clock showed.
        """
        before, self._evicted = self._evicted, (run_id, evicted)
        # A new server that has evicted keys may have done so since the last write to the one that it
        # replaces, and one that counts anew (`CONFIG RESETSTAT`) since the last look.
        known = before[1] if before is not None and before[0] == run_id and before[1] <= evicted else 0
        evicts = before is not None and evicted > known
        steps = shown is not None and self.steps(run_id, shown, sent=self._sent, received=self.answered_at)
        return evicts, steps

    def steps(self, run_id: str, shown: float, *, sent: float, received: float) -> bool:
        """Whether the clock of the server process `run_id` stepped forward before it showed this moment.

        Between two reports no more time can pass at the server than from sending the first question to
        receiving the second answer: an excess is a step of its clock, unless a clock that is being corrected
        runs so fast, for which entries allow, in a minute of it. A blocked event loop causes none. Smaller
        steps add up within a second and within a minute.
        """
        known, shown_before, sent_before, received_before = self._clock or (None, shown, sent, sent)
        passed = received - sent_before
        gone = shown - shown_before
        if gone < (sent - received_before) / FASTEST - LARGEST_STEP:
            self._wary_until = received + _WARY_FOR
        if known != run_id:
            self._saw(run_id, shown, sent, received)
            self._minute = shown, sent
            return False
        has_stepped = gone > LARGEST_STEP + passed * FASTEST
        # After a step back what follows is compared with this: a step forward may only undo it.
        is_set_back = shown - sent < shown_before - sent_before
        if not (has_stepped or is_set_back) and passed < _LOOK_EVERY:
            return False
        self._saw(run_id, shown, sent, received)
        return self._has_gained(shown, sent, received, has_stepped=has_stepped)

    def _saw(self, run_id: str, shown: float, sent: float, received: float) -> None:
        """Compare what follows with this."""
        self._clock = run_id, shown, sent, received
        self.ahead = shown - received, shown - sent

    def _has_gained(self, shown: float, sent: float, received: float, *, has_stepped: bool) -> bool:
        """Whether the clock stepped, or gained more in a minute than while it is being corrected."""
        shown_then, sent_then = self._minute
        passed = received - sent_then
        has_gained = has_stepped or shown - shown_then - passed > _FARTHEST_AHEAD
        if has_gained or passed >= _MINUTE or shown - sent < shown_then - sent_then:
            self._minute = shown, sent
        return has_gained
