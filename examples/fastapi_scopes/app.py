"""FastAPI: each route names its scopes, and OpenAPI shows them.

    export ISSUER=https://auth.example.com RESOURCE=http://localhost:8000
    python -m uvicorn examples.fastapi_scopes.app:app

The documentation is at /docs, and public: its page signs what you try out. No middleware is needed.
"""

import os
from typing import Annotated

from fastapi import FastAPI, Security

from dpop_middleware import AccessToken, MemoryReplayStore, ResourceServer
from dpop_middleware.fastapi import DPoPHTTPException, DPoPSecurity, dpop_exception_handler, swagger_ui

api = ResourceServer(
    issuer=os.environ.get("ISSUER", "https://auth.example.com"),
    resource=os.environ.get("RESOURCE", "https://api.example.com"),
    replay_store=MemoryReplayStore(),  # for one process; several share a RedisReplayStore
)
dpop = DPoPSecurity(api)
Reader = Annotated[AccessToken, Security(dpop, scopes=["notes:read"])]
Writer = Annotated[AccessToken, Security(dpop, scopes=["notes:write"])]

app = FastAPI(title="Notes")
app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
swagger_ui(app)
notes: dict[str, list[str]] = {}


@app.get("/notes")
async def read_notes(token: Reader) -> list[str]:
    """Return the caller's notes."""
    return notes.get(token.identity, [])


@app.post("/notes", status_code=201)
async def write_note(text: str, token: Writer) -> list[str]:
    """Add a note, and return them all."""
    notes.setdefault(token.identity, []).append(text)
    return notes[token.identity]
