"""One request to an ASGI application, by hand: scopes that no server would build can be sent too."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "call"]

Message = MutableMapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the application sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of every header line of that name."""
        return [value for header, value in self.headers if header == name]

    @property
    def challenges(self) -> list[str]:
        """Return the values of `WWW-Authenticate`."""
        return self.values("www-authenticate")


async def call(app: Callable[..., Awaitable[None]], scope: dict[str, Any], body: bytes = b"") -> Answer:
    """Send one request with `body` to `app` and return its answer."""
    sent: list[Message] = []

    asked = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not asked:
            await asyncio.Event().wait()
        return asked.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = next(message for message in sent if message["type"].endswith("http.response.start"))
    return Answer(
        status=start["status"],
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]),
        body=b"".join(message["body"] for message in sent if message["type"].endswith("http.response.body")),
    )
