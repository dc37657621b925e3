"""The middleware: which requests pass, what it doesn't change, and what it passes to the application."""

import asyncio
import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser, requires
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from dpop_middleware import (
    AccessToken,
    DPoPMiddleware,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    ResourceServer,
)
from dpop_middleware._adapter.connection import Connection
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware.errors import ConfigurationError
from tests.support.adapters import ORIGIN, World, reached, scope_of, whoami
from tests.support.asgi import call
from tests.support.virtual_time import let_time_be_virtual


@pytest.fixture
def world() -> World:
    return World()


def browser(app: Any) -> TestClient:
    return TestClient(app, base_url=ORIGIN, follow_redirects=False)


async def test_a_good_request_passes_and_shows_its_user(world: World) -> None:
    app = DPoPMiddleware(Starlette(routes=[Route("/notes", whoami)]), world.server())
    answer = await call(app, scope_of("/notes", world.fields("/notes", scopes=["b", "a"])))
    assert json.loads(answer.body) == {
        "user": "user123",
        "authenticated": True,
        "scopes": ["authenticated", "a", "b"],
        "jkt": world.key.jkt,
    }


async def test_the_user_is_the_tokens_subject(world: World) -> None:
    scope = scope_of("/", world.fields("/", sub="alice"))
    await call(DPoPMiddleware(reached, world.server()), scope)
    assert scope["user"].identity == "alice"
    assert scope["user"].access_token is scope["dpop"].access_token


@pytest.mark.parametrize(
    ("claims", "identity"),
    [
        ({"sub": None, "client_id": "abc"}, "client:abc"),
        ({"sub": "client:abc", "client_id": "abc"}, "subject:client:abc"),
        ({"sub": "abc", "client_id": "abc"}, "abc"),
    ],
)
async def test_a_client_that_acts_for_itself_is_no_user(
    world: World, claims: dict[str, Any], identity: str
) -> None:
    verifier = JWTAccessTokenVerifier(
        issuer=world.issuer.issuer,
        audience=ORIGIN,
        jwks=world.issuer.jwks(),
        clock=world.clock,
        required_claims=("iss", "exp", "aud", "client_id"),
    )
    server = ResourceServer(
        verifier=verifier, resource=ORIGIN, replay_store=MemoryReplayStore(), clock=world.clock
    )
    scope = scope_of("/", world.fields("/", **claims))
    assert (await call(DPoPMiddleware(reached, server), scope)).status == 200
    assert (scope["user"].identity, scope["user"].display_name) == (identity, identity)
    assert scope["user"].access_token.subject == claims["sub"]


async def test_a_refusal_has_a_challenge_and_a_body(world: World) -> None:
    answer = await call(DPoPMiddleware(reached, world.server()), scope_of("/"))
    assert answer.status == 401
    assert len(answer.challenges) == 1
    assert answer.challenges[0].startswith('DPoP algs="')
    assert answer.values("cache-control") == ["no-store"]
    assert json.loads(answer.body) == {"error_description": "an access token is required"}


async def test_a_proof_works_once(world: World) -> None:
    app = DPoPMiddleware(reached, world.server())
    fields = world.fields("/")
    assert (await call(app, scope_of("/", fields))).body == b"reached"
    answer = await call(app, scope_of("/", fields))
    assert answer.status == 401
    assert 'error="invalid_dpop_proof"' in answer.challenges[0]


@pytest.mark.parametrize("headers", ["none", "replay"])
async def test_a_refused_request_leaves_nothing_to_the_garbage_collector(world: World, headers: str) -> None:
    class Held:
        """Something that a server hangs on a scope."""

    app = DPoPMiddleware(reached, world.server())
    fields = world.fields("/") if headers == "replay" else []
    await call(app, scope_of("/", fields))
    held = Held()
    alive = weakref.ref(held)
    scope = scope_of("/", fields, held=held)
    del held
    gc.disable()
    try:
        assert (await call(app, scope)).status == 401
        assert alive() is not None
        del scope
        assert alive() is None
    finally:
        gc.enable()


def test_starlettes_requires_reads_scopes_and_authentication(world: World) -> None:
    routes = [
        Route("/notes", requires("notes:read")(whoami)),
        Route("/me", requires("authenticated")(whoami)),
        Route("/public", requires("authenticated")(whoami)),
    ]
    app = DPoPMiddleware(Starlette(routes=routes), world.server(), public_paths=["/public"])
    client = browser(app)
    assert client.get("/notes", headers=world.headers("/notes", scopes=["notes:read"])).status_code == 200
    assert client.get("/notes", headers=world.headers("/notes")).status_code == 403
    assert client.get("/me", headers=world.headers("/me")).status_code == 200
    assert client.get("/public").status_code == 403


