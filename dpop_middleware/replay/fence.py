"""Notices that a server lost entries: restarts, flushes, promotions of replicas.

The server keeps one small key, the epoch, that no entry's lifetime bounds. Its name carries the server's
`run_id` and replication id, so a restarted or promoted server doesn't have it, and a flush removes it. Every
batch of writes ends with one read of it. When it is missing, entries may be missing too, and what can't be
judged any more is each proof that could have been accepted before: one whose `not_before` precedes the moment
of the change. The first process that misses the epoch writes it anew, with that moment as its value; the
others learn the moment from it.

The moment is taken from the entries' `now`; there is no clock here. A server that restarted lost its entries
when it started, not when we noticed, so where nothing else can have happened the moment is its start. That is
also what makes a late start harmless: a server that has been up for longer than a proof's age, and was never
flushed, has lost nothing. A younger one of which we know nothing may be new or wiped. When it started after
our store was made it counts as wiped; when it was there before, `new_server` decides.

Not seen: single entries that an eviction policy removed, what a proxy between us and the server hides, and a
partitioned master that still answers.
"""

import math
import secrets
from dataclasses import dataclass
from hashlib import blake2s
from typing import Literal

from dpop_middleware.replay.info import ServerInfo
from dpop_middleware.replay.wire import command, epoch_name

__all__ = ["CLOCK_MARGIN", "Fence", "NewServer"]

NewServer = Literal["wait", "accept"]

# As far apart as clocks of workers may be.
CLOCK_MARGIN = 5.0


@dataclass(frozen=True, slots=True)
class Known:
    """The last epoch that we read, on which server and under which name, and when it last stood there."""

    run_id: str
    name: bytes
    epoch: bytes
    at: float


class Fence:
    """What one link knows about the memory of its server.

    `prefix` is the store's, `new_server` says what to do with a server without epoch of which nothing is
    known. `change` is the moment of the last change, in seconds like the entries' `now`: an entry whose
    `not_before` is earlier can't be judged. Every `now` given here is the present by the entries' clock.
    """

    def __init__(self, prefix: bytes, new_server: NewServer) -> None:
        self._prefix = prefix
        self._new_server = new_server
        self._info: ServerInfo | None = None
        self._known: Known | None = None
        self._name = b""
        self._proposal: bytes | None = None
        self._must_propose = False
        self._older_than_us = False
        self.change = -math.inf
        self.closing = b""

    @property
    def active(self) -> bool:
        """Whether the server lets us watch it."""
        return self._info is not None

    def off(self) -> None:
        """The server does not allow what the fence needs: go on without."""
        self._info = None
        self._must_propose = False
        self.closing = b""

    def connected(self, info: ServerInfo | None, tag: bytes, lived: float) -> None:
        """A new connection stands.

        `info` is None where `INFO` isn't allowed, `tag` is as in `epoch_name`, and `lived` is for how many
        seconds the store has existed.
        """
        if info is None or not info.run_id or info.uptime is None:
            self.off()
            return
        identity = blake2s(f"{info.run_id} {info.replication_id}".encode(), digest_size=8).hexdigest()
        self._info = info
        # Uptime counts whole seconds, up to one too many: it says nothing about a store younger than two.
        self._older_than_us = info.uptime + 1 > lived
        self._name = epoch_name(self._prefix, identity.encode(), tag)
        self._proposal = None
        self._must_propose = True
        # `closing` is the read that ends every batch.
        self.closing = command(b"GET", self._name)

    def opening(self, now: float) -> bytes:
        """The command to put before the next batch: nothing once the epoch is known."""
        if not self._must_propose or self._info is None:
            return b""
        if self._proposal is None:
            self._proposal = _proposal(self._moment(self._info, now))
        return command(b"SET", self._name, self._proposal, b"NX")

    def observe(self, epoch: bytes | None, now: float) -> None:
        """Take note of the epoch that was read after a batch."""
        if self._info is None:
            return
        known = self._known
        if epoch is None:
            # Flushed: nothing before this moment can be vouched for.
            self.change = max(self.change, now)
            self._proposal = _proposal(self.change)
            self._must_propose = True
            return
        if known is None or epoch != known.epoch:
            self.change = max(self.change, self._learned(epoch, known, self._info, now))
        if known is None or now > known.at or epoch != known.epoch:
            self._known = Known(self._info.run_id, self._name, epoch, now)
        self._must_propose = False

    def _learned(self, epoch: bytes, known: Known | None, info: ServerInfo, now: float) -> float:
        """The moment that an epoch new to us tells, by our clock."""
        moment = min(_moment_of(epoch, now), now)
        if known is None:
            return moment
        renamed = known.run_id == info.run_id and known.name != self._name
        if renamed and moment < known.at - CLOCK_MARGIN:
            # The same server under another name, and nothing lost since we last looked.
            return moment
        # What we saw kept under the old epoch came before the change, whatever the other's clock said.
        return max(moment, known.at)

    def _moment(self, info: ServerInfo, now: float) -> float:
        """When this server, which has no epoch of ours, lost its entries at the latest."""
        known = self._known
        taken_for_new = self._new_server == "accept" and self._older_than_us and not info.was_replica
        if known is None and taken_for_new:
            return -math.inf
        if info.was_replica or info.rewriting_commands:
            return now
        started = now - max(0, (info.uptime or 0) - 1)
        if known is None or known.run_id == info.run_id or started > known.at:
            return started
        # It already ran while we still wrote to another server: a replica took over.
        return now


def _proposal(moment: float) -> bytes:
    # The random part tells two epochs of one moment apart.
    return f"{moment!r} {secrets.token_hex(4)}".encode()


def _moment_of(epoch: bytes, now: float) -> float:
    try:
        moment = float(epoch.partition(b" ")[0])
    except ValueError:
        return now
    return now if math.isnan(moment) else moment
