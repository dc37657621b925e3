"""An independent authorization server: its JWTs and its opaque tokens, with nonces on both sides."""

import asyncio
from collections.abc import Generator
from typing import Any

import httpx2
import pytest

from dpop_middleware import (
    DPoPMiddleware,
    DPoPPolicy,
    HMACNonceProvider,
    JWTAccessTokenVerifier,
    JWTOrOpaqueVerifier,
    MemoryReplayStore,
    ResourceServer,
)
from dpop_middleware.client import (
    AuthorizationCode,
    ClientCredentials,
    DPoPAuth,
    DPoPKey,
    authorization_url,
    fetch_token,
    fetch_token_async,
    pkce_pair,
)
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier, PrivateKeyJWT
from tests.support.introspection_server import PATIENT
from tests.support.node import OIDCProvider, oidc_provider, signing_key
from tests.support.oidc_login import code_from
from tests.support.reader import readers_app

RESOURCE = "https://api.example.com"
OPAQUE = "https://api.example.com/opaque"
US = ClientSecretBasic(client_id="api", client_secret="of-the-api:/+")

pytestmark = pytest.mark.slow


@pytest.fixture
def provider(pytestconfig: pytest.Config) -> Generator[OIDCProvider]:
    with oidc_provider(pytestconfig) as provider:
        yield provider


def protected(provider: OIDCProvider, **options: Any) -> ResourceServer:
    """An API that knows the provider's URL, and has credentials of its own for opaque tokens."""
    usual: dict[str, Any] = {
        "issuer": provider.issuer,
        "audience": RESOURCE,
        "client_authentication": US,
        **PATIENT,
    }
    return ResourceServer(
        verifier=JWTOrOpaqueVerifier(
            jwt=JWTAccessTokenVerifier(issuer=provider.issuer, audience=RESOURCE, required_claims=REQUIRED),
            opaque=IntrospectionVerifier(**(usual | options)),
        ),
        resource=RESOURCE,
        replay_store=MemoryReplayStore(),
        policy=DPoPPolicy(nonce="required"),
        nonces=HMACNonceProvider(bytes(range(32))),
    )


REQUIRED = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")


async def machine_token(provider: OIDCProvider, key: DPoPAuth | DPoPKey, resource: str) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await fetch_token_async(
            client,
            f"{provider.issuer}/token",
            ClientCredentials(),
            key=key,
            client_id="machine",
            client_secret="s3cret:/+",
            scopes=["notes:read"],
            resource=resource,
        )
    return answer.access_token


def client_of(api: ResourceServer) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(DPoPMiddleware(readers_app(), api)))


async def get(api: ResourceServer, token: str, key: DPoPKey) -> httpx2.Response:
    async with client_of(api) as client:
        return await client.get(f"{RESOURCE}/notes", auth=DPoPAuth(key, token))


async def test_both_kinds_of_its_tokens_are_accepted_and_worth_nothing_to_a_thief(
    provider: OIDCProvider,
) -> None:
    key = DPoPKey.generate()
    jwt = await machine_token(provider, key, RESOURCE)
    opaque = await machine_token(provider, key, OPAQUE)
    assert (jwt.count("."), opaque.count(".")) == (2, 0)
    async with protected(provider) as api:
        for token in (jwt, opaque):
            answer = await get(api, token, key)
            assert (answer.status_code, answer.json()["path"]) == (200, "/notes")
            assert (await get(api, token, DPoPKey.generate())).status_code == 401
        assert (await api.health()).ready


async def test_with_nothing_but_its_url_its_jwts_are_accepted(provider: OIDCProvider) -> None:
    key = DPoPKey.generate()
    api = ResourceServer(
        issuer=provider.issuer,
        resource=RESOURCE,
        replay_store=MemoryReplayStore(),
        policy=DPoPPolicy(nonce="required"),
        nonces=HMACNonceProvider(bytes(range(32))),
    )
    async with api:
        token = await machine_token(provider, key, RESOURCE)
        async with client_of(api) as client:
            proof = key.proof("GET", f"{RESOURCE}/notes", access_token=token)
            fields = {"Authorization": f"DPoP {token}", "DPoP": proof}
            challenged = await client.get(f"{RESOURCE}/notes", headers=fields)
            assert challenged.headers["DPoP-Nonce"]
        assert (await get(api, token, key)).status_code == 200