def test_public_paths_are_anonymous_whatever_they_carry(world: World) -> None:
    app = Starlette(routes=[Route("/public", whoami), Route("/private", whoami)])
    client = browser(DPoPMiddleware(app, world.server(), public_paths=["/public"]))
    nobody = {"user": "", "authenticated": False, "scopes": [], "jkt": None}
    assert client.get("/public").json() == nobody
    assert client.get("/public", headers=world.headers("/public")).json() == nobody
    assert client.get("/public", headers={"Authorization": "DPoP junk"}).json() == nobody
    assert client.get("/private").status_code == 401
    assert world.store.asked == 0


@pytest.mark.parametrize("path", ["/public/%2e%2e/private", "/public/..%2fprivate", "/public//private"])
async def test_a_public_prefix_is_no_way_around(world: World, path: str) -> None:
    app = DPoPMiddleware(reached, world.server(), public_paths=["/public/*"])
    assert (await call(app, scope_of(path))).status == 401
    assert (await call(app, scope_of("/public/a"))).status == 200


def test_public_paths_in_a_mount_are_the_mounts_own(world: World) -> None:
    inner = DPoPMiddleware(
        Starlette(routes=[Route("/health", whoami)]), world.server(), public_paths=["/health"]
    )
    app = Starlette(routes=[Mount("/v1", inner), Mount("/health", inner)])
    client = browser(app)
    assert client.get("/v1/health").status_code == 200
    assert client.get("/health/health").status_code == 401  # Litestar would cut at either of them
    assert client.get("/v1/other").status_code == 401
    assert client.get("/health/x").status_code == 401


def test_optional_authentication_accepts_requests_without_credentials(world: World) -> None:
    app = DPoPMiddleware(Starlette(routes=[Route("/", whoami)]), world.server(), required=False)
    client = browser(app)
    assert client.get("/").json()["authenticated"] is False
    assert client.get("/", headers={"DPoP": "junk"}).json()["authenticated"] is False
    assert client.get("/", headers=world.headers("/")).json()["user"] == "user123"
    assert client.get("/", headers={"Authorization": "DPoP junk"}).status_code == 401
    assert client.get("/", headers={"Authorization": "Bearer x"}).status_code == 401
    assert client.get("/", headers={"Authorization": "Basic x"}).status_code == 401
    assert client.get("/", headers={"Authorization": ""}).status_code == 401


SESSION_USER = SimpleUser("alice")
SESSION_AUTH = AuthCredentials(["authenticated", "session"])


@pytest.mark.parametrize("options", [{"required": False}, {"public_paths": ["/"]}])
async def test_an_anonymous_request_keeps_the_user_whom_a_session_brought(
    world: World, options: dict[str, Any]
) -> None:
    scope = scope_of("/", user=SESSION_USER, auth=SESSION_AUTH)
    assert (await call(DPoPMiddleware(reached, world.server(), **options), scope)).status == 200
    assert scope["user"] is SESSION_USER
    assert scope["auth"] is SESSION_AUTH
    assert "dpop" not in scope


@pytest.mark.parametrize("options", [{"required": False}, {"public_paths": ["/"]}])
async def test_an_anonymous_request_keeps_no_evidence_of_dpop_that_something_outside_left(
    world: World, options: dict[str, Any]
) -> None:
    proved = scope_of("/", world.fields("/"))
    await call(DPoPMiddleware(reached, world.server()), proved)
    left: dict[str, Any] = {name: proved[name] for name in ("user", "auth", "dpop")}
    app = DPoPMiddleware(reached, world.server(), **options)
    scope = scope_of("/", **left)
    assert (await call(app, scope)).status == 200
    assert "dpop" not in scope
    assert not scope["user"].is_authenticated
    assert scope["auth"].scopes == []
    left["user"] = SESSION_USER
    scope = scope_of("/", **left)
    assert (await call(app, scope)).status == 200
    assert "dpop" not in scope
    assert scope["user"] is SESSION_USER
    scope = scope_of("/", auth=SESSION_AUTH)
    assert (await call(app, scope)).status == 200
    assert scope["auth"].scopes == []


