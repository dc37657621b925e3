"""A protected application as a user runs it: uvicorn with httptools and with h11, hypercorn."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dpop_middleware import DPoPMiddleware
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import World
from tests.support.servers import SERVERS, Certificate, ServerKind, exchange, serving


async def whoami(request: Request) -> Response:
    return JSONResponse({"user": request.user.display_name, "version": request.scope["http_version"]})


class Shout:
    """An ASGI application that answers while it is still being asked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message["body"].upper(), "more_body": more})


async def events(request: Request) -> Response:
    async def ticks() -> AsyncIterator[str]:
        for tick in range(1000):
            yield f"data: {tick}\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(ticks(), media_type="text/event-stream")


async def flood(request: Request) -> Response:
    async def always_ready() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"

    return StreamingResponse(always_ready(), media_type="text/event-stream")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@dataclass
class Served:
    """A world and the origin at which its application is served."""

    world: World
    kind: ServerKind
    origin: str

    def url(self, path: str) -> str:
        return self.origin + path

    def headers(self, path: str, **arguments: Any) -> dict[str, str]:
        return self.world.headers(self.url(path), **arguments)

    def get(self, path: str, **arguments: Any) -> httpx2.Response:
        return httpx2.get(self.url(path), headers=self.headers(path, **arguments), trust_env=False)

    def raw(
        self, target: str, *lines: str, method: str = "GET", host: str | None = None
    ) -> tuple[int, bytes]:
        """Send a request line and header lines as they are; return status and whole answer."""
        host = self.origin.removeprefix("http://") if host is None else host
        head = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *lines, "", ""]
        answer = exchange(self.origin, "\r\n".join(head).encode("latin-1"))
        return (int(answer.split()[1]) if answer else 0), answer

    def lines(self, path: str, **arguments: Any) -> list[str]:
        return [f"{name}: {value}" for name, value in self.world.fields(self.url(path), **arguments)]

    def websocket(self, path: str, headers: dict[str, str]) -> Any:
        url = self.url(path).replace("http", "ws", 1)
        return connect(url, additional_headers=headers, proxy=None, close_timeout=2)


def application(world: World, origin: str, **options: Any) -> DPoPMiddleware:
    api = world.server(nonces=world.nonces(), **{"public_url": origin, **options}).with_policy(
        accept_bearer=True
    )
    nonce = requires_dpop(api.with_policy(nonce="required"))
    routes = [
        Route("/a", whoami, methods=["GET", "POST"]),
        Route("/files/{name:path}", whoami),
        Route("/shout", Shout(), methods=["POST"]),
        Route("/events", events),
        Route("/flood", flood),
        Route("/public/flood", requires_dpop(api, close_at_expiry=True)(flood)),
        Route("/nonce", nonce(whoami)),
        Route("/public", lambda request: PlainTextResponse("public")),
        Mount("/mounted", Starlette(routes=[Route("/a", whoami)])),
        WebSocketRoute("/ws", echo),
        WebSocketRoute("/nonce-ws", nonce(echo)),
    ]
    return DPoPMiddleware(
        Starlette(routes=routes),
        api,
        public_paths=["/public", "/public/flood", "/below/*"],
        close_at_expiry=True,
    )


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest) -> Generator[Served]:
    world = World()
    with serving(request.param, lambda origin: application(world, origin)) as origin:
        yield Served(world, request.param, origin)
        assert world.store.closed == 0
    assert world.store.closed == 1, "the lifespan closes what the server owns"


def test_a_proof_is_accepted_once(served: Served) -> None:
    headers = served.headers("/a?x=1")
    first = httpx2.get(served.url("/a?x=1"), headers=headers, trust_env=False)
    assert first.json() == {"user": "user123", "version": "1.1"}
    again = httpx2.get(served.url("/a?x=1"), headers=headers, trust_env=False)
    assert again.status_code == 401
    assert again.json()["error"] == "invalid_dpop_proof"


def test_a_refusal_has_both_challenges_and_a_body(served: Served) -> None:
    answer = httpx2.get(served.url("/a"), trust_env=False)
    assert answer.status_code == 401
    assert [line.split()[0] for line in answer.headers.get_list("www-authenticate")] == ["Bearer", "DPoP"]
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.json() == {"error_description": "an access token is required"}


