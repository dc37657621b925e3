"""Around any ASGI application: the application itself knows nothing about DPoP.

    export ISSUER=https://auth.example.com RESOURCE=http://localhost:8000
    python -m uvicorn examples.any_asgi.app:app

`GET /notes` needs an access token and a proof, `GET /health` needs nothing.
"""

import os

from starlette.types import Receive, Scope, Send

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer

api = ResourceServer(
    issuer=os.environ.get("ISSUER", "https://auth.example.com"),
    resource=os.environ.get("RESOURCE", "https://api.example.com"),
    replay_store=MemoryReplayStore(),  # for one process; several share a RedisReplayStore
)


async def notes(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer any request, and name the user."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    verified = scope.get("dpop")  # absent on public paths
    body = f"notes of {verified.access_token.identity}" if verified else "in good health"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


app = DPoPMiddleware(notes, api, public_paths=["/health"])
