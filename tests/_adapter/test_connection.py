"""What the framework adapters of one connection share."""

from dataclasses import replace
from typing import Any

import pytest
from starlette.types import Message

from dpop_middleware import ErrorResponse
from dpop_middleware._adapter.connection import (
    Connection,
    adding_headers,
    can_deny,
    has_credentials,
    raw_headers,
    send_refusal,
)
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware.errors import InvalidDPoPProof
from tests.support.adapters import World, scope_of

REFUSAL = ErrorResponse(401, (("www-authenticate", "Bearer"), ("www-authenticate", "DPoP")), b"{}")


class Sent(list[Message]):
    """A `send` that keeps what it is given."""

    async def __call__(self, message: Message) -> None:
        self.append(message)


async def test_one_connection_for_a_scope_and_its_copies() -> None:
    scope = scope_of("/")
    connection = Connection.of(scope)
    assert Connection.of(scope) is connection
    assert Connection.of({**scope, "path": "/other"}) is connection
    assert Connection.of(scope_of("/")) is not connection


async def test_the_root_path_is_the_one_that_was_seen_first() -> None:
    scope = scope_of("/svc/a", root_path="/svc")
    connection = Connection.of(scope)
    first = connection.request(scope)
    assert first.root_path == "/svc"
    assert connection.request({**scope, "root_path": "/svc/mount"}) == first
    assert connection.request({**scope, "app_root_path": "/else"}) == first
    assert connection.request({**scope, "raw_path": b"/b"}) != first


async def test_what_was_found_on_one_path_is_nothing_on_another() -> None:
    world = World()
    server = world.server()
    scope = scope_of("/a", world.fields("/a"))
    connection = Connection.of(scope)
    first = await connection.authenticate(server, scope, Requirements())
    with pytest.raises(InvalidDPoPProof, match="used before"):
        await connection.authenticate(server, {**scope, "path": "/b"}, Requirements())
    assert await connection.authenticate(server, scope, Requirements()) == first


async def test_the_evidence_of_a_request_is_found_by_its_very_token() -> None:
    world = World()
    server = world.server()
    scope = scope_of("/a", world.fields("/a"))
    connection = Connection.of(scope)
    verified = await connection.authenticate(server, scope, Requirements())
    evidence = connection.evidence(server, verified)
    assert evidence is not None
    assert evidence.access_token is verified.access_token
    another = verified._replace(access_token=replace(verified.access_token, subject="another"))
    assert connection.evidence(server, another) is None
    assert connection.evidence(world.server(), verified) is None


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
async def test_a_refusal(changes: dict[str, Any], kinds: list[str]) -> None:
    sent = Sent()
    await send_refusal(REFUSAL, scope_of("/", **changes), sent)
    assert [message["type"] for message in sent] == kinds
    if len(sent) > 1:
        assert sent[0]["status"] == 401
        assert sent[0]["headers"] == [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b"DPoP")]
        assert sent[1]["body"] == b"{}"


def test_small_questions() -> None:
    assert has_credentials(scope_of("/", [("AUTHORIZATION", "")]))
    assert not has_credentials(scope_of("/", [("DPoP", "x"), ("Proxy-Authorization", "x")]))
    assert can_deny({"extensions": {"websocket.http.response": {}}})
    assert not can_deny({"extensions": None})
    assert not can_deny({})
    assert raw_headers((("a", "\xe9"), ("a", "2"))) == [(b"a", b"\xe9"), (b"a", b"2")]