async def test_good_credentials_replace_the_user_whom_a_session_brought(world: World) -> None:
    scope = scope_of("/", world.fields("/"), user=SESSION_USER, auth=SESSION_AUTH)
    assert (await call(DPoPMiddleware(reached, world.server(), required=False), scope)).status == 200
    assert scope["user"].identity == "user123"
    assert scope["auth"].scopes == ["authenticated"]


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "TRACE", "PATCH", "PROPFIND"])
async def test_every_method_is_authenticated(world: World, method: str) -> None:
    app = DPoPMiddleware(reached, world.server())
    preflight = [("Origin", "https://evil.test"), ("Access-Control-Request-Method", "GET")]
    assert (await call(app, scope_of("/", preflight, method=method))).status == 401
    fields = world.fields("/", method=method)
    assert (await call(app, scope_of("/", fields, method="GET"))).status == 401
    assert (await call(app, scope_of("/", fields, method=method))).status == 200


async def test_receive_and_send_are_not_wrapped_without_need(world: World) -> None:
    seen: list[tuple[Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((receive, send))

    async def receive() -> Message:
        raise AssertionError("the middleware consumes no message")

    async def send(message: Message) -> None:
        raise AssertionError("the middleware sends no message")

    await DPoPMiddleware(app, world.server())(scope_of("/", world.fields("/")), receive, send)
    assert seen == [(receive, send)]


async def test_a_body_streams_both_ways(world: World) -> None:
    async def echo(request: Request) -> Response:
        async def upper() -> AsyncIterator[bytes]:
            async for chunk in request.stream():
                yield chunk.upper()

        return StreamingResponse(upper())

    app = DPoPMiddleware(Starlette(routes=[Route("/echo", echo, methods=["POST"])]), world.server())
    given = [b"one ", b"two ", b"three"]
    log: list[str] = []

    async def receive() -> Message:
        if not given:
            await asyncio.Event().wait()
        log.append("in")
        return {"type": "http.request", "body": given.pop(0), "more_body": bool(given)}

    async def send(message: Message) -> None:
        if message.get("body"):
            log.append(message["body"].decode())

    scope = scope_of("/echo", world.fields("/echo", method="POST"), method="POST")
    scope["asgi"]["spec_version"] = "2.4"
    await app(scope, receive, send)
    assert log == ["in", "ONE ", "in", "TWO ", "in", "THREE"]


async def test_the_lifespan_passes_untouched(world: World) -> None:
    scope = {"type": "lifespan"}
    seen: list[Scope] = []

    async def app(given: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(given))
        await send({"type": "something.else"})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await DPoPMiddleware(app, world.server())(scope, None, send)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert seen == [{"type": "lifespan"}]
    assert sent == [{"type": "something.else"}]
    assert world.store.closed == 0


@pytest.mark.parametrize("options", [{}, {"required": False}, {"public_paths": ["/"]}])
@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("webtransport", "'webtransport'"),
        ("http.unknown", "'http.unknown'"),
        ("HTTP", "'HTTP'"),
        ("Lifespan", "'Lifespan'"),
        ("lifespan ", "'lifespan '"),
        ("a\n\x1b[31m\u2028", r"'a\n\x1b[31m\u2028'"),
        (b"http", "b'http'"),
        (["http"], "['http']"),
        (None, "None"),
        (..., "None"),
    ],
)
async def test_any_other_scope_type_is_refused_by_its_name(
    world: World, options: dict[str, Any], kind: Any, shown: str
) -> None:
    scope = scope_of("/", world.fields("/"), type=kind)
    if kind is ...:
        del scope["type"]
    app = DPoPMiddleware(never_reached, world.server(), **options)
    with pytest.raises(ConfigurationError) as refused:
        await app(scope, never_received, never_sent)
    assert f"scope type {shown} can't be authenticated" in str(refused.value)
    assert str(refused.value).isascii()


