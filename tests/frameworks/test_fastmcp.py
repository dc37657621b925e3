"""fastmcp's servers behind `protect`: its tools see the same as those of the SDK."""

import json
from collections.abc import Generator
from typing import NamedTuple

import httpx2
import pytest
from fastmcp import FastMCP
from fastmcp.server.auth import StaticTokenVerifier
from fastmcp.server.dependencies import get_access_token
from mcp.shared.exceptions import MCPError
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import (
    DPoPPolicy,
    HMACNonceProvider,
    MemoryReplayStore,
    ResourceMetadata,
    ResourceServer,
)
from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.mcp import protect
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.target import lifespan
from tests.support.mcp_clients import HEADERS, INITIALIZE, connected
from tests.support.servers import serving

KEY = DPoPKey.generate()


def server_of_tools() -> FastMCP:
    server: FastMCP = FastMCP("notes")

    def who() -> str:
        token = get_access_token()
        return json.dumps(token and [token.subject, token.client_id, token.scopes, token.claims["iss"]])

    server.tool(who)
    return server


def judge(resource: str, issuer: TestIssuer) -> ResourceServer:
    return ResourceServer(
        issuer=issuer.issuer,
        jwks=issuer.jwks(),
        resource=resource,
        replay_store=MemoryReplayStore(),
        policy=DPoPPolicy(nonce="required"),
        nonces=HMACNonceProvider(bytes(32)),
        metadata=ResourceMetadata(),
    )


class Served(NamedTuple):
    url: str
    issuer: TestIssuer

    def token(self, *scopes: str, sub: str = "ann") -> str:
        return self.issuer.token(jkt=KEY.jkt, sub=sub, client_id="app", scopes=scopes)


@pytest.fixture(scope="module")
def served() -> Generator[Served]:
    found: list[Served] = []

    def app_at(origin: str) -> ASGIApp:
        found.append(Served(f"{origin}/mcp", TestIssuer(audience=f"{origin}/mcp")))
        return protect(server_of_tools(), judge(*found[0]))

    with serving("uvicorn-h11", app_at):
        yield found[0]


async def test_its_tools_see_the_token_of_each_request(served: Served) -> None:
    async with connected(served.url, KEY, token=served.token()) as caller:
        for scopes in (["a"], ["a", "b"], []):
            caller.use(served.token(*scopes))
            assert json.loads(await caller.call("who")) == ["ann", "app", scopes, served.issuer.issuer]
        caller.use(served.token(sub="bob"))
        with pytest.raises(MCPError, match="Session not found"):
            await caller.call("who")


def test_refusals_name_the_metadata_and_bearer_is_refused(served: Served) -> None:
    with httpx2.Client(trust_env=False) as client:
        for fields in ({}, {"Authorization": f"Bearer {served.token()}"}):
            answer = client.post(served.url, headers=HEADERS | fields, json=INITIALIZE)
            (challenge,) = answer.headers.get_list("WWW-Authenticate")
            assert answer.status_code == 401
            assert challenge.startswith("DPoP ")
            assert "/.well-known/oauth-protected-resource/mcp" in challenge


async def test_a_proxy_on_this_machine_may_pass_the_public_host_on() -> None:
    resource = "https://api.example.com/notes"
    issuer = TestIssuer(audience=resource)
    app = protect(server_of_tools(), judge(resource, issuer))

    async def behind_a_proxy(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "server": ("127.0.0.1", 8000)}, receive, send)

    transport = httpx2.ASGITransport(behind_a_proxy)
    async with lifespan(app), httpx2.AsyncClient(transport=transport) as client:
        auth = DPoPAuth(KEY, issuer.token(jkt=KEY.jkt))
        answer = await client.post(resource, auth=auth, headers=HEADERS, json=INITIALIZE)
    assert answer.status_code == 200


def test_one_with_authentication_of_its_own_is_refused() -> None:
    server: FastMCP = FastMCP("notes", auth=StaticTokenVerifier({}))
    with pytest.raises(ConfigurationError, match="a FastMCP without auth="):
        protect(server, judge("https://api.example.com/mcp", TestIssuer()))
