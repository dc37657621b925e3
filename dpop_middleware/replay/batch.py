"""Some writes that travel together, and what their replies mean.

The replies are judged only when all of them are there, the fence's read included: a write that was answered
before the connection broke is tried again like the others, and recognised by its owner token.
"""

import math
from collections.abc import Sequence

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from dpop_middleware.replay.fence import Fence
from dpop_middleware.replay.pending import (
    FENCED,
    NO_ANSWER,
    REFUSED,
    UNREPLICATED,
    Outcome,
    PendingWrite,
    unavailable,
)
from dpop_middleware.replay.settings import Settings
from dpop_middleware.replay.wire import ASKING, command

__all__ = ["Batch"]

# The server is not, or no longer, the one to write to: another connection may lead to the right one.
WRONG_SERVER = (AskError, ReadOnlyError, ClusterDownError)


class Batch:
    """`writes` in one exchange; `fence` and `settings` are the link's.

    `with_get` says whether the server knows `SET … NX GET`. `tag` is the hash tag of a slot that the server
    owns, empty without a cluster.
    """

    def __init__(
        self,
        writes: Sequence[PendingWrite],
        settings: Settings,
        fence: Fence,
        *,
        with_get: bool,
        tag: bytes,
    ) -> None:
        self._writes = writes
        self._settings = settings
        self._fence = fence
        self._with_get = with_get
        self._tag = tag
        self._replies: list[object] = []
        self._epoch: object = None
        self._acknowledged = 0
        self.get_is_unknown = False
        self.wrong_server = False

    async def exchange(self, connection: AbstractConnection, *, now: float, timeout: float) -> None:
        """Send everything in one write and read every reply; `timeout` in seconds is for `WAIT`.

        Raises what redis-py raises when the connection is in doubt.
        """
        opening = self._fence.opening(now)
        closing = self._fence.closing
        waiting = self._waiting(timeout)
        parts = [opening]
        for write in self._writes:
            if write.asking:
                parts.append(ASKING)
            parts.append(write.command(with_get=self._with_get))
        parts.extend((waiting, closing))
        for write in self._writes:
            write.tries += 1
            write.unknown = write.unknown or write.tries > 1
        await connection.send_packed_command(b"".join(parts), check_health=False)
        if opening:
            await _reply(connection)
        read, replies = connection.read_response, self._replies
        for write in self._writes:
            if write.asking:
                await _reply(connection)
            # The same as `_reply`, without one more coroutine for each request.
            try:
                replies.append(await read(disable_decoding=True, disconnect_on_error=False))
            except ResponseError as error:
                replies.append(error)
        if waiting:
            await self._read_waiting(connection)
        if closing:
            await self._read_epoch(connection)

    def _waiting(self, timeout: float) -> bytes:
        if not self._settings.wait_replicas:
            return b""
        # WAIT counts from the connection's last write. One that repeats an earlier connection's write may
        # write nothing, so that there would be nothing to wait for.
        touch = b""
        if any(write.unknown or write.tries for write in self._writes):
            name = b"%b::wait%b" % (self._settings.prefix.encode(), self._tag)
            touch = command(b"SET", name, b"1", b"PX", b"1000")
        milliseconds = max(1, int(timeout * 1000 * 0.8))
        return touch + command(b"WAIT", b"%d" % self._settings.wait_replicas, b"%d" % milliseconds)

    async def _read_waiting(self, connection: AbstractConnection) -> None:
        if any(write.tries > 1 for write in self._writes):
            await _reply(connection)
        reply = await _reply(connection)
        if isinstance(reply, NoPermissionError):
            self._settings.notices.warn(
                "wait_replicas is set but the user may not WAIT: every request is refused until +wait is granted"
            )
        self._acknowledged = reply if isinstance(reply, int) else 0

    async def _read_epoch(self, connection: AbstractConnection) -> None:
        epoch = await _reply(connection)
        if isinstance(epoch, NoPermissionError):
            self._fence.off()
            self._settings.notices.warn(
                "the user may not GET: restarts, flushes and failovers that lose entries go unnoticed until +get "
                "is granted"
            )
        elif isinstance(epoch, ResponseError):
            raise epoch
        self._epoch = epoch

    def settle(self, now: float) -> list[tuple[PendingWrite, RedisError]]:
        """Resolve what is known at `now` (the entries' clock); return the rest with what stood in its way."""
        if self._fence.active:
            self._fence.observe(self._epoch if isinstance(self._epoch, bytes) else None, now)
        change = self._fence.change if self._fence.active else -math.inf
        replicated = self._acknowledged >= self._settings.wait_replicas
        again: list[tuple[PendingWrite, RedisError]] = []
        for write, reply in zip(self._writes, self._replies, strict=True):
            if isinstance(reply, RedisError):
                if self._is_for_another_try(write, reply):
                    again.append((write, reply))
                else:
                    write.resolve(unavailable(REFUSED, reply))
                continue
            outcome = self._judge(write, reply)
            if outcome is True and not replicated:
                outcome = unavailable(UNREPLICATED)
            elif outcome is True and write.not_before < change:
                outcome = unavailable(FENCED, retry_after=math.ceil(change - write.not_before))
            write.resolve(outcome)
        return again

    def _judge(self, write: PendingWrite, reply: object) -> Outcome:
        if self._with_get:
            return reply is None or reply == write.owner
        if reply is not None:
            return True
        # An earlier try of this very call may have stored it: not known, and not to be called a replay.
        return unavailable(NO_ANSWER) if write.unknown else False

    def _is_for_another_try(self, write: PendingWrite, error: RedisError) -> bool:
        if isinstance(error, WRONG_SERVER):
            # Only redirections leave the connection as it is.
            self.wrong_server = self.wrong_server or not isinstance(error, AskError)
            return True
        if self._with_get and "syntax error" in str(error):
            self.get_is_unknown = True
            # Refused as a whole, so not a try.
            write.tries -= 1
            return True
        return False


async def _reply(connection: AbstractConnection) -> object:
    try:
        return await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except ResponseError as error:
        return error
