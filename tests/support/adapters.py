"""A resource server for the tests of the framework adapters, and requests to it: scopes or header fields."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpop_middleware import HMACNonceProvider, MemoryReplayStore, ReplayEntry, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.support.clock import Clock

__all__ = [
    "ORIGIN",
    "SECRET",
    "CountingStore",
    "Fields",
    "World",
    "answers_to_handshake",
    "reached",
    "scope_of",
    "whoami",
]

ORIGIN = "https://api.example.test"
SECRET = bytes(range(32))

Fields = list[tuple[str, str]]


class CountingStore(MemoryReplayStore):
    """Counts how often it was asked, opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.opened = 0
        self.closed = 0

    async def add(self, entry: ReplayEntry) -> bool:
        self.asked += 1
        return await super().add(entry)

    async def open(self) -> None:
        self.opened += 1

    async def aclose(self) -> None:
        self.closed += 1


class World:
    """An issuer, a client with a key, a clock, a replay store, and resource servers that share them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = CountingStore()
        self.issuer = TestIssuer(clock=self.clock)
        self.key = DPoPKey.generate()

    def server(self, made: type[ResourceServer] = ResourceServer, /, **options: Any) -> ResourceServer:
        arguments: dict[str, Any] = {
            "issuer": self.issuer.issuer,
            "resource": ORIGIN,
            "jwks": self.issuer.jwks(),
            "replay_store": self.store,
            "clock": self.clock,
        }
        return made(**{**arguments, **options})

    def nonces(self) -> HMACNonceProvider:
        return HMACNonceProvider(SECRET)

    def token(self, scopes: Iterable[str] = (), **claims: Any) -> str:
        arguments: dict[str, Any] = {"jkt": self.key.jkt, **claims}
        return self.issuer.token(scopes=scopes, **arguments)

    def fields(
        self,
        url: str,
        *,
        method: str = "GET",
        scopes: Iterable[str] = (),
        nonce: str | None = None,
        token: str | None = None,
        **claims: Any,
    ) -> Fields:
        """Return the header fields of a good request to `url`, or to that path at ORIGIN."""
        access_token = self.token(scopes, **claims) if token is None else token
        url = ORIGIN + url if url.startswith("/") else url
        proof = self.key.proof(method, url, access_token=access_token, nonce=nonce, now=self.clock())
        return [("Authorization", f"DPoP {access_token}"), ("DPoP", proof)]

    def headers(self, url: str, **arguments: Any) -> dict[str, str]:
        return dict(self.fields(url, **arguments))


def scope_of(
    path: str, fields: Fields | None = None, *, method: str = "GET", **changes: Any
) -> dict[str, Any]:
    """Return the scope of a request to a percent-encoded path, changed as asked."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields or ()]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"api.example.test"), *headers],
        "extensions": {},
        **changes,
    }


async def reached(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers that it was reached."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"reached"})


async def whoami(request: Request) -> JSONResponse:
    """Answer with the identity of the caller."""
    verified = request.scope.get("dpop")
    return JSONResponse(
        {
            "user": request.user.display_name,
            "authenticated": request.user.is_authenticated,
            "scopes": request.auth.scopes,
            "jkt": verified.access_token.jkt if verified else None,
        }
    )


async def answers_to_handshake(app: ASGIApp, extensions: dict[str, Any]) -> list[Message]:
    """Return what `app` answers to a WebSocket's handshake at `/ws` without credentials, before it reads."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    await app(scope_of("/ws", type="websocket", subprotocols=[], extensions=extensions), receive, send)
    return sent
