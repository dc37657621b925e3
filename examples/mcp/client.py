"""The MCP SDK's own OAuth client, which knows Bearer only, made DPoP-bound by a transport below it."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import ClientSession
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from dpop_middleware.client import DPoPKey, DPoPTransport
from examples.flow.authorization_server import CLIENT_ID


class Storage:
    """What the client keeps: its tokens, and who it is at the authorization server."""

    def __init__(self, redirect_uri: str) -> None:
        self.tokens: OAuthToken | None = None
        self._client = OAuthClientInformationFull(
            client_id=CLIENT_ID, redirect_uris=[AnyUrl(redirect_uri)], token_endpoint_auth_method="none"
        )

    async def get_tokens(self) -> OAuthToken | None:
        """Return the tokens, None before the login."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep new tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull:
        """Return the registration."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep another registration."""
        self._client = client_info


class User:
    """Logs in and gives consent, as a person would in a browser."""

    def __init__(self) -> None:
        self._answer: AuthorizationCodeResult | None = None

    async def open(self, url: str) -> None:
        """Open the authorization server's page and press its button."""
        async with httpx2.AsyncClient(trust_env=False) as browser:
            page = await browser.get(url)
            found = re.search(r'name="request" value="([^"]+)"', page.text)
            form = {"request": found[1] if found else "", "decision": "allow"}
            answer = await browser.post(url.partition("?")[0], data=form)
        query = parse_qs(urlsplit(answer.headers["Location"]).query)
        self._answer = AuthorizationCodeResult(
            code=query["code"][0], state=query["state"][0], iss=query["iss"][0]
        )

    async def come_back(self) -> AuthorizationCodeResult:
        """Return with the code."""
        if self._answer is None:
            raise RuntimeError("nobody has logged in")
        return self._answer


@asynccontextmanager
async def logged_in(
    url: str, *, client: str, key: DPoPKey, storage: Storage
) -> AsyncGenerator[ClientSession]:
    """Open a session with the MCP server at `url`; the SDK finds the issuer, logs in and asks for a token."""
    user = User()
    auth = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(redirect_uris=[AnyUrl(f"{client}/")]),
        storage=storage,
        redirect_handler=user.open,
        callback_handler=user.come_back,
    )
    async with (
        httpx2.AsyncClient(auth=auth, transport=DPoPTransport(key), timeout=20) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(*streams[:2]) as session,
    ):
        await session.initialize()
        yield session
