"""An issuer of opaque tokens on loopback: metadata, keys, an introspection endpoint that can misbehave."""

import json
import secrets
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import time
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError
from dpop_middleware.introspection import IntrospectionVerifier
from dpop_middleware.jose import base64url
from tests.support.servers import serving

__all__ = [
    "API",
    "PATIENT",
    "IssuerOfOpaqueTokens",
    "Question",
    "answers",
    "issuing",
    "refusal",
    "signed_jwt",
]

API = "https://api.example.test"


@dataclass(frozen=True)
class Question:
    """One question as it arrived: the form and the header fields, in lower case."""

    form: Mapping[str, str]
    headers: Mapping[str, str]


Behaviour = Callable[[Question], Awaitable[Response | None]]


def answers(status: int = 200, body: bytes = b"{}", **headers: str) -> Behaviour:
    """Return the behaviour of a server that gives the same answer to every question."""

    async def behave(_question: Question) -> Response:
        fields = {"Content-Type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}
        return Response(body, status_code=status, headers=fields)

    return behave


def signed_jwt(key: DPoPKey, claims: Mapping[str, Any], *, kid: str | None = "1", **header: Any) -> str:
    head = {"typ": "token-introspection+jwt", "alg": key.algorithm, "kid": kid} | header
    signing_input = ".".join(base64url.encode(json.dumps(part).encode()) for part in (head, dict(claims)))
    return f"{signing_input}.{base64url.encode(key.sign(signing_input.encode()))}"


@dataclass
class IssuerOfOpaqueTokens:
    """The server's tokens and its behaviour: `behaves` may answer in another way, or not at all.

    `describes` answers instead of the metadata.
    """

    origin: str
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    behaves: Behaviour | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    describes: Callable[[], Awaitable[Response]] | None = None
    key: DPoPKey = field(default_factory=DPoPKey.generate)
    kid: str = "1"

    @property
    def endpoint(self) -> str:
        return f"{self.origin}/introspect"

    def issue(self, jkt: str | None = None, **claims: Any) -> str:
        """Make an opaque token; a claim of None is left out."""
        token = secrets.token_urlsafe(24)
        said: dict[str, Any] = {
            "active": True,
            "iss": self.origin,
            "aud": API,
            "sub": "ann",
            "client_id": "app",
            "scope": "notes:read",
            "exp": int(time()) + 600,
            "token_type": "Bearer" if jkt is None else "DPoP",
        }
        if jkt is not None:
            said["cnf"] = {"jkt": jkt}
        self.tokens[token] = {name: value for name, value in (said | claims).items() if value is not None}
        return token

    def says(self, token: str) -> dict[str, Any]:
        return self.tokens.get(token, {"active": False})

    def asked_about(self, token: str) -> int:
        return sum(question.form.get("token") == token for question in self.asked)

    async def _introspect(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        question = Question(form, dict(request.headers))
        self.asked.append(question)
        if self.behaves is not None and (answer := await self.behaves(question)) is not None:
            return answer
        return JSONResponse(self.says(form.get("token", "")))

    async def _describe(self, request: Request) -> Response:
        self.requests.append(request.url.path)
        if self.describes is not None:
            return await self.describes()
        said = {
            "issuer": self.origin,
            "introspection_endpoint": self.endpoint,
            "jwks_uri": f"{self.origin}/jwks",
        }
        return JSONResponse(said | self.metadata)

    async def _keys(self, request: Request) -> Response:
        self.requests.append(request.url.path)
        return JSONResponse({"keys": [self.key.public_jwk | {"kid": self.kid, "alg": self.key.algorithm}]})

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/introspect", self._introspect, methods=["POST"]),
                Route("/moved", self._introspect, methods=["POST"]),
                Route("/.well-known/oauth-authorization-server", self._describe),
                Route("/jwks", self._keys),
                Route("/.well-known/oauth-authorization-server/text", lambda _: Response("not JSON")),
            ]
        )


# Requests wait for answers as long as a busy machine takes; tests of the waiting set other values.
PATIENT: Final = MappingProxyType({"timeout": 60.0, "patience": 60.0})


@contextmanager
def issuing() -> Generator[IssuerOfOpaqueTokens]:
    """Run such an issuer until the block ends."""
    made: list[IssuerOfOpaqueTokens] = []

    def application_at(origin: str) -> Starlette:
        made.append(IssuerOfOpaqueTokens(origin))
        return made[0].application()

    with serving("uvicorn-h11", application_at):
        yield made[0]


async def refusal(verifier: IntrospectionVerifier, token: str) -> DPoPError:
    """Return the error with which `verifier` refuses `token`."""
    with pytest.raises(DPoPError) as caught:
        await verifier.verify(token)
    return caught.value
