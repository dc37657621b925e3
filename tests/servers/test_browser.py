"""The README's CORS lines in a real browser: a page on another origin, with a key of its own, calls us."""

import json
import logging
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, HMACNonceProvider, MemoryReplayStore, ResourceServer
from dpop_middleware.jose.jwk import thumbprint
from dpop_middleware.policy import DPoPPolicy
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import SECRET
from tests.support.browser import CHROMIUM, chromium
from tests.support.servers import serving

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
    ),
    pytest.mark.slow,
]

ISSUER = TestIssuer(audience="https://api.example.test")


async def notes(request: Request) -> Response:
    return PlainTextResponse(f"notes of {request.user.display_name}")


def api_at(origin: str) -> DPoPMiddleware:
    api = ResourceServer(
        issuer=ISSUER.issuer,
        resource="https://api.example.test",
        public_url=origin,
        jwks=ISSUER.jwks(),
        replay_store=MemoryReplayStore(),
        nonces=HMACNonceProvider(SECRET),
        policy=DPoPPolicy(nonce="required"),
    )
    return DPoPMiddleware(Starlette(routes=[Route("/notes", notes, methods=["GET", "PUT"])]), api)


def with_cors_outside(app: ASGIApp) -> ASGIApp:
    """The lines of the README."""
    return CORSMiddleware(
        app,
        allow_origins=["*"],
        allow_methods=["GET", "PUT"],
        allow_headers=["Authorization", "DPoP"],
        expose_headers=["DPoP-Nonce", "WWW-Authenticate"],
    )


def with_cors_inside(app: ASGIApp) -> ASGIApp:
    assert isinstance(app, DPoPMiddleware)
    return DPoPMiddleware(with_cors_outside(app.app), app.resource_server)


class Site:
    """The page's own origin: gives it a token for its key, and takes its results."""

    def __init__(self, api: str) -> None:
        self._api = api
        self.results: queue.Queue[dict[str, Any]] = queue.Queue()

    def app(self, _origin: str) -> Starlette:
        page = Path(__file__).with_name("page.html")
        return Starlette(
            routes=[
                Route("/", lambda request: FileResponse(page, media_type="text/html")),
                Route("/config", self.config, methods=["POST"]),
                Route("/results", self.take, methods=["POST"]),
            ]
        )

    async def config(self, request: Request) -> Response:
        token = ISSUER.token(jkt=thumbprint(await request.json()))
        return JSONResponse({"api": self._api, "token": token})

    async def take(self, request: Request) -> Response:
        self.results.put(json.loads(await request.body()))
        return Response()


@pytest.fixture
def visit(tmp_path: Path) -> Callable[[Any], dict[str, Any]]:
    def visited(wrap: Any) -> dict[str, Any]:
        with serving("uvicorn-httptools", lambda origin: wrap(api_at(origin))) as api:
            site = Site(api)
            with (
                serving("uvicorn-httptools", site.app) as origin,
                chromium(f"{origin}/", tmp_path / "profile"),
            ):
                return site.results.get(timeout=30)

    return visited


def test_with_cors_outside_the_browser_reads_answers_and_nonces(visit: Any) -> None:
    results = visit(with_cors_outside)
    assert results["extractable"] is False
    first, second, put = results["first"], results["second"], results["put"]
    assert first["status"] == 401
    assert 'error="use_dpop_nonce"' in first["challenge"]
    assert first["nonce"]
    assert (second["status"], second["body"]) == (200, "notes of user123")
    assert (put["status"], put["body"]) == (200, "notes of user123")
    assert results["without_token"]["status"] == 401
    assert results["without_token"]["challenge"].startswith("DPoP algs=")


def test_with_cors_inside_every_request_of_the_browser_fails(
    visit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        results = visit(with_cors_inside)
    for name in ("first", "second", "put", "without_token"):
        assert "Failed to fetch" in results[name]["error"], results[name]
    assert [message for message in caplog.messages if "CORSMiddleware is inside" in message]
