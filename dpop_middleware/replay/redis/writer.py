"""Sends the writes that wait for one server, or refuses them without asking it.

While a batch is under way the next one is collected: a near server gets it before the answered requests go
on, while its replies are quick, a cluster's some turns of the event loop later. One task owns the connection,
so that cancelled requests don't affect it. After any doubt it is closed, and a write whose outcome is unknown
is tried once more with the same owner, within its time.

    state    a request         what happens                               the next state
    -------  ----------------  -----------------------------------------  ------------------------------
    opening  waits, within     the connection opens                       judging
             its own time      an attempt fails, the first in a row       opening, at once where one waits
                               another fails, or the one after a pause    pausing
    judging  gets the          a batch fails, the first in a row          opening, for its writes
             server's answer   another fails                              pausing
                               the connection ends, with nothing asked    opening, when it is wanted
    pausing  is refused        0.1 s have passed, later up to 0.4 s       opening
    closed   is refused

A row ends with an answered batch, or with a connection that opens after a pause. `aclose` leads to closed.
"""

import asyncio
import contextvars
import math
from collections.abc import Iterable
from functools import partial
from typing import Literal

from dpop_middleware._runtime import begin
from dpop_middleware.replay.breaker import CircuitBreaker
from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.batch import Again, Batch
from dpop_middleware.replay.redis.connection import Connect, Connection
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.queue import Queue
from dpop_middleware.replay.redis.resp import ServerUnfit
from dpop_middleware.replay.redis.server import Server
from dpop_middleware.replay.redis.topology import Inquiry, Surroundings
from dpop_middleware.replay.redis.usual import UsualBatch
from dpop_middleware.replay.redis.vitals import ServerChanged
from dpop_middleware.replay.redis.writes import CROWDED, REDIRECTIONS, PendingWrite, refuse, unavailable

__all__ = ["State", "Writer"]

MOST_TRIES, TURNS = 2, 2
# The part of a request's time within which a batch is quick: after a slower one all that wait go together.
QUICK = 1 / 5
State = Literal["opening", "judging", "pausing", "closed"]


