"""Attacks on the fetching of keys."""

import asyncio
import json
import secrets
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from dpop_middleware import JWTAccessTokenVerifier, MemoryReplayStore, ResourceServer
from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.jose import base64url
from dpop_middleware.tokens import AccessToken
from dpop_middleware.tokens.admission import MAX_UNAVAILABLE, MAX_WAITING, UNAVAILABLE_PER_SECOND
from dpop_middleware.tokens.jwks import KeySet
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource
from tests.support.issuer_server import METADATA, OPENID, Asked, IssuerServer, Script, answer, json_answer
from tests.support.issuer_tokens import ISSUER, RESOURCE, issuer_key, key_set

KEY = issuer_key("ES256")
FORGER = issuer_key("ES256", number=666, kid="forger")


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
        yield server


def verifier(server: IssuerServer, /, **options: Any) -> JWTAccessTokenVerifier:
    # A busy machine's issuer answers late, and is well all the same.
    defaults: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": RESOURCE,
        "jwks": f"{server.origin}/jwks",
        "jwks_patience": 30,
    }
    return JWTAccessTokenVerifier(**(defaults | options))


def unknown_key(kid: str | None = None) -> str:
    return FORGER.token(header={"kid": kid or secrets.token_hex(8)})


async def outcome_of(judge: JWTAccessTokenVerifier, token: str) -> type[Any]:
    try:
        return type(await judge.verify(token))
    except (InvalidToken, Unavailable) as error:
        return type(error)


async def outcomes_of(judge: JWTAccessTokenVerifier, tokens: list[str]) -> Counter[type[Any]]:
    return Counter(await asyncio.gather(*(outcome_of(judge, token) for token in tokens)))


# The attacker wants many fetches.


async def test_tokens_that_name_other_keys_cause_few_fetches(issuer: IssuerServer) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    begun = time.monotonic()
    for _ in range(4):
        assert await outcomes_of(judge, [unknown_key() for _ in range(200)]) == {InvalidToken: 800 // 4}
    assert len(issuer.asked) <= 2 + 2 * (time.monotonic() - begun + 1)


async def test_tokens_that_name_no_key_cause_few_fetches(issuer: IssuerServer) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    begun = time.monotonic()
    tokens = [FORGER.token(header={"kid": ...}, jti=str(number)) for number in range(100)]
    assert await outcomes_of(judge, tokens) == {InvalidToken: 100}
    assert len(issuer.asked) <= 2 + 2 * (time.monotonic() - begun + 1)


async def test_a_forged_signature_causes_no_fetch(issuer: IssuerServer) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    for number in range(20):
        forged = FORGER.token(header={"kid": KEY.kid}, jti=str(number))
        assert await outcome_of(judge, forged) is InvalidToken
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "https://other.example"},
        {"exp": 1},
        {"exp": ...},
        {"cnf": 5},
    ],
)
async def test_a_token_for_another_api_causes_no_fetch(issuer: IssuerServer, claims: dict[str, Any]) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    assert await outcome_of(judge, FORGER.token(**claims)) is InvalidToken
    assert len(issuer.asked) == 1


async def test_an_address_in_the_token_is_never_fetched(issuer: IssuerServer) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    for member in ("jku", "x5u", "kid", "jwk"):
        header = {"kid": "forger", member: f"{issuer.origin}/forged"}
        assert await outcome_of(judge, FORGER.token(header=header)) is InvalidToken
    assert set(issuer.targets) == {"/jwks"}


async def test_probes_cause_few_fetches(issuer: IssuerServer) -> None:
    issuer.handlers["/jwks"] = lambda _: answer(b"", status=500)
    api = ResourceServer(verifier=verifier(issuer), resource=RESOURCE, replay_store=MemoryReplayStore())
    healths = await asyncio.gather(*(api.health() for _ in range(500)))
    assert not any(health.ready for health in healths)
    assert len(issuer.asked) == 1


# The attacker wants others to wait, or to be refused.


async def test_a_token_with_a_known_key_does_not_wait(issuer: IssuerServer) -> None:
    judge = verifier(issuer, jwks_patience=1)
    await judge.verify(KEY.token())
    issuer.handlers["/jwks"] = lambda _: [10.0]
    floods = [asyncio.create_task(outcome_of(judge, unknown_key())) for _ in range(50)]
    await asyncio.sleep(0)
    for number in range(20):
        token = KEY.token(jti=str(number))
        # The event loop never runs in between: nothing is awaited.
        with pytest.raises(StopIteration):
            judge.verify(token).send(None)
    assert set(await asyncio.gather(*floods)) == {Unavailable}


async def test_a_published_key_gets_no_401_while_an_attacker_asks_for_others(issuer: IssuerServer) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    for number in range(3):
        flood = [asyncio.create_task(outcome_of(judge, unknown_key())) for _ in range(100)]
        await asyncio.sleep(0.01)
        new = issuer_key("ES256", kid=f"new-{number}")
        issuer.handlers["/jwks"] = lambda _, new=new: json_answer(key_set(KEY, new))  # type: ignore[misc]
        tokens = [new.token(jti=str(position)) for position in range(20)]
        found = await outcomes_of(judge, tokens)
        assert found[InvalidToken] == 0
        # A busy machine may be late; otherwise there is none.
        assert found[AccessToken] + found[Unavailable] == 20
        await asyncio.gather(*flood)


