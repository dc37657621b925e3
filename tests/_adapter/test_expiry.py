"""Connections that end after some time, for the client and for the application."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from dpop_middleware._adapter import expiry
from dpop_middleware._adapter.expiry import deadline_after, end_at, ending_after, is_event_stream
from tests.support.virtual_time import let_time_be_virtual

EVENTS = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
SOON = 0.02
MANY = 200_000  # more looks at the clock than there is time for, and no more than a failing test may take


@pytest.fixture(autouse=True)
async def _time_is_virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    let_time_be_virtual(monkeypatch)


class Server:
    """The server's side of a connection: the messages to the application, and those from it."""

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
        if self._slow:
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


async def test_a_server_that_sends_no_code_of_the_protocols_own_closes_with_another() -> None:
    """As daphne, whose applications may close with 1000 and from 3000 on only."""

    class Daphne(Server):
        async def send(self, message: Message) -> None:
            if message.get("code") == 1008:
                raise RuntimeError("invalid close code")
            await super().send(message)

    server = Daphne()
    async with ending_after(SOON, WEBSOCKET, server.receive, server.send) as (receive, _):
        assert (await receive())["code"] == 1008
    assert server.sent == [{**CLOSE, "code": 3000}]


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


async def test_a_message_that_is_being_sent_is_sent_before_the_end() -> None:
    server = Server(slow=2 * SOON)
    async with ending_after(SOON, WEBSOCKET, server.receive, server.send) as (receive, send):
        await send({"type": "websocket.send", "text": "slow"})
        await receive()
    assert server.sent == [{"type": "websocket.send", "text": "slow"}, CLOSE]


@pytest.mark.parametrize(
    "last", [{"type": "websocket.close", "code": 1000}, {"type": "websocket.http.response.body", "body": b""}]
)
async def test_a_closed_connection_is_not_closed_again(last: Message) -> None:
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
async def test_under_a_newer_server_a_send_after_the_end_raises(spec_version: str) -> None:
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


async def test_an_application_that_sends_without_pause_blocks_no_other() -> None:
    server = Server()

    async def flood(send: Send) -> None:
        await send(START)
        for _ in range(MANY):
            await send(CHUNK)

    async with ending_after(0, http(), server.receive, server.send) as (_, send):
        flooding = asyncio.create_task(flood(send))
        async with asyncio.timeout(60):
            while LAST not in server.sent:
                await asyncio.sleep(SOON)
        await asyncio.sleep(SOON)
        assert not flooding.done()
        flooding.cancel()
    assert server.sent[-1] == LAST


@pytest.mark.parametrize("scope", [WEBSOCKET, http("2.4")])
async def test_an_application_that_never_waits_is_stopped_too(scope: dict[str, Any]) -> None:
    server = Server()
    async with ending_after(SOON, scope, server.receive, server.send) as (_, send):
        await send(START if scope["type"] == "http" else {"type": "websocket.accept"})
        chunk = CHUNK if scope["type"] == "http" else {"type": "websocket.send", "text": "tick"}

        async def flood() -> None:
            for _ in range(MANY):
                await send(chunk)

        with pytest.raises(OSError, match="expired"):
            await flood()
    assert server.sent[-1] == (LAST if scope["type"] == "http" else CLOSE)


async def test_an_application_that_never_waits_and_gets_no_error_lets_others_run() -> None:
    server = Server()
    async with ending_after(0, http("2.3"), server.receive, server.send) as (_, send):
        await send(START)
        for _ in range(10):
            await send(CHUNK)
        assert server.sent == [START, LAST]


async def test_an_application_that_only_receives_and_never_waits_is_stopped_too() -> None:
    server = Server()

    async def always_ready() -> Message:
        return {"type": "websocket.receive", "text": "x"}

    async with ending_after(SOON, WEBSOCKET, always_ready, server.send) as (receive, _):
        received = 0
        while (await receive())["type"] != "websocket.disconnect":
            received += 1
            assert received < MANY
    assert received > 0
    assert server.sent == [CLOSE]


async def test_a_handshake_that_takes_too_long_is_refused() -> None:
    server, overdue = Server(), soon(2 * SOON)
    async with ending_after(SOON, WEBSOCKET, server.receive, server.send) as (_, send):
        while asyncio.get_running_loop().time() < overdue:
            pass  # the application never waits
        with pytest.raises(OSError, match="expired"):
            await send({"type": "websocket.accept"})
    assert server.sent == [CLOSE]


async def test_a_connection_that_ends_earlier_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    server = Server()
    async with ending_after(3600, WEBSOCKET, server.receive, server.send) as (_, send):
        await send({"type": "websocket.close", "code": 1000})
    assert asyncio.all_tasks() == before
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


async def test_the_applications_own_timeouts_stay_its_own() -> None:
    async def receive() -> Message:
        raise TimeoutError("the server's")

    async def failing(message: Message) -> None:
        raise TimeoutError("the server's")

    async with ending_after(60, WEBSOCKET, receive, failing) as (wrapped, send):
        with pytest.raises(TimeoutError, match="the server's"):
            await wrapped()
        with pytest.raises(TimeoutError, match="the server's"):
            await send({"type": "websocket.accept"})


