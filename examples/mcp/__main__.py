"""MCP with DPoP on both sides: the SDK's client logs in and calls a tool; a thief has the token only.

    python -m tox -e mcp

starts an authorization server and an MCP server, which both demand nonces. It exits with 1 if a verdict is
wrong.
"""

import asyncio
import contextlib
import sys

import httpx2
from mcp.types import TextContent

from dpop_middleware.client import DPoPKey, DPoPTransport
from examples.demo.servers import free_port, uvicorn
from examples.mcp.client import Storage, logged_in

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_notes", "arguments": {}}}


async def honest(url: str, client: str, storage: Storage) -> str:
    """Return what the tool says to a user who logged in."""
    async with logged_in(url, client=client, key=DPoPKey.generate(), storage=storage) as session:
        (content,) = (await session.call_tool("read_notes", {})).content
    return content.text if isinstance(content, TextContent) else "no text"


def theft(url: str, token: str) -> dict[str, int]:
    """Return the status of each answer to a thief who has the token."""
    fields = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    with httpx2.Client(trust_env=False) as plain:
        as_bearer = plain.post(url, headers=fields, json=CALL).status_code
    with httpx2.Client(transport=DPoPTransport(DPoPKey.generate())) as with_another_key:
        signed = with_another_key.post(url, headers=fields, json=CALL).status_code
    return {"the stolen token as Bearer": as_bearer, "the stolen token with the thief's key": signed}


def main() -> int:
    """Start the servers, log in, steal, stop the servers; return the exit status."""
    issuer, origin, client = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    url = f"{origin}/mcp"
    environment = {"MCP_ISSUER": issuer, "MCP_RESOURCE": url, "MCP_CLIENT": client}
    storage = Storage(f"{client}/")
    with contextlib.ExitStack() as stack:
        for app, where in (("authorization_server", issuer), ("server", origin)):
            stack.enter_context(uvicorn(f"examples.mcp.{app}:create_app", url=where, environment=environment))
        print(f"authorization server  {issuer}")
        print(f"MCP server            {url}\n")
        said = asyncio.run(honest(url, client, storage))
        print(f"{'a client of the SDK, after its login':<40} {said}")
        verdicts = theft(url, storage.tokens.access_token if storage.tokens else "")
    for what, status in verdicts.items():
        print(f"{what:<40} {status}")
    return 0 if said == "notes of user123, read by my_client" and set(verdicts.values()) == {401} else 1


if __name__ == "__main__":
    sys.exit(main())
