"""Connections that end with their access token: WebSockets and server-sent events.

A request is judged once, when it comes. The connection that it opens may outlive the token by hours, so it
can be configured to end when the token expires. For the application the client then seems to have
disconnected.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache

from starlette.responses import Response
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import Message, Receive, Scope, Send

from dpop_middleware._runtime import begin

__all__ = ["deadline_after", "end_at", "ending_after", "is_event_stream", "streams"]

_CLOSE_CODE = WS_1008_POLICY_VIOLATION
# "Unauthorized", for servers that let an application send no code of the protocol's own, such as daphne.
_ANOTHER_CLOSE_CODE = 3000
_CLOSE_REASON = "the access token has expired"
# For how many seconds after the deadline a message may still be on its way to a client that reads slowly.
_GRACE = 5.0
# From this version of the ASGI HTTP specification on, `send` raises OSError when the client has disconnected.
_SEND_RAISES = (2, 4)


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether raw ASGI header fields announce server-sent events."""
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in headers
    )


def deadline_after(seconds: float | None) -> float | None:
    """Return the time that is `seconds` from now, by the running event loop's clock; None for never."""
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


class _Ending:
    """The two directions of one connection until its deadline, and the messages of each after it.

    A WebSocket's timer starts at once, a response's when the response starts, if it is an event stream. The
    timer ends the connection. Each direction also checks the deadline itself, since no timer can run while an
    application never waits.

    A client that reads nothing stops every `send` at the server. After the deadline neither the application
    nor the last message waits for it longer than `_GRACE`.
    """

    def __init__(self, deadline: float, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._receive = receive
        self._send = send
        self._is_websocket = scope["type"] == "websocket"
        spec_version = scope.get("asgi", {}).get("spec_version", "2.0")
        self._send_raises = self._is_websocket or tuple(map(int, spec_version.split("."))) >= _SEND_RAISES
        self._receiving: set[asyncio.Timeout] = set()
        self._pending: asyncio.Timeout | None = None
        self._sending = asyncio.Lock()
        self._finished = False
        self._ended = False
        self._timer: asyncio.Task[None] | None = None
        self._is_timed = False
        if self._is_websocket:
            self._begin()

    def _begin(self) -> None:
        self._is_timed = True
        self._timer = begin(self._end(), name="dpop expiry")

    def _is_over(self) -> bool:
        return self._ended or (self._is_timed and self._loop.time() >= self._deadline)

    async def _end(self) -> None:
        await asyncio.sleep(self._deadline - self._loop.time())
        self._ended = True
        for timeout in self._receiving:
            timeout.reschedule(0)
        patience = self._loop.time() + _GRACE
        if self._pending is not None:
            self._pending.reschedule(patience)
        async with asyncio.timeout_at(patience), self._sending:
            if self._finished:
                return
            (failure,) = await asyncio.gather(self._send(self._last_message()), return_exceptions=True)
            if failure is not None and self._is_websocket:
                await self._send({**self._last_message(), "code": _ANOTHER_CLOSE_CODE})

    async def leave(self) -> None:
        """Stop the timer, or let it finish what it has begun or is about to."""
        timer, self._timer = self._timer, None
        if timer is None:
            return
        if not self._is_over():
            timer.cancel()
        # Whatever failed in the timer, the connection is over: nothing can be sent to a client that has
        # disconnected.
        await asyncio.gather(timer, return_exceptions=True)

    def _last_message(self) -> Message:
        if self._is_websocket:
            return {"type": "websocket.close", "code": _CLOSE_CODE, "reason": _CLOSE_REASON}
        return {"type": "http.response.body", "body": b"", "more_body": False}

    async def receive(self) -> Message:
        if not self._is_over():
            timeout = asyncio.timeout(None)
            try:
                async with timeout:
                    self._receiving.add(timeout)
                    return await self._receive()
            except TimeoutError:
                if not timeout.expired():
                    raise
            finally:
                self._receiving.discard(timeout)
        if self._is_websocket:
            return {"type": "websocket.disconnect", "code": _CLOSE_CODE, "reason": _CLOSE_REASON}
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        async with self._sending:
            if not self._is_over() and await self._is_passed_on(message):
                return
        if self._send_raises:
            raise OSError(_CLOSE_REASON)
        await asyncio.sleep(0)  # an application that sends without pause must not block others

    async def _is_passed_on(self, message: Message) -> bool:
        """Send `message`; return False where the client didn't take it in time after the deadline."""
        kind = message["type"]
        closes = kind.endswith("http.response.body") and not message.get("more_body", False)
        self._finished = closes or kind == "websocket.close"
        self._pending = timeout = asyncio.timeout(None)
        try:
            async with timeout:
                await self._send(message)
        except TimeoutError:
            if not timeout.expired():
                raise
            return False
        finally:
            self._pending = None
        if kind == "http.response.start" and is_event_stream(message.get("headers", ())):
            self._begin()
        return True


@asynccontextmanager
async def ending_after(
    seconds: float | None, scope: Scope, receive: Receive, send: Send
) -> AsyncGenerator[tuple[Receive, Send]]:
    """Return the `receive` and `send` of a connection that ends after `seconds`; None sets no end.

    A WebSocket is closed with code 1008, or 3000 where the server doesn't send that; a `text/event-stream`
    response is completed, so that its client connects again. From then on `receive` reports that the client
    has disconnected, and `send` raises OSError where the ASGI specification requires it. A client that reads
    nothing delays that by `_GRACE` at most. Every other response takes the time it needs.
    """
    deadline = deadline_after(seconds)
    if deadline is None:
        yield receive, send
        return
    ending = _Ending(deadline, scope, receive, send)
    try:
        yield ending.receive, ending.send
    finally:
        await ending.leave()


def streams(response: Response) -> bool:
    """Whether `response` makes its body while it is sent."""
    return type(response).__call__ is not Response.__call__


def end_at(deadline: float | None, response: Response) -> None:
    """Let `response`, if it is an event stream, end at `deadline` as `ending_after` lets connections end.

    It stays the same object, of a subclass of its class: what calls the endpoint may know it.
    """
    if deadline is None or not (streams(response) and is_event_stream(response.raw_headers)):
        return
    if not isinstance(response, _EndingResponse):
        kind: type = type(response)
        response.__class__ = _ending(kind)
    vars(response)["_deadline"] = deadline


class _EndingResponse(Response):
    _deadline: float

    def __init_subclass__(cls) -> None:
        """Do nothing: what a class demands of its subclasses it doesn't demand of these."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seconds = self._deadline - asyncio.get_running_loop().time()
        async with ending_after(seconds, scope, receive, send) as (until_then_receive, until_then_send):
            await super().__call__(scope, until_then_receive, until_then_send)


@lru_cache(maxsize=64)
def _ending(kind: type) -> type[_EndingResponse]:
    return type(kind.__name__, (_EndingResponse, kind), {"__module__": kind.__module__})
