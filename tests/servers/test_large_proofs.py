"""The largest proofs, through real servers, and through nginx with default and with larger limits."""

import http.client
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, DPoPPolicy, MemoryReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import reached
from tests.support.nginx import NGINX, nginx
from tests.support.ports import free_port
from tests.support.servers import SERVERS, ServerKind, serving

RESOURCE = "https://api.example.test"
ISSUER = TestIssuer(audience=RESOURCE)
KEYS = {name: DPoPKey.generate(name) for name in ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")}


def app_at(_: str) -> ASGIApp:
    api = ResourceServer(
        issuer=ISSUER.issuer,
        resource=RESOURCE,
        jwks=ISSUER.jwks(),
        replay_store=MemoryReplayStore(),
        policy=DPoPPolicy(algorithms=tuple(KEYS)),
    )
    return DPoPMiddleware(Starlette(routes=[Mount("/", reached)]), api)


def ask(port: int, key: DPoPKey) -> tuple[int, int]:
    """The status, and the size of the proof."""
    token = ISSUER.token(jkt=key.jkt)
    proof = key.proof("GET", f"{RESOURCE}/notes", access_token=token)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/notes", headers={"Authorization": f"DPoP {token}", "DPoP": proof})
        return connection.getresponse().status, len(proof)
    finally:
        connection.close()


@pytest.fixture(scope="module")
def api() -> Generator[int]:
    """The port of an API under uvicorn."""
    with serving("uvicorn-httptools", app_at) as origin:
        yield int(origin.rpartition(":")[2])


@pytest.mark.parametrize("kind", SERVERS)
def test_asgi_servers_let_them_through(kind: ServerKind) -> None:
    with serving(kind, app_at) as origin:
        port = urlsplit(origin).port
        assert port is not None
        sizes = {name: ask(port, key) for name, key in KEYS.items()}
    assert {status for status, _ in sizes.values()} == {200}
    # What the chapter says: 5.9, 8.2 and 11.1 KB.
    assert [round(size / 100) for _, size in sizes.values()] == [59, 82, 111]


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")
@pytest.mark.parametrize(
    ("setting", "statuses"),
    [("", [200, 400, 400]), ("large_client_header_buffers 4 16k;", [200, 200, 200])],
    ids=["as it is", "as it must be set"],
)
def test_nginx_cuts_the_larger_ones_unless_told(
    tmp_path: Path, api: int, setting: str, statuses: list[int]
) -> None:
    port = free_port()
    server = (
        (
            f"server {{{{ listen 127.0.0.1:{port}; {setting} location / {{{{ "
            f"proxy_pass http://127.0.0.1:{api}; }}}} }}}}"
        )
        .replace("{{", "{")
        .replace("}}", "}")
    )
    with nginx(tmp_path, server, port):
        assert [ask(port, key)[0] for key in KEYS.values()] == statuses