class Writer:
    """Writes entries to one server. Belongs to one event loop.

    `name` is for the log, `sights` what was seen of the anchors; `around` is None without a cluster.
    """

    def __init__(
        self, name: str, connect: Connect, settings: Settings, sights: Sights, around: Surroundings | None
    ) -> None:
        self._settings, self._around, self._moments = settings, around, settings.moments
        self._loop = asyncio.get_running_loop()
        self._queue, self._flying = Queue(self._refuse), list[PendingWrite]()
        self.server = Server(name, connect, settings, sights, around)
        self.connect, self.fence = self.server.open, self.server.fence
        self._inquiry = Inquiry(self.fence, around, self.survey, settings.moments)
        self._breaker, self._woken = CircuitBreaker(), asyncio.Event()
        self._batch: Batch | None = None
        self._last_error: Exception | None = None
        self._has_to_survey = self._watches = self._reopening = self.closed = False
        self._idle: Connection | None = None  # where a write is sent at once, without the task
        self._task = begin(self._run(), name=f"dpop replay store {name}", context=contextvars.Context())

    @property
    def is_quiet(self) -> bool:
        """Whether no write waits here."""
        return not (self._queue.writes or self._flying or self._inquiry.is_running)

    @property
    def state(self) -> State:
        """Whether the server can be asked now."""
        if self.closed:
            return "closed"
        if self._breaker.is_open and not self._reopening:
            return "pausing"
        return "opening" if self.server.connection is None else "judging"

    def own(self, buckets: Iterable[int]) -> None:
        """Record the buckets that the server owns now."""
        if self.state == "judging" and self.fence.own(buckets):
            self.survey()

    def open(self) -> None:
        """Connect before the first request, and survey the server; a failure is left to the requests."""
        if (opening := self.server.open()) is not None:
            opening.add_done_callback(lambda _: self.survey())

    def survey(self) -> None:
        """Survey the server as soon as nothing else is to be done."""
        self._has_to_survey = True
        self._woken.set()

    def submit(self, write: PendingWrite) -> None:
        """Queue `write`; it is answered by its deadline."""
        if self._idle is not None and not self._idle.has_ended:
            self._send(self._idle, [write])
        elif self.closed or (self._batch is None and self._breaker.is_open and not self._reopening):
            self._refuse((write,))
        elif len(self._queue.writes) >= self._settings.max_waiting:
            write.resolve(unavailable(CROWDED))
        else:
            self._queue.append(write)
            if self._batch is None:
                self._woken.set()

    def resubmit(self, write: PendingWrite) -> None:
        """Queue `write` before those that came later."""
        if self.closed:
            self._refuse((write,))
        else:
            self._queue.put_back(write)
            self._woken.set()

    async def aclose(self) -> None:
        """Close the connection and answer the waiting writes: their outcome can't be known."""
        self.closed, self._idle = True, None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._end()  # once more, in case the task had not yet begun

    async def _run(self) -> None:
        try:
            while True:
                if self._batch is None:
                    self._idle = None
                    await (self._reopen() if self._breaker.is_open else self._turn())
                elif (outcome := self._batch.outcome) is None:
                    await self._sleep()
                elif isinstance(outcome, Exception):
                    await self._failed(outcome, sent=True)
                else:
                    await self._deal_with(self._batch, outcome)
        finally:
            await self._end()

    async def _end(self) -> None:
        self.closed = True
        self._refuse(self._flying)
        self._queue.refuse_all()
        await self._inquiry.aclose()
        await self.server.aclose()

    async def _sleep(self) -> None:
        self._watches = (patience := self._patience(self._moments.at(self._loop.time()))) is not None
        try:
            async with asyncio.timeout(patience):
                await self._woken.wait()
        except TimeoutError:
            self._has_to_survey = True
        self._woken.clear()
        # In the first turn replies of other masters are read, and cause more writes for this one in the next.
        for _ in range(TURNS if self._queue.writes and self._around else 0):
            await asyncio.sleep(0)

    def _patience(self, at: float) -> float | None:
        return self.fence.vitals.looks.patience(at, self.fence.sights.offset)

    async def _turn(self) -> None:
        self._flying = self._queue.take()
        if not self._flying:
            await (self._survey() if self._has_to_survey else self._sleep())
        else:
            try:
                writes = self._flying
                connection = await self.server.ready(deadline=writes[0].deadline, offset=writes[-1].offset)
            except Exception as error:  # noqa: BLE001 - whatever TLS or a credential provider raises
                await self._failed(error, sent=False)
            else:
                self._send(connection, writes)

    async def _reopen(self) -> None:
        """Try to connect once, after a pause, even if no request waits."""
        self._queue.refuse_all()
        await asyncio.sleep(self._breaker.pause_left(self._loop.time()))
        self._reopening = True
        try:
            await self.server.ready(deadline=math.inf, offset=None)
        except Exception as error:  # noqa: BLE001 - as in a turn
            self._last_error = error
            self._breaker.failed(self._loop.time())
            await self.server.give_up(error)
        else:
            self._breaker.succeeded()
            # The survey finds out what happened to the server before the next request.
            self._has_to_survey = not self._queue.writes
        finally:
            self._reopening = False

    async def _survey(self) -> None:
        """Survey the server, for no request; a failure trips the breaker unless it is asked again anyway."""
        self._has_to_survey = False
        try:
            # Requests that come in the meantime wait for at most half of their time.
            await self.server.survey(deadline=self._loop.time() + self._settings.timeout / 2)
            self._inquiry.look()
        except Exception as error:  # noqa: BLE001 - as in a turn: whatever it was, the connection is in doubt
            await self.server.disconnect()
            if isinstance(error, ServerChanged):
                self.open()
            elif not (self._queue.writes or self._patience(self._moments.at(self._loop.time()))):
                self._last_error = error
                self._breaker.trip(self._loop.time())

    def _send(self, connection: Connection, writes: list[PendingWrite]) -> None:
        self._idle, self._flying, server = None, writes, self.server
        at = self._moments.at(now := self._loop.time())
        offset = server.fence.sights.offset = writes[-1].offset
        # For one of two tries, even if a request has less time left: a far server's replies take as long.
        end = now + self._settings.timeout / 2
        batch = UsualBatch(writes, self._settings, server.fence, server.retentions, server.with_get)
        self._batch, received = batch, partial(self._receive, connection, batch)
        try:
            data, count = batch.compose(now=at + offset, at=at, timeout=min(writes[0].deadline, end) - now)
            connection.exchange(data, count, received, deadline=end, usual=batch.usual)
        except Exception as error:  # noqa: BLE001 - the task closes the connection, whatever it was
            batch.outcome = error
            self._woken.set()
            return
        for write in writes:
            write.tries += 1
            if write.deadline < end:
                self._queue.watch(write)

    def _receive(self, connection: Connection, batch: Batch, replies: list[object] | Exception) -> None:
        """Answer the waiting requests; the task is woken only where there is more to do."""
        writes, at = self._flying, self._moments.at(self._loop.time())
        if isinstance(replies, Exception):
            batch.outcome = replies
        else:
            try:
                batch.receive(replies, now=at + writes[-1].offset, at=at)
            except Exception as error:  # noqa: BLE001 - no error makes the answers known
                batch.outcome = error
        self._inquiry.hold(batch.held)
        if self._settings.on_exchange is not None:
            batch.report(at)
        if batch.outcome:
            self._woken.set()
            return
        self._succeeded()
        was_quick = at - self.fence.vitals.sent_at < self._settings.timeout * QUICK
        self._queue.by_halves = was_quick and self.server.is_near
        is_due = self._has_to_survey or (not self._watches and self._patience(at) is not None)
        if is_due or (self._queue.writes and not self._queue.by_halves):
            self._woken.set()
        elif self._queue.writes and (following := self._queue.take(answered=len(writes))):
            self._send(connection, following)
        else:
            # Where several came at once, several are likely again: better that they wait for each other.
            self._idle = connection if len(writes) == 1 else None

    def _succeeded(self) -> None:
        self._batch, self._flying, self._last_error = None, [], None
        self._breaker.succeeded()
        # A new worker must not find the server without the anchors that this one misses.
        self._has_to_survey = self.fence.has_to_write
        if self._around is not None:
            self._inquiry.look()
            self.server.tell_cluster()

    async def _deal_with(self, batch: Batch, outcome: Again) -> None:
        """Handle the writes of `batch` that need another try."""
        self.server.with_get &= not batch.get_is_unknown
        if batch.wrong_server:
            await self.server.disconnect()
        self._succeeded()
        for write, error in reversed(outcome):
            if error.code in REDIRECTIONS and self._around is not None:
                self._around.redirect(write, error)
            else:
                self._again(write, error)

    async def _failed(self, error: Exception, *, sent: bool) -> None:
        """Close the connection, which is in doubt, and retry what was sent on it."""
        await self.server.give_up(error)
        self._breaker.failed(self._loop.time())
        writes, self._flying, self._batch, self._last_error = self._flying, [], None, error
        for write in reversed(writes):
            write.unknown = write.unknown or sent
            self._again(write, error)

    def _again(self, write: PendingWrite, error: Exception) -> None:
        """Try `write` again, perhaps behind later ones; without a try left its outcome can't be known."""
        if write.tries >= MOST_TRIES or isinstance(error, ServerUnfit):
            self._refuse((write,), error)
        else:
            self._queue.watch(write)
            (self._around or self).resubmit(write)

    def _refuse(self, writes: Iterable[PendingWrite], error: Exception | None = None) -> None:
        refuse(writes, error or self._last_error)