async def never_reached(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the application is not to be reached")


async def never_received() -> Message:
    raise AssertionError("no message is to be read")


async def never_sent(message: Message) -> None:
    raise AssertionError("no message is to be sent")


def test_the_lifespan_opens_and_closes_what_the_server_owns(world: World) -> None:
    with browser(DPoPMiddleware(Starlette(), world.server())):
        assert (world.store.opened, world.store.closed) == (1, 0)
    assert (world.store.opened, world.store.closed) == (1, 1)


async def test_async_with_opens_and_closes_the_server(world: World) -> None:
    async with world.server() as api:
        assert isinstance(api, ResourceServer)
        assert (world.store.opened, world.store.closed) == (1, 0)
    assert (world.store.opened, world.store.closed) == (1, 1)


async def test_a_store_without_open_and_aclose_is_accepted(world: World) -> None:
    async with ResourceServer(
        issuer="https://auth.example.com", resource=ORIGIN, replay_store=MemoryReplayStore()
    ) as api:
        assert api.resource == ORIGIN


async def test_the_shutdown_is_reported_even_if_closing_fails(world: World) -> None:
    class Broken:
        issuers = ()

        async def verify(self, token: str) -> AccessToken:
            raise AssertionError

        async def aclose(self) -> None:
            raise OSError("gone")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.shutdown.complete"})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    broken: Any = Broken()
    api = ResourceServer(verifier=broken, resource=ORIGIN, replay_store=world.store)
    with pytest.raises(OSError, match="gone"):
        await DPoPMiddleware(app, api)({"type": "lifespan"}, None, send)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert sent == [{"type": "lifespan.shutdown.complete"}]


# --- nonces


async def test_the_applications_every_response_carries_the_next_nonce(world: World) -> None:
    api = world.server(nonces=world.nonces()).with_policy(nonce="required")
    nonce = (await call(DPoPMiddleware(reached, api), scope_of("/", world.fields("/")))).values("dpop-nonce")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        own = [(b"DPoP-Nonce", b"application"), (b"Cache-Control", b"public"), (b"x-app", b"1")]
        await send({"type": "http.response.start", "status": 418, "headers": own})
        await send({"type": "http.response.body", "body": b""})

    current = await call(DPoPMiddleware(app, api), scope_of("/", world.fields("/", nonce=nonce[0])))
    assert current.status == 418
    assert current.headers[0] == ("DPoP-Nonce", "application")
    world.clock.now += 61
    late = await call(DPoPMiddleware(app, api), scope_of("/", world.fields("/", nonce=nonce[0])))
    assert late.status == 418
    names = [name.lower() for name, _ in late.headers]
    assert sorted(names) == ["cache-control", "dpop-nonce", "x-app"]
    assert late.values("cache-control") == ["no-store"]
    assert late.values("dpop-nonce") not in ([], nonce)


async def test_a_refusal_has_exactly_one_nonce(world: World) -> None:
    api = world.server(nonces=world.nonces()).with_policy(nonce="required")
    app = DPoPMiddleware(DPoPMiddleware(reached, api), api)
    answer = await call(app, scope_of("/", world.fields("/")))
    assert answer.status == 401
    assert len(answer.values("dpop-nonce")) == 1
    assert answer.values("cache-control") == ["no-store"]
    assert 'error="use_dpop_nonce"' in answer.challenges[0]


async def test_the_nonce_of_the_server_that_asks_for_it_is_delivered(world: World) -> None:
    outer = world.server(nonces=world.nonces()).with_policy(nonce="fallback")
    inner = world.server(nonces=world.nonces(), resource=f"{ORIGIN}/inner", audience=ORIGIN).with_policy(
        nonce="required"
    )
    fields = world.fields("/")
    alone = await call(DPoPMiddleware(reached, inner), scope_of("/", fields))
    both = await call(DPoPMiddleware(DPoPMiddleware(reached, inner), outer), scope_of("/", fields))
    assert both.status == 401
    assert both.values("dpop-nonce") == alone.values("dpop-nonce")


# --- once, and never for another


async def test_another_server_verifies_afresh(world: World) -> None:
    outer = world.server()
    inner = world.server(audience="https://other.example.test", replay_namespace="inner")
    assert (await call(DPoPMiddleware(reached, inner), scope_of("/", world.fields("/")))).status == 401
    app = DPoPMiddleware(DPoPMiddleware(reached, inner), outer)
    answer = await call(app, scope_of("/", world.fields("/")))
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.challenges[0]
    both = ["https://other.example.test", "https://api.example.test"]
    assert (await call(app, scope_of("/", world.fields("/", audience=both)))).status == 200
    assert world.store.asked == 3


def test_servers_side_by_side_accept_their_own_tokens_only(world: World) -> None:
    servers = {
        name: world.server(resource=f"{ORIGIN}/{name}", public_url=ORIGIN) for name in ("notes", "files")
    }
    inner = Starlette(routes=[Route("/a", whoami)])
    client = browser(
        Starlette(routes=[Mount(f"/{name}", DPoPMiddleware(inner, api)) for name, api in servers.items()])
    )
    for name, other in (("notes", "files"), ("files", "notes")):
        own = world.fields(f"/{name}/a", audience=f"{ORIGIN}/{name}")
        assert client.get(f"/{other}/a", headers=dict(own)).json()["error"] == "invalid_token"
        assert client.get(f"/{name}/a", headers=dict(own)).json()["user"] == "user123"


async def test_the_same_server_twice_asks_the_store_once(world: World) -> None:
    api = world.server()
    app = DPoPMiddleware(DPoPMiddleware(reached, api.with_policy(algorithms=("ES256",))), api)
    assert (await call(app, scope_of("/", world.fields("/")))).status == 200
    assert world.store.asked == 1
    strict = DPoPMiddleware(DPoPMiddleware(reached, api.with_policy(algorithms=("ES384",))), api)
    answer = await call(strict, scope_of("/", world.fields("/")))
    assert answer.status == 401
    assert 'algs="ES384"' in answer.challenges[0]
    assert world.store.asked == 2


@pytest.mark.parametrize(
    "rewritten",
    [
        {"path": "/admin"},
        {"raw_path": b"/admin"},
        {"path": "/admin", "raw_path": b"/admin"},
        {"method": "DELETE"},
    ],
)
async def test_a_rewritten_request_is_another_one(world: World, rewritten: dict[str, Any]) -> None:
    api = world.server()
    inner = DPoPMiddleware(reached, api)

    async def rewriting(scope: Scope, receive: Receive, send: Send) -> None:
        await inner({**scope, **rewritten}, receive, send)

    answer = await call(DPoPMiddleware(rewriting, api), scope_of("/a", world.fields("/a")))
    assert answer.status == 401
    assert 'error="invalid_dpop_proof"' in answer.challenges[0]


async def test_a_changed_root_path_is_no_other_request(world: World) -> None:
    api = world.server()
    inner = DPoPMiddleware(reached, api)

    async def like_a_framework(scope: Scope, receive: Receive, send: Send) -> None:
        await inner({**scope, "root_path": "/v1"}, receive, send)

    answer = await call(DPoPMiddleware(like_a_framework, api), scope_of("/v1/a", world.fields("/v1/a")))
    assert answer.status == 200
    assert world.store.asked == 1


async def test_an_anonymous_inner_application_sees_no_verdict_of_the_outer(world: World) -> None:
    inner = DPoPMiddleware(reached, world.server(), public_paths=["/"])
    scope = scope_of("/", world.fields("/"))
    assert (await call(DPoPMiddleware(inner, world.server()), scope)).status == 200
    assert "dpop" not in scope
    assert scope["user"].is_authenticated is False


# --- public paths beside a root path


def warnings_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "listed in public_paths" in message]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_router_that_cuts_at_the_first_root_path_is_no_way_around(world: World, kind: str) -> None:
    app = DPoPMiddleware(never_reached, world.server(), public_paths=["/static/*"])
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of("/static/api/secret", root_path="/api", type=kind), never_received, send)
    assert sent[0].get("status", 401) == 401
    assert sent[0]["type"] in ("http.response.start", "websocket.close")


