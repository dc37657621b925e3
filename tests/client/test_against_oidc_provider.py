"""The client and the resource server with an independent authorization server: oidc-provider, from npm."""

import time
from collections.abc import Generator

import httpx
import httpx2
import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dpop_middleware import MemoryReplayStore, MultiIssuerVerifier, ResourceServer, profiles
from dpop_middleware.client import (
    AuthorizationCode,
    ClientCredentials,
    DPoPAuth,
    DPoPKey,
    RefreshToken,
    TokenRequestError,
    TokenResponse,
    TokenSource,
    authorization_url,
    fetch_token,
    fetch_token_async,
    pkce_pair,
    push_authorization_request,
)
from dpop_middleware.introspection.client_authentication import PrivateKeyJWT, request_credentials
from dpop_middleware.starlette import requires_dpop
from dpop_middleware.testing import TestIssuer
from tests.support.node import OIDCProvider, oidc_provider
from tests.support.oidc_login import code_from

RESOURCE = "https://api.example.com"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def provider(pytestconfig: pytest.Config) -> Generator[OIDCProvider]:
    with oidc_provider(pytestconfig) as found:
        yield found


@pytest.fixture(scope="module")
def issuer(provider: OIDCProvider) -> str:
    return provider.issuer


def claims_of(token: TokenResponse) -> dict[str, object]:
    return dict(jwt.decode(token.access_token, options={"verify_signature": False}))


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "Ed25519"])
def test_client_credentials_get_a_bound_token(issuer: str, algorithm: str) -> None:
    key = DPoPKey.generate(algorithm)
    auth = DPoPAuth(key)
    with httpx2.Client(trust_env=False) as client:
        for _ in range(2):
            token = fetch_token(
                client,
                f"{issuer}/token",
                ClientCredentials(),
                key=auth,
                client_id="machine",
                client_secret="s3cret:/+",
                scopes=["notes:read"],
                resource=RESOURCE,
            )
            assert claims_of(token)["cnf"] == {"jkt": key.jkt}


def test_a_client_that_authenticates_with_its_key_gets_a_bound_token(provider: OIDCProvider) -> None:
    us = PrivateKeyJWT(client_id="signing-api", key=provider.api_key)
    key = DPoPKey.generate()
    with httpx2.Client(trust_env=False) as client:
        # The server takes each assertion once, also where it then wants a nonce.
        source = TokenSource(
            client,
            f"{provider.issuer}/token",
            ClientCredentials(),
            key=key,
            client_id=us.client_id,
            parameters=lambda: request_credentials(us, issuer=provider.issuer, now=time.time()).form,
            scopes=["notes:read"],
            resource=RESOURCE,
        )
        first = source.token()
        source.discard(first)
        assert source.token() != first


async def test_an_async_client_of_the_older_library_gets_a_bound_token(issuer: str) -> None:
    key = DPoPKey.generate()
    async with httpx.AsyncClient(trust_env=False) as client:
        token = await fetch_token_async(
            client,
            f"{issuer}/token",
            ClientCredentials(),
            key=key,
            client_id="machine",
            client_secret="s3cret:/+",
            resource=RESOURCE,
        )
    assert claims_of(token)["cnf"] == {"jkt": key.jkt}


