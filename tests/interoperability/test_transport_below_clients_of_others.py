"""Third-party OAuth clients that support only Bearer, DPoP-bound by our transport; nonces on both sides.

The authorization server is the npm package oidc-provider, which demands nonces.
"""

from collections.abc import Generator
from typing import Any

import httpx
import httpx2
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]

from dpop_middleware import DPoPPolicy
from dpop_middleware.client import DPoPKey, DPoPTransport
from tests.support.node import oidc_provider
from tests.support.oidc_login import code_from
from tests.support.peers import RESOURCE, Served, protected

pytestmark = pytest.mark.slow

CALLBACK = "http://127.0.0.1/callback"


@pytest.fixture(scope="module")
def issuer(pytestconfig: pytest.Config) -> Generator[str]:
    with oidc_provider(pytestconfig) as found:
        yield found.issuer


@pytest.fixture(scope="module")
def served(issuer: str) -> Generator[Served]:
    """Our API, which requires nonces too."""
    with protected(DPoPPolicy(nonce="required"), issuer=issuer) as found:
        yield found


def statuses_since(served: Served, before: int) -> list[int]:
    return served.statuses[before:]


async def test_authlib_logs_a_user_in_calls_the_api_and_refreshes(issuer: str, served: Served) -> None:
    before = len(served.statuses)
    oauth_client: Any = AsyncOAuth2Client
    async with oauth_client(
        "app",
        redirect_uri=CALLBACK,
        scope="openid offline_access notes:read",
        code_challenge_method="S256",
        token_endpoint=f"{issuer}/token",
        token_endpoint_auth_method="none",
        transport=DPoPTransport(DPoPKey.generate()),
        trust_env=False,
    ) as client:
        verifier = "v" * 64
        url, state = client.create_authorization_url(
            f"{issuer}/auth", code_verifier=verifier, resource=RESOURCE, prompt="consent"
        )
        with httpx2.Client(trust_env=False) as browser:
            code = code_from(browser, url)
        first = await client.fetch_token(code=code, code_verifier=verifier, resource=RESOURCE, state=state)
        answer = await client.get(f"{served.origin}/notes/a%2Fb?q=1")
        assert (answer.status_code, answer.json()["sub"]) == (200, "ann")
        # It refreshes an expired token at the next request.
        client.token["expires_at"] = 1
        answer = await client.post(f"{served.origin}/notes", content=b"text")
        assert (answer.status_code, answer.json()["body"]) == (200, "text")
        assert client.token["access_token"] != first["access_token"]
    assert statuses_since(served, before) == [401, 200, 200]


@pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
def test_a_plain_client_asks_and_calls(issuer: str, served: Served, library: Any) -> None:
    before = len(served.statuses)
    transport = DPoPTransport(DPoPKey.generate(), origin=served.origin, token_endpoint=f"{issuer}/token")
    with library.Client(transport=transport, trust_env=False) as client:
        form = {"grant_type": "client_credentials", "scope": "notes:read", "resource": RESOURCE}
        answer = client.post(f"{issuer}/token", data=form, auth=("machine", "s3cret%3A%2F%2B"))
        assert (answer.status_code, answer.json()["token_type"]) == (200, "Bearer")
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        for _ in range(2):
            called = client.get(f"{served.origin}/notes", headers=bearer)
            assert (called.status_code, called.json()["sub"]) == (200, "machine")
    # It can't be used with another key, nor as Bearer.
    thief = DPoPTransport(DPoPKey.generate())
    with library.Client(transport=thief, trust_env=False) as client:
        assert client.get(f"{served.origin}/notes", headers=bearer).status_code == 401
    with library.Client(trust_env=False) as client:
        assert client.get(f"{served.origin}/notes", headers=bearer).status_code == 401
    assert statuses_since(served, before)[:3] == [401, 200, 200]
