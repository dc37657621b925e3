"""The MCP SDK's OAuth client with our transport below it, as the conformance suite starts it.

    python -m tests.support.mcp_conformance_client [--alone] URL

`--alone` leaves the transport out.
"""

import asyncio
import sys
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from dpop_middleware.client import DPoPKey
from tests.support.mcp_clients import connected


class _Storage:
    """Keeps what the client is given, for one run."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


async def main(url: str, *, alone: bool) -> None:
    """Log in at the suite's authorization server, and use every tool of its MCP server."""
    came_back: list[str] = []

    async def open_browser(page: str) -> None:
        async with httpx2.AsyncClient(trust_env=False) as browser:
            came_back.append((await browser.get(page)).headers["Location"])

    async def come_back() -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(came_back[-1]).query)
        code, state, issuer = (query.get(name, [None])[0] for name in ("code", "state", "iss"))
        return AuthorizationCodeResult(code=str(code), state=state, iss=issuer)

    auth = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(redirect_uris=[AnyUrl("http://localhost:3000/callback")]),
        storage=_Storage(),
        redirect_handler=open_browser,
        callback_handler=come_back,
    )
    async with connected(url, None if alone else DPoPKey.generate(), auth=auth) as caller:
        await caller.call_all()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1], alone="--alone" in sys.argv))
