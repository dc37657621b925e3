"""A WebSocket and server-sent events, which end when the access token does.

    export ISSUER=https://auth.example.com RESOURCE=http://localhost:8000
    python -m uvicorn examples.websocket.app:app

The handshake carries `Authorization` and `DPoP` fields; its proof is for `GET` and the http form of the
address: `http://localhost:8000/echo` for `ws://localhost:8000/echo`. A browser, which can't send them, gets a
ticket by `POST /ticket` and offers it as a subprotocol.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer, WebSocketTickets

api = ResourceServer(
    issuer=os.environ.get("ISSUER", "https://auth.example.com"),
    resource=os.environ.get("RESOURCE", "https://api.example.com"),
    replay_store=MemoryReplayStore(),  # for one process; several share a RedisReplayStore
)

# Several workers share one secret: read it from where you keep the others.
tickets = WebSocketTickets(api, secrets.token_bytes(32))


async def ticket(request: Request) -> JSONResponse:
    """Give the caller's page a ticket for one WebSocket."""
    answer = {"ticket": tickets.issue(request, path="/echo")}
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


async def echo(websocket: WebSocket) -> None:
    """Greet the caller, then say what the caller says."""
    await websocket.accept()
    await websocket.send_text(f"hello, {websocket.user.display_name}")
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def ticks(request: Request) -> StreamingResponse:
    """Send an event every 100 ms."""

    async def events() -> AsyncIterator[str]:
        while True:
            yield f"data: tick for {request.user.display_name}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(events(), media_type="text/event-stream")


routes = [
    Route("/ticket", ticket, methods=["POST"]),
    WebSocketRoute("/echo", echo),
    Route("/ticks", ticks),
]
app = tickets.middleware(DPoPMiddleware(Starlette(routes=routes), api, close_at_expiry=True))