async def test_a_client_that_has_disconnected_gets_no_message() -> None:
    async def send(message: Message) -> None:
        raise OSError("gone")

    async with ending_after(SOON, WEBSOCKET, Server().receive, send) as (receive, _):
        assert (await receive())["type"] == "websocket.disconnect"


class Unread(Server):
    """A server whose client reads nothing any more: no message that is sent leaves it."""

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] not in ("websocket.accept", "http.response.start"):
            await asyncio.Event().wait()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "_GRACE", SOON)


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("scope", [WEBSOCKET, http("2.4"), http("2.3")])
async def test_a_client_that_reads_nothing_keeps_no_application_beyond_the_expiry(
    scope: dict[str, Any],
) -> None:
    before, server = asyncio.all_tasks(), Unread()
    first, next_one = (
        ({"type": "websocket.accept"}, {"type": "websocket.send", "text": "1"})
        if scope is WEBSOCKET
        else (START, CHUNK)
    )
    raises = contextlib.nullcontext() if scope == http("2.3") else pytest.raises(OSError, match="expired")
    async with asyncio.timeout(60), ending_after(SOON, scope, server.receive, server.send) as (_, send):
        await send(first)
        with raises:
            await send(next_one)
    assert server.sent == [first, next_one]
    assert asyncio.all_tasks() == before


async def test_a_connection_that_ends_earlier_waits_for_no_collection() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            server = Server()
            async with ending_after(60, http(), server.receive, server.send) as (receive, send):
                await send(START)
                await send(LAST)
            gone = weakref.ref(server)
            del server, receive, send
            await asyncio.sleep(0)
            assert gone() is None
    finally:
        gc.enable()


async def test_a_response_that_the_server_no_longer_takes_ends_once() -> None:
    """Another close code is for WebSockets only."""
    tried: list[Message] = []

    async def send(message: Message) -> None:
        tried.append(message)
        if message != START:
            raise OSError("the client is gone")

    async with ending_after(SOON, http(), Server().receive, send) as (receive, wrapped):
        await wrapped(START)
        assert await receive() == {"type": "http.disconnect"}
    assert tried == [START, LAST]


@pytest.mark.usefixtures("short_grace")
async def test_a_client_that_reads_nothing_is_not_waited_for_when_the_application_has_left() -> None:
    before, server = asyncio.all_tasks(), Unread()
    async with (
        asyncio.timeout(60),
        ending_after(SOON, http(), server.receive, server.send) as (receive, send),
    ):
        await send(START)
        assert await receive() == {"type": "http.disconnect"}
    assert server.sent == [START, LAST]
    assert asyncio.all_tasks() == before


def soon(seconds: float = SOON) -> float:
    return asyncio.get_running_loop().time() + seconds


class Slots(StreamingResponse):
    __slots__ = ("more",)


class Final(StreamingResponse):
    def __init_subclass__(cls, *, name: str) -> None:
        raise AssertionError


async def ticks() -> AsyncIterator[str]:
    yield "data: 1\n\n"
    await asyncio.sleep(60)


async def test_a_response_that_ends_is_the_same_to_whoever_knows_its_class() -> None:
    for kind in (StreamingResponse, Slots, Final):
        server, response = Server(), kind(ticks(), media_type="text/event-stream")
        end_at(soon(), response)
        assert isinstance(response, kind)
        assert (type(response).__name__, type(response).__module__) == (kind.__name__, kind.__module__)
        async with asyncio.timeout(60):
            await response(http(), server.receive, server.send)
        assert server.sent[-2:] == [CHUNK, LAST]
        other = kind(ticks(), media_type="text/event-stream")
        end_at(soon(), other)
        assert type(other) is type(response)


async def test_a_stream_that_is_sent_again_ends_at_the_time_of_each() -> None:
    class Feed:
        async def __aiter__(self) -> AsyncIterator[str]:
            yield "data: 1\n\n"

    response = StreamingResponse(Feed(), media_type="text/event-stream")
    for seconds, bodies in ((-1, []), (60, [b"data: 1\n\n"]), (60, [b"data: 1\n\n"])):
        server = Server()
        end_at(soon(seconds), response)
        await response(http(), server.receive, server.send)
        assert [message["body"] for message in server.sent[1:] if message["body"]] == bodies
    assert len(type(response).__mro__) == len(StreamingResponse.__mro__) + 2


async def test_a_response_without_a_time_or_a_stream_is_left_alone() -> None:
    stream = StreamingResponse(ticks(), media_type="text/event-stream")
    file = StreamingResponse(ticks(), media_type="text/plain")
    whole = Response("", media_type="text/event-stream")
    end_at(None, stream)
    for response in (file, whole):
        end_at(soon(), response)
    assert type(stream) is type(file) is StreamingResponse
    assert type(whole) is Response


async def test_a_deadline_is_in_the_event_loops_time() -> None:
    assert deadline_after(None) is None
    deadline = deadline_after(60)
    assert deadline is not None
    assert deadline == pytest.approx(soon(60), abs=5)


def test_event_streams_are_recognised() -> None:
    assert is_event_stream(EVENTS)
    assert is_event_stream([(b"x", b"y"), (b"content-type", b"TEXT/event-stream")])
    assert not is_event_stream([(b"content-type", b"text/plain")])
    assert not is_event_stream([])