async def test_a_name_that_was_named_before_it_was_published_gets_no_401_afterwards(
    issuer: IssuerServer,
) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    assert await outcome_of(judge, unknown_key("2026-12")) is InvalidToken
    new = issuer_key("ES256", kid="2026-12")
    issuer.handlers["/jwks"] = lambda _: json_answer(key_set(KEY, new))
    # For half a second it is remembered as missing, for any number of requests.
    async with asyncio.timeout(60):
        while await outcome_of(judge, new.token()) is InvalidToken:
            assert await outcome_of(judge, unknown_key("2026-12")) is InvalidToken
            await asyncio.sleep(0.02)
    assert await outcome_of(judge, new.token()) is AccessToken


async def test_no_token_gets_401_while_an_issuer_that_names_no_key_rotates_under_load(
    issuer: IssuerServer,
) -> None:
    oldest, old, new = (issuer_key("ES256", number=number, kid=None) for number in (11, 12, 13))
    issuer.handlers["/jwks"] = lambda _: json_answer(key_set(oldest, old))
    judge = verifier(issuer)
    for key in (oldest, old):
        await judge.verify(key.token())
    published = threading.Event()

    def rotated(_: Asked) -> Script:
        assert published.wait(30)
        return json_answer(key_set(old, new))

    issuer.handlers["/jwks"] = rotated
    tokens = [key.token(jti=str(number)) for number in range(50) for key in (new, old, old)]
    waiting = [asyncio.create_task(outcome_of(judge, token)) for token in tokens]
    await asyncio.sleep(0)
    published.set()
    assert Counter(await asyncio.gather(*waiting)) == {AccessToken: 150}
    later = [key.token(jti=f"later-{number}") for number in range(50) for key in (new, old, old)]
    assert await outcomes_of(judge, later) == {AccessToken: 150}


# The attacker wants 5xx responses.


async def test_the_attacker_causes_no_5xx_while_the_issuer_is_well(issuer: IssuerServer) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    tokens = [unknown_key() for _ in range(300)]
    assert await outcomes_of(judge, tokens) == {InvalidToken: 300}


async def test_5xx_are_limited_while_the_issuer_is_down(issuer: IssuerServer) -> None:
    judge = verifier(issuer, jwks_patience=3)
    await judge.verify(KEY.token())
    issuer.handlers["/jwks"] = lambda _: answer(b"", status=500)
    begun = time.monotonic()
    found = await outcomes_of(judge, [unknown_key() for _ in range(1000)])
    assert found[Unavailable] <= MAX_UNAVAILABLE + UNAVAILABLE_PER_SECOND * (time.monotonic() - begun)
    assert found[InvalidToken] == 1000 - found[Unavailable]
    assert await outcome_of(judge, KEY.token(jti="another")) is AccessToken


async def test_a_static_set_causes_no_5xx() -> None:
    judge = JWTAccessTokenVerifier(issuer=ISSUER, audience=RESOURCE, jwks=key_set(KEY))
    assert await outcomes_of(judge, [unknown_key() for _ in range(100)]) == {InvalidToken: 100}


# The attacker wants to fill memory.


async def test_names_of_unknown_keys_take_little_memory(issuer: IssuerServer) -> None:
    judge = verifier(issuer)
    await judge.verify(KEY.token())
    tokens = [unknown_key("x" * 10_000 + str(number)) for number in range(600)]
    assert await outcomes_of(judge, tokens[:100]) == {InvalidToken: 100}
    tracemalloc.start()
    try:
        for start in range(100, 600, 100):
            assert await outcomes_of(judge, tokens[start : start + 100]) == {InvalidToken: 100}
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 256 * 1024, "5 MB of names came"


async def test_the_number_of_waiting_requests_is_limited() -> None:
    answering = threading.Event()
    answering.set()

    def fetch(_: asyncio.AbstractEventLoop) -> KeySet:
        answering.wait(60)
        return KeySet(())

    source = RemoteKeySource(fetch, lifetimes=Lifetimes())
    keys = await source.load()
    answering.clear()
    since = time.monotonic()
    tasks = [
        asyncio.create_task(source.newer_than(keys, since=since, wanted=str(number)))
        for number in range(MAX_WAITING + 500)
    ]
    await asyncio.sleep(0)
    done = [task for task in tasks if task.done()]
    # Those beyond are answered at once: some 503, the others as if the issuer didn't have the key.
    assert len(done) == 500
    refused = [task for task in done if task.exception() is not None]
    since_then = UNAVAILABLE_PER_SECOND * (time.monotonic() - since)
    assert MAX_UNAVAILABLE <= len(refused) <= MAX_UNAVAILABLE + since_then
    assert all(task.result() is keys for task in done if task not in refused)
    answering.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Each place was given back.
    answering.clear()
    keys = await source.load()
    since = time.monotonic()
    tasks = [
        asyncio.create_task(source.newer_than(keys, since=since, wanted="x")) for _ in range(MAX_WAITING)
    ]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    answering.set()
    await asyncio.gather(*tasks, return_exceptions=True)