async def test_its_signed_answers_are_accepted_with_a_client_key(provider: OIDCProvider) -> None:
    key = DPoPKey.generate()
    us = PrivateKeyJWT(client_id="signing-api", key=provider.api_key)
    token = await machine_token(provider, key, OPAQUE)
    async with protected(provider, client_authentication=us, signed_answers=True) as api:
        assert (await get(api, token, key)).status_code == 200
        assert (await get(api, "made-up", key)).status_code == 401


async def test_a_wrong_secret_is_503_and_says_so(
    provider: OIDCProvider, caplog: pytest.LogCaptureFixture
) -> None:
    key = DPoPKey.generate()
    token = await machine_token(provider, key, OPAQUE)
    wrong = ClientSecretBasic(client_id="api", client_secret="another")
    async with protected(provider, client_authentication=wrong) as api:
        assert (await get(api, token, key)).status_code == 503
        assert not (await api.health()).ready
    assert "the status is 401" in caplog.text
    assert token not in caplog.text


def user_tokens(provider: OIDCProvider, key: DPoPKey) -> tuple[str, str]:
    """Log in and return the access token and the refresh token, both opaque."""
    auth, pkce, back = DPoPAuth(key), pkce_pair(), "http://127.0.0.1/callback"
    with httpx2.Client(trust_env=False) as client:
        url = authorization_url(
            f"{provider.issuer}/auth",
            client_id="app",
            redirect_uri=back,
            code_challenge=pkce.code_challenge,
            key=key,
            scopes=["openid", "offline_access", "notes:read"],
            resource=OPAQUE,
            parameters={"prompt": "consent"},
        )
        grant = AuthorizationCode(
            code=code_from(client, url), redirect_uri=back, code_verifier=pkce.code_verifier
        )
        answer = fetch_token(
            client, f"{provider.issuer}/token", grant, key=auth, client_id="app", resource=OPAQUE
        )
    assert answer.refresh_token is not None
    return answer.access_token, answer.refresh_token


async def test_its_refresh_token_is_no_access_token(provider: OIDCProvider) -> None:
    """The provider calls it active, and bound to the client's key."""
    key = DPoPKey.generate()
    access_token, refresh_token = await asyncio.to_thread(user_tokens, provider, key)
    async with protected(provider) as api:
        answer = await get(api, access_token, key)
        assert (answer.status_code, answer.json()["subject"]) == (200, "ann")
        assert (await get(api, refresh_token, key)).status_code == 401


async def test_its_keys_change_under_load_and_no_good_token_is_refused(pytestconfig: pytest.Config) -> None:
    """New keys sign access tokens and answers from one moment to the next."""
    keys = [signing_key(str(number)) for number in range(4)]
    statuses: list[int] = []

    async def calls(more: int) -> None:
        wanted = len(statuses) + more
        while len(statuses) < wanted:
            await asyncio.sleep(0.02)

    with oidc_provider(pytestconfig, keys[0]) as provider:
        us = PrivateKeyJWT(client_id="signing-api", key=provider.api_key)
        async with protected(provider, client_authentication=us, signed_answers=True) as api:

            async def call() -> None:
                key = DPoPKey.generate()
                auth = DPoPAuth(key)
                async with client_of(api) as client:
                    while True:
                        for resource in (RESOURCE, OPAQUE):
                            token = await machine_token(provider, auth, resource)
                            bound = DPoPAuth(key, token)
                            for _ in range(2):
                                answer = await client.get(f"{RESOURCE}/notes", auth=bound)
                                statuses.append(answer.status_code)

            async with asyncio.TaskGroup() as group:
                callers = [group.create_task(call()) for _ in range(4)]
                for newer, older in zip(keys[1:], keys, strict=False):
                    await calls(8)
                    await asyncio.to_thread(provider.sign_with, newer, older)
                await calls(8)
                for caller in callers:
                    caller.cancel()
    assert set(statuses) == {200}
