"""A real HTTP server that answers as a test says and records the requests, and the four kinds of client."""

import asyncio
import functools
import inspect
import json
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import httpx2
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa

from dpop_middleware.client import DPoPKey
from dpop_middleware.jose import base64url

# Plain http on loopback needs none, and loading all public ones takes longer than a test.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENTS = ("httpx2-sync", "httpx2-async", "httpx-sync", "httpx-async")


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Return the one key of all RSA algorithms: making one is slow."""
    return rsa.generate_private_key(65537, 2048)


def key_for(algorithm: str) -> DPoPKey:
    """Return a client's key for `algorithm`."""
    if algorithm[:2] in ("RS", "PS"):
        return DPoPKey(rsa_key(), algorithm=algorithm)
    return DPoPKey.generate(algorithm)


def decoded(proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of a proof, not verified."""
    header, claims, _ = proof.split(".")
    return json.loads(base64url.decode(header)), json.loads(base64url.decode(claims))


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for field_name, value in self.headers if field_name == name.lower()]

    @property
    def proof(self) -> dict[str, Any]:
        """The claims of the one proof, not verified."""
        (value,) = self.all("dpop")
        return dict(json.loads(base64url.decode(value.split(".")[1])))

    @property
    def bare(self) -> bool:
        return not self.all("dpop") and not self.all("authorization")


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    body: bytes = b""


Handler = Callable[[Seen], Answer]


async def awaited(answer: Any) -> Any:
    """What a function of a sync client or of an async one answers."""
    return await answer if inspect.isawaitable(answer) else answer


@dataclass
class LoopbackServer:
    """`origin` is where it listens; `seen` holds every request, in order."""

    origin: str
    seen: list[Seen] = field(default_factory=list)


def asgi_app(handler: Handler, seen: list[Seen]) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        request = Seen(
            scope["method"],
            scope["raw_path"].decode() + ("?" + scope["query_string"].decode()) * bool(scope["query_string"]),
            tuple((name.decode(), value.decode()) for name, value in scope["headers"]),
            body,
        )
        seen.append(request)
        answer = handler(request)
        pairs = answer.headers.items() if isinstance(answer.headers, Mapping) else answer.headers
        headers = [(name.encode(), value.encode()) for name, value in pairs]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    return app


@contextmanager
def running(app: Any) -> Generator[str]:
    """Serve `app` by uvicorn in a thread, on a free port of 127.0.0.1; yield its origin."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", http="h11", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = 60.0
        while not server.started and thread.is_alive() and deadline > 0:
            threading.Event().wait(0.01)
            deadline -= 0.01
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


class Loopback:
    """Lends real servers to one test after another: starting and stopping each takes a while."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._idle: list[_Lent] = []

    @contextmanager
    def answering(self, handler: Handler) -> Generator[LoopbackServer]:
        """Serve `handler` on an origin of its own, until the end of the block."""
        lent = self._idle.pop() if self._idle else self._started()
        lent.handler, lent.seen = handler, []
        try:
            yield LoopbackServer(lent.origin, lent.seen)
        finally:
            self._idle.append(lent)

    def _started(self) -> "_Lent":
        lent = _Lent()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asgi_app(lent.handler, lent.seen)(scope, receive, send)

        lent.origin = self._stack.enter_context(running(app))
        return lent

    def close(self) -> None:
        self._stack.close()


@dataclass
class _Lent:
    origin: str = ""
    handler: Handler = field(default=lambda _: Answer())
    seen: list[Seen] = field(default_factory=list)


Answering = Callable[[Handler], AbstractContextManager[LoopbackServer]]


class Caller:
    """Makes requests with one of the four kinds of client, with one interface for all."""

    def __init__(self, kind: str, client: Any) -> None:
        self.kind = kind
        self.client = client

    @property
    def is_async(self) -> bool:
        return self.kind.endswith("-async")

    def stream(self) -> Any:
        """A body of this client in two parts, which can be read once."""

        async def parts() -> AsyncGenerator[bytes]:
            yield b"one "
            yield b"two"

        return parts() if self.is_async else iter([b"one ", b"two"])

    async def request(self, method: str, url: str, **arguments: Any) -> Any:
        if self.is_async:
            return await self.client.request(method, url, **arguments)
        return await asyncio.to_thread(self.client.request, method, url, **arguments)

    async def send(self, request: Any, **arguments: Any) -> Any:
        if self.is_async:
            return await self.client.send(request, **arguments)
        return await asyncio.to_thread(self.client.send, request, **arguments)


@asynccontextmanager
async def caller(kind: str, **arguments: Any) -> AsyncGenerator[Caller]:
    """Open a client of `kind`, one of CLIENTS, that ignores the environment's proxies."""
    module: Any = httpx2 if kind.startswith("httpx2") else httpx
    arguments = {"verify": NO_AUTHORITIES, **arguments}
    if kind.endswith("-async"):
        async with module.AsyncClient(trust_env=False, **arguments) as client:
            yield Caller(kind, client)
    else:
        with module.Client(trust_env=False, **arguments) as client:
            yield Caller(kind, client)


CHALLENGE = {"www-authenticate": 'DPoP error="use_dpop_nonce"'}
JSON = {"content-type": "application/json"}


def demanding(nonce: str) -> Handler:
    """A resource server that requires `nonce`."""

    def handler(seen: Seen) -> Answer:
        if not seen.bare and seen.proof.get("nonce") == nonce:
            return Answer(200, {}, seen.body)
        return Answer(401, CHALLENGE | {"dpop-nonce": nonce})

    return handler


def issuing(token_type: str = "DPoP", nonce: str | None = None, status: int = 200) -> Handler:
    """A token endpoint that requires `nonce`, if any."""

    def handler(seen: Seen) -> Answer:
        if nonce is not None and seen.proof.get("nonce") != nonce:
            return Answer(400, JSON | {"dpop-nonce": nonce}, b'{"error": "use_dpop_nonce"}')
        token = {"access_token": "token", "token_type": token_type, "expires_in": 60}
        return Answer(status, JSON, json.dumps(token).encode())

    return handler
