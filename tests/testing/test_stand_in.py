"""A server that stands in for the production one: its configuration, and nothing else of it."""

import pytest
from starlette.testclient import TestClient

from dpop_middleware import (
    AccessTokenVerifier,
    DPoPMiddleware,
    DPoPPolicy,
    HMACNonceProvider,
    JWTAccessTokenVerifier,
    JWTOrOpaqueVerifier,
    MemoryReplayStore,
    MultiIssuerVerifier,
    ResourceServer,
    errors,
    profiles,
)
from dpop_middleware.client import DPoPKey
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.testing import ABSENT, TestIssuer
from tests.support.production import RESOURCE, NeverAsked, production, protected


async def test_the_server_copies_the_configuration_and_shares_no_state() -> None:
    api = production(policy=DPoPPolicy(algorithms=("ES256",), clock_skew=5))
    before = dict(vars(api))
    issuer = TestIssuer.of(api)
    assert (issuer.issuer, issuer.audience) == (
        "https://auth.example.com",
        "https://audience.example.com",
    )
    server = issuer.resource_server(api)
    assert vars(api) == before
    assert not server.is_sibling_of(api)
    assert (server.policy, server.resource, server.issuers) == (api.policy, RESOURCE, api.issuers)
    app = DPoPMiddleware(protected(server), server)
    with TestClient(app, base_url="https://gateway.example.com/v1/", root_path="/v1") as client:
        answers = [
            client.get("notes", auth=issuer.auth(scopes=["notes:read"], key=DPoPKey.generate(algorithm)))
            for algorithm in ("ES256", "EdDSA")
        ]
    assert [answer.status_code for answer in answers] == [200, 401]


def test_the_server_reports_its_own_events_only() -> None:
    loud: list[AuthenticationEvent] = []
    quiet: list[AuthenticationEvent] = []
    api = production(public_url=None, on_event=loud.append)
    issuer = TestIssuer.of(api)
    with TestClient(
        protected(issuer.resource_server(api, on_event=quiet.append)), base_url=RESOURCE
    ) as client:
        client.get("/notes", auth=issuer.auth(scopes=["notes:read"]))
    assert (len(loud), [event.outcome for event in quiet]) == (0, ["accepted"])


def test_the_server_keeps_nonces_and_sibling_policies() -> None:
    api = production(
        public_url=None, policy=DPoPPolicy(nonce="required"), nonces=HMACNonceProvider(b"x" * 32)
    )
    api.with_policy(nonce="off", proof_lifetime=3600)
    issuer = TestIssuer.of(api)
    server = issuer.resource_server(api)
    with TestClient(protected(server), base_url=RESOURCE) as client:
        answer = client.get("/notes", auth=issuer.auth(scopes=["notes:read"]))
    assert answer.status_code == 200
    assert [hop.status_code for hop in answer.history] == [401]


def test_the_server_keeps_the_rules_for_tokens() -> None:
    verifier = JWTAccessTokenVerifier(
        issuer="https://auth.example.com",
        audience="https://audience.example.com",
        token_types=("JWT", None),
        scope_claims=("scp",),
        client_id_claims=("cid",),
        required_claims=("iss", "exp", "aud"),
        algorithms=("EdDSA",),
    )
    api = ResourceServer(verifier=verifier, resource=RESOURCE, replay_store=MemoryReplayStore())
    issuer = TestIssuer.of(api, algorithm="EdDSA")
    with TestClient(protected(issuer.resource_server(api)), base_url=RESOURCE) as client:
        changed = issuer.auth(header={"typ": ABSENT}, scp=["notes:read"], cid="c", jti="a")
        assert client.get("/notes", auth=changed).status_code == 200
        assert client.get("/notes", auth=issuer.auth(scopes=["notes:read"])).status_code == 200
        as_rfc_9068 = issuer.auth(scopes=["notes:read"], header={"typ": "at+jwt"})
        assert client.get("/notes", auth=as_rfc_9068).status_code == 401


