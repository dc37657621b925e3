"""One server as a worker knows it: the connection to it, and what it reported.

A connection is opened when it is needed, closed after any doubt, and never used again then. With it goes what
is known of the server at its other end: its version, and the fence that says whether it still has its
entries. A survey asks for that without any entry.
"""

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dpop_middleware._runtime import begin
from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.connection import Connect, Connection, inspect
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.health import examine, heed_refusals, require_fit
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import ServerError, track
from dpop_middleware.replay.redis.retention import PublishedRetentions
from dpop_middleware.replay.redis.topology import Surroundings
from dpop_middleware.replay.redis.vitals import ServerInfo, is_of_process, still_has, watched

__all__ = ["Opening", "Server"]

# Opening a connection takes up to eight round trips, over TLS for instance, and a request should have two.
_OPENING_TAKES = 4
SHORTEST_OPENING = 1.0
# What a request's time should have room for.
_ROUND_TRIPS = 5
_NEAR = 0.002  # seconds for a reply


@dataclass(frozen=True, slots=True)
class Opened:
    """A new connection, what the server reported of itself and when, and the anchors of its buckets.

    `watches` says whether the server reports changes to keys that were read.
    """

    connection: Connection
    info: ServerInfo | None
    asked: tuple[float, float]
    anchors: Mapping[int, bytes | None]
    watches: bool

    @property
    def may_be_behind(self) -> bool:
        """Whether another worker may have learned a newer id, and stored it before the anchors were read."""
        info = self.info
        identities = {value.partition(b"|")[0] for value in self.anchors.values() if value is not None}
        return info is not None and any(
            is_of_process(one, info.run_id) and not still_has(info, one) for one in identities
        )


Opening = asyncio.Task[Opened]


