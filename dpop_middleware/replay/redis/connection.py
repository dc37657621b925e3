"""One connection to one server: a batch is sent, its replies are received.

redis-py opens and authenticates it; from then on this module owns its transport. Replies are judged as soon
as the last of them arrives, before any task is woken: a task in between would cost each request one more turn
of the event loop.

A single command may have a connection of its own, and several servers may be asked at the same time.
"""
# redis-py has no public access to a connection's two streams, nor streams to the data that they hold unread.
# pyright: reportPrivateUsage=false

import asyncio
import contextlib
import contextvars
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from dpop_middleware._runtime import begin, is_cancellation
from dpop_middleware.replay.redis.resp import NOT_ALLOWED, NOTHING_USUAL, Replies, ServerError, Usual, command
from dpop_middleware.replay.redis.vitals import ServerInfo, parse_info

__all__ = ["Connect", "Connection", "ask", "disconnect", "first_answer", "inspect", "opened"]

OnReplies = Callable[[list[object] | Exception], None]

# The coarsest event loops have clocks of milliseconds.
CLOCK_STEP = 0.001
# Seconds that the other servers have after each answer, as long as fewer than half agree.
OTHERS_WITHIN = 0.05


class Connection(asyncio.Protocol):
    """A connection that redis-py has opened and authenticated. Times are of the event loop's clock.

    It uses the connection's two private streams, `_reader` and `_writer`: hence the upper bound of redis-py.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        reader = cast(asyncio.StreamReader, connection._reader)
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.StreamWriter, connection._writer).transport
        self._replies = Replies()
        self._on_replies: OnReplies | None = None
        self._deadline = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._end: Exception | None = None
        # Whether no command can be sent any more.
        self.has_ended = False
        # Called with the server's pushes, in the order of its replies.
        self.heed: Callable[[object], None] = lambda _: None
        self._transport.set_protocol(self)
        # No public method of a stream shows its data without consuming it.
        if self._transport.is_closing() or reader.at_eof() or reader._buffer:  # type: ignore[attr-defined]
            self._break(RedisConnectionError("the connection ended, or received data, before it was used"))

    def exchange(
        self,
        data: bytes,
        count: int,
        on_replies: OnReplies,
        *,
        deadline: float,
        usual: Usual = NOTHING_USUAL,
    ) -> None:
        """Send `data`; `on_replies` is called with its `count` replies once all of them have arrived.

        Or with the error that prevented them, such as `TimeoutError` when they have not arrived by
        `deadline`; after that the connection is in doubt. `usual` is as in `Replies.expect`. Raises the error
        that ended the connection before, and RuntimeError while other replies are awaited; then nothing was
        sent.
        """
        if self._end is not None:
            raise self._end
        if self._on_replies is not None:
            raise RuntimeError("the replies to an earlier exchange are still awaited")
        self._transport.write(data)
        self._replies.expect(count, *usual)
        self._on_replies = on_replies
        self._deadline = deadline
        # The alarm stays set after an exchange has ended: a new one for each would cost more than that.
        if self._alarm is None or self._rings_at > deadline:
            self._watch(deadline)

    async def replies(self, data: bytes, count: int, *, deadline: float = math.inf) -> list[object]:
        """Send `data` and return its `count` replies; raises the error that `exchange` raises or reports."""
        waiting: asyncio.Future[list[object] | Exception] = self._loop.create_future()

        def received(replies: list[object] | Exception) -> None:
            if not waiting.done():
                waiting.set_result(replies)

        self.exchange(data, count, received, deadline=deadline)
        replies = await waiting
        if isinstance(replies, Exception):
            raise replies
        return replies

    async def ask(self, data: bytes) -> object:
        """Return one command's reply; raise it when it is an error."""
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

    async def disconnect(self) -> None:
        """Close at once, without sending anything."""
        self._break(RedisConnectionError("the connection was closed"))
        await disconnect(self._connection)

    def _finish(self, replies: list[object] | Exception) -> None:
        on_replies, self._on_replies = self._on_replies, None
        if on_replies is not None:
            on_replies(replies)

    def _break(self, error: Exception) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._end is None:
            self._end, self.has_ended = error, True
            abort(self._connection)
        self._finish(self._end)

    def _watch(self, deadline: float) -> None:
        """End the connection at `deadline` if the replies have not arrived."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if deadline < math.inf:
            self._rings_at = deadline
            # Not in the context of the current request.
            self._alarm = self._loop.call_at(deadline, self._ring, context=contextvars.Context())

    def _ring(self) -> None:
        self._alarm = None
        if self._on_replies is None:
            return
        if self._loop.time() < self._deadline - CLOCK_STEP:
            self._watch(self._deadline)
        else:
            self._break(TimeoutError("the server did not answer in time"))


async def disconnect(connection: AbstractConnection) -> None:
    """Close at once, without sending anything: for connections in doubt, whose peer may never answer."""
    abort(connection)
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def abort(connection: AbstractConnection) -> None:
    """Close the socket at once: an orderly TLS shutdown would wait half a minute for a peer that hangs."""
    writer = connection._writer
    if writer is not None:
        writer.transport.abort()


Connect = Callable[[float], Awaitable[Connection]]


async def opened(connection: AbstractConnection) -> Connection:
    """Connect with redis-py's own handshake (TLS, HELLO, AUTH, SELECT); leaves nothing open on failure."""
    try:
        # redis-py doesn't annotate it.
        await connection.connect()  # type: ignore[no-untyped-call] # redis-py has no types here
        return Connection(connection)
    except BaseException as error:
        await disconnect(connection)
        if isinstance(error, asyncio.CancelledError) and not is_cancellation(error):
            # What a credential provider of the user's own awaited was cancelled, and not this.
            raise AuthenticationError("the credentials can't be fetched now") from error
        raise