@pytest.mark.parametrize(
    "path", ["/files/a%2Fb", "/files/%C3%A9%20", "/files//x//", "/files/a;b=c", "/mounted/a"]
)
def test_the_path_is_taken_as_it_was_sent(served: Served, path: str) -> None:
    assert served.raw(path, *served.lines(path))[0] == 200
    assert served.raw(path, *served.lines("/files/a/b"))[0] == 401


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PROPFIND", "TRACE"])
def test_every_method_is_authenticated(served: Served, method: str) -> None:
    assert httpx2.request(method, served.url("/a"), trust_env=False).status_code == 401
    headers = served.headers("/a", method=method)
    answer = httpx2.request(method, served.url("/a"), headers=headers, trust_env=False)
    assert answer.status_code == (200 if method == "HEAD" else 405)
    assert method != "HEAD" or answer.content == b""


def test_bodies_stream_in_both_directions(served: Served) -> None:
    host, _, port = served.origin.removeprefix("http://").rpartition(":")
    head = ["POST /shout HTTP/1.1", f"Host: {host}", "Transfer-Encoding: chunked"]
    lines = [*head, *served.lines("/shout", method="POST"), "", ""]
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode())
        received = b""
        for word in (b"one", b"two", b"three"):
            connection.sendall(b"%x\r\n%s\r\n" % (len(word), word))
            while word.upper() not in received:
                received += connection.recv(65536)
        connection.sendall(b"0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200")


def test_a_nonce_is_asked_for_and_then_accepted(served: Served) -> None:
    refused = served.get("/nonce")
    assert refused.status_code == 401
    (nonce,) = refused.headers.get_list("dpop-nonce")
    assert served.get("/nonce", nonce=nonce).json()["user"] == "user123"


# --- requests that no client library sends


def test_trailing_spaces_and_tabs_are_ignored(served: Served) -> None:
    authorization, proof = served.lines("/a")
    assert served.raw("/a", f"{authorization} \t ", f"{proof}\t  ")[0] == 200


def test_repeated_fields_are_refused(served: Served) -> None:
    authorization, proof = served.lines("/a")
    _, other = served.lines("/a")
    for lines in ([proof, other], [proof, proof], [proof, "DPoP:"], [f"{proof},{proof[6:]}"], [f"{proof}, "]):
        status, answer = served.raw("/a", authorization, *lines)
        assert status == 401
        assert b"several DPoP fields" in answer
    assert served.raw("/a", authorization, authorization, proof)[0] == 400
    assert served.raw("/a", authorization, "Authorization: Basic x", proof)[0] == 400
    assert served.raw("/a", authorization, proof)[0] == 200


def test_folded_and_illegal_fields_are_refused(served: Served) -> None:
    authorization, proof = served.lines("/a")
    for line in (
        f"{proof[:40]}\r\n {proof[40:]}",
        f"{proof}\xe9",
        f"{proof}\x01",
        f"DPoP: {'é' * 9}",
        "DPoP: \x00",
    ):
        assert served.raw("/a", authorization, line)[0] in (0, 400, 401)
    assert served.raw("/a", f"{authorization}\xe9", proof)[0] == 400


@pytest.mark.parametrize("size", [8 * 1024 + 1, 17 * 1024, 100 * 1024])
def test_large_fields_are_refused(served: Served, size: int) -> None:
    authorization, proof = served.lines("/a")
    assert served.raw("/a", authorization, f"DPoP: {'a' * size}")[0] in (0, 400, 401, 431)
    assert served.raw("/a", f"Authorization: DPoP {'a' * size}", proof)[0] in (0, 400, 401, 431)


def test_an_absolute_form_is_served_for_our_own_origin_only(served: Served) -> None:
    lines = served.lines("/a")
    assert served.raw(served.url("/a"), *lines)[0] == 200
    assert served.raw("http://evil.test/a", *served.lines("/a"))[0] in (200, 400)
    assert served.raw(served.url("/a"))[0] in (400, 401)
    assert served.raw("http://evil.test/../a")[0] in (400, 401)
    assert served.raw("*", *lines, method="OPTIONS")[0] == 400


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1/a?", "x@y", "", "127.0.0.1:1"])
def test_host_decides_nothing(served: Served, host: str) -> None:
    assert served.raw("/a", *served.lines("/a"), host=host)[0] in (200, 400)
    proof = served.world.fields(f"http://{host}/a") if host and "/" not in host and "@" not in host else []
    assert served.raw("/a", *(f"{name}: {value}" for name, value in proof), host=host)[0] in (400, 401)


