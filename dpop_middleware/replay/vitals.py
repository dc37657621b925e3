"""What a server says of itself, once a second and before the entries of a batch are judged.

Its identity may have changed on a connection that survived, its clock may have stepped forward, so that every
entry has expired, and it may have evicted keys.
"""

import math

from dpop_middleware.replay.anchor import identity_of
from dpop_middleware.replay.info import ServerChanged, ServerInfo
from dpop_middleware.replay.losses import still_has
from dpop_middleware.replay.server_clock import ServerClock

__all__ = ["VitalSigns"]


class VitalSigns:
    """One server's, as far as it lets us watch it: `info` is None where it doesn't.

    `identity` is that of its data, `is_older` says whether it was there before the store. `asked_at` is when
    it told us, by the event loop's clock, and `changed_at` when it first told us of other data than before.
    `has_lost` becomes True when entries were lost in a way that leaves the anchors as they are; who deals
    with that sets it back.
    """

    def __init__(self, *, heeds_evictions: bool) -> None:
        self._heeds_evictions = heeds_evictions
        self._clock = ServerClock()
        self.info: ServerInfo | None = None
        self.identity = b""
        self.is_older = False
        self.asked_at = self.changed_at = -math.inf
        self.is_evicting = False
        self.has_lost = False

    def connected(self, info: ServerInfo | None, *, lived: float, asked: tuple[float, float]) -> bool:
        """A new connection stands; return whether the server has other data than at the former's end.

        `lived` is for how many seconds the store has existed. `asked` is when `info` was asked for and
        received, by the event loop's clock.
        """
        self.info = None
        if info is None or not info.run_id or info.uptime is None:
            return False
        former, self.identity = self.identity, identity_of(info)
        self._clock.connected(*asked)
        self._note(info)
        self.info, self.asked_at = info, asked[1]
        # Uptime counts whole seconds, up to one too many: it says nothing about a store younger than two.
        self.is_older = info.uptime + 1 > lived
        if not former or still_has(info, former):
            return False
        self.changed_at = asked[1]
        return True

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
        self._note(info)

    def _note(self, info: ServerInfo) -> None:
        evicts, steps = self._clock.note(info)
        self.is_evicting = evicts and self._heeds_evictions
        self.has_lost = self.has_lost or steps or self.is_evicting
