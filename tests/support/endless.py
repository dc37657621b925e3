"""A server whose answers are longer than anybody should read."""

import asyncio
from typing import Any

PART = bytes(range(256)) * 64
# Far more than all buffers in between hold.
PARTS = 4096


class Endless:
    """An application whose answers (nearly) never end, except at `/good`; `most` is how much was sent."""

    def __init__(self) -> None:
        self.status = 401
        self.headers: dict[str, str] = {}
        self.most = 0
        self.origin = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/good":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"good"})
            return
        left = asyncio.ensure_future(receive())
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for parts in range(PARTS):
            if left.done():
                break
            await send({"type": "http.response.body", "body": PART, "more_body": True})
            self.most = max(self.most, parts + 1)
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})
        left.cancel()
