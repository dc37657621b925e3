"""The fixtures: by import, and as a named plugin; they are never loaded automatically."""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import dpop_middleware
from dpop_middleware import MemoryReplayStore, ResourceServer
from dpop_middleware.starlette import requires_dpop
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.fixtures import dpop_client, dpop_issuer

__all__ = ["dpop_client", "dpop_issuer"]

CLOSED: list[Starlette] = []
PRODUCTION = ResourceServer(
    issuer="https://auth.example.com",
    resource="https://api.example.com/v1",
    public_url=["https://gateway.example.com", "https://api.example.com"],
    replay_store=MemoryReplayStore(),
)


@pytest.fixture
def dpop_server() -> ResourceServer:
    return PRODUCTION


@pytest.fixture
def dpop_app(dpop_issuer: TestIssuer) -> Starlette:
    server = dpop_issuer.resource_server(PRODUCTION)

    @requires_dpop(server, "notes:read")
    async def notes(request: Request) -> JSONResponse:
        return JSONResponse(
            {"notes_of": request.user.identity, "jkt": request.scope["dpop"].access_token.jkt}
        )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        yield
        CLOSED.append(app)

    return Starlette(routes=[Route("/v1/notes", notes)], lifespan=lifespan)


def test_each_client_has_a_key_and_a_token_of_its_own(dpop_client: Callable[..., TestClient]) -> None:
    ann, bob = (dpop_client(sub=name, scopes=["notes:read"]) for name in ("ann", "bob"))
    told = [client.get("/v1/notes").json() for client in (ann, bob)]
    assert [one["notes_of"] for one in told] == ["ann", "bob"]
    assert told[0]["jkt"] != told[1]["jkt"]
    assert dpop_client().get("/v1/notes").status_code == 403


def test_a_client_calls_the_first_public_url(dpop_client: Callable[..., TestClient]) -> None:
    assert str(dpop_client().base_url) == "https://gateway.example.com"


@pytest.fixture
def closed_at_the_end() -> Generator[None]:
    # Made before the clients, so torn down after them.
    CLOSED.clear()
    yield
    assert len(CLOSED) == 1


def test_a_client_is_in_the_lifespan_until_the_test_ends(
    closed_at_the_end: None, dpop_client: Callable[..., TestClient]
) -> None:
    assert dpop_client().get("/v1/notes").status_code == 403
    assert CLOSED == []


def test_the_issuer_is_a_stand_in_for_the_servers_own(dpop_issuer: TestIssuer) -> None:
    assert dpop_issuer.issuer == "https://auth.example.com"
    assert dpop_issuer.audience == "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("conftest", "passes"), [('pytest_plugins = ["dpop_middleware.testing.fixtures"]\n', True), ("", False)]
)
def test_they_are_loaded_by_name_and_never_by_themselves(tmp_path: Path, conftest: str, passes: bool) -> None:
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "from dpop_middleware import MemoryReplayStore, ResourceServer\n"
        "@pytest.fixture\n"
        "def dpop_server():\n"
        "    return ResourceServer(issuer='https://a.example', resource='https://b.example',\n"
        "                          replay_store=MemoryReplayStore())\n"
        "def test_it(dpop_issuer):\n"
        "    assert dpop_issuer.issuer == 'https://a.example'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": str(Path(dpop_middleware.__path__[0]).parent),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    assert passes or "fixture 'dpop_issuer' not found" in done.stdout
