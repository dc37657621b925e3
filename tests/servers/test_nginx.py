"""Behind the real nginx: TLS ends there, prefixes are stripped there, and its handling of header fields."""

import socket
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dpop_middleware import DPoPMiddleware
from tests.support.adapters import World
from tests.support.nginx import NGINX, nginx
from tests.support.ports import free_port
from tests.support.servers import serving

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)"
)

# `location /` is the README's recommendation; the others are configurations that are also in use.
SERVERS = """
server {{
    listen 127.0.0.1:{port} ssl http2;
    server_name api.example.test api.example.org;
    ssl_certificate {folder}/chain.pem;
    ssl_certificate_key {folder}/key.pem;
    location / {{
        proxy_pass http://127.0.0.1:{plain};
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
    }}
    location /svc/ {{
        proxy_pass http://127.0.0.1:{prefixed}/;
        proxy_set_header Host $http_host;
    }}
    location /kept/ {{
        rewrite ^ $request_uri;
        rewrite ^/kept(/.*) $1 break;
        return 400;
        proxy_pass http://127.0.0.1:{kept}$uri;
        proxy_set_header Host $http_host;
    }}
    location /default-host/ {{
        proxy_pass http://127.0.0.1:{plain};
    }}
}}
"""


@dataclass
class Proxied:
    world: World
    port: int
    authority: Path

    @property
    def trust(self) -> ssl.SSLContext:
        """A context of its own for every client: some set the protocols in it."""
        return ssl.create_default_context(cafile=self.authority)

    def origin(self, host: str = "api.example.test") -> str:
        return f"https://{host}:{self.port}"

    def fields(self, path: str, host: str = "api.example.test", **arguments: Any) -> list[str]:
        fields = self.world.fields(self.origin(host) + path, **arguments)
        return [f"{name}: {value}" for name, value in fields]

    def connection(self, host: str = "api.example.test") -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return self.trust.wrap_socket(plain, server_hostname=host)

    def get(self, target: str, *lines: str, host: str = "api.example.test", header: str | None = None) -> Any:
        """Send a request as it is; return its status and the whole answer."""
        header = f"{host}:{self.port}" if header is None else header
        head = [f"GET {target} HTTP/1.1", f"Host: {header}", "Connection: close", *lines, "", ""]
        received = b""
        with self.connection(host) as connection:
            connection.sendall("\r\n".join(head).encode("latin-1"))
            while chunk := connection.recv(65536):
                received += chunk
        return int(received.split()[1]), received.decode("latin-1")


async def seen(request: Request) -> Response:
    return JSONResponse({"user": request.user.display_name, "raw_path": request.scope["raw_path"].decode()})


async def socket_endpoint(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)
    await websocket.close()


