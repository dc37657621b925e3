"""Connections that end with their access token: WebSockets and server-sent events.

A request is judged once, when it comes. What it opens may outlive the token by hours, so it can be told to
end at the token's expiry. To the application that looks as if the client had left.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.types import Message, Receive, Scope, Send

from dpop_middleware.errors import ConfigurationError

__all__ = ["CLOSE_CODE", "CLOSE_REASON", "checked_flag", "ending_after", "is_event_stream", "until"]

CLOSE_CODE = 1008
"""Policy violation (RFC 6455 section 7.4.1)."""
CLOSE_REASON = "the access token has expired"

_SEND_RAISES = (2, 4)
"""From this version of the ASGI HTTP specification on, `send` raises OSError when the client has left."""

Chunk = TypeVar("Chunk")


def checked_flag(name: str, value: object) -> bool:
    """Return the option `value`, or raise ConfigurationError where it is neither True nor False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} takes True or False, not {value!r}")
    return value


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether raw ASGI header fields announce server-sent events."""
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in headers
    )


class _Ending:
    def __init__(self, seconds: float, scope: Scope, receive: Receive, send: Send) -> None:
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._receive = receive
        self._send = send
        self._is_websocket = scope["type"] == "websocket"
        spec_version = scope.get("asgi", {}).get("spec_version", "2.0")
        self._send_raises = self._is_websocket or tuple(map(int, spec_version.split("."))) >= _SEND_RAISES
        self._waiting: set[asyncio.Timeout] = set()
        self._sending = asyncio.Lock()
        self._finished = False
        self._ended = False
        self._timer = asyncio.create_task(self._end()) if self._is_websocket else None

    async def _end(self) -> None:
        await asyncio.sleep(self._deadline - asyncio.get_running_loop().time())
        self._ended = True
        for timeout in self._waiting:
            timeout.reschedule(0)
        async with self._sending:
            if not self._finished:
                await self._send(self._last_message())

    async def leave(self) -> None:
        """Stop the timer, or let it finish what it has begun."""
        if self._timer is None:
            return
        if not self._ended:
            self._timer.cancel()
        # Whatever the timer met, the connection is over: a client that has left can't be told so.
        await asyncio.gather(self._timer, return_exceptions=True)

    def _last_message(self) -> Message:
        if self._is_websocket:
            return {"type": "websocket.close", "code": CLOSE_CODE, "reason": CLOSE_REASON}
        return {"type": "http.response.body", "body": b"", "more_body": False}

    async def receive(self) -> Message:
        if not self._ended:
            timeout = asyncio.timeout(None)
            try:
                async with timeout:
                    self._waiting.add(timeout)
                    return await self._receive()
            except TimeoutError:
                if not timeout.expired():
                    raise
            finally:
                self._waiting.discard(timeout)
        if self._is_websocket:
            return {"type": "websocket.disconnect", "code": CLOSE_CODE, "reason": CLOSE_REASON}
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        async with self._sending:
            if not self._ended:
                await self._pass_on(message)
                return
        if self._send_raises:
            raise OSError(CLOSE_REASON)
        await asyncio.sleep(0)  # whoever sends without end must not hold up everybody else

    async def _pass_on(self, message: Message) -> None:
        kind = message["type"]
        closes = kind.endswith("http.response.body") and not message.get("more_body", False)
        self._finished = closes or kind == "websocket.close"
        await self._send(message)
        if kind == "http.response.start" and is_event_stream(message.get("headers", ())):
            self._timer = asyncio.create_task(self._end())


@asynccontextmanager
async def ending_after(
    seconds: float | None, scope: Scope, receive: Receive, send: Send
) -> AsyncGenerator[tuple[Receive, Send]]:
    """Give the `receive` and `send` of a connection that ends after `seconds`; None lets it last.

    A WebSocket is closed with code 1008, a `text/event-stream` response is completed, so that its client
    connects again. From then on `receive` tells that the client has left, and `send` raises OSError where the
    ASGI specification has it do so. Every other response takes the time it needs.
    """
    if seconds is None:
        yield receive, send
        return
    ending = _Ending(seconds, scope, receive, send)
    try:
        yield ending.receive, ending.send
    finally:
        await ending.leave()


async def until(seconds: float, chunks: AsyncIterable[Chunk]) -> AsyncGenerator[Chunk]:
    """Yield what `chunks` yields, for `seconds` from now on."""
    deadline = asyncio.get_running_loop().time() + seconds
    iterator = aiter(chunks)
    while True:
        timeout = asyncio.timeout_at(deadline)
        try:
            async with timeout:
                chunk = await anext(iterator)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if not timeout.expired():
                raise
            return
        yield chunk
