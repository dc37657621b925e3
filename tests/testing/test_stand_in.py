"""A server that stands in for the production one: its configuration, and nothing else of it."""

from dataclasses import FrozenInstanceError
from typing import Any

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
from dpop_middleware.profiles import KNOWN, Profile
from dpop_middleware.testing import ABSENT, TestIssuer
from dpop_middleware.testing.stand_in import Trusted, audiences_of, profile_of, public_origin_of, stand_in
from dpop_middleware.testing.suite import CASES, run_case
from dpop_middleware.testing.target import Target
from tests.support.adapters import ORIGIN, World
from tests.support.api import request
from tests.support.clock import Clock
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


@pytest.mark.parametrize("algorithms", [("PS256",), ("EdDSA", "ES384")])
async def test_the_keys_are_of_algorithms_that_production_accepts(algorithms: tuple[str, ...]) -> None:
    verifier = JWTAccessTokenVerifier(
        issuer="https://auth.example.com", audience=RESOURCE, algorithms=algorithms
    )
    policy = DPoPPolicy(algorithms=algorithms)
    api = ResourceServer(
        verifier=verifier, resource=RESOURCE, replay_store=MemoryReplayStore(), policy=policy
    )
    issuer = TestIssuer.of(api)
    app = protected(issuer.resource_server(api))
    with TestClient(app, base_url=RESOURCE) as client:
        assert client.get("/notes", auth=issuer.auth(scopes=["notes:read"])).status_code == 200
    target = Target.of(issuer, app=app, url=f"{RESOURCE}/notes", scopes=["notes:read"])
    outcomes = [await run_case(case, target) for case in CASES]
    assert [outcome for outcome in outcomes if outcome.verdict == "failed"] == []


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
    assert [one.access_token(sub="1").identity for one in (a, b)] == answers
    with TestClient(protected(b.resource_server(api)), base_url=RESOURCE) as client:
        assert client.get("/notes", auth=a.auth(scopes=["notes:read"])).status_code == 401
        answer = client.get("/notes", auth=b.auth(sub="1", scopes=["notes:read"]))
    assert answer.json()["sub"] == "https://b.example.com 1"


def test_a_server_of_both_kinds_of_token_gets_jwts() -> None:
    okta = profiles.OKTA.verifier(issuer="https://a.example.com", audience="of a")
    several = MultiIssuerVerifier([okta])
    same, other = NeverAsked(), NeverAsked()
    same.issuers = okta.issuers
    wanted: list[tuple[AccessTokenVerifier, NeverAsked, str]] = [
        (okta, same, "1"),
        (okta, other, "https://a.example.com 1"),
        (several, same, "https://a.example.com 1"),
    ]
    for verifier, opaque, identity in wanted:
        both = JWTOrOpaqueVerifier(jwt=verifier, opaque=opaque)
        api = ResourceServer(verifier=both, resource=RESOURCE, replay_store=MemoryReplayStore())
        issuer = TestIssuer.of(api)
        assert (issuer.audience, issuer.profile) == ("of a", profiles.OKTA)
        with TestClient(protected(issuer.resource_server(api)), base_url=RESOURCE) as client:
            answer = client.get("/notes", auth=issuer.auth(sub="1", scopes=["notes:read"]))
        assert answer.json()["sub"] == identity
        assert issuer.access_token(sub="1").identity == identity


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
    assert tenant.access_token(sub="1").identity == "https://tenant.example.com 1"


def test_an_issuer_of_any_name_is_trusted_even_by_http() -> None:
    api = production(public_url=None)
    for name in ("http://localhost:8001", "http://auth.internal", "https://auth.example.test"):
        issuer = TestIssuer(name, audience="https://audience.example.com")
        with TestClient(protected(issuer.resource_server(api)), base_url=RESOURCE) as client:
            assert client.get("/notes", auth=issuer.auth(scopes=["notes:read"])).status_code == 200


