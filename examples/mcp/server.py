"""An MCP server whose tools only a DPoP-bound token reaches; it demands nonces."""

import os
import secrets
from typing import Any

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer
from starlette.types import ASGIApp

from dpop_middleware import DPoPPolicy, HMACNonceProvider, MemoryReplayStore, ResourceMetadata, ResourceServer
from dpop_middleware.mcp import protect

server: MCPServer[Any] = MCPServer("notes", log_level="WARNING")


@server.tool()
def read_notes() -> str:
    """Return the notes of whoever asks."""
    token = get_access_token()
    return f"notes of {token.subject}, read by {token.client_id}" if token else "notes of nobody"


def create_app() -> ASGIApp:
    """Build the application; its identifiers come from the environment."""
    api = ResourceServer(
        issuer=os.environ["MCP_ISSUER"],
        resource=os.environ["MCP_RESOURCE"],
        replay_store=MemoryReplayStore(),  # for one process; several share a RedisReplayStore
        # Some clients and the conformance suite want `iat` within five minutes beside a nonce.
        policy=DPoPPolicy(nonce="required", iat_limit_with_nonce=300),
        nonces=HMACNonceProvider(secrets.token_bytes(32)),
        metadata=ResourceMetadata(resource_name="Notes"),
    )
    return protect(server, api)
