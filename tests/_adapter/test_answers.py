"""The messages of the adapters: refusals, and header fields of a response."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message

from dpop_middleware import DPoPMiddleware, ErrorResponse, MemoryReplayStore, ResourceServer
from dpop_middleware._adapter.answers import adding_headers, can_deny, raw_headers, send_refusal
from dpop_middleware._adapter.connection import Connection
from dpop_middleware.forward_auth import ForwardAuth
from tests.support.adapters import World, scope_of

REFUSAL = ErrorResponse(401, (("www-authenticate", "Bearer"), ("www-authenticate", "DPoP")), b"{}")


class Sent(list[Message]):
    """A `send` that keeps its messages."""

    async def __call__(self, message: Message) -> None:
        self.append(message)


@pytest.mark.parametrize("kind", ["http.response.start", "websocket.accept", "websocket.http.response.start"])
async def test_headers_are_added_where_headers_are(kind: str) -> None:
    connection, sent = Connection(), Sent()
    send = adding_headers(sent, connection)
    own = {"type": kind, "headers": [(b"DPoP-Nonce", b"own"), (b"x", b"1")]}
    await send(own)
    connection.response_headers = (("dpop-nonce", "ours"), ("cache-control", "no-store"))
    for message in (own, {"type": kind}, {"type": "http.response.body", "body": b""}):
        await send(message)
    added = [(b"dpop-nonce", b"ours"), (b"cache-control", b"no-store")]
    assert sent == [
        own,
        {"type": kind, "headers": [(b"x", b"1"), *added]},
        {"type": kind, "headers": added},
        {"type": "http.response.body", "body": b""},
    ]
    assert own["headers"] == [(b"DPoP-Nonce", b"own"), (b"x", b"1")], "the application's message is its own"


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, ["http.response.start", "http.response.body"]),
        (
            {"type": "websocket", "extensions": {"websocket.http.response": {}}},
            ["websocket.http.response.start", "websocket.http.response.body"],
        ),
        ({"type": "websocket"}, ["websocket.close"]),
    ],
)
async def test_a_refusal_is_sent_as_the_server_can_send_it(changes: dict[str, Any], kinds: list[str]) -> None:
    sent = Sent()
    await send_refusal(REFUSAL, scope_of("/", **changes), sent)
    assert [message["type"] for message in sent] == kinds
    if len(sent) > 1:
        assert sent[0]["status"] == 401
        assert sent[0]["headers"] == [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b"DPoP")]
        assert sent[1]["body"] == b"{}"


def test_a_server_can_deny_a_handshake_where_it_has_the_extension() -> None:
    assert can_deny({"extensions": {"websocket.http.response": {}}})
    assert not can_deny({"extensions": None})
    assert not can_deny({})


def test_a_repeated_field_is_sent_as_often_as_it_comes() -> None:
    assert raw_headers((("a", "\xe9"), ("a", "2"))) == [(b"a", b"\xe9"), (b"a", b"2")]


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(lambda api: DPoPMiddleware(Starlette(), api), id="DPoPMiddleware"),
        pytest.param(lambda api: ForwardAuth(api, secret="s" * 32), id="ForwardAuth"),
    ],
)
async def test_where_the_server_fails_to_open_nothing_starts(
    app: Callable[[ResourceServer], ASGIApp],
) -> None:
    """With an error alone, a server would assume an application without a lifespan, and serve it."""

    class Stuck(MemoryReplayStore):
        async def open(self) -> None:
            raise OSError("no server")

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    started, sent = app(World().server(replay_store=Stuck())), Sent()
    with pytest.raises(OSError, match="no server"):
        await started({"type": "lifespan", "app": started}, receive, sent)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith("the resource server can't be opened: Traceback")
    assert message["message"].endswith("OSError: no server\n")