def test_the_argument_must_be_a_resource_server() -> None:
    with pytest.raises(errors.ConfigurationError, match="production ResourceServer"):
        TestIssuer().resource_server("api")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


A, B = "https://a.example.com", "https://b.example.com"


def server(verifier: AccessTokenVerifier, **options: Any) -> ResourceServer:
    return ResourceServer(verifier=verifier, resource=RESOURCE, replay_store=NeverAsked(), **options)


def of_two() -> ResourceServer:
    """A production server of two issuers whose tokens differ in everything."""
    a = JWTAccessTokenVerifier(issuer=A, audience=["z of a", "a of a"])
    return server(MultiIssuerVerifier([a, profiles.OKTA.verifier(issuer=B, audience="of b")]))


def test_the_audiences_are_those_that_a_token_of_the_issuer_may_name() -> None:
    api = of_two()
    assert audiences_of(api, A) == ("a of a", "z of a")
    assert audiences_of(api, B) == ("of b",)
    assert audiences_of(api, "https://nobody.example.com") == ("a of a", "z of a")


def test_the_profile_is_that_of_the_issuer() -> None:
    api = of_two()
    assert profile_of(api, A) is profiles.RFC9068
    assert profile_of(api, B) is profiles.OKTA
    assert profile_of(api, "https://nobody.example.com") is profiles.RFC9068


@pytest.mark.parametrize(
    "verifier", [NeverAsked(), JWTOrOpaqueVerifier(jwt=NeverAsked(), opaque=NeverAsked())]
)
def test_where_the_verifier_does_not_tell_the_resource_and_rfc_9068_are_taken(
    verifier: AccessTokenVerifier,
) -> None:
    api = server(verifier)
    assert audiences_of(api, A) == (RESOURCE,)
    assert profile_of(api, A) is profiles.RFC9068


@pytest.mark.parametrize("profile", KNOWN, ids=lambda profile: profile.name)
def test_a_profile_that_is_known_is_found_by_its_options(profile: Profile) -> None:
    assert profile_of(server(profile.verifier(issuer=A, audience=RESOURCE)), A) is profile


def test_a_shape_that_nobody_named_is_that_of_the_verifier() -> None:
    verifier = profiles.KEYCLOAK.verifier(issuer=A, audience=RESOURCE, scope_claims=("roles", "scope"))
    shape = profile_of(server(verifier), A)
    assert shape.options == {**profiles.KEYCLOAK.options, "scope_claims": ("roles", "scope")}
    assert shape not in KNOWN


def test_the_origin_is_that_of_the_first_public_url() -> None:
    assert public_origin_of(production()) == "https://gateway.example.com"
    several = ["https://API.example.com:443/v1", "https://gateway.example.com"]
    assert public_origin_of(production(public_url=several)) == "https://api.example.com"
    assert public_origin_of(production(public_url=None)) == RESOURCE


def standing_in(world: World, *trusted: TestIssuer, **options: Any) -> ResourceServer:
    """The stand-in for a server of `world`, which trusts these issuers in place of the world's own."""
    named = [Trusted(one.issuer, one.jwks()) for one in trusted]
    return stand_in(world.server(**options), trusted=named, clock=world.clock, on_event=None)


async def judged(api: ResourceServer, world: World, issuer: TestIssuer, **claims: Any) -> str:
    """What `api` says to a request with a token of `issuer`: OK, or the code of its refusal."""
    token = issuer.token(jkt=world.key.jkt, audience=ORIGIN, **claims)
    proof = world.key.proof("GET", f"{ORIGIN}/notes", access_token=token, now=world.clock())
    try:
        await api.authenticate(request(token, proof))
    except errors.DPoPError as error:
        return str(error.code)
    return "OK"