async def inspect(connection: Connection) -> ServerInfo | None:
    """Return what the server reports of itself; None where the user may not ask it.

    Raises any other refusal: a server that is busy for a moment must not go unwatched for as long as the
    connection lasts.
    """
    try:
        text = await connection.ask(command(b"INFO", b"all"))
    except ServerError as error:
        if error.code not in NOT_ALLOWED:
            raise
        return None
    if not isinstance(text, bytes):
        return None
    info = parse_info(text)
    if info.loading:
        raise BusyLoadingError("the server is loading its data")
    return info


async def ask(connect: Connect, timeout: float, *words: bytes) -> object:
    """Open a connection for one command and close it, all within `timeout` seconds."""
    async with asyncio.timeout(timeout):
        connection = await connect(timeout)
        try:
            return await connection.ask(command(*words))
        finally:
            await connection.disconnect()


T = TypeVar("T")


async def first_answer(questions: Iterable[Coroutine[Any, Any, T | None]], *, of_most: bool = False) -> T:
    """Return the first result that is not None; the other questions are cancelled.

    One server that hangs must not delay the others, so all are asked at the same time. With `of_most` one
    that is wrong doesn't decide either: the result is what most say of those that answer soon after the
    first. Raises the last error, or a `RedisError` when all answers were None.
    """
    tasks = {begin(question, name="dpop replay store question") for question in questions}
    pending, answers = tasks, Counter[T]()
    failure: BaseException = RedisError("no server gave an answer")
    try:
        while pending and not any(2 * number > len(tasks) for number in answers.values()):
            done, pending = await asyncio.wait(
                pending, timeout=OTHERS_WITHIN if answers else None, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done:
                error = task.exception()
                if error is not None:
                    failure = error
                    continue
                result = task.result()
                if result is not None:
                    if not of_most:
                        return result
                    answers[result] += 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not answers:
        raise failure
    return answers.most_common(1)[0][0]
