"""The connection to one server: opened when it is wanted, thrown away after any doubt, never used again then.

With it goes what is known of the server at its other end: its version, and the fence that tells whether it
still remembers what it was told.
"""

import asyncio
import contextvars
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from dpop_middleware.replay.channel import Channel
from dpop_middleware.replay.connecting import Connect, inspect
from dpop_middleware.replay.fence import Fence
from dpop_middleware.replay.health import examine, require_fit
from dpop_middleware.replay.info import ServerInfo
from dpop_middleware.replay.retention import PublishedRetentions
from dpop_middleware.replay.router import Router
from dpop_middleware.replay.settings import Settings
from dpop_middleware.replay.wire import command

__all__ = ["Line"]

# Opening a connection may take longer than one request's patience: over TLS it is half a dozen round trips.
SHORTEST_OPENING = 0.5


@dataclass(frozen=True, slots=True)
class Opened:
    """A new connection, what the server said of itself and when, and the epoch under its former name."""

    channel: Channel
    info: ServerInfo | None
    tag: bytes | None
    asked: tuple[float, float]
    former: bytes | None


Opening = asyncio.Task[Opened]


class Line:
    """One server's connection. Belongs to one event loop.

    `ahead`, here and there, is by how many seconds the entries' clock is before the event loop's, None where
    no entry has told it. `with_get` says whether the server knows `SET … NX GET`; `tag` is the hash tag of a
    slot that it owns, empty without a cluster.
    """

    def __init__(self, name: str, connect: Connect, settings: Settings, router: Router | None) -> None:
        self._name = name
        self._connect = connect
        self._settings = settings
        self._router = router
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._opening: Opening | None = None
        self._unwatched = False
        self._must_renew = False
        self.fence = Fence(
            settings.prefix.encode(),
            settings.new_server,
            heeds_evictions=settings.on_evictions == "refuse",
        )
        self.retentions = PublishedRetentions(settings.prefix.encode(), settings.living)
        self.with_get = True
        self.tag = b""

    @property
    def channel(self) -> Channel | None:
        """The connection, if it can be used as it is."""
        if self._channel is None or self._must_renew or self._channel.has_ended:
            return None
        return self._channel

    def watch(self) -> None:
        """The server owns slots (now): open its connection anew if the fence had nowhere to stand."""
        self._must_renew = self._must_renew or self._unwatched

    def open(self, then: Callable[[], None]) -> None:
        """Begin to connect, if that was not begun, and call `then` when it is over, well or not."""
        if self._channel is None and self._opening is None:
            self._start_opening(None).add_done_callback(lambda _: then())

    async def ready(self, *, deadline: float, ahead: float | None) -> Channel:
        """The connection, opened anew where none can be used; raises `TimeoutError` after `deadline`."""
        channel = self.channel
        if channel is not None:
            return channel
        await self.put_away()
        opening = self._opening or self._start_opening(ahead)
        # Where it fails, that is forgotten at once, but for those who waited for it.
        left = None if deadline == math.inf else max(0, deadline - self._loop.time())
        await asyncio.wait([opening], timeout=left)
        if not opening.done():
            raise TimeoutError("the connection is not yet open")
        self._opening = None
        opened = opening.result()
        channel = self._channel = opened.channel
        self.with_get = opened.info is None or opened.info.answers_set_with_get
        self._unwatched, self._must_renew = opened.tag is None, False
        self.tag = opened.tag or b""
        self.retentions.connected(self.tag)
        self.fence.connected(
            None if opened.tag is None else opened.info,
            self.tag,
            lived=time.monotonic() - self._settings.made,
            former=opened.former,
            asked=opened.asked,
        )
        return channel

    async def greet(self, *, deadline: float) -> None:
        """Read the epoch without any entry, and write it where its moment is known; raises like `ready`."""
        channel = await self.ready(deadline=deadline, ahead=None)
        greeting, closing = self.fence.greeting(), self.fence.closing
        if not closing:
            return
        epoch = (await channel.replies(greeting + closing, 1 + bool(greeting), deadline=deadline))[-1]
        if isinstance(epoch, bytes):
            self.fence.greeted(epoch, at=self._loop.time())
        else:
            # Nothing vouches for what happens from now on: the first entry must see the server as it is then.
            await self.put_away()

    async def put_away(self) -> None:
        """Throw the connection away."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.put_away()

    async def aclose(self) -> None:
        """Throw the connection away, and give up opening one."""
        await self.put_away()
        opening, self._opening = self._opening, None
        if opening is None:
            return
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().channel.put_away()

    def _start_opening(self, ahead: float | None) -> Opening:
        # Not in the context of whichever request wants it.
        opening = self._loop.create_task(self._open(ahead), context=contextvars.Context())
        opening.add_done_callback(self._forget_failed)
        self._opening = opening
        return opening

    def _forget_failed(self, opening: Opening) -> None:
        # One that fails while nobody waits for it any more is not a bug to report.
        failed = opening.cancelled() or opening.exception() is not None
        if failed and self._opening is opening:
            self._opening = None

    async def _open(self, ahead: float | None) -> Opened:
        limit = max(self._settings.timeout, SHORTEST_OPENING)
        async with asyncio.timeout(limit):
            channel = await self._connect(limit)
            try:
                sent = self._loop.time()
                info = await inspect(channel)
                asked = sent, self._loop.time()
                health = examine(self._name, info, None if ahead is None else self._loop.time() + ahead)
                for sentence in health.warnings:
                    self._settings.notices.warn(sentence)
                require_fit(health, self._settings)
                tag = b"" if self._router is None else self._router.tag()
                former = await self._former(channel, info, tag)
            except BaseException:
                await channel.put_away()
                raise
        return Opened(channel, info, tag, asked, former)

    async def _former(self, channel: Channel, info: ServerInfo | None, tag: bytes | None) -> bytes | None:
        name = None if tag is None else self.fence.former_name(info, tag)
        if name is None:
            return None
        (epoch,) = await channel.replies(command(b"GET", name), 1)
        return epoch if isinstance(epoch, bytes) else None
