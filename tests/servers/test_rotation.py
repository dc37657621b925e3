"""Issuers that rotate their keys while clients and forgers send requests to a real server."""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.tokens.admission import MAX_UNAVAILABLE, UNAVAILABLE_PER_SECOND
from tests.support.issuer_server import METADATA, IssuerServer, json_answer
from tests.support.issuer_tokens import IssuerKey, issuer_key, key_set
from tests.support.servers import serving

CLIENTS = 8
FORGERS = 40
ROTATIONS = 6


class Issuer:
    """Publishes the last few of its keys, and signs with the last two from the moment they are published."""

    def __init__(self, server: IssuerServer) -> None:
        self._server = server
        self.origin = server.origin
        self.keys: list[IssuerKey] = []
        self.accepted: Counter[str | None] = Counter()
        self.rotate()
        server.handlers[METADATA] = lambda _: json_answer(
            {"issuer": server.origin, "jwks_uri": f"{server.origin}/jwks"}
        )
        server.handlers["/jwks"] = lambda _: json_answer(key_set(*self.keys))

    @property
    def fetches(self) -> int:
        return self._server.targets.count("/jwks")

    def rotate(self) -> IssuerKey:
        """The new key is published when it is first used, and no earlier."""
        new = issuer_key("ES256", kid=f"key-{secrets.token_hex(8)}")
        self.keys = [*self.keys[-3:], new]
        return new

    async def until_used(self, key: IssuerKey) -> None:
        """Wait until each client may well have had a token of `key` accepted."""
        async with asyncio.timeout(60):
            while self.accepted[key.kid] < 2 * CLIENTS:
                await asyncio.sleep(0.005)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with IssuerServer() as server:
        yield Issuer(server)


@pytest.fixture
def api(issuer: Issuer) -> Iterator[str]:
    def app_at(origin: str) -> ASGIApp:
        server = ResourceServer(
            issuer=issuer.origin, resource=origin, replay_store=MemoryReplayStore(max_share=1)
        )
        return DPoPMiddleware(hello, server)

    with serving("uvicorn-httptools", app_at) as origin:
        yield origin


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@asynccontextmanager
async def asking(asks: list[Any]) -> AsyncGenerator[None]:
    tasks = [asyncio.create_task(ask) for ask in asks]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]


class Requests:
    """Continuous requests to one server, and their answers."""

    def __init__(self, client: httpx2.AsyncClient, origin: str, issuer: Issuer) -> None:
        self._client = client
        self._url = f"{origin}/hello"
        self._issuer = issuer
        self.of_clients: Counter[int] = Counter()
        self.of_forgers: Counter[int] = Counter()

    async def client(self) -> None:
        key = DPoPKey.generate()
        while True:
            signer = random.choice(self._issuer.keys[-2:])
            status = await self._ask(key, signer, header={})
            self.of_clients[status] += 1
            if status == 200:
                self._issuer.accepted[signer.kid] += 1

    async def forged(self) -> None:
        key, forger = DPoPKey.generate(), issuer_key("ES256", kid="forger")
        while True:
            kid = secrets.token_hex(8)
            self.of_forgers[await self._ask(key, forger, header={"kid": kid})] += 1

    async def _ask(self, key: DPoPKey, signer: IssuerKey, *, header: dict[str, Any]) -> int:
        token = signer.token(
            header=header,
            iss=self._issuer.origin,
            aud=self._url.removesuffix("/hello"),
            jti=secrets.token_hex(8),
            cnf={"jkt": key.jkt},
        )
        proof = key.proof("GET", self._url, access_token=token)
        answer = await self._client.get(self._url, headers={"Authorization": f"DPoP {token}", "DPoP": proof})
        return answer.status_code


@pytest.mark.slow
@pytest.mark.parametrize("forgers", [0, FORGERS], ids=["alone", "beside forgers"])
async def test_no_valid_token_is_refused_while_keys_rotate(api: str, issuer: Issuer, forgers: int) -> None:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(limits=limits, timeout=30, trust_env=False) as client:
        requests = Requests(client, api, issuer)
        begun = time.monotonic()
        asks = [requests.client() for _ in range(CLIENTS)] + [requests.forged() for _ in range(forgers)]
        async with asking(asks):
            await issuer.until_used(issuer.keys[-1])
            for _ in range(ROTATIONS):
                await issuer.until_used(issuer.rotate())
        seconds = time.monotonic() - begun
    assert set(requests.of_clients) <= {200, 503}
    assert set(requests.of_forgers) <= {401, 503}
    unavailable = requests.of_clients[503] + requests.of_forgers[503]
    assert unavailable <= MAX_UNAVAILABLE + UNAVAILABLE_PER_SECOND * seconds
    # The first one, two a second at most for unknown keys, and one more for a beginning second.
    assert issuer.fetches <= 2 + 2 * (seconds + 1)
    if not forgers:
        assert issuer.fetches >= 1 + ROTATIONS
