"""From one 401 of our server, third-party clients learn where to get a token (RFC 9728)."""

from collections.abc import Generator
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceMetadata, ResourceServer
from dpop_middleware.metadata import metadata_route
from dpop_middleware.starlette import requires_dpop
from tests.support.node import NodePeer
from tests.support.servers import serving

pytestmark = pytest.mark.slow

SCOPES = ["notes:read", "notes:write"]


@pytest.fixture(scope="module")
def issuer() -> Generator[str]:
    """An authorization server as far as a client goes before a person logs in."""

    def app_at(origin: str) -> ASGIApp:
        async def metadata(request: Request) -> JSONResponse:
            return JSONResponse(
                {
                    "issuer": origin,
                    "authorization_endpoint": f"{origin}/authorize",
                    "token_endpoint": f"{origin}/token",
                    "registration_endpoint": f"{origin}/register",
                    "response_types_supported": ["code"],
                    "code_challenge_methods_supported": ["S256"],
                }
            )

        async def register(request: Request) -> JSONResponse:
            return JSONResponse({**await request.json(), "client_id": "registered"}, 201)

        return Starlette(
            routes=[
                Route("/.well-known/oauth-authorization-server", metadata),
                Route("/register", register, methods=["POST"]),
            ]
        )

    with serving("uvicorn-h11", app_at) as origin:
        yield origin


async def notes(request: Request) -> JSONResponse:
    return JSONResponse({})


def described(issuer: str, resource: str) -> ResourceServer:
    return ResourceServer(
        issuer=issuer,
        resource=resource,
        replay_store=MemoryReplayStore(),
        metadata=ResourceMetadata(scopes_supported=SCOPES, resource_name="Notes"),
    )


@pytest.fixture(scope="module", params=["middleware", "route"])
def resource(request: pytest.FixtureRequest, issuer: str) -> Generator[str]:
    """The resource identifier of a protected API, which serves its metadata in either way."""

    def app_at(origin: str) -> ASGIApp:
        if request.param == "middleware":
            return DPoPMiddleware(Starlette(routes=[Route("/", notes)]), described(issuer, origin))
        api = described(issuer, f"{origin}/v1")
        protected = Route("/", requires_dpop(api)(notes), methods=["GET", "POST"])
        return Starlette(routes=[metadata_route(api), Mount("/v1", routes=[protected])])

    with serving("uvicorn-httptools", app_at) as origin:
        yield origin if request.param == "middleware" else f"{origin}/v1"


class Storage:
    """An MCP client's storage, which keeps nothing."""

    async def get_tokens(self) -> OAuthToken | None:
        return None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        raise AssertionError("nobody has logged in")

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        assert client_info.client_id == "registered"


class LoginPage(Exception):
    """The client sends its user here."""


async def test_the_mcp_sdks_client_gets_to_the_issuers_login_page(resource: str, issuer: str) -> None:
    async def open_browser(url: str) -> None:
        raise LoginPage(url)

    async def come_back() -> AuthorizationCodeResult:
        raise AssertionError("nobody has logged in")

    auth = OAuthClientProvider(
        server_url=f"{resource}/",
        client_metadata=OAuthClientMetadata(redirect_uris=[AnyUrl("http://localhost/callback")]),
        storage=Storage(),
        redirect_handler=open_browser,
        callback_handler=come_back,
    )
    async with httpx2.AsyncClient(auth=auth, trust_env=False) as client:
        with pytest.raises(LoginPage) as login:
            await client.get(f"{resource}/")
    page = urlsplit(str(login.value))
    assert f"{page.scheme}://{page.netloc}{page.path}" == f"{issuer}/authorize"
    asked = parse_qs(page.query)
    assert asked["client_id"] == ["registered"]
    assert asked["scope"] == [" ".join(SCOPES)]
    assert asked["resource"][0].rstrip("/") == resource


def test_oauth4webapi_finds_the_issuer(node: NodePeer, resource: str, issuer: str) -> None:
    found = node.ask("discover", url=f"{resource}/", resource=resource)
    assert found["named"] == found["asked"], "the challenge names the URL that the RFC's rule makes"
    assert found["issuer"] == issuer
    assert found["metadata"]["resource"] == resource
    assert found["metadata"]["scopes_supported"] == SCOPES
    assert found["metadata"]["dpop_bound_access_tokens_required"] is True