class Server:
    """One server, and the connection to it. Belongs to one event loop.

    `with_get` says whether the server knows `SET … NX GET`, `is_near` whether it replied within 2 ms when the
    connection opened, and no cluster or replica delays a batch. An `offset` is as in `anchors.Sights`.
    """

    def __init__(
        self, name: str, connect: Connect, settings: Settings, sights: Sights, around: Surroundings | None
    ) -> None:
        self._name, self._connect, self._settings = name, connect, settings
        self._around, self._loop = around, asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._opening: Opening | None = None
        self.fence = Fence(sights, settings.new_server, heeds_evictions=settings.on_evictions == "refuse")
        self.retentions = PublishedRetentions(settings.prefix.encode(), settings.living)
        self.with_get, self.is_near, self._has_said_how_far = True, False, False
        # The server reported something, or the connection was closed.
        self._happened = asyncio.Event()

    @property
    def connection(self) -> Connection | None:
        """The connection, if it can be used."""
        return None if self._connection is None or self._connection.has_ended else self._connection

    def open(self) -> Opening | None:
        """Begin to connect, unless that has begun; None where there is a connection."""
        return self._opening or (None if self._connection is not None else self._start_opening(None))

    async def ready(self, *, deadline: float, offset: float | None) -> Connection:
        """The connection, a new one where none can be used; raises `TimeoutError` after `deadline`."""
        if (connection := self.connection) is not None:
            return connection
        if offset is not None and self.fence.sights.offset is not None:
            # The former one is of before a pause of the machine, if nothing counted that.
            self.fence.sights.offset = offset
        await self.disconnect()
        opening = self._opening or self._start_opening(offset)
        # A failed opening is forgotten at once, except by the tasks that waited for it.
        left = None if deadline == math.inf else max(0, deadline - self._loop.time())
        await asyncio.wait([opening], timeout=left)
        if not opening.done():
            raise TimeoutError("the connection is not yet open")
        return opening.result().connection

    def renew_tag(self) -> None:
        """Publish retentions in a slot that the server owns."""
        self.retentions.connected(b"" if self._around is None else self._around.tag() or b"")

    def tell_cluster(self) -> None:
        """Tell the cluster what was learned here: other data, or that the retentions' slot has moved."""
        if self._around is None:
            return
        self._happened.set()
        moved = self.retentions.elsewhere
        if moved is not None:
            self._around.look_again(moved)
            self.renew_tag()
        if self.fence.has_to_tell:
            self.fence.has_to_tell = False
            self._around.look_around()

    async def has_told_since(self, at: float, *, survey: Callable[[], None], patience: float) -> bool:
        """Whether the server replied to a question from after `at`, or does so within `patience` seconds.

        `survey` is called to ask it.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self.connection is None or not self.fence.vitals.has_told_since(at):
                    self.fence.vitals.looks.hurry()
                    survey()
                    self._happened.clear()
                    await self._happened.wait()
                return True
        return False

    async def survey(self, *, deadline: float) -> None:
        """Request the server's vital signs, and write and read the anchors that are due; raises like `ready`.

        All of this without any entry, and only where it is due.
        """
        await self._survey_once(deadline)
        if self.fence.standing.due or self.fence.vitals.has_lost:
            # A loss was found only then: anchors are written before a new worker reads them.
            await self._survey_once(deadline)

    async def _survey_once(self, deadline: float) -> None:
        connection = await self.ready(deadline=deadline, offset=None)
        fence, at = self.fence, self._now()
        writes, buckets = fence.survey(at)
        look = fence.vitals.look(at)
        if look:
            # As before a batch.
            fence.standing.watched.clear()
        if not (look or buckets):
            return
        fence.standing.watch(buckets)
        reads = map(fence.sights.buckets.reads.__getitem__, buckets)
        commands = [*((look,) if look else ()), *writes, *reads]
        replies = await connection.replies(b"".join(commands), len(commands), deadline=deadline)
        at, others = self._now(), len(commands) - len(buckets)
        told, values = replies[:others], replies[others:]
        if look:
            # First: the anchors may belong to other data than when the connection was opened.
            fence.vitals.told(told.pop(0), at)
        heed_refusals(told, fence, self._settings.notices)
        fence.surveyed(buckets, values, at)
        moved = next((one for one in values if isinstance(one, ServerError) and one.code == "MOVED"), None)
        if moved is not None and self._around is not None:
            # The anchors there now must be read before entries are sent.
            self._around.look_again(moved)
        self.tell_cluster()

    async def disconnect(self) -> None:
        """Close the connection at once."""
        self._happened.set()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    async def give_up(self, error: Exception) -> None:
        """Close the connection because of `error`; in a cluster another node may have the slots now."""
        await self.disconnect()
        if self._around is not None:
            self._around.look_again(error)

    async def aclose(self) -> None:
        """Close the connection, and cancel the opening of one."""
        opening = self._opening
        if opening is not None:
            opening.cancel()
            await asyncio.wait([opening])
        await self.disconnect()

    def _now(self) -> float:
        return self._settings.moments.at(self._loop.time())

    def _start_opening(self, offset: float | None) -> Opening:
        # Not in the context of the request that needs it.
        opening = begin(self._open(offset), name="dpop replay store opening", context=contextvars.Context())
        opening.add_done_callback(self._opened)
        self._opening = opening
        return opening

    def _opened(self, opening: Opening) -> None:
        self._opening = None
        # A failure for which nothing waits must not be reported as a bug.
        if opening.cancelled() or opening.exception() is not None:
            return
        opened = opening.result()
        self._connection = opened.connection
        self.with_get = opened.info is None or opened.info.answers_set_with_get
        self.renew_tag()
        lived = self._settings.moments.lived()
        self.fence.connected(opened.info, opened.anchors, lived=lived, asked=opened.asked)
        self.fence.standing.watches, opened.connection.heed = opened.watches, self.fence.standing.heed
        self.tell_cluster()

    async def _open(self, offset: float | None) -> Opened:
        """Open a connection, with a second attempt beside the first where that takes long.

        An attempt that began while the server was away may never end, and a server far away needs its time.
        """
        timeout = self._settings.timeout
        limit = max(timeout * _OPENING_TAKES, SHORTEST_OPENING)
        alone = max(timeout, SHORTEST_OPENING) / 2
        left = limit - alone
        attempts = [begin(self._attempt(offset, limit), name="dpop replay store attempt")]
        try:
            await asyncio.wait(attempts, timeout=alone)
            if not attempts[0].done():
                attempts.append(begin(self._attempt(offset, left), name="dpop replay store attempt"))
            done, _ = await asyncio.wait(attempts, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            first = next((attempt for attempt in attempts if attempt in done), None)
            if first is None:
                raise TimeoutError("the connection could not be opened in time")
            attempts.remove(first)
            return first.result()
        finally:
            for attempt in attempts:
                attempt.cancel()
            for late in await asyncio.gather(*attempts, return_exceptions=True):
                if isinstance(late, Opened):
                    await late.connection.disconnect()

    async def _attempt(self, offset: float | None, limit: float) -> Opened:
        connection = await self._connect(limit)
        try:
            opened = await self._meet(connection, offset)
            # Asked again, the server has either the newer id or none of that data.
            return await self._meet(connection, offset) if opened.may_be_behind else opened
        except BaseException:
            await connection.disconnect()
            raise

    async def _meet(self, connection: Connection, offset: float | None) -> Opened:
        sent = self._now()
        info = await inspect(connection)
        asked = sent, self._now()
        health = examine(self._name, info, None if offset is None else asked[1] + offset)
        for sentence in health.warnings:
            self._settings.notices.warn(sentence)
        require_fit(health, self._settings)
        info = watched(info)
        anchors, watches = await self._anchors(connection, info)
        self._heed_distance(min(asked[1] - sent, self._now() - asked[1]) if anchors else asked[1] - sent)
        return Opened(connection, info, asked, anchors, watches)

    def _heed_distance(self, seconds: float) -> None:
        self.is_near = seconds < _NEAR and self._around is None and not self._settings.wait_replicas
        if seconds > self._settings.timeout / _ROUND_TRIPS and not self._has_said_how_far:
            self._has_said_how_far = True
            self._settings.notices.warn(
                f"{self._name}: a reply takes {seconds * 1000:.0f} ms, more than a fifth of the timeout of "
                f"{self._settings.timeout:g} s, so that a slower one is answered 503: set "
                f"timeout={math.ceil(seconds * _ROUND_TRIPS * 10) / 10:g} or more"
            )

    async def _anchors(
        self, connection: Connection, info: ServerInfo
    ) -> tuple[Mapping[int, bytes | None], bool]:
        """The anchors of the buckets that the server has, and whether it reports changes."""
        names = self.fence.sights.buckets
        buckets = tuple(range(len(names.reads))) if self._around is None else self._around.buckets()
        if not buckets:
            return {}, False
        told, asked = list[object](), list[bytes]()
        if self._around is not None and info.tells_of_changes:
            # This is tested: RESP2 has no pushes, and a proxy may not forward them.
            asked, connection.heed = track(names.touched[buckets[0]]), told.append
        data = [*asked, *(names.reads[bucket] for bucket in buckets)]
        replies = (await connection.replies(b"".join(data), len(data)))[len(asked) :]
        anchors = {
            bucket: reply
            for bucket, reply in zip(buckets, replies, strict=True)
            if reply is None or isinstance(reply, bytes)
        }
        return anchors, [b"invalidate", [names.touched[buckets[0]]]] in told
