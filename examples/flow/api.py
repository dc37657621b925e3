"""The API: routes and a WebSocket behind DPoPMiddleware and, here only, a header with each decision."""

import contextlib
import secrets
from collections.abc import AsyncGenerator
from contextvars import ContextVar

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from dpop_middleware import (
    DPoPMiddleware,
    HMACNonceProvider,
    MemoryReplayStore,
    ResourceServer,
    WebSocketTickets,
)
from dpop_middleware.checks import Check
from dpop_middleware.events import AuthenticationEvent
from examples.flow import decisions

VAULT, LIVE = "/vault", "/live"
# No route here asks for a scope or a recent login.
NEVER_ASKED = {Check.SCOPE, Check.AUTHENTICATION}
ASKED_OF_BEARER = {Check.AUTHORIZATION, Check.TARGET, Check.BINDING}

_events: ContextVar[list[AuthenticationEvent]] = ContextVar("events")


async def accounts(request: Request) -> JSONResponse:
    """Answer with the data of the user that the access token names."""
    return JSONResponse({"user": request.user.display_name, "accounts": ["savings", "travel"]})


async def transfers(request: Request) -> JSONResponse:
    """Transfer money, as a thief would like to."""
    return JSONResponse({"user": request.user.display_name, "transferred": 1000})


async def vault(request: Request) -> JSONResponse:
    """Answer a request whose proof must have the server's nonce."""
    return JSONResponse({"user": request.user.display_name, "vault": "open"})


async def live(websocket: WebSocket) -> None:
    """Greet the user for whom the ticket was issued."""
    await websocket.accept()
    await websocket.send_text(f"hello, {websocket.user.display_name}")
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def remember(event: AuthenticationEvent) -> None:
    """Keep a decision for the response to the request that it is about, and for no other."""
    _events.get([]).append(event)


def _not_asked(event: AuthenticationEvent) -> set[Check]:
    if event.scheme == "Bearer":
        return set(Check) - ASKED_OF_BEARER
    # A proof with a nonce is judged by the nonce alone, one without by iat alone.
    return NEVER_ASKED | {Check.IAT if event.path == VAULT else Check.NONCE}


class ShowDecision:
    """Adds the decision on a request to its own response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        events: list[AuthenticationEvent] = []

        async def send_with_decision(message: Message) -> None:
            if message["type"] == "http.response.start" and events:
                MutableHeaders(scope=message)[decisions.HEADER] = decisions.of_event(
                    events[-1], not_asked=_not_asked(events[-1])
                )
            await send(message)

        token = _events.set(events)
        try:
            await self.app(scope, receive, send_with_decision)
        finally:
            _events.reset(token)


def create_app(*, issuer: str, resource: str, page: str) -> ASGIApp:
    """Build the API; the page of another origin, `page`, may call it."""
    api = ResourceServer(
        issuer=issuer,
        resource=resource,
        replay_store=MemoryReplayStore(),
        nonces=HMACNonceProvider(secrets.token_bytes(32)),
        on_event=remember,
    )
    strict = api.with_policy(nonce="required")
    tickets = WebSocketTickets(api, secrets.token_bytes(32), origins=[page])

    async def ticket(request: Request) -> JSONResponse:
        answer = {"ticket": tickets.issue(request, path=LIVE)}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with api:
            yield

    usual_routes = [
        Route("/accounts", accounts, methods=["GET", "DELETE"]),
        Route("/transfers", transfers),
        Route("/ticket", ticket, methods=["POST"]),
        WebSocketRoute(LIVE, live),
    ]
    app = Starlette(
        routes=[
            Route(VAULT, DPoPMiddleware(Starlette(routes=[Route(VAULT, vault)]), strict)),
            Mount("/", DPoPMiddleware(Starlette(routes=usual_routes), api)),
        ],
        lifespan=lifespan,
    )
    # Outermost: a preflight carries no token, and the page must be able to read refusals too.
    return CORSMiddleware(
        ShowDecision(tickets.middleware(app)),
        allow_origins=[page],
        allow_methods=["GET", "DELETE", "POST"],
        allow_headers=["Authorization", "DPoP"],
        expose_headers=["DPoP-Nonce", "WWW-Authenticate", decisions.HEADER],
    )
