"""Attacks on a server with several issuers: a token of one must not pass as another's."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from dpop_middleware import (
    AccessTokenVerifier,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    MultiIssuerVerifier,
    ResourceServer,
)
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError, InvalidDPoPProof, InvalidToken, Unavailable
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.jose import base64url
from dpop_middleware.testing import ABSENT, TestIssuer
from dpop_middleware.testing.issuer import merged
from dpop_middleware.tokens import named_issuers
from dpop_middleware.tokens.admission import MAX_UNAVAILABLE
from tests.support.api import request

API = "https://api.example.com"
A, B = "https://a.example.com", "https://b.example.com"
KEY = DPoPKey.generate()


class World:
    """Two issuers; the attacker runs A, and wants to be a user of B."""

    def __init__(self, **changes: Any) -> None:
        self.a = TestIssuer(A, audience=API)
        self.b = TestIssuer(B, audience="https://b-calls-it-so.example.com")
        self.events: list[AuthenticationEvent] = []
        self.store = MemoryReplayStore()
        self.api = self.server(**changes)

    def server(self, **changes: Any) -> ResourceServer:
        verifier = MultiIssuerVerifier([self.verifier(self.a), self.verifier(self.b)], **changes)
        return ResourceServer(
            verifier=verifier, resource=API, replay_store=self.store, on_event=self.events.append
        )

    def verifier(self, issuer: TestIssuer, **changes: Any) -> AccessTokenVerifier:
        options: dict[str, Any] = {"audience": issuer.audience, "jwks": issuer.jwks(), **changes}
        return JWTAccessTokenVerifier(issuer=issuer.issuer, **options)

    async def ask(self, token: str, *, proof: str | None = None) -> Any:
        sent = KEY.proof("GET", f"{API}/notes", access_token=token) if proof is None else proof
        return await self.api.authenticate(request(token, sent, hosts=("api.example.com",)))

    async def refused(self, token: str) -> DPoPError:
        with pytest.raises(DPoPError) as caught:
            await self.ask(token)
        return caught.value


@pytest.fixture
def world() -> World:
    return World()


async def test_the_attacker_signs_for_another_issuer_with_its_own_key(world: World) -> None:
    error = await world.refused(world.a.token(jkt=KEY.jkt, iss=B, audience=world.b.audience))
    assert isinstance(error, InvalidToken)
    assert error.check is Check.TOKEN_KEY


async def test_the_attacker_gives_its_key_the_name_of_the_other_issuers(world: World) -> None:
    token = world.a.token(jkt=KEY.jkt, iss=B, audience=world.b.audience, header={"kid": world.b.kid})
    assert (await world.refused(token)).check is Check.TOKEN_SIGNATURE


@pytest.mark.parametrize("kid", ["1", ABSENT])
async def test_the_attacker_publishes_keys_of_the_same_name(world: World, kid: Any) -> None:
    def named(issuer: TestIssuer) -> dict[str, Any]:
        (key,) = issuer.jwks()["keys"]
        return {"keys": [merged(key, {"kid": kid})]}

    verifiers = [world.verifier(one, jwks=named(one)) for one in (world.a, world.b)]
    world.api = ResourceServer(
        verifier=MultiIssuerVerifier(verifiers), resource=API, replay_store=world.store
    )
    arguments: dict[str, Any] = {"jkt": KEY.jkt, "header": {"kid": kid}}
    assert (await world.ask(world.a.token(**arguments))).issuer == A
    assert (await world.ask(world.b.token(**arguments))).issuer == B
    forged = world.a.token(iss=B, audience=world.b.audience, **arguments)
    assert (await world.refused(forged)).check is Check.TOKEN_SIGNATURE


async def test_the_attacker_uses_the_audience_of_another_issuer(world: World) -> None:
    # B's name for this API means nothing in a token of A, and the reverse.
    for issuer, other in ((world.a, world.b), (world.b, world.a)):
        error = await world.refused(issuer.token(jkt=KEY.jkt, audience=other.audience))
        assert error.check is Check.TOKEN_AUD


async def test_the_attacker_takes_the_name_of_a_user_of_another_issuer(world: World) -> None:
    verdicts = [await world.ask(issuer.token(jkt=KEY.jkt, sub="1")) for issuer in (world.a, world.b)]
    assert [verified.issuer for verified in verdicts] == [A, B]
    assert [verified.access_token.identity for verified in verdicts] == [f"{A} 1", f"{B} 1"]
    pretended = await world.ask(world.a.token(jkt=KEY.jkt, sub=f"{B} 1"))
    assert pretended.access_token.identity == f"{A} {B} 1"
    assert [event.issuer for event in world.events] == [A, B, A]


@pytest.mark.parametrize(
    "payload",
    [
        '{{"act":{{"iss":"{b}"}},{rest}',
        '{{{rest_open},"act":{{"iss":"{b}","sub":"1"}}}}',
        '{{"x":[{{"iss":"{b}"}}],{rest}',
        '{{"x":"\\"iss\\":\\"{b}\\"",{rest}',
    ],
)
async def test_the_attacker_hides_another_issuer_in_its_token(world: World, payload: str) -> None:
    honest = world.a.token(jkt=KEY.jkt, sub="1")
    claims = base64url.decode(honest.split(".")[1]).decode()
    text = payload.format(b=B, rest=claims[1:], rest_open=claims[1:-1])
    verified = await world.ask(signed(world.a, text))
    assert (verified.issuer, verified.access_token.identity) == (A, f"{A} 1")


def signed(issuer: TestIssuer, payload: str) -> str:
    header = json.dumps({"typ": "at+jwt", "alg": issuer.key.algorithm, "kid": issuer.kid})
    signing_input = ".".join(base64url.encode(part.encode()) for part in (header, payload))
    return f"{signing_input}.{base64url.encode(issuer.key.sign(signing_input.encode()))}"


@pytest.mark.parametrize("first", [A, B])
async def test_the_attacker_names_two_issuers_at_the_top(world: World, first: str) -> None:
    claims = base64url.decode(world.a.token(jkt=KEY.jkt).split(".")[1]).decode()
    second = claims[1:].replace(A, B if first == A else A)
    error = await world.refused(signed(world.a, f'{{"iss":"{first}",{second}'))
    assert isinstance(error, InvalidToken)
    assert error.check in (Check.TOKEN_CLAIMS, Check.TOKEN_KEY)


async def test_the_attacker_replays_a_proof_at_a_server_of_other_issuers(world: World) -> None:
    token = world.a.token(jkt=KEY.jkt)
    proof = KEY.proof("GET", f"{API}/notes", access_token=token)
    await world.ask(token, proof=proof)
    world.api = ResourceServer(
        verifier=MultiIssuerVerifier([world.verifier(world.a)]), resource=API, replay_store=world.store
    )
    with pytest.raises(InvalidDPoPProof) as caught:
        await world.ask(token, proof=proof)
    assert caught.value.check is Check.JTI


async def test_the_attacker_floods_the_server_with_unknown_issuers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(named_issuers, "time", SimpleNamespace(monotonic=lambda: 0.0))
    asked: list[str] = []

    async def resolver(issuer: str) -> AccessTokenVerifier | None:
        asked.append(issuer)
        return tenant if issuer == "https://tenant.example.com" else None

    world = World(resolver=resolver)
    issuer = TestIssuer("https://tenant.example.com", audience=API)
    tenant = world.verifier(issuer)
    assert (await world.ask(issuer.token(jkt=KEY.jkt))).issuer == issuer.issuer
    made_up = TestIssuer("https://x.example.com", audience=API)
    unavailable = 0
    for number in range(1000):
        error = await world.refused(made_up.token(jkt=KEY.jkt, iss=f"https://{number}.example.com"))
        unavailable += isinstance(error, Unavailable)
        assert error.check is Check.TOKEN_ISS
    assert (len(asked), unavailable) == (1 + named_issuers.LOOKUPS, MAX_UNAVAILABLE)
    assert (await world.ask(issuer.token(jkt=KEY.jkt))).issuer == issuer.issuer
    assert (await world.ask(world.a.token(jkt=KEY.jkt))).issuer == A
    assert (await world.ask(world.b.token(jkt=KEY.jkt))).issuer == B


@pytest.mark.parametrize(
    "issuer",
    [
        "http://169.254.169.254/",
        "file:///etc/passwd",
        "https://a.example.com.evil.example",
        "a\nb",
        "x" * 600,
    ],
)
async def test_the_attacker_wants_something_fetched_in_the_name_of_an_issuer(
    issuer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: object, **__: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("dpop_middleware.tokens.fetch.Fetcher.get", fetched)
    asked: list[str] = []

    async def resolver(name: str) -> AccessTokenVerifier | None:
        asked.append(name)
        return None

    world = World(resolver=resolver)
    error = await world.refused(TestIssuer(A, audience=API).token(jkt=KEY.jkt, iss=issuer))
    assert isinstance(error, InvalidToken)
    # Nothing but one line of visible ASCII is handed on.
    assert asked == ([issuer] if issuer.isprintable() and len(issuer) < 512 else [])
