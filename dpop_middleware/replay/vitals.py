"""What a server says of itself, once a second and before the entries of a batch are judged.

Its identity may have changed on a connection that survived, its clock may have stepped forward, so that every
entry has expired, and it may have evicted keys.
"""

import math

from dpop_middleware.replay.anchor import Anchor, identity_of
from dpop_middleware.replay.info import ServerChanged, ServerInfo
from dpop_middleware.replay.losses import still_has
from dpop_middleware.replay.server_clock import ServerClock

__all__ = ["VitalSigns"]


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
