"""The official MCP SDK's client, with our transport below it, and requests to an MCP endpoint by hand."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from dpop_middleware.client import DPoPKey, DPoPTransport
from tests.support.clients import NO_AUTHORITIES

__all__ = ["HEADERS", "INITIALIZE", "Caller", "connected"]

# The request that opens a session, as any client sends it.
HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


class Caller:
    """A session of the SDK's client; its next requests carry `token`, as Bearer."""

    def __init__(self, session: ClientSession, http: httpx2.AsyncClient) -> None:
        self._session = session
        self._http = http

    def use(self, token: str) -> None:
        self._http.headers["Authorization"] = f"Bearer {token}"

    async def call(self, tool: str) -> str:
        result = await self._session.call_tool(tool, {})
        (content,) = result.content
        assert isinstance(content, TextContent)
        return content.text

    async def call_all(self) -> None:
        for tool in (await self._session.list_tools()).tools:
            await self._session.call_tool(tool.name, {})


@asynccontextmanager
async def connected(
    url: str, key: DPoPKey | None, *, token: str | None = None, auth: httpx2.Auth | None = None
) -> AsyncGenerator[Caller]:
    """Open a session with an access token that is bound to `key`, or with the token that `auth` gets.

    Without a key it is the SDK's client alone.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    plain = httpx2.AsyncHTTPTransport(verify=NO_AUTHORITIES)
    async with (
        httpx2.AsyncClient(
            transport=plain if key is None else DPoPTransport(key, plain),
            verify=NO_AUTHORITIES,
            auth=auth,
            headers=headers,
            trust_env=False,
            timeout=600,
        ) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(*streams[:2]) as session,
    ):
        await session.initialize()
        yield Caller(session, http)
