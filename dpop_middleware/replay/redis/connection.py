"""One connection to one server: a batch goes out, its replies come back.

redis-py opens and authenticates it; from then on its transport is ours. Replies are judged in the very moment
in which the last of them arrives, before anybody is woken: a task in between would cost each request one more
turn of the event loop.

A single question may have a connection of its own, and several servers may be asked together.
"""
# redis-py has no public way to a connection's two streams, nor a stream one to what it has not yet given out.
# pyright: reportPrivateUsage=false

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar, cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError, InvalidResponse, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from dpop_middleware.replay.redis.resp import Replies, ServerError, command
from dpop_middleware.replay.redis.vitals import ServerInfo, parse_info

__all__ = ["Connect", "Connection", "ask", "first_answer", "inspect", "opened", "put_away"]

Landed = Callable[[list[object] | Exception], None]

NOTHING_USUAL: Final = (b"", ())
# The coarsest event loops count in milliseconds.
CLOCK_STEP = 0.001


class Connection(asyncio.Protocol):
    """A connection that redis-py has opened and authenticated. Times are of the event loop's clock.

    It takes over the connection's two private streams, `_reader` and `_writer`: hence redis-py's upper bound.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        reader = cast(asyncio.StreamReader, connection._reader)
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.StreamWriter, connection._writer).transport
        self._replies = Replies()
        self._landed: Landed | None = None
        self._deadline = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._end: Exception | None = None
        # What is to be done with what the server says unasked, in the order of its replies.
        self.heed: Callable[[object], None] = lambda _: None
        self._transport.set_protocol(self)
        # No public method of a stream looks without taking.
        if self._transport.is_closing() or reader.at_eof() or reader._buffer:  # type: ignore[attr-defined]
            self._break(RedisConnectionError("the connection ended, or went on, before it was used"))

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._end is not None

    def exchange(
        self,
        data: bytes,
        count: int,
        landed: Landed,
        *,
        deadline: float,
        usual: tuple[bytes, Sequence[object]] = NOTHING_USUAL,
    ) -> None:
        """Send `data`; `landed` is called with its `count` replies as soon as the last of them is there.

        Or with what kept them away, such as `TimeoutError` when they are not there by `deadline`; after that
        the connection is in doubt. `usual` is as in `Replies.expect`. Raises what has ended the connection
        before, and RuntimeError while other replies are awaited; then nothing was sent.
        """
        if self._end is not None:
            raise self._end
        if self._landed is not None:
            raise RuntimeError("the replies to something else are still awaited")
        self._transport.write(data)
        self._replies.expect(count, *usual)
        self._landed = landed
        self._watch(deadline)

    async def replies(self, data: bytes, count: int, *, deadline: float = math.inf) -> list[object]:
        """Send `data` and return its `count` replies; raises what `exchange` tells or raises."""
        waiting: asyncio.Future[list[object] | Exception] = self._loop.create_future()

        def landed(replies: list[object] | Exception) -> None:
            if not waiting.done():
                waiting.set_result(replies)

        self.exchange(data, count, landed, deadline=deadline)
        replies = await waiting
        if isinstance(replies, Exception):
            raise replies
        return replies

    async def ask(self, data: bytes) -> object:
        """One command's reply; raises it when it is an error."""
        (reply,) = await self.replies(data, 1)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        try:
            replies = self._replies.feed(data)
        except InvalidResponse as error:
            self._break(error)
            return
        if self._replies.pushes:
            pushes, self._replies.pushes = self._replies.pushes, []
            for push in pushes:
                self.heed(push)
        if replies is not None:
            self._finish(replies)

    def eof_received(self) -> None:
        """Called by the transport."""
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport."""
        self._break(exc or RedisConnectionError("the server closed the connection"))

    async def put_away(self) -> None:
        """Close without a word."""
        self._break(RedisConnectionError("the connection was put away"))
        await put_away(self._connection)

    def _finish(self, replies: list[object] | Exception) -> None:
        landed, self._landed = self._landed, None
        if landed is not None:
            landed(replies)

    def _break(self, error: Exception) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._end is None:
            self._end = error
            abort(self._connection)
        self._finish(self._end)

    def _watch(self, deadline: float) -> None:
        """See that the connection ends at `deadline` if the replies are not there.

        The alarm rings on after an exchange that is over: setting one for each would cost more than that.
        """
        self._deadline = deadline
        if self._alarm is not None and self._rings_at > deadline:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None and deadline < math.inf:
            self._rings_at = deadline
            # Not in the context of whichever request is on its way.
            self._alarm = self._loop.call_at(deadline, self._ring, context=contextvars.Context())

    def _ring(self) -> None:
        self._alarm = None
        if self._landed is None:
            return
        if self._loop.time() < self._deadline - CLOCK_STEP:
            self._watch(self._deadline)
        else:
            self._break(TimeoutError("the server did not answer in time"))


async def put_away(connection: AbstractConnection) -> None:
    """Close without a word: for connections in doubt, whose peer may never answer."""
    abort(connection)
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def abort(connection: AbstractConnection) -> None:
    """Drop the socket at once: an orderly TLS shutdown would wait half a minute for a peer that hangs."""
    writer = connection._writer
    if writer is not None:
        writer.transport.abort()


Connect = Callable[[float], Awaitable[Connection]]


async def opened(connection: AbstractConnection) -> Connection:
    """Connect with redis-py's own handshake (TLS, HELLO, AUTH, SELECT); leaves nothing open on failure."""
    try:
        # redis-py has not annotated it.
        await connection.connect()  # type: ignore[no-untyped-call] # redis-py has no types here
        return Connection(connection)
    except BaseException:
        await put_away(connection)
        raise


async def inspect(connection: Connection) -> ServerInfo | None:
    """What the server says about itself; None where the user may not ask."""
    try:
        text = await connection.ask(command(b"INFO", b"all"))
    except ServerError:
        return None
    if not isinstance(text, bytes):
        return None
    info = parse_info(text)
    if info.loading:
        raise BusyLoadingError("the server is loading its data")
    return info


async def ask(connect: Connect, timeout: float, *words: bytes) -> object:
    """Open a connection for one command and close it, everything within `timeout` seconds."""
    async with asyncio.timeout(timeout):
        connection = await connect(timeout)
        try:
            return await connection.ask(command(*words))
        finally:
            await connection.put_away()


T = TypeVar("T")


async def first_answer(questions: Iterable[Coroutine[Any, Any, T | None]]) -> T:
    """The first result that is not None; the other questions are given up.

    One server that hangs must not take the time of the rest, so they are asked together. Raises the last
    error, or a `RedisError` when all answers were None.
    """
    tasks = {asyncio.ensure_future(question) for question in questions}
    pending = tasks
    failure: BaseException = RedisError("no server had an answer")
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is not None:
                    failure = error
                    continue
                result = task.result()
                if result is not None:
                    return result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise failure