@pytest.mark.parametrize(
    "target",
    [
        "/public/../a",
        "/public/%2e%2e/a",
        "/below/../a",
        "/below/..%2fa",
        "/below//a",
        "//public",
        "/public/",
        "/below/",
        "/PUBLIC",
        "/%70ublic/../a",
        "/below/%252e%252e/a",
        "/below/\\..\\a",
        "/below/%00",
        "/a%00",
        "/a#/../public",
        "/a?/public",
        "/;/public",
    ],
)
def test_hostile_targets_are_refused(served: Served, target: str) -> None:
    assert served.raw(target)[0] in (0, 400, 401)


def test_public_paths_are_public_only_as_written(served: Served) -> None:
    assert served.raw("/public")[1].endswith(b"public")
    assert served.raw("/%70ublic")[0] == 401  # some routers compare what was sent, undecoded
    assert served.raw("/below/x")[0] == 404


# --- WebSockets and events


def test_a_websocket_is_accepted_and_echoes(served: Served) -> None:
    with served.websocket("/ws", served.headers("/ws")) as websocket:
        assert websocket.recv() == "user123"
        websocket.send("hello")
        assert websocket.recv() == "hello"


def test_a_refused_websocket_gets_challenges_and_a_body(served: Served) -> None:
    with pytest.raises(InvalidStatus) as caught, served.websocket("/ws", {}):
        pass
    response = caught.value.response
    assert response.status_code == 401
    assert len(response.headers.get_all("WWW-Authenticate")) == 2
    assert b"an access token is required" in (response.body or b"")


def test_a_nonce_is_sent_with_the_denial_and_with_the_accept(served: Served) -> None:
    with pytest.raises(InvalidStatus) as caught, served.websocket("/nonce-ws", served.headers("/nonce-ws")):
        pass
    (nonce,) = caught.value.response.headers.get_all("DPoP-Nonce")
    with served.websocket("/nonce-ws", served.headers("/nonce-ws", nonce=nonce)) as websocket:
        assert websocket.response.headers.get_all("DPoP-Nonce") == []
    served.world.clock.now += 61
    with served.websocket("/nonce-ws", served.headers("/nonce-ws", nonce=nonce)) as websocket:
        assert len(websocket.response.headers.get_all("DPoP-Nonce")) == 1


def test_a_websocket_ends_with_its_token(served: Served) -> None:
    # From the verdict on, which is by a clock that stands still: time enough to say hello.
    headers = served.headers("/ws", exp=served.world.clock() + 2)
    with served.websocket("/ws", headers) as websocket:
        assert websocket.recv() == "user123"
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the access token has expired")


def test_events_end_with_their_token(served: Served) -> None:
    answer = served.get("/events", exp=served.world.clock() + 2)
    assert answer.status_code == 200
    assert 1 <= answer.text.count("data:") < 100


@pytest.mark.parametrize("path", ["/flood", "/public/flood"])
def test_events_that_are_always_ready_end_with_their_token(served: Served, path: str) -> None:
    """By the middleware, and by the decorator alone."""
    headers = served.headers(path, exp=served.world.clock() + 0.2)
    deadline = time.monotonic() + 60
    with httpx2.stream("GET", served.url(path), headers=headers, trust_env=False) as answer:
        assert answer.status_code == 200
        for _ in answer.iter_raw():
            assert time.monotonic() < deadline


# --- where requests come from


@pytest.mark.parametrize("kind", SERVERS)
def test_a_prefix_that_a_proxy_strips_is_put_back(kind: ServerKind) -> None:
    world = World()
    public = "https://www.example.test/svc"
    options = {"public_url": public, "resource": public, "audience": world.issuer.audience}
    # hypercorn leaves the root path out of `path`, and Starlette's Mount then finds nothing below it.
    paths = ("/a",) if kind == "hypercorn" else ("/a", "/mounted/a")
    with serving(kind, lambda _: application(world, "", **options), root_path="/svc") as origin:
        for path in paths:
            good = httpx2.get(origin + path, headers=world.headers(public + path), trust_env=False)
            assert good.status_code == 200, good.text
        assert (
            httpx2.get(f"{origin}/a", headers=world.headers(f"{origin}/a"), trust_env=False).status_code
            == 401
        )
        listed = httpx2.get(f"{origin}/public", trust_env=False)
        # Every router removes a root path that the path doesn't start with in its own way.
        assert listed.status_code == (401 if kind == "hypercorn" else 200)