def test_a_token_of_the_code_flow_is_accepted_by_the_api(issuer: str) -> None:
    key, pkce = DPoPKey.generate(), pkce_pair()
    auth = DPoPAuth(key)
    with httpx2.Client(trust_env=False) as client:
        code = code_from(
            client,
            authorization_url(
                f"{issuer}/auth",
                client_id="app",
                redirect_uri="http://127.0.0.1/callback",
                code_challenge=pkce.code_challenge,
                key=key,
                state="state",
                scopes=["openid", "offline_access", "notes:read"],
                resource=RESOURCE,
                parameters={"prompt": "consent"},
            ),
        )
        grant = AuthorizationCode(
            code=code, redirect_uri="http://127.0.0.1/callback", code_verifier=pkce.code_verifier
        )
        first = fetch_token(client, f"{issuer}/token", grant, key=auth, client_id="app", resource=RESOURCE)
        assert first.refresh_token is not None
        refresh = RefreshToken(refresh_token=first.refresh_token)
        with pytest.raises(TokenRequestError, match="invalid_grant"):
            fetch_token(client, f"{issuer}/token", refresh, key=DPoPKey.generate(), client_id="app")
        token = fetch_token(client, f"{issuer}/token", refresh, key=auth, client_id="app")
    assert claims_of(token)["cnf"] == {"jkt": key.jkt}

    # Metadata and keys are discovered from the other server.
    api = ResourceServer(issuer=issuer, resource=RESOURCE, replay_store=MemoryReplayStore())

    @requires_dpop(api, "notes:read")
    async def notes(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.user.identity)

    with TestClient(Starlette(routes=[Route("/notes", notes)]), base_url=RESOURCE) as caller:
        answer = caller.get("/notes", auth=DPoPAuth(key, token.access_token))
        assert (answer.status_code, answer.text) == (200, "ann")
        stolen = caller.get("/notes", auth=DPoPAuth(DPoPKey.generate(), token.access_token))
        assert stolen.status_code == 401


def test_the_other_server_is_one_of_two_issuers(issuer: str) -> None:
    ours = TestIssuer("https://sso.example.com/realms/main", audience=RESOURCE, profile=profiles.KEYCLOAK)
    verifier = MultiIssuerVerifier(
        [
            profiles.OIDC_PROVIDER.verifier(issuer=issuer, audience=RESOURCE),
            profiles.KEYCLOAK.verifier(issuer=ours.issuer, audience=RESOURCE, jwks=ours.jwks()),
        ]
    )
    api = ResourceServer(verifier=verifier, resource=RESOURCE, replay_store=MemoryReplayStore())

    @requires_dpop(api, "notes:read")
    async def notes(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.user.identity)

    key = DPoPKey.generate()
    with httpx2.Client(trust_env=False) as client:
        token = fetch_token(
            client,
            f"{issuer}/token",
            ClientCredentials(),
            key=key,
            client_id="machine",
            client_secret="s3cret:/+",
            scopes=["notes:read"],
            resource=RESOURCE,
        )
    with TestClient(Starlette(routes=[Route("/notes", notes)]), base_url=RESOURCE) as caller:
        theirs = caller.get("/notes", auth=DPoPAuth(key, token.access_token))
        assert (theirs.status_code, theirs.text) == (200, f"{issuer} machine")
        mine = caller.get("/notes", auth=ours.auth(sub="machine", scopes=["notes:read"]))
        assert (mine.status_code, mine.text) == (200, f"{ours.issuer} machine")
        for_them = ours.auth(sub="machine", scopes=["notes:read"], iss=issuer, header={"typ": "at+jwt"})
        assert caller.get("/notes", auth=for_them).status_code == 401


def test_a_pushed_request_binds_the_code_to_the_key(issuer: str) -> None:
    key, pkce = DPoPKey.generate(), pkce_pair()
    with httpx2.Client(trust_env=False) as client:

        def pushed_grant() -> AuthorizationCode:
            pushed = push_authorization_request(
                client,
                f"{issuer}/request",
                key=key,
                client_id="app",
                redirect_uri="http://127.0.0.1/callback",
                code_challenge=pkce.code_challenge,
                scopes=["openid"],
            )
            return AuthorizationCode(
                code=code_from(client, pushed.authorization_url(f"{issuer}/auth")),
                redirect_uri="http://127.0.0.1/callback",
                code_verifier=pkce.code_verifier,
            )

        with pytest.raises(TokenRequestError, match="invalid_grant"):
            fetch_token(client, f"{issuer}/token", pushed_grant(), key=DPoPKey.generate(), client_id="app")
        token = fetch_token(client, f"{issuer}/token", pushed_grant(), key=key, client_id="app")
    assert claims_of(token)["cnf"] == {"jkt": key.jkt}
