"""The page on which a person plays the client: static files, and what it must know of the two servers."""

import secrets
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.flow.authorization_server import CLIENT_ID
from examples.flow.decisions import EXPLANATIONS

STATIC = Path(__file__).parent / "static"


class SecurityHeaders:
    """Lets the page connect to the two servers only, and run its own scripts only."""

    def __init__(self, app: ASGIApp, *, connect: str) -> None:
        self.app = app
        self._policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            f"connect-src 'self' {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = self._policy
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Cache-Control"] = "no-cache"
            await send(message)

        await self.app(scope, receive, send_with_headers)


def create_app(*, issuer: str, resource: str) -> ASGIApp:
    """Build the page's server."""
    instance = secrets.token_hex(8)

    async def settings(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "issuer": issuer,
                "resource": resource,
                "clientId": CLIENT_ID,
                "instance": instance,
                "explanations": {check.value: text for check, text in EXPLANATIONS.items()},
            }
        )

    app = Starlette(
        routes=[
            Route("/settings.json", settings),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ]
    )
    websocket = resource.replace("http", "ws", 1)
    return SecurityHeaders(app, connect=f"{issuer} {resource} {websocket}")
