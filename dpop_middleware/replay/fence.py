"""Notices that a server lost entries: restarts, flushes, promotions of replicas.

The server keeps one small key, the epoch, that no entry's lifetime bounds. Its name carries the server's
`run_id` and replication id, so a restarted or promoted server doesn't have it, and a flush removes it. Every
batch of writes ends with one read of it. When it is missing, entries may be missing too, and what can't be
judged any more is each proof that could have been accepted before: one whose `not_before` precedes the moment
of the change. The first process that misses the epoch writes it anew, with that moment as its value; the
others learn the moment from it.

A link that opens before the first entry reads the epoch too (`greeting`), so that a worker which was idle
knows that the server had one; the first entry tells when that was by the entries' clock.

The moment is taken from the entries' `now`; there is no clock here. What was used before the loss was dated
by another worker's clock, so the moment is always as much later as two clocks may differ. A server that
restarted lost its entries when it started, not when we noticed, so where nothing else can have happened the
moment is its start. That is also what makes a late start harmless: a server that has been up for longer than
a proof's age, and was never flushed, has lost nothing. A younger one of which we know nothing may be new or
wiped. When it started after our store was made it counts as wiped; when it was there before, `new_server`
decides. A worker that took it for new wrongly is overruled by the first one that saw an epoch there before.

Once a second the server is looked at anew, before the entries of a batch are judged (`looked`): its identity
may have changed on a connection that survived, its clock may have stepped forward, so that every entry has
expired, and it may have evicted keys. A new replication id alone is no loss where the epoch still stands
under its former name (`former_name`).

Not seen: what is lost and presented again within one second of such a look, what a proxy between us and the
server hides, and a partitioned master that still answers.
"""

import math
from dataclasses import replace
from typing import Literal

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.epoch import Known, epoch_of, identity_of, moment_of
from dpop_middleware.replay.info import ServerChanged, ServerInfo
from dpop_middleware.replay.server_clock import ServerClock
from dpop_middleware.replay.wire import command, epoch_name

__all__ = ["Fence", "NewServer"]

NewServer = Literal["wait", "accept"]

# A loss that is older than this is no concern of anybody's: no entry lives for longer.
_LONGEST_AGO = 2 * 86_400.0