@pytest.mark.parametrize(
    ("path", "root_path", "why"),
    [
        ("/health", "/api", "doesn't start with the root path"),
        ("/api/health", "/api/", "start with a slash, not end with one"),
        ("/api/static/api.js", "/api", "contains the root path twice"),
    ],
)
async def test_a_listed_path_that_is_refused_is_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture, path: str, root_path: str, why: str
) -> None:
    app = DPoPMiddleware(reached, world.server(), public_paths=["/health", "/static/*"])
    for _ in range(3):
        assert (await call(app, scope_of("/private", root_path=root_path))).status == 401
        assert (await call(app, scope_of("/api/static/%2e%2e/a", root_path="/api"))).status == 401
    assert warnings_logged(caplog) == []
    for _ in range(3):
        assert (await call(app, scope_of(path, root_path=root_path))).status == 401
    (line,) = warnings_logged(caplog)
    assert why in line
    assert repr(path) in line
    assert repr(root_path) in line
    assert "--root-path" in line
    assert caplog.records[-1].levelname == "WARNING"


async def test_a_stranger_uses_up_the_warning_of_no_other_reason(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = DPoPMiddleware(reached, world.server(), public_paths=["/health", "/static/*"])
    for path in (f"/api/static/{'a' * 9000}", "/health", "/health"):
        assert (await call(app, scope_of(path, root_path="/api"))).status == 401
    found = [line.partition(": ")[2].partition(" (")[0] for line in warnings_logged(caplog)]
    assert found == [
        "the path has over 8192 characters",
        "the path doesn't start with the root path and a slash",
    ]


async def test_the_warning_is_short_and_escaped(world: World, caplog: pytest.LogCaptureFixture) -> None:
    app = DPoPMiddleware(reached, world.server(), public_paths=["/static/*"])
    path = "/static/\u2028\x85\U0001f600" + 5000 * "x"
    scope = {**scope_of("/", root_path="/api"), "path": path, "raw_path": None}
    assert (await call(app, scope)).status == 401
    (line,) = warnings_logged(caplog)
    assert line.isascii()
    assert len(line) < 1000


async def test_a_mounted_applications_own_root_path_is_seen(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class OwnRootPath(Starlette):
        root_path = "/static"

    app = DPoPMiddleware(OwnRootPath(), world.server(), public_paths=["/static/*", "/health"])
    assert (await call(app, scope_of("/static/secret"))).status == 401
    assert "root path of its own, '/static'" in warnings_logged(caplog)[0]
    assert (await call(app, scope_of("/health"))).status == 404


# --- paths


@pytest.mark.parametrize(
    ("root_path", "raw_path", "public_url", "htu"),
    [
        ("", "/svc/a", None, f"{ORIGIN}/svc/a"),
        ("/svc", "/svc/a", None, f"{ORIGIN}/svc/a"),
        ("/svc", "/svc/a", f"{ORIGIN}/public", f"{ORIGIN}/public/a"),
        ("", "/a", f"{ORIGIN}/public", f"{ORIGIN}/public/a"),
        ("/svc", "/svcs/a", f"{ORIGIN}/public", f"{ORIGIN}/public/svcs/a"),
        ("/svc", "/svc", f"{ORIGIN}/public", f"{ORIGIN}/public"),
        ("", "/a%2Fb", None, f"{ORIGIN}/a%2Fb"),
        ("", "/a", "https://[2001:DB8::0001]:8443", "https://[2001:db8::1]:8443/a"),
    ],
)
async def test_the_target_uri_has_the_public_url_and_the_sent_path(
    world: World, root_path: str, raw_path: str, public_url: str | None, htu: str
) -> None:
    app = DPoPMiddleware(reached, world.server(public_url=public_url))
    scope = scope_of(raw_path, world.fields(htu), root_path=root_path)
    answer = await call(app, scope)
    assert answer.status == 200, answer.body


def test_a_mounts_root_path_is_not_the_servers(world: World) -> None:
    api = world.server(public_url=f"{ORIGIN}/public")
    inner = DPoPMiddleware(Starlette(routes=[Route("/a", whoami)]), api)
    client = TestClient(Starlette(routes=[Mount("/v1", inner)]), base_url=ORIGIN)
    assert client.get("/v1/a", headers=world.headers("/public/v1/a")).status_code == 200
    assert client.get("/v1/a", headers=world.headers("/public/a")).status_code == 401


def test_the_host_selects_one_of_several_public_urls(world: World) -> None:
    api = world.server(public_url=[ORIGIN, "https://api.example.org/v2"])
    client = browser(DPoPMiddleware(Starlette(routes=[Route("/a", whoami)]), api))

    def get(host: str, htu: str) -> int:
        return client.get("/a", headers={**world.headers(htu), "Host": host}).status_code

    assert get("api.example.test", f"{ORIGIN}/a") == 200
    assert get("API.example.org:443", "https://api.example.org/v2/a") == 200
    assert get("api.example.org", f"{ORIGIN}/a") == 401
    assert get("evil.test", "https://evil.test/a") == 401
    assert get("api.example.test/v2", f"{ORIGIN}/a") == 401


async def test_a_mismatch_of_htu_is_explained_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dpop_middleware"):
        await call(
            DPoPMiddleware(reached, world.server()),
            scope_of("/a", world.fields("http://API.example.test:80/a")),
        )
    (line,) = caplog.messages
    assert "expected='https://api.example.test/a'" in line
    assert "actual='http://api.example.test/a'" in line
    assert "TLS ends at a proxy? set public_url" in line


# --- moving from Bearer


async def test_a_migration_is_counted(world: World) -> None:
    seen: list[tuple[str, str | None, str | None]] = []
    api = world.server(
        on_event=lambda event: seen.append((event.outcome, event.scheme, event.client_id))
    ).with_policy(accept_bearer=True)
    app = DPoPMiddleware(reached, api)

    async def bearer(token: str) -> int:
        return (await call(app, scope_of("/", [("Authorization", f"Bearer {token}")]))).status

    assert await bearer(world.token(jkt=None, client_id="old")) == 200
    assert await bearer(world.token(client_id="stolen")) == 401
    assert (await call(app, scope_of("/", world.fields("/", client_id="new")))).status == 200
    as_dpop = world.fields("/", jkt=None, client_id="confused")
    assert (await call(app, scope_of("/", as_dpop))).status == 401
    assert [(outcome, scheme) for outcome, scheme, _ in seen] == [
        ("accepted", "Bearer"),
        ("refused", "Bearer"),
        ("accepted", "DPoP"),
        ("refused", "DPoP"),
    ]
    assert [client_id for outcome, _, client_id in seen if outcome == "accepted"] == ["old", "new"]


# --- CORS


def test_preflights_are_answered_by_cors_outside(world: World) -> None:
    cors = {
        "allow_origins": ["https://app.example.test"],
        "allow_headers": ["Authorization", "DPoP"],
        "expose_headers": ["DPoP-Nonce", "WWW-Authenticate"],
    }
    app = CORSMiddleware(DPoPMiddleware(reached, world.server()), **cors)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    client = TestClient(app, base_url=ORIGIN, headers={"Origin": "https://app.example.test"})
    preflight = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,dpop",
    }
    assert client.options("/", headers=preflight).status_code == 200
    assert client.options("/").status_code == 401
    refused = client.get("/")
    assert refused.headers["access-control-allow-origin"] == "https://app.example.test"
    assert refused.headers["access-control-expose-headers"] == "DPoP-Nonce, WWW-Authenticate"


# --- WebSockets


async def socket(websocket: WebSocket) -> None:
    await websocket.accept(headers=[(b"x-app", b"1")])
    await websocket.send_text(websocket.user.display_name)
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


SOCKETS = Starlette(routes=[WebSocketRoute("/ws", socket)])


def test_a_websocket_handshake_is_a_get_at_the_http_url(world: World) -> None:
    client = browser(DPoPMiddleware(SOCKETS, world.server()))
    with client.websocket_connect("wss://api.example.test/ws", headers=world.headers("/ws")) as websocket:
        assert websocket.receive_text() == "user123"
        websocket.send_text("hello")
        assert websocket.receive_text() == "HELLO"


def test_a_websocket_is_refused_by_the_denial_response(world: World) -> None:
    client = browser(DPoPMiddleware(SOCKETS, world.server().with_policy(accept_bearer=True)))
    with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/ws"):
        pass
    assert caught.value.status_code == 401
    assert [challenge.split()[0] for challenge in caught.value.headers.get_list("www-authenticate")] == [
        "Bearer",
        "DPoP",
    ]


@pytest.mark.parametrize("extensions", [{}, None])
async def test_a_websocket_is_closed_where_the_server_lacks_denial(world: World, extensions: Any) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = scope_of("/ws", type="websocket", extensions=extensions)
    await DPoPMiddleware(SOCKETS, world.server())(scope, None, send)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_nonce_travels_on_the_accept(world: World) -> None:
    api = world.server(nonces=world.nonces()).with_policy(nonce="fallback")
    client = browser(DPoPMiddleware(SOCKETS, api))
    with client.websocket_connect("/ws", headers=world.headers("/ws")) as websocket:
        assert websocket.extra_headers is not None
        names = [name for name, _ in websocket.extra_headers]
        assert names == [b"x-app", b"dpop-nonce", b"cache-control"]


def test_a_nonce_travels_on_the_applications_own_denial(world: World) -> None:
    async def denying(websocket: WebSocket) -> None:
        await websocket.send_denial_response(Response("no", 418, {"DPoP-Nonce": "application"}))

    api = world.server(nonces=world.nonces()).with_policy(nonce="fallback")
    client = browser(DPoPMiddleware(Starlette(routes=[WebSocketRoute("/ws", denying)]), api))
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client.websocket_connect("/ws", headers=world.headers("/ws")),
    ):
        pass
    assert caught.value.status_code == 418
    (nonce,) = caught.value.headers.get_list("dpop-nonce")
    assert nonce != "application"