async def test_the_keys_of_the_production_issuer_open_nothing() -> None:
    world = World()
    impostor = TestIssuer(world.issuer.issuer, clock=world.clock)
    api = standing_in(world, impostor)
    assert await judged(api, world, impostor) == "OK"
    assert await judged(api, world, world.issuer) == "invalid_token"
    assert await judged(world.server(), world, world.issuer) == "OK"
    assert await judged(world.server(), world, impostor) == "invalid_token"


async def test_each_of_several_trusted_issuers_is_trusted_by_its_own_keys() -> None:
    world = World()
    one, other = (TestIssuer(name, clock=world.clock) for name in (A, B))
    api = standing_in(world, one, other)
    assert set(api.issuers) == {A, B}
    assert [await judged(api, world, issuer) for issuer in (one, other)] == ["OK", "OK"]
    assert await judged(api, world, one, iss=B) == "invalid_token"


async def test_what_a_stand_in_remembers_is_its_own() -> None:
    world = World()
    api = production(
        issuer=world.issuer.issuer,
        jwks=world.issuer.jwks(),
        clock=world.clock,
        audience=ORIGIN,
        public_url=ORIGIN,
    )
    trusted = [Trusted(world.issuer.issuer, world.issuer.jwks())]
    first, second = (stand_in(api, trusted=trusted, clock=world.clock, on_event=None) for _ in range(2))
    token = world.token(audience=ORIGIN)
    asked = request(token, world.key.proof("GET", f"{ORIGIN}/notes", access_token=token, now=world.clock()))
    await first.authenticate(asked)
    with pytest.raises(errors.InvalidDPoPProof, match="used before"):
        await first.authenticate(asked)
    await second.authenticate(asked)


@pytest.mark.parametrize("skew", [0.0, 200.0])
async def test_the_clock_skew_for_tokens_is_that_of_production(skew: float) -> None:
    world = World()
    api = standing_in(world, world.issuer, token_clock_skew=skew)
    for late, answer in ((skew - 1, "OK"), (skew + 1, "invalid_token")):
        assert await judged(api, world, world.issuer, expires_in=-late) == answer
    token = world.issuer.access_token(audience=ORIGIN, expires_in=10)
    assert api.seconds_left(token) == 10
    world.clock.now += 11
    assert api.seconds_left(token) == max(0.0, skew - 1)


async def test_the_algorithms_for_tokens_are_those_of_production() -> None:
    world = World()
    only = JWTAccessTokenVerifier(
        issuer=A, audience=ORIGIN, jwks=world.issuer.jwks(), algorithms=("EdDSA",), clock=world.clock
    )
    for algorithm, answer in (("EdDSA", "OK"), ("ES256", "invalid_token")):
        issuer = TestIssuer(A, algorithm=algorithm, clock=world.clock)
        api = standing_in(world, issuer, verifier=only, issuer=None, jwks=None)
        assert await judged(api, world, issuer) == answer


async def test_a_stand_in_has_a_clock_of_its_own() -> None:
    world = World()
    later = Clock(world.clock() + 10**6)
    issuer = TestIssuer(A, clock=later)
    trusted = [Trusted(issuer.issuer, issuer.jwks())]
    api = stand_in(world.server(), trusted=trusted, clock=later, on_event=None)
    assert await judged(api, world, issuer) == "invalid_dpop_proof"
    world.clock.now = later()
    assert await judged(api, world, issuer) == "OK"


def test_a_trusted_issuer_does_not_change() -> None:
    trusted: Any = Trusted(A, {"keys": []})
    with pytest.raises(FrozenInstanceError):
        trusted.issuer = B


@pytest.mark.parametrize("wrong", [None, "api", ResourceServer, DPoPMiddleware])
def test_only_a_resource_server_has_a_stand_in(wrong: Any) -> None:
    with pytest.raises(
        errors.ConfigurationError, match="resource_server takes the production ResourceServer, not "
    ):
        stand_in(wrong, trusted=[Trusted(A, {"keys": []})], clock=Clock(), on_event=None)
