"""examples/fastapi_app: its own tests, and its deployments on real servers."""

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from dpop_middleware import profiles
from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.testing import TestIssuer
from examples.fastapi_app.test_notes import *  # noqa: F403
from tests.support.issuer_server import IssuerServer
from tests.support.nginx import NGINX, nginx
from tests.support.ports import free_port
from tests.support.valkey import Server

HOUSE = Path(__file__).parents[2]
APPLICATION = "examples.fastapi_app.app:create_app"
BY_UVICORN = ("--worker-class", "uvicorn_worker.UvicornWorker")
GUNICORN = ("gunicorn", f"{APPLICATION}()", *BY_UVICORN, "--workers", "2")
UVICORN = ("uvicorn", APPLICATION, "--factory", "--workers", "2")


@dataclass(frozen=True)
class Deployed:
    origin: str
    issuer: TestIssuer

    def auth(self, scopes: Iterable[str], **claims: object) -> DPoPAuth:
        key = DPoPKey.generate()
        return DPoPAuth(key, self.issuer.token(jkt=key.jkt, scopes=scopes, **claims))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@contextmanager
def deployed(command: Iterable[str], origin: str) -> Generator[Deployed]:
    """Run `command` with an issuer that looks like Keycloak, and with a replay store of its own."""
    with IssuerServer() as server, Server() as store:
        issuer = TestIssuer(server.origin, audience=origin, profile=profiles.KEYCLOAK)
        server.publish(issuer.jwks())
        environ = {
            **os.environ,
            "NOTES_ISSUER": server.origin,
            "NOTES_RESOURCE": origin,
            "NOTES_VALKEY_URL": store.url,
        }
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=HOUSE, env=environ)
        try:
            until_ready(origin)
            yield Deployed(origin, issuer)
        finally:
            process.terminate()
            process.wait(30)


def until_ready(origin: str) -> None:
    while True:
        try:
            if httpx2.get(f"{origin}/ready", trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)


def check(app: Deployed) -> None:
    with httpx2.Client(base_url=app.origin, trust_env=False) as client:
        ann = app.auth(["notes:read", "notes:write"], sub="ann")
        honest = client.put("/files/a", content=b"x" * 200_000, auth=ann)
        assert honest.json()["size"] == 200_000
        stolen = {name: honest.request.headers[name] for name in ("Authorization", "DPoP")}
        # At every worker.
        for _ in range(8):
            assert httpx2.put(f"{app.origin}/files/a", headers=stolen, trust_env=False).status_code == 401
        assert client.get("/notes", auth=app.auth(["other"])).status_code == 403
        preflight = client.options(
            "/notes",
            headers={
                "Origin": "https://app.example.com",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,dpop",
            },
        )
        assert preflight.status_code == 200
        soon = app.auth(["notes:read"], sub="ann", exp=time.time() + 5)
        events = client.get("/ticks", auth=soon, timeout=60)
        assert events.text.startswith("data: tick for ann\n\n")
    key = DPoPKey.generate()
    token = app.issuer.token(jkt=key.jkt, scopes=["notes:read"], sub="ann", exp=time.time() + 5)
    fields = {
        "Authorization": f"DPoP {token}",
        "DPoP": key.proof("GET", f"{app.origin}/echo", access_token=token),
    }
    with connect(app.origin.replace("http", "ws", 1) + "/echo", additional_headers=fields, proxy=None) as ws:
        ws.send("hello")
        assert ws.recv() == "ann: hello"
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@pytest.mark.slow
def test_two_workers_of_gunicorn_share_what_they_remember() -> None:
    port = free_port()
    with deployed((*GUNICORN, "--bind", f"127.0.0.1:{port}"), f"http://127.0.0.1:{port}") as app:
        check(app)


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_two_workers_of_uvicorn_behind_nginx_share_what_they_remember(tmp_path: Path) -> None:
    text = (HOUSE / "examples/fastapi_app/nginx.conf").read_text(encoding="utf-8")
    port, path = free_port(), tmp_path / "notes.sock"
    changed = replaced(
        text,
        ("unix:/run/notes/notes.sock", f"unix:{path}"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("    ssl_certificate /etc/ssl/api.example.com/chain.pem;\n", ""),
        ("    ssl_certificate_key /etc/ssl/api.example.com/key.pem;\n", ""),
    )
    with (
        nginx(tmp_path, changed, port),
        deployed((*UVICORN, "--uds", str(path)), f"http://127.0.0.1:{port}") as app,
    ):
        check(app)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def test_the_chapter_names_the_commands_that_are_run_here() -> None:
    chapter = (HOUSE / "examples/fastapi_app/README.md").read_text(encoding="utf-8")
    commands = chapter.replace("\\\n    ", "").replace('"', "")
    for command in (GUNICORN, UVICORN):
        assert " ".join(command).replace("--workers 2", "--workers 4") in commands