def application(world: World, *public_urls: str) -> DPoPMiddleware:
    api = world.server(public_url=public_urls).with_policy(accept_bearer=True)
    routes = [Route("/{path:path}", seen), WebSocketRoute("/ws", socket_endpoint)]
    return DPoPMiddleware(Starlette(routes=[routes[1], routes[0]]), api)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Generator[Proxied]:
    folder = tmp_path_factory.mktemp("nginx")
    authority = trustme.CA()
    issued = authority.issue_cert("api.example.test", "api.example.org", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "chain.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "authority.pem")
    world, port = World(), free_port()
    here = Proxied(world, port, folder / "authority.pem")
    names = [here.origin(), here.origin("api.example.org")]

    def prefixed(prefix: str) -> Any:
        return serving("uvicorn-httptools", lambda _: application(world, *(name + prefix for name in names)))

    def port_of(origin: str) -> str:
        return origin.rpartition(":")[2]

    with prefixed("") as plain, prefixed("/svc") as svc, prefixed("/kept") as kept:
        servers = SERVERS.format(
            port=port, folder=folder, plain=port_of(plain), prefixed=port_of(svc), kept=port_of(kept)
        )
        with nginx(folder, servers, port):
            yield here


def test_tls_ends_at_the_proxy(proxied: Proxied) -> None:
    fields = proxied.fields("/a")
    assert proxied.get("/a?x=1", *fields)[0] == 200
    assert proxied.get("/a?x=1", *fields)[0] == 401


@pytest.mark.parametrize("path", ["/a%2Fb", "/a//b", "/a%20b/", "/%C3%A9", "/a;b", "/a%252Fb"])
def test_without_a_path_on_proxy_pass_the_path_arrives_as_it_was_sent(proxied: Proxied, path: str) -> None:
    status, answer = proxied.get(path, *proxied.fields(path))
    assert status == 200, answer
    assert f'"raw_path":"{path}"' in answer


def test_forwarded_fields_decide_nothing(proxied: Proxied) -> None:
    forged = [
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: evil.test",
        "Forwarded: host=evil.test;proto=http",
    ]
    assert proxied.get("/a", *forged, *proxied.fields("/a"))[0] == 200
    evil = [f"{name}: {value}" for name, value in proxied.world.fields("http://evil.test/a")]
    assert proxied.get("/a", *forged, *evil)[0] == 401


def test_each_server_name_has_its_own_url(proxied: Proxied) -> None:
    other = "api.example.org"
    assert proxied.get("/a", *proxied.fields("/a", other), host=other)[0] == 200
    assert proxied.get("/a", *proxied.fields("/a", other))[0] == 401
    assert proxied.get("/a", *proxied.fields("/a"), host=other)[0] == 401
    for header in (
        "evil.test",
        f"evil.test:{proxied.port}",
        "api.example.test",
        f"api.example.test.:{proxied.port}",
    ):
        assert proxied.get("/a", *proxied.fields("/a"), header=header)[0] in (400, 401)


def test_a_proxy_that_passes_its_own_host_selects_no_url(proxied: Proxied) -> None:
    status, answer = proxied.get("/default-host/a", *proxied.fields("/default-host/a"))
    assert status == 401
    assert "the Host field names no URL of this resource server" in answer


def test_a_prefix_stripped_by_proxy_pass_is_put_back(proxied: Proxied) -> None:
    status, answer = proxied.get("/svc/a", *proxied.fields("/svc/a"))
    assert status == 200
    assert '"raw_path":"/a"' in answer
    assert proxied.get("/svc/a", *proxied.fields("/a"))[0] == 401
    # With a path on proxy_pass nginx decodes what it passes on, so the path as sent is lost.
    assert proxied.get("/svc/a%2Fb", *proxied.fields("/svc/a%2Fb"))[0] == 401


def test_a_prefix_stripped_by_rewrite_keeps_the_path(proxied: Proxied) -> None:
    for path in ("/kept/a", "/kept/a%2Fb", "/kept/a%20b"):
        status, answer = proxied.get(path, *proxied.fields(path))
        assert status == 200, answer


def test_repeated_fields_arrive_repeated(proxied: Proxied) -> None:
    authorization, proof = proxied.fields("/a")
    _, other = proxied.fields("/a")
    for proofs in ([proof, other], [proof, proof], [other, "DPoP: "]):
        status, answer = proxied.get("/a", authorization, *proofs)
        assert status == 401
        assert "several DPoP fields" in answer
    assert proxied.get("/a", authorization, authorization, proof)[0] == 400
    assert proxied.get("/a", authorization, proof)[0] == 200


def test_folded_fields_are_refused_or_joined(proxied: Proxied) -> None:
    authorization, proof = proxied.fields("/a")
    for folded in (
        f"{proof[:40]}\r\n {proof[40:]}",
        f"{proof[:40]}\r\n\t{proof[40:]}",
        f"DPoP:\r\n {proof[6:]}",
    ):
        assert proxied.get("/a", authorization, folded)[0] in (200, 400, 401)
    assert proxied.get("/a", f"{authorization}  ", f"{proof}\t")[0] in (200, 401)


def test_large_fields_are_refused(proxied: Proxied) -> None:
    authorization, proof = proxied.fields("/a")
    for size in (8 * 1024 + 1, 100 * 1024):
        assert proxied.get("/a", authorization, f"DPoP: {'a' * size}")[0] in (400, 401, 431)
        assert proxied.get("/a", f"Authorization: DPoP {'a' * size}", proof)[0] in (400, 401, 431)


@pytest.mark.parametrize("target", ["/../a", "/x/../a", "/%2e%2e/a", "/x/%2e%2e/a", "/x/..%2fa", "/.", "*"])
def test_hostile_paths_are_refused(proxied: Proxied, target: str) -> None:
    assert proxied.get(target, *proxied.fields("/a"))[0] in (400, 401)


def test_both_challenges_reach_the_client(proxied: Proxied) -> None:
    status, answer = proxied.get("/a")
    assert status == 401
    challenges = [line for line in answer.splitlines() if line.lower().startswith("www-authenticate:")]
    assert [challenge.split()[1] for challenge in challenges] == ["Bearer", "DPoP"]


def test_the_proxy_accepts_http_2(proxied: Proxied) -> None:
    url = f"https://127.0.0.1:{proxied.port}/a"
    name = {"Host": f"api.example.test:{proxied.port}"}
    with httpx2.Client(http2=True, verify=proxied.trust, trust_env=False) as client:
        authorization, proof = proxied.world.fields(f"{proxied.origin()}/a")
        good = client.get(url, headers=[*name.items(), authorization, proof])
        assert (good.http_version, good.status_code) == ("HTTP/2", 200)
        twice = client.get(url, headers=[*name.items(), authorization, proof, proof])
        assert twice.status_code == 401
        assert "several DPoP fields" in twice.text
        assert client.get(url, headers=[authorization, proof]).status_code == 401


def test_a_websocket_passes_the_proxy(proxied: Proxied) -> None:
    url = f"wss://api.example.test:{proxied.port}/ws"

    def websocket(**headers: str) -> Any:
        plain = socket.create_connection(("127.0.0.1", proxied.port), timeout=60)
        return connect(url, sock=plain, ssl=proxied.trust, additional_headers=headers, proxy=None)

    with websocket(**proxied.world.headers(proxied.origin() + "/ws")) as connection:
        assert connection.recv() == "user123"
    with pytest.raises(InvalidStatus) as caught, websocket():
        pass
    assert caught.value.response.status_code == 401