# --- the end of the token


def test_a_websocket_ends_with_its_token(world: World) -> None:
    left: list[int] = []

    async def listening(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as gone:
            left.append(gone.code)

    app = Starlette(routes=[WebSocketRoute("/ws", listening)])
    client = browser(DPoPMiddleware(app, world.server(), close_at_expiry=True))
    headers = world.headers("/ws", exp=world.clock() + 2)
    with client.websocket_connect("/ws", headers=headers) as websocket:
        websocket.send_text("a")
        assert websocket.receive_text() == "a"
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, "the access token has expired")
    assert left == [1008]


@pytest.mark.parametrize(
    ("options", "expires_in", "pause", "chunks"),
    [
        ({"close_at_expiry": True}, 0.4, 60, 1),
        ({"close_at_expiry": False}, 0.01, 0.05, 2),
        ({}, 0.01, 0.05, 2),
    ],
)
async def test_server_sent_events_end_with_the_token(
    world: World,
    options: dict[str, Any],
    expires_in: float,
    pause: float,
    chunks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_time_be_virtual(monkeypatch)

    async def events(request: Request) -> Response:
        async def ticks() -> AsyncIterator[str]:
            yield "data: 1\n\n"
            await asyncio.sleep(pause)
            yield "data: 2\n\n"

        return StreamingResponse(ticks(), media_type="text/event-stream")

    api = world.server()
    app = DPoPMiddleware(Starlette(routes=[Route("/events", events)]), api, **options)
    scope = scope_of("/events", world.fields("/events", exp=world.clock() + expires_in))
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    bodies = [message["body"] for message in sent[1:-1]]
    assert bodies == [b"data: 1\n\n", b"data: 2\n\n"][:chunks]


@pytest.mark.parametrize(("expires_in", "left"), [(10, 10), (-5, 10), (-15, 0), (-60, 0)])
def test_a_token_within_the_clock_skew_is_not_cut_off_at_once(
    world: World, expires_in: float, left: float
) -> None:
    token = AccessToken(
        claims={},
        issuer=world.issuer.issuer,
        subject="user123",
        client_id="my_client",
        scopes=frozenset(),
        expires_at=world.clock() + expires_in,
        jkt=None,
    )
    assert world.server().seconds_left(token) == left


# --- configuration


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"resource_server": "https://api.example.test"}, "takes a ResourceServer"),
        ({"app": None}, "takes an ASGI application"),
        ({"public_paths": "/health"}, "takes a sequence of paths"),
        ({"public_paths": ["health"]}, "start with a slash"),
        ({"required": "no"}, "required takes True or False"),
        ({"close_at_expiry": 60}, "close_at_expiry takes True or False"),
    ],
)
def test_bad_configuration_is_refused(world: World, arguments: dict[str, Any], sentence: str) -> None:
    middleware: Any = DPoPMiddleware
    with pytest.raises(ConfigurationError, match=sentence):
        middleware(**{"app": reached, "resource_server": world.server(), **arguments})


