"""Connections that end after a while: what the client gets, what the application sees."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message, Send

from dpop_middleware.expiry import ending_after, is_event_stream, until

EVENTS = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
SOON = 0.02


class Server:
    """The server's side of a connection: what it gives to the application, and what it got."""

    def __init__(self, *messages: Message, slow: float = 0) -> None:
        self.sent: list[Message] = []
        self._messages = list(messages)
        self._slow = slow

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        await asyncio.sleep(self._slow)
        self.sent.append(message)


def http(spec_version: str | None = "2.3") -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"} | ({"spec_version": spec_version} if spec_version else {}),
    }


WEBSOCKET = {"type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.4"}}
START = {"type": "http.response.start", "status": 200, "headers": EVENTS}
CHUNK = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
LAST = {"type": "http.response.body", "body": b"", "more_body": False}
CLOSE = {"type": "websocket.close", "code": 1008, "reason": "the access token has expired"}


async def test_without_a_time_nothing_is_wrapped() -> None:
    server = Server()
    async with ending_after(None, http(), server.receive, server.send) as (receive, send):
        assert (receive, send) == (server.receive, server.send)


async def test_a_websocket_is_closed_and_looks_left() -> None:
    server = Server({"type": "websocket.connect"})
    async with ending_after(SOON, WEBSOCKET, server.receive, server.send) as (receive, send):
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        gone = {"type": "websocket.disconnect", "code": 1008, "reason": "the access token has expired"}
        assert await receive() == gone
        assert await receive() == gone
        with pytest.raises(OSError, match="expired"):
            await send({"type": "websocket.send", "text": "too late"})
    assert server.sent == [{"type": "websocket.accept"}, CLOSE]


async def test_every_pending_receive_is_told() -> None:
    server = Server()
    async with ending_after(SOON, WEBSOCKET, server.receive, server.send) as (receive, _):
        messages = await asyncio.gather(receive(), receive())
    assert [message["type"] for message in messages] == ["websocket.disconnect"] * 2


async def test_an_application_that_only_sends_is_stopped_too() -> None:
    server = Server()
    async with ending_after(SOON, WEBSOCKET, server.receive, server.send) as (_, send):

        async def tick() -> None:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(SOON / 4)

        with pytest.raises(OSError, match="expired"):
            await tick()
    assert server.sent[-1] == CLOSE


async def test_what_is_being_sent_is_sent_before_the_end() -> None:
    server = Server(slow=2 * SOON)
    async with ending_after(SOON, WEBSOCKET, server.receive, server.send) as (receive, send):
        await send({"type": "websocket.send", "text": "slow"})
        await receive()
    assert server.sent == [{"type": "websocket.send", "text": "slow"}, CLOSE]


@pytest.mark.parametrize(
    "last", [{"type": "websocket.close", "code": 1000}, {"type": "websocket.http.response.body", "body": b""}]
)
async def test_what_is_closed_is_not_closed_again(last: Message) -> None:
    server = Server()
    async with ending_after(SOON, WEBSOCKET, server.receive, server.send) as (receive, send):
        await send(last)
        await receive()
    assert server.sent == [last]


async def test_an_event_stream_is_completed() -> None:
    server = Server({"type": "http.request", "body": b""})
    async with ending_after(SOON, http(), server.receive, server.send) as (receive, send):
        assert (await receive())["type"] == "http.request"
        await send(START)
        await send(CHUNK)
        assert await receive() == {"type": "http.disconnect"}
        await send(CHUNK)
    assert server.sent == [START, CHUNK, LAST]


@pytest.mark.parametrize("spec_version", ["2.4", "3.0"])
async def test_later_servers_raise(spec_version: str) -> None:
    server = Server()
    async with ending_after(SOON, http(spec_version), server.receive, server.send) as (receive, send):
        await send(START)
        await receive()
        with pytest.raises(OSError, match="expired"):
            await send(CHUNK)


async def test_an_event_stream_that_starts_too_late_is_completed_at_once() -> None:
    server = Server()
    async with ending_after(0, http(None), server.receive, server.send) as (receive, send):
        await asyncio.sleep(SOON)
        await send(START)
        assert await receive() == {"type": "http.disconnect"}
    assert server.sent == [START, LAST]


async def test_every_other_response_takes_its_time() -> None:
    server = Server()
    start = {"type": "http.response.start", "status": 200}
    async with ending_after(0, http(), server.receive, server.send) as (_, send):
        await asyncio.sleep(SOON)
        await send(start)
        await asyncio.sleep(SOON)
        await send(CHUNK)
        await send(LAST)
    assert server.sent == [start, CHUNK, LAST]


async def test_whoever_sends_without_end_holds_up_nobody() -> None:
    server = Server()

    async def flood(send: Send) -> None:
        await send(START)
        while True:
            await send(CHUNK)

    async with ending_after(0, http(), server.receive, server.send) as (_, send):
        flooding = asyncio.create_task(flood(send))
        await asyncio.sleep(SOON)
        assert not flooding.done()
        flooding.cancel()
    assert server.sent[-1] == LAST


async def test_what_ends_earlier_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    server = Server()
    async with ending_after(3600, WEBSOCKET, server.receive, server.send) as (_, send):
        await send({"type": "websocket.close", "code": 1000})
    assert asyncio.all_tasks() == before
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


async def test_the_applications_own_timeouts_stay_its_own() -> None:
    async def receive() -> Message:
        raise TimeoutError("the server's")

    async def chunks() -> AsyncIterator[str]:
        raise TimeoutError("the application's")
        yield ""

    async with ending_after(60, WEBSOCKET, receive, Server().send) as (wrapped, _):
        with pytest.raises(TimeoutError, match="the server's"):
            await wrapped()
    with pytest.raises(TimeoutError, match="the application's"):
        await anext(until(60, chunks()))


async def test_a_client_that_has_left_cannot_be_told() -> None:
    async def send(message: Message) -> None:
        raise OSError("gone")

    async with ending_after(SOON, WEBSOCKET, Server().receive, send) as (receive, _):
        assert (await receive())["type"] == "websocket.disconnect"


async def test_chunks_until_a_time() -> None:
    closed: list[bool] = []

    async def chunks(pause: float) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(pause)
            yield 2
        finally:
            closed.append(True)

    assert [chunk async for chunk in until(SOON, chunks(60))] == [1]
    assert [chunk async for chunk in until(60, chunks(0))] == [1, 2]
    assert closed == [True, True]


def test_event_streams() -> None:
    assert is_event_stream(EVENTS)
    assert is_event_stream([(b"x", b"y"), (b"content-type", b"TEXT/event-stream")])
    assert not is_event_stream([(b"content-type", b"text/plain")])
    assert not is_event_stream([])
