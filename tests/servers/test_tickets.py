"""Tickets on real servers: subprotocols as they are negotiated, event streams, and the access log."""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer, WebSocketTickets
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import SECRET
from tests.support.readme import text_of
from tests.support.servers import SERVERS, ServerKind, serving

PAGE = "https://app.example"
ISSUER = TestIssuer(audience="https://api.example.test")


def app_at(origin: str) -> ASGIApp:
    api = ResourceServer(
        issuer=ISSUER.issuer,
        resource="https://api.example.test",
        public_url=origin,
        jwks=ISSUER.jwks(),
        replay_store=MemoryReplayStore(),
    )
    tickets = WebSocketTickets(api, SECRET, origins=[PAGE], query_parameter="ticket")

    async def ticket(request: Request) -> Response:
        return JSONResponse({"ticket": tickets.issue(request, path=request.query_params["path"])})

    async def echo(websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol=offered[0] if offered else None)
        await websocket.send_text(websocket.user.display_name)
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async def events(request: Request) -> Response:
        return Response(f"data: {request.user.display_name}\n\n", media_type="text/event-stream")

    routes = [
        Route("/ticket", ticket, methods=["POST"]),
        WebSocketRoute("/echo", echo),
        Route("/events", events),
    ]
    return tickets.middleware(DPoPMiddleware(Starlette(routes=routes), api))


class Page:
    """A page, without its browser."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def ticket(self, path: str, **claims: Any) -> str:
        url = f"{self.origin}/ticket"
        auth = ISSUER.auth(sub="ann", **claims)
        answer = httpx2.post(url, params={"path": path}, headers={"Origin": PAGE}, auth=auth, trust_env=False)
        return str(answer.raise_for_status().json()["ticket"])

    def socket(self, ticket: str, *offered: Any, query: str = "") -> Any:
        protocols: Any = [*offered, *([f"dpop.ticket.{ticket}"] if ticket else [])]
        url = self.origin.replace("http", "ws", 1) + f"/echo{query}"
        return connect(url, subprotocols=protocols or None, origin=Origin(PAGE), proxy=None)


@pytest.fixture(scope="module", params=SERVERS)
def page(request: pytest.FixtureRequest) -> Generator[Page]:
    with serving(request.param, app_at) as origin:
        yield Page(origin)


@pytest.mark.parametrize("offered", [["dpop.ticket"], ["notes.v2"], ["notes.v2", "dpop.ticket"]])
def test_a_real_subprotocol_is_negotiated_beside_the_ticket(page: Page, offered: list[str]) -> None:
    with page.socket(page.ticket("/echo"), *offered) as socket:
        assert socket.subprotocol == offered[0]
        assert socket.recv() == "ann"
        socket.send("hello")
        assert socket.recv() == "hello"


def test_a_ticket_that_was_used_is_refused_as_a_request_is(page: Page) -> None:
    ticket = page.ticket("/echo")
    with page.socket(ticket, "dpop.ticket") as socket:
        assert socket.recv() == "ann"
    for used in (ticket, ticket[:-1], "forged"):
        with pytest.raises(InvalidStatus) as refused, page.socket(used, "dpop.ticket"):
            pass
        assert refused.value.response.status_code == 401
        assert 'error="invalid_token"' in refused.value.response.headers["WWW-Authenticate"]
        assert ticket not in str(refused.value.response)


def test_the_connection_is_closed_at_the_tokens_expiry(page: Page) -> None:
    with page.socket(page.ticket("/echo", exp=time.time() + 5), "dpop.ticket") as socket:
        assert socket.recv() == "ann"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the access token has expired")


def test_an_event_source_has_its_ticket_in_the_url(page: Page) -> None:
    url = f"{page.origin}/events?ticket={page.ticket('/events')}"
    fields = {"Accept": "text/event-stream", "Origin": PAGE}
    answers = [httpx2.get(url, headers=fields, trust_env=False) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert answers[0].text == "data: ann\n\n"


UVICORN: list[ServerKind] = ["uvicorn-httptools", "uvicorn-h11"]


@contextmanager
def logging_uvicorn(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> Generator[Page]:
    """Serve by uvicorn; what it logs until it has stopped is in `caplog`."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.access", "uvicorn.error")]
    try:
        with serving(kind, app_at) as origin:
            for logger in loggers:
                logger.setLevel(logging.INFO)
                logger.addHandler(caplog.handler)
            yield Page(origin)
    finally:
        for logger in loggers:
            logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("kind", UVICORN)
def test_the_access_log_of_uvicorn_has_no_ticket(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> None:
    with logging_uvicorn(kind, caplog) as page:
        ticket = page.ticket("/events")
        fields = {"Accept": "text/event-stream", "Origin": PAGE}
        for _ in range(2):
            httpx2.get(f"{page.origin}/events?a=1&ticket={ticket}", headers=fields, trust_env=False)
        for_socket = page.ticket("/echo")
        with page.socket("", query=f"?ticket={for_socket}") as socket:
            assert socket.recv() == "ann"
    assert '"GET /events?a=1 HTTP/1.1" 200' in caplog.text
    assert '"GET /events?a=1 HTTP/1.1" 401' in caplog.text
    assert '"WebSocket /echo" [accepted]' in caplog.text
    assert ticket not in caplog.text
    assert for_socket not in caplog.text


@pytest.mark.parametrize("kind", UVICORN)
def test_the_chapter_names_every_error_that_uvicorn_logs_of_a_refused_handshake(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    with logging_uvicorn(kind, caplog) as page:
        with pytest.raises(InvalidStatus) as refused, page.socket("forged", "dpop.ticket"):
            pass
        assert refused.value.response.status_code == 401
    assert '"WebSocket /echo" 401' in caplog.text
    errors = {record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR}
    chapter = " ".join(text_of("examples/websocket/README.md").split())
    assert [error for error in errors if error not in chapter] == []