class Fence:
    """What one link knows about the memory of its server.

    `prefix` is the store's, `new_server` says what to do with a server without epoch of which nothing is
    known. `change` is the moment of the last change, in seconds like the entries' `now`: an entry whose
    `not_before` is earlier can't be judged. Every `now` given here is the present by the entries' clock.
    """

    def __init__(self, prefix: bytes, new_server: NewServer, *, heeds_evictions: bool = True) -> None:
        self._prefix = prefix
        self._heeds_evictions = heeds_evictions
        self._new_server = new_server
        self._info: ServerInfo | None = None
        self._known: Known | None = None
        self._undated: Known | None = None
        self._name = b""
        self._proposal: bytes | None = None
        # The epoch that the last batch found, where that left nothing to do.
        self._agreed: bytes | None = None
        self._must_propose = False
        self._overrules = False
        self._older_than_us = False
        self._clock = ServerClock()
        self._former: bytes | None = None
        # A loss that only an entry's clock can date; and what others can't see, to be told until it was read.
        self._undated_loss = False
        self._untold = -math.inf
        self.is_evicting = False
        self.too_far_ahead: float | None = None
        self.change = -math.inf
        self.closing = b""

    @property
    def active(self) -> bool:
        """Whether the server lets us watch it."""
        return self._info is not None

    @property
    def is_missing(self) -> bool:
        """Whether the epoch was gone at the last look, and is still to be written anew."""
        return self._must_propose and self._proposal is not None

    def off(self) -> None:
        """The server does not allow what the fence needs: go on without."""
        self._info = None
        self._must_propose = False
        self.closing = b""

    def former_name(self, info: ServerInfo | None, tag: bytes) -> bytes | None:
        """The epoch's name before the server's replication id changed, None where nothing else changed.

        A server that was never another's replica since its start has its own data, whatever its id.
        """
        known = self._known or self._undated
        if info is None or known is None or known.run_id != info.run_id or info.was_replica:
            return None
        return known.name if known.name != epoch_name(self._prefix, identity_of(info), tag) else None

    def connected(
        self,
        info: ServerInfo | None,
        tag: bytes,
        lived: float,
        *,
        former: bytes | None = None,
        asked: tuple[float, float] = (-math.inf, -math.inf),
    ) -> None:
        """A new connection stands.

        `info` is None where `INFO` isn't allowed, `tag` is as in `epoch_name`, and `lived` is for how many
        seconds the store has existed. `former` is what stood under `former_name`, and `asked` is when `info`
        was asked for and received, by the event loop's clock.
        """
        if info is None or not info.run_id or info.uptime is None:
            self.off()
            return
        self._clock.connected(*asked)
        self._note(info)
        self._info = info
        # Uptime counts whole seconds, up to one too many: it says nothing about a store younger than two.
        self._older_than_us = info.uptime + 1 > lived
        self._name = epoch_name(self._prefix, identity_of(info), tag)
        self._proposal = None
        self._agreed = None
        self._former = former if (self._known or self._undated) is not None else None
        if self._former is not None:
            self._proposal = former
        self._must_propose = True
        self._overrules = False
        # `closing` is the read that ends every batch.
        self.closing = command(b"GET", self._name)

    def opening(self, now: float) -> bytes:
        """The command to put before the next batch: nothing once the epoch is known."""
        if self._undated_loss:
            self._undated_loss = False
            self._lost(now)
        if not self._must_propose or self._info is None:
            return b""
        if self._proposal is None:
            # What we know to be lost is lost for all, whatever this server says of itself.
            self._proposal = epoch_of(max(self.change, self._moment(self._info, now)))
        return self._proposing(self._proposal)

    def greeting(self) -> bytes:
        """What to say before `closing` without any entry: the epoch, where its moment is known already."""
        if not self._must_propose or self._info is None:
            return b""
        is_stranger = self._known is None and self._undated is None
        if self._proposal is None and is_stranger and self._is_taken_for_new(self._info):
            self._proposal = epoch_of(-math.inf)
        return b"" if self._proposal is None else self._proposing(self._proposal)

    def greeted(self, epoch: bytes, at: float) -> None:
        """Take note of the epoch that was read after a greeting, `at` a moment of the event loop's clock."""
        if self._info is None:
            return
        if epoch == self._proposal:
            self._untold = -math.inf
        if epoch == self._proposal or not self._overrules:
            self._must_propose = self._overrules = False
        self._agreed = None
        self._undated = Known(self._info.run_id, self._name, epoch, at)

    def date(self, ahead: float) -> None:
        """The entries' clock is `ahead` seconds before the event loop's: that dates what `greeted` read."""
        greeted, self._undated = self._undated, None
        if greeted is None or self._known is not None:
            return
        known = self._known = replace(greeted, at=greeted.at + ahead)
        self.change = max(self.change, self._told(known.epoch, known.at))

    def observe(self, epoch: bytes | None, now: float) -> None:
        """Take note of the epoch that was read after a batch."""
        if self._info is None:
            return
        known = self._known
        stood = self._former is not None and known is not None
        if self._former is not None and known is not None:
            known = self._known = self._met(self._former, known, now)
        if known is not None and epoch is not None and epoch == self._agreed:
            known.at = max(known.at, now)
            return
        if epoch is None:
            # Flushed: nothing before this moment can be vouched for.
            self._lost(now)
            self._untold = -math.inf
            return
        told = self._told(epoch, now)
        if known is None or epoch != known.epoch:
            # Nothing was lost where the former epoch still stood when this connection was opened.
            learned = told if stood else self._learned(told, known, self._info, now)
            self.change = max(self.change, learned)
            self._known = Known(self._info.run_id, self._name, epoch, now)
        else:
            known.at = max(known.at, now)
        # Whoever took the server for new knew less than we: they and the others are to know it too. And
        # nobody is to be locked out by one worker's clock.
        if epoch == self._proposal or told >= self._untold:
            self._untold = -math.inf
        is_news = told < self._untold or (told == -math.inf and self.change > now - _LONGEST_AGO)
        self._must_propose = self._overrules = is_news or self.too_far_ahead is not None
        if self._overrules:
            self._proposal = epoch_of(self.change)
        self._agreed = None if self._overrules else epoch

    def _met(self, former: bytes, known: Known, now: float) -> Known:
        """What is known after `former` was read, as if the server had its old name."""
        self._former = None
        if former != known.epoch:
            told = self._told(former, now)
            self.change = max(self.change, told if told > known.at else now + WORKER_CLOCK_MARGIN)
        return Known(known.run_id, self._name, former, max(known.at, now))

    def _learned(self, moment: float, known: Known | None, info: ServerInfo, now: float) -> float:
        """What the `moment` of an epoch new to us means, by our clock."""
        if known is None:
            return moment
        if moment == -math.inf and info.rewriting_commands:
            # Somebody took for new what had our epoch, and what may have emptied it was seen.
            return now + WORKER_CLOCK_MARGIN
        renamed = known.run_id == info.run_id and known.name != self._name
        if renamed and moment < known.at - WORKER_CLOCK_MARGIN:
            # The same server under another name, and nothing lost since we last looked.
            return moment
        if moment == -math.inf:
            # Somebody took for new what had our epoch: it was lost at some time since we last saw it.
            return now + WORKER_CLOCK_MARGIN
        # Whoever noticed the loss after we last looked dated it later than that, by any clock.
        return moment if moment > known.at else now + WORKER_CLOCK_MARGIN

    def _told(self, epoch: bytes, now: float) -> float:
        """The moment that an epoch tells; one that no right clock can have written is taken for now."""
        moment = moment_of(epoch, now + WORKER_CLOCK_MARGIN)
        if moment <= now + 2 * WORKER_CLOCK_MARGIN:
            self.too_far_ahead = None
            return moment
        self.too_far_ahead = moment - now
        return now + WORKER_CLOCK_MARGIN

    def _lost(self, now: float) -> None:
        """Nothing that was used before `now`, by anybody's clock, can be vouched for."""
        self.change = self._untold = max(self.change, now + WORKER_CLOCK_MARGIN)
        self._proposal = epoch_of(self.change)
        # Whether others are to be overruled is seen when their epoch is read.
        self._must_propose, self._overrules = True, False
        self._agreed = None

    def look(self, at: float) -> bytes:
        """The command to put before everything else in a batch that is sent at `at` of the loop's clock."""
        return b"" if self._info is None else self._clock.look(at, self._info)

    def looked(self, info: ServerInfo, *, at: float, now: float) -> None:
        """Take note of what the server said of itself before a batch; `at` is the event loop's time.

        Raises `ServerChanged` where it isn't the one any more that the connection was opened to.
        """
        if self._info is None:
            return
        if identity_of(info) != identity_of(self._info) or info.role != self._info.role:
            raise ServerChanged("the server took over other data, or another role")
        self._clock.answered(at)
        self._note(info)
        if self._undated_loss:
            self._undated_loss = False
            self._lost(now)

    def _note(self, info: ServerInfo) -> None:
        evicts, steps = self._clock.note(info)
        self.is_evicting = evicts and self._heeds_evictions
        self._undated_loss = self._undated_loss or steps or self.is_evicting

    def _moment(self, info: ServerInfo, now: float) -> float:
        """When this server, which has no epoch of ours, lost its entries at the latest."""
        known = self._known
        if known is None and self._is_taken_for_new(info):
            return -math.inf
        if info.was_replica or info.rewriting_commands:
            return now + WORKER_CLOCK_MARGIN
        if known is not None and (known.run_id, known.name) == (info.run_id, self._name):
            # Where this is written at all, the epoch that we saw there is gone, and nobody knows since when.
            return now + WORKER_CLOCK_MARGIN
        started = now - max(0, (info.uptime or 0) - 1)
        if known is None or known.run_id == info.run_id or started > known.at:
            return started + WORKER_CLOCK_MARGIN
        # It already ran while we still wrote to another server: a replica took over.
        return now + WORKER_CLOCK_MARGIN

    def _proposing(self, proposal: bytes) -> bytes:
        return command(b"SET", self._name, proposal, *(() if self._overrules else (b"NX",)))

    def _is_taken_for_new(self, info: ServerInfo) -> bool:
        return self._new_server == "accept" and self._older_than_us and not info.was_replica
