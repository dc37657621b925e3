"""The age of issuers' keys, as the verifiers report it."""

from typing import Any

import httpx2

from dpop_middleware import JWTAccessTokenVerifier, JWTOrOpaqueVerifier, MultiIssuerVerifier
from tests.support.api import Tokens
from tests.support.clock import Clock
from tests.support.issuer_server import IssuerServer
from tests.support.issuer_tokens import issuer_key, key_set

RESOURCE = "https://api.example.com"


def verifier(issuer: str, **options: Any) -> JWTAccessTokenVerifier:
    # A busy machine may need longer than a request waits for keys by default.
    return JWTAccessTokenVerifier(
        issuer=issuer, audience=RESOURCE, jwks_patience=30, jwks_timeout=30, **options
    )


async def test_fetched_keys_have_an_age_which_needs_no_waiting() -> None:
    clock = Clock()
    with IssuerServer() as server:
        server.publish(key_set(issuer_key()))
        fetched = verifier(server.origin, clock=clock)
        given = verifier("https://auth.example.com", jwks=key_set(issuer_key()))
        several = MultiIssuerVerifier([fetched, given])
        both = JWTOrOpaqueVerifier(jwt=fetched, opaque=Tokens())
        assert fetched.key_ages() == several.key_ages() == both.key_ages() == ()
        await fetched.health()
        clock.now += 40
        assert given.key_ages() == ()
        ((issuer, age),) = fetched.key_ages()
        assert issuer == server.origin
        assert 40 <= age < 60
        assert [name for name, _ in several.key_ages()] == [server.origin]
        assert [name for name, _ in both.key_ages()] == [server.origin]
        for one in (fetched, several, both):
            await one.aclose()


async def test_keys_that_the_users_client_fetches_have_an_age_too() -> None:
    with IssuerServer() as server:
        server.publish(key_set(issuer_key()))
        # The server closes each connection after its answer, so that none can be kept.
        unkept = httpx2.Limits(max_keepalive_connections=0)
        async with httpx2.AsyncClient(trust_env=False, limits=unkept) as client:

            async def fetch(url: str) -> bytes:
                return (await client.get(url)).content

            own = verifier(server.origin, fetch=fetch)
            assert own.key_ages() == ()
            await own.health()
            assert [issuer for issuer, _ in own.key_ages()] == [server.origin]
            await own.aclose()