def test_under_another_event_loop_the_start_fails_and_says_why(world: World) -> None:
    sent: list[Any] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def never(*_: object) -> None:
        raise AssertionError

    # Driven by hand, as by a library that isn't asyncio.
    starting = DPoPMiddleware(never, world.server())({"type": "lifespan"}, receive, send)
    with pytest.raises(StopIteration):
        starting.send(None)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "asyncio only" in message["message"]
    protected = DPoPMiddleware(never, world.server())
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="asyncio only"):
            protected(scope_of("/"), receive, send).send(None)
    scope = scope_of("/")
    with pytest.raises(ConfigurationError, match="asyncio only"):
        Connection.of(scope).authenticate(world.server(), scope, Requirements()).send(None)


@pytest.mark.parametrize("target", [b"https://other.example/health", b"health", b"*"])
async def test_a_raw_path_in_another_form_is_never_public(target: bytes) -> None:
    world = World()
    app = DPoPMiddleware(reached, world.server(), public_paths=["/health"])
    assert (await call(app, scope_of("/health"))).status == 200
    assert (await call(app, scope_of("/health", raw_path=target))).status in (400, 401)
    optional = DPoPMiddleware(reached, world.server(), required=False)
    assert (await call(optional, scope_of("/health"))).status == 200
    assert (await call(optional, scope_of("/health", raw_path=target))).status in (400, 401)
