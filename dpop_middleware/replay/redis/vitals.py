"""What a server says of itself, once a second and before the entries of a batch are judged.

Its identity may have changed on a connection that survived, its clock may have stepped forward, so that every
entry has expired, and it may have evicted keys.
"""

import math

from dpop_middleware.replay.redis.anchor import Anchor, identity_of, still_has
from dpop_middleware.replay.redis.resp import command
from dpop_middleware.replay.redis.server import ServerChanged, ServerInfo

__all__ = ["ServerClock", "VitalSigns"]

_LOOK_EVERY = 1.0
_LARGEST_STEP = 1.0
# By how much two clocks that nobody sets may run apart.
_DRIFT = 0.001
_SECTIONS = (b"server", b"replication", b"stats")


class ServerClock:
    """The last look at one server: `asked` is when the question was sent that it answered last.

    Times given are of the event loop's clock.
    Between two looks no more time can pass at the server than from sending the first question to receiving
    the second answer: what exceeds that is a step, and an event loop that was blocked is none.
    """

    def __init__(self) -> None:
        self._sent = self._answered = self._due = -math.inf
        self.asked = -math.inf
        self._last: tuple[str, float, float] | None = None
        self._evicted: tuple[str, int] | None = None

    def look(self, at: float, info: ServerInfo) -> bytes:
        """The question, where it is time for one; `info` is what the server said when we connected."""
        if at < self._due:
            return b""
        self._sent = at
        # Before version 7.0 a server takes one section only.
        return command(b"INFO", *_SECTIONS) if info.answers_set_with_get else command(b"INFO")

    def hurry(self) -> None:
        """It is time for the question, however short ago the last one was."""
        self._due = -math.inf

    def connected(self, sent: float, answered: float) -> None:
        """A connection was opened, and with it the question was asked and answered."""
        self._sent = sent
        self.answered(answered)

    def answered(self, at: float) -> None:
        """The answer to the last question was received."""
        self._answered, self.asked = at, self._sent
        self._due = at + _LOOK_EVERY

    def note(self, info: ServerInfo) -> tuple[bool, bool]:
        """Whether the server has evicted keys since the last look, and whether its clock stepped forward."""
        evicted, self._evicted = self._evicted, (info.run_id, info.evicted_keys)
        # One that has evicted before we met it may have done so since we wrote to the one that it replaces.
        evicts = evicted is not None and info.evicted_keys > (evicted[1] if evicted[0] == info.run_id else 0)
        last = self._last
        self._last = None if info.time is None else (info.run_id, info.time, self._sent)
        if last is None or info.time is None or last[0] != info.run_id:
            return evicts, False
        passed = self._answered - last[2]
        return evicts, info.time - last[1] - passed > _LARGEST_STEP + passed * _DRIFT


class VitalSigns:
    """One server's, as far as it lets us watch it: `info` is None where it doesn't.

    `identity` is that of its data, `is_older` says whether it was there before the store. `asked_at` is when
    it told us, by the event loop's clock, `changed_at` when it first told us of other data than before, and
    `lost_at` when of a loss that leaves the anchors as they are.
    `has_lost` becomes True when entries were lost in a way that leaves the anchors as they are; who deals
    with that sets it back.
    """

    def __init__(self, *, heeds_evictions: bool) -> None:
        self._heeds_evictions = heeds_evictions
        self._clock = ServerClock()
        self.info: ServerInfo | None = None
        self.identity = b""
        self.is_older = False
        self.asked_at = self.changed_at = self.lost_at = -math.inf
        self.is_evicting = False
        self.has_lost = False

    def connected(self, info: ServerInfo | None, *, lived: float, asked: tuple[float, float]) -> bool:
        """A new connection stands; return whether the server may have other data than we knew of.

        That is so where it had others at the end of the former connection, and where it took over those of a
        server that we may have known. `lived` is for how many seconds the store has existed. `asked` is when
        `info` was asked for and received, by the event loop's clock.
        """
        self.info = None
        if info is None or not info.run_id or info.uptime is None:
            return False
        former, self.identity = self.identity, identity_of(info)
        self._clock.connected(*asked)
        self._note(info, asked[1])
        self.info, self.asked_at = info, asked[1]
        # Uptime counts whole seconds, up to one too many: it says nothing about a store younger than two.
        self.is_older = info.uptime + 1 > lived
        if still_has(info, former) if former else not info.was_replica:
            return False
        self.changed_at = asked[1]
        return True

    def has_told_since(self, at: float) -> bool:
        """Whether the server told of itself when asked after `at`, of the loop's clock, or never does."""
        return self.info is None or self._clock.asked >= at

    def hurry(self) -> None:
        """Ask with the next batch, however short ago that was done."""
        self._clock.hurry()

    def still_has(self, identity: bytes) -> bool:
        """Whether the server is a master that has the data of `identity`."""
        return self.info is not None and self.info.role == "master" and still_has(self.info, identity)

    def new_anchor(self, since: float) -> bytes:
        """An anchor's value for the data here, of which nothing is missing from `since` on."""
        server_time = None if self.info is None else self.info.time
        return Anchor.new(self.identity, since, server_time=server_time).value

    def look(self, at: float) -> bytes:
        """The command to put before everything else in a batch that is sent at `at` of the loop's clock."""
        return b"" if self.info is None else self._clock.look(at, self.info)

    def looked(self, info: ServerInfo, at: float) -> None:
        """Take note of what the server said of itself before a batch.

        Raises `ServerChanged` where it isn't the one any more that the connection was opened to.
        """
        if self.info is None:
            return
        if identity_of(info) != self.identity or info.role != self.info.role:
            raise ServerChanged("the server took over other data, or another role")
        self._clock.answered(at)
        self._note(info, at)

    def _note(self, info: ServerInfo, at: float) -> None:
        evicts, steps = self._clock.note(info)
        self.is_evicting = evicts and self._heeds_evictions
        if steps or self.is_evicting:
            self.has_lost, self.lost_at = True, at