# The attacker wants other keys to be accepted.


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": ISSUER, "jwks_uri": "http://localhost:1/jwks"},
        {"issuer": ISSUER, "jwks_uri": "https://127.0.0.1/jwks"},
        {"issuer": ISSUER, "jwks_uri": "http://as.example.com/jwks"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
        {"issuer": ISSUER + "/", "jwks_uri": "https://as.example.com/jwks"},
        {"issuer": [ISSUER], "jwks_uri": "https://as.example.com/jwks"},
    ],
)
def test_a_key_from_another_place_than_the_issuers_is_not_accepted(metadata: dict[str, Any]) -> None:
    from dpop_middleware.tokens.connections import FetchError
    from dpop_middleware.tokens.issuer_keys import endpoint_named

    document = json.loads(json.dumps(metadata))
    with pytest.raises(FetchError):
        endpoint_named("jwks_uri", document, issuer=ISSUER, insecure_http_hosts=frozenset())


@pytest.mark.parametrize("path", [METADATA, OPENID, "/jwks"])
async def test_a_key_behind_a_redirect_to_another_origin_is_not_accepted(
    issuer: IssuerServer, path: str
) -> None:
    issuer.publish(key_set(KEY))
    issuer.handlers[OPENID] = issuer.handlers[METADATA]
    with IssuerServer() as attacker:
        attacker.publish(key_set(FORGER), issuer=issuer.origin)
        for redirected in {path, METADATA if path == OPENID else path}:
            location = f"{attacker.origin}{redirected}"
            issuer.handlers[redirected] = lambda _, to=location: answer(  # type: ignore[misc]
                b"", status=302, headers={"Location": to}
            )
        judge = verifier(issuer, issuer=issuer.origin, jwks=None)
        assert await outcome_of(judge, FORGER.token(iss=issuer.origin)) in (Unavailable, InvalidToken)
        assert attacker.asked == []


async def test_a_key_of_another_issuer_is_not_accepted(issuer: IssuerServer) -> None:
    issuer.publish(key_set(KEY))
    with IssuerServer() as other:
        other.publish(key_set(FORGER))
        ours = verifier(issuer, issuer=issuer.origin, jwks=None)
        theirs = verifier(issuer, issuer=other.origin, jwks=None)
        assert await outcome_of(theirs, FORGER.token(iss=other.origin)) is AccessToken
        assert await outcome_of(ours, FORGER.token(iss=issuer.origin)) is InvalidToken
        assert await outcome_of(ours, FORGER.token(iss=other.origin)) is InvalidToken


async def test_a_withdrawn_key_is_not_accepted_again(issuer: IssuerServer) -> None:
    judge = verifier(issuer)
    withdrawn = issuer_key("ES256", kid="withdrawn")
    issuer.handlers["/jwks"] = lambda _: json_answer(key_set(KEY, withdrawn))
    token = withdrawn.token()
    await judge.verify(token)
    issuer.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    # An attacker's unknown key causes the newer set to be fetched earlier; nothing brings the older one back.
    assert await outcome_of(judge, unknown_key()) is InvalidToken
    assert await outcome_of(judge, token) is InvalidToken


async def test_the_key_of_a_known_token_is_not_looked_for_twice(issuer: IssuerServer) -> None:
    offset = 0.0
    judge = verifier(issuer, clock=lambda: time.time() + offset, jwks_lifetime=60)
    token = KEY.token()
    await judge.verify(token)
    issuer.handlers["/jwks"] = lambda _: json_answer(key_set(issuer_key("ES256", kid="another")))
    # Nobody came for so long that requests wait for new keys: this one waits for one fetch, not for two.
    offset = 200.0
    assert await outcome_of(judge, token) is InvalidToken
    assert issuer.targets == ["/jwks"] * 2


async def test_a_signature_by_a_small_order_or_a_symmetric_key_is_refused(issuer: IssuerServer) -> None:
    small = {"kty": "OKP", "crv": "Ed25519", "kid": "small", "x": base64url.encode(b"\1" + bytes(31))}
    symmetric = {"kty": "oct", "kid": "symmetric", "k": base64url.encode(b"k" * 32)}
    issuer.handlers["/jwks"] = lambda _: json_answer({"keys": [KEY.jwk, small, symmetric]})
    judge = verifier(issuer)
    header, payload, _ = FORGER.token(header={"alg": "EdDSA", "kid": "small"}).split(".")
    signature = base64url.encode(b"\1" + bytes(63))
    forged = f"{header}.{payload}.{signature}"
    assert await outcome_of(judge, forged) is InvalidToken
    assert await outcome_of(judge, KEY.token(header={"alg": "HS256", "kid": "symmetric"})) is InvalidToken
