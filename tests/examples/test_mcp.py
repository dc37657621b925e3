"""examples/mcp, run as a newcomer runs it, and what its client does later."""

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from mcp.client.auth import oauth2
from mcp.shared.auth import OAuthToken
from mcp.types import TextContent

from dpop_middleware.client import DPoPKey
from examples.demo.servers import uvicorn
from examples.mcp.__main__ import theft
from examples.mcp.client import Storage, User, logged_in
from tests.support.ports import free_port

HOUSE = Path(__file__).parents[2]
READ = "notes of user123, read by my_client"


def test_the_example_says_what_happened() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.mcp"],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = [re.split(r"  +", line) for line in done.stdout.splitlines()[3:]]
    assert said == [
        ["a client of the SDK, after its login", READ],
        ["the stolen token as Bearer", "401"],
        ["the stolen token with the thief's key", "401"],
    ]


@dataclass(frozen=True)
class Running:
    """The MCP server's URL and the origin of its client."""

    url: str
    client: str


@pytest.fixture(scope="module")
def running() -> Generator[Running]:
    issuer, origin, client = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    environment = {"MCP_ISSUER": issuer, "MCP_RESOURCE": f"{origin}/mcp", "MCP_CLIENT": client}
    with ExitStack() as stack:
        for app, url in (("authorization_server", issuer), ("server", origin)):
            stack.enter_context(uvicorn(f"examples.mcp.{app}:create_app", url=url, environment=environment))
        yield Running(f"{origin}/mcp", client)


async def said_to(running: Running, key: DPoPKey, storage: Storage) -> str:
    async with logged_in(running.url, client=running.client, key=key, storage=storage) as session:
        (content,) = (await session.call_tool("read_notes", {})).content
    assert isinstance(content, TextContent)
    return content.text


async def test_the_client_refreshes_its_token_and_comes_back_without_a_login(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, storage = DPoPKey.generate(), Storage(f"{running.client}/")
    expiries = iter([1.0])
    monkeypatch.setattr(oauth2, "calculate_token_expiry", lambda expires_in: next(expiries, None))
    got: list[str] = []
    keep = storage.set_tokens

    async def set_tokens(tokens: OAuthToken) -> None:
        got.append(tokens.access_token)
        await keep(tokens)

    monkeypatch.setattr(storage, "set_tokens", set_tokens)
    assert await said_to(running, key, storage) == READ
    assert len(set(got)) == 2, "one by the code, one by the refresh token"

    async def nobody_is_there(user: User, url: str) -> None:
        raise AssertionError("asked for a login")

    monkeypatch.setattr(User, "open", nobody_is_there)
    assert await said_to(running, key, storage) == READ
    assert [set(theft(running.url, token).values()) for token in got] == [{401}, {401}]