@pytest.mark.parametrize("kind", SERVERS)
def test_requests_over_a_unix_socket_are_accepted(kind: ServerKind, tmp_path: Path) -> None:
    world = World()
    path = tmp_path / "api.sock"
    with (
        serving(kind, lambda origin: application(world, origin), unix_socket=path),
        httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client,
    ):
        url = "http://localhost/a"
        assert client.get(url, headers=world.headers(url)).json()["user"] == "user123"
        assert client.get(url, headers=world.headers("http://localhost/b")).status_code == 401


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6_loopback(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("kind", SERVERS)
def test_an_ipv6_literal_is_compared_in_normal_form(kind: ServerKind) -> None:
    world = World()
    with serving(kind, lambda origin: application(world, origin), host="::1") as origin:
        assert origin.startswith("http://[::1]:")
        good = httpx2.get(f"{origin}/a", headers=world.headers(f"{origin}/a"), trust_env=False)
        assert good.json()["user"] == "user123"
        long = origin.replace("[::1]", "[0:0::0001]")
        assert (
            httpx2.get(f"{origin}/a", headers=world.headers(f"{long}/a"), trust_env=False).status_code == 200
        )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.for_loopback(tmp_path_factory.mktemp("certificate"))


def test_http_2_requests_are_accepted(certificate: Certificate) -> None:
    world = World()
    with (
        serving("hypercorn", lambda origin: application(world, origin), certificate=certificate) as origin,
        httpx2.Client(http2=True, verify=certificate.trust, trust_env=False) as client,
    ):
        headers = world.headers(f"{origin}/a")
        good = client.get(f"{origin}/a", headers=headers)
        assert good.json() == {"user": "user123", "version": "2"}
        assert client.get(f"{origin}/a", headers=headers).status_code == 401
        refused = client.get(f"{origin}/a")
        assert (refused.http_version, refused.status_code) == ("HTTP/2", 401)
        assert len(refused.headers.get_list("www-authenticate")) == 2
        assert client.head(f"{origin}/a").status_code == 401
        authorization, proof = world.fields(f"{origin}/a")
        twice = client.get(f"{origin}/a", headers=[authorization, proof, proof])
        assert twice.status_code == 401
        assert "several DPoP fields" in twice.text
        shouted = client.post(
            f"{origin}/shout",
            content=iter([b"one ", b"two"]),
            headers=world.headers(f"{origin}/shout", method="POST"),
        )
        assert shouted.text == "ONE TWO"


def test_over_http_2_the_authority_selects_the_public_url(certificate: Certificate) -> None:
    """Over HTTP/2 `:authority` selects one of them; hypercorn passes it on as Host."""
    world = World()

    def several(origin: str) -> DPoPMiddleware:
        port = origin.rpartition(":")[2]
        urls = (origin, f"https://localhost:{port}/v1", "https://api.example.test")
        return application(world, origin, public_url=urls)

    with (
        serving("hypercorn", several, certificate=certificate) as origin,
        httpx2.Client(http2=True, verify=certificate.trust, trust_env=False) as client,
    ):
        by_name = origin.replace("127.0.0.1", "localhost")

        def ask(url: str, proven: str, **headers: str) -> httpx2.Response:
            answer = client.get(url, headers={**world.headers(proven), **headers})
            assert answer.http_version == "HTTP/2"
            return answer

        assert ask(f"{origin}/a", f"{origin}/a").json() == {"user": "user123", "version": "2"}
        assert ask(f"{by_name}/a", f"{by_name}/v1/a").status_code == 200
        public = "https://api.example.test/a"
        assert ask(f"{origin}/a", public, Host="api.example.test").status_code == 200
        for url, proven, headers in (
            (origin, f"{by_name}/v1", {}),
            (origin, "https://api.example.test", {}),
            (by_name, origin, {}),
            (by_name, by_name, {}),
            (origin, origin, {"Host": "api.example.test"}),
            (origin, origin, {"Host": "evil.example.test"}),
            (origin, "https://evil.example.test", {"Host": "evil.example.test"}),
        ):
            refused = ask(f"{url}/a", f"{proven}/a", **headers)
            assert (refused.status_code, refused.json()["error"]) == (401, "invalid_dpop_proof")


def test_tls_works_without_a_proxy(certificate: Certificate) -> None:
    world = World()
    with serving("uvicorn-h11", lambda origin: application(world, origin), certificate=certificate) as origin:
        good = httpx2.get(
            f"{origin}/a", headers=world.headers(f"{origin}/a"), verify=certificate.trust, trust_env=False
        )
        assert good.status_code == 200
        plain = world.headers(f"{origin}/a".replace("https", "http"))
        refused = httpx2.get(f"{origin}/a", headers=plain, verify=certificate.trust, trust_env=False)
        assert refused.status_code == 401