def test_any_other_verifier_is_replaced() -> None:
    api = ResourceServer(verifier=NeverAsked(), resource=RESOURCE, replay_store=NeverAsked())
    issuer = TestIssuer.of(api)
    assert issuer.audience == RESOURCE
    with TestClient(protected(issuer.resource_server(api)), base_url=RESOURCE) as client:
        assert client.get("/notes", auth=issuer.auth(scopes=["notes:read"])).status_code == 200


def test_each_of_several_issuers_has_a_stand_in() -> None:
    okta = profiles.OKTA.verifier(issuer="https://b.example.com", audience="of b")
    verifier = MultiIssuerVerifier(
        [JWTAccessTokenVerifier(issuer="https://a.example.com", audience="of a"), okta]
    )
    api = ResourceServer(verifier=verifier, resource=RESOURCE, replay_store=MemoryReplayStore())
    a, b = TestIssuer.of(api), TestIssuer.of(api, issuer="https://b.example.com")
    assert (a.issuer, a.audience, a.profile) == ("https://a.example.com", "of a", profiles.RFC9068)
    assert (b.issuer, b.audience, b.profile) == ("https://b.example.com", "of b", profiles.OKTA)
    with TestClient(protected(a.resource_server(api, also=[b])), base_url=RESOURCE) as client:
        answers = [
            client.get("/notes", auth=one.auth(sub="1", scopes=["notes:read"])).json()["sub"]
            for one in (a, b)
        ]
    assert answers == ["https://a.example.com 1", "https://b.example.com 1"]
    with TestClient(protected(b.resource_server(api)), base_url=RESOURCE) as client:
        assert client.get("/notes", auth=a.auth(scopes=["notes:read"])).status_code == 401
        answer = client.get("/notes", auth=b.auth(sub="1", scopes=["notes:read"]))
    assert answer.json()["sub"] == "https://b.example.com 1"


def test_a_server_of_both_kinds_of_token_gets_jwts() -> None:
    okta = profiles.OKTA.verifier(issuer="https://a.example.com", audience="of a")
    several = MultiIssuerVerifier([okta])
    wanted: list[tuple[AccessTokenVerifier, str]] = [(okta, "1"), (several, "https://a.example.com 1")]
    for verifier, identity in wanted:
        both = JWTOrOpaqueVerifier(jwt=verifier, opaque=NeverAsked())
        api = ResourceServer(verifier=both, resource=RESOURCE, replay_store=MemoryReplayStore())
        issuer = TestIssuer.of(api)
        assert (issuer.audience, issuer.profile) == ("of a", profiles.OKTA)
        with TestClient(protected(issuer.resource_server(api)), base_url=RESOURCE) as client:
            answer = client.get("/notes", auth=issuer.auth(sub="1", scopes=["notes:read"]))
        assert answer.json()["sub"] == identity


async def test_tenants_have_stand_ins_too() -> None:
    async def resolver(issuer: str) -> None:
        raise AssertionError("the production resolver was asked")

    verifier = MultiIssuerVerifier(resolver=resolver)
    api = ResourceServer(verifier=verifier, resource=RESOURCE, replay_store=MemoryReplayStore())
    tenant = TestIssuer.of(api, issuer="https://tenant.example.com")
    assert tenant.audience == RESOURCE
    server = tenant.resource_server(api)
    assert (await server.health()).ready
    with TestClient(protected(server), base_url=RESOURCE) as client:
        answer = client.get("/notes", auth=tenant.auth(sub="1", scopes=["notes:read"]))
    assert answer.json()["sub"] == "https://tenant.example.com 1"


def test_an_issuer_of_any_name_is_trusted_even_by_http() -> None:
    api = production(public_url=None)
    for name in ("http://localhost:8001", "http://auth.internal", "https://auth.example.test"):
        issuer = TestIssuer(name, audience="https://audience.example.com")
        with TestClient(protected(issuer.resource_server(api)), base_url=RESOURCE) as client:
            assert client.get("/notes", auth=issuer.auth(scopes=["notes:read"])).status_code == 200


def test_the_argument_must_be_a_resource_server() -> None:
    with pytest.raises(errors.ConfigurationError, match="production ResourceServer"):
        TestIssuer().resource_server("api")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
