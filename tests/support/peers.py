"""Third-party DPoP clients behind one interface, and a real server of this library for them to call."""

import itertools
import json
import time
from collections.abc import Callable, Generator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol, Self

import requests
import requests_oauth2client
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dpop_middleware import DPoPMiddleware, DPoPPolicy, HMACNonceProvider, MemoryReplayStore, ResourceServer
from dpop_middleware.starlette import requires_dpop
from dpop_middleware.testing import TestIssuer
from tests.support.clients import running
from tests.support.node import NodePeer

__all__ = ["NPM_CLIENTS", "RESOURCE", "Client", "NodeClient", "PythonClient", "Served", "protected"]

RESOURCE = "https://api.example.com"
NPM_CLIENTS = ("openid-client", "@atproto/oauth-client")

_numbers = itertools.count(1)


@cache
def _rsa() -> rsa.RSAPrivateKey:
    """Return the only RSA key of the Python clients: making one is slow."""
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Answered:
    """The result that a client returned to its caller; `challenges` are those that it parsed, if it does."""

    status: int
    body: str | None
    challenges: list[dict[str, Any]] | None = None

    @property
    def read(self) -> list[tuple[str, str | None]] | None:
        """The scheme and the error code of each challenge, as the client read them."""
        if self.challenges is None:
            return None
        return [(challenge["scheme"], challenge["parameters"].get("error")) for challenge in self.challenges]

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body or "{}"))


class Client(Protocol):
    """A client with a key of its own, which remembers nonces as in real use."""

    jkt: str

    def call(self, token: str, method: str, url: str, body: str | None = None) -> Answered: ...


class NodeClient:
    """openid-client or @atproto/oauth-client (npm), with one key."""

    def __init__(
        self, peer: NodePeer, kind: str, *, algorithm: str = "ES256", issuer: str | None = None
    ) -> None:
        self.peer = peer
        self._name = next(_numbers)
        self.jkt: str = self._ask("create", kind=kind, algorithm=algorithm, issuer=issuer)

    def call(self, token: str, method: str, url: str, body: str | None = None) -> Answered:
        return Answered(**self._ask("call", token=token, method=method, url=url, body=body))

    def token(self, *, resource: str, scope: str) -> dict[str, Any]:
        """Return the token response to a client credentials grant."""
        return dict(self._ask("token", resource=resource, scope=scope))

    def _ask(self, do: str, **arguments: Any) -> Any:
        return self.peer.ask(do, client=self._name, **arguments)


class PythonClient:
    """requests-oauth2client (PyPI), with one key."""

    def __init__(self, key: requests_oauth2client.DPoPKey) -> None:
        self.key = key
        self.jkt: str = key.dpop_jkt

    @classmethod
    def generate(cls, algorithm: str) -> Self:
        if algorithm[:2] in ("RS", "PS"):
            return cls(requests_oauth2client.DPoPKey(_rsa(), alg=algorithm))
        return cls(requests_oauth2client.DPoPKey.generate(algorithm))

    def call(self, token: str, method: str, url: str, body: str | None = None) -> Answered:
        auth = requests_oauth2client.DPoPToken(token, _dpop_key=self.key)
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(method, url, data=body, auth=auth, timeout=60)
            return Answered(response.status_code, response.text)


@dataclass
class Served:
    """A protected API under uvicorn.

    `statuses` are those of its answers, in order; `ahead` is by how many seconds its clock is fast.
    """

    origin: str = ""
    ahead: float = 0
    issuer: TestIssuer = field(default_factory=lambda: TestIssuer(audience=RESOURCE))
    statuses: list[int] = field(default_factory=list)

    def token(self, jkt: str) -> str:
        return self.issuer.token(jkt=jkt, scopes=["notes:read"], expires_in=3600)


async def _echo(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "query": request.scope["query_string"].decode(),
            "body": (await request.body()).decode(),
            "sub": request.user.identity,
        }
    )


@contextmanager
def protected(policy: DPoPPolicy = DPoPPolicy(), *, issuer: str | None = None) -> Generator[Served]:
    """Serve an API that echoes what it is asked at any path; `/write` needs the scope `notes:write`.

    Tokens are those of `Served.issuer`, or those of the issuer named, whose keys are discovered.
    """
    served = Served()
    app: Callable[..., Any] | None = None

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                served.statuses.append(message["status"])
            await send(message)

        assert app is not None
        await app(scope, receive, counted)

    # Our server must know by which URL it is called, and that is known once it listens.
    with running(counting) as served.origin:
        api = ResourceServer(
            issuer=served.issuer.issuer if issuer is None else issuer,
            jwks=served.issuer.jwks() if issuer is None else None,
            resource=RESOURCE,
            public_url=served.origin,
            replay_store=MemoryReplayStore(),
            policy=policy,
            nonces=None if policy.nonce == "off" else HMACNonceProvider(bytes(32)),
            clock=lambda: time.time() + served.ahead,
        )
        routes = [
            Route("/write", requires_dpop(api, "notes:write")(_echo), methods=["GET", "POST"]),
            Route("/{path:path}", _echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]
        app = DPoPMiddleware(Starlette(routes=routes), api)
        yield served
