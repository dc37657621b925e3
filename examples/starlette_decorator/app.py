"""One Starlette route: the decorator protects the endpoint that it decorates, and nothing else.

    export ISSUER=https://auth.example.com RESOURCE=http://localhost:8000
    python -m uvicorn examples.starlette_decorator.app:app

Everybody may read. Writing needs a scope, and deleting also a login of the last five minutes (RFC 9470).
"""

import os

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dpop_middleware import MemoryReplayStore, ResourceServer
from dpop_middleware.starlette import requires_dpop

api = ResourceServer(
    issuer=os.environ.get("ISSUER", "https://auth.example.com"),
    resource=os.environ.get("RESOURCE", "https://api.example.com"),
    replay_store=MemoryReplayStore(),  # for one process; several share a RedisReplayStore
)
notes: list[str] = []


class Notes(HTTPEndpoint):
    """The notes that all users share."""

    async def get(self, request: Request) -> JSONResponse:
        """Return the notes to anyone."""
        return JSONResponse(notes)

    @requires_dpop(api, "notes:write")
    async def post(self, request: Request) -> JSONResponse:
        """Sign a note with the caller's name."""
        text = (await request.body()).decode()
        notes.append(f"{text} ({request.user.display_name})")
        return JSONResponse(notes, 201)

    @requires_dpop(api, "notes:write", max_age=300)
    async def delete(self, request: Request) -> JSONResponse:
        """Delete all notes."""
        notes.clear()
        return JSONResponse(notes)


app = Starlette(routes=[Route("/notes", Notes)])
