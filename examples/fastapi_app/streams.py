"""What is longer than a request and an answer: an upload, an event stream and a WebSocket."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse

from examples.fastapi_app.security import Reader, Writer, api

__all__ = ["router"]

router = APIRouter(tags=["streams"])
_LARGEST_UPLOAD = 10 * 1024 * 1024


@router.put("/files/{name}")
async def upload(name: str, request: Request, token: Writer) -> dict[str, str | int]:
    """Take a file.

    It is read here, piece by piece: FastAPI reads the body of an `UploadFile` parameter before it looks at
    credentials.
    """
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        size += len(piece)
        if size > _LARGEST_UPLOAD:
            raise HTTPException(413, "a file may have 10 MiB")
        digest.update(piece)
    return {"name": name, "owner": token.identity, "size": size, "sha256": digest.hexdigest()}


@router.get("/ticks")
async def ticks(token: Reader) -> StreamingResponse:
    """Send an event every 100 ms, for as long as the access token is good."""

    async def events() -> AsyncIterator[str]:
        with suppress(TimeoutError):
            async with asyncio.timeout(api.seconds_left(token)):
                while True:
                    yield f"data: tick for {token.identity}\n\n"
                    await asyncio.sleep(0.1)

    return StreamingResponse(events(), media_type="text/event-stream")


@router.websocket("/echo")
async def echo(websocket: WebSocket, token: Reader) -> None:
    """Say what the caller says, for as long as the access token is good."""
    await websocket.accept()
    try:
        async with asyncio.timeout(api.seconds_left(token)):
            async for text in websocket.iter_text():
                await websocket.send_text(f"{token.identity}: {text}")
    except TimeoutError:
        await websocket.close(1008, "the access token has expired")
