"""The whole verifier of JWT access tokens: real keys, a real issuer, and anything that a client may send."""

import asyncio
import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, DPoPError, InvalidToken, Unavailable
from dpop_middleware.jose import base64url
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.tokens import AccessToken, AccessTokenVerifier, JWTAccessTokenVerifier
from tests.support.issuer_server import METADATA, IssuerServer, answer, json_answer
from tests.support.issuer_tokens import ISSUER, JKT, RESOURCE, IssuerKey, issuer_key, key_set
from tests.support.loop_clock import LoopClock

KEY = issuer_key("ES256")


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def verifier(*keys: IssuerKey, **options: Any) -> JWTAccessTokenVerifier:
    # A busy machine's issuer answers late, and is well all the same.
    defaults: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": RESOURCE,
        "jwks": key_set(*(keys or (KEY,))),
        "jwks_patience": 30,
    }
    return JWTAccessTokenVerifier(**(defaults | options))


async def refused(judge: AccessTokenVerifier, token: str) -> InvalidToken:
    with pytest.raises(InvalidToken) as caught:
        await judge.verify(token)
    error = caught.value
    for part in token.split("."):
        if len(part) > 20:
            assert part not in f"{error.description}{error.expected}{error.actual}"
    return error


@pytest.fixture
def server() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


async def test_a_good_token_is_accepted() -> None:
    judge = verifier()
    token = await judge.verify(KEY.token())
    assert isinstance(token, AccessToken)
    assert (token.issuer, token.subject, token.client_id) == (ISSUER, "someone@example.com", "s6BhdRkqt3")
    assert (token.scopes, token.jkt) == (frozenset({"notes:read", "notes:write"}), JKT)
    assert token.expires_at == token.claims["exp"]
    assert isinstance(token.claims, Mapping)
    assert judge.issuers == (ISSUER,)
    await judge.aclose()


@pytest.mark.parametrize("alg", SUPPORTED_ALGORITHMS)
async def test_every_algorithm_is_verified(alg: str) -> None:
    key = issuer_key(alg)
    judge = verifier(key)
    token = key.token()
    assert (await judge.verify(token)).jkt == JKT
    head, payload, signature = token.split(".")
    octets = bytearray(base64url.decode(signature))
    octets[5] ^= 1
    error = await refused(judge, f"{head}.{payload}.{base64url.encode(bytes(octets))}")
    assert (error.check, error.description) == (
        Check.TOKEN_SIGNATURE,
        "the access token's signature is wrong",
    )
    assert (await refused(judge, f"{head}.{payload}.")).check is Check.TOKEN_SIGNATURE


async def test_only_configured_algorithms_are_accepted() -> None:
    judge = verifier(algorithms=["ES384"])
    assert (await refused(judge, KEY.token())).check is Check.TOKEN_ALG


async def test_another_key_under_the_same_name_is_refused() -> None:
    stranger = issuer_key("ES256", number=2)
    error = await refused(verifier(), stranger.token())
    assert error.check is Check.TOKEN_SIGNATURE
    assert (await refused(verifier(), stranger.token(header={"jwk": stranger.jwk}))).check is (
        Check.TOKEN_SIGNATURE
    )


async def test_a_key_for_another_algorithm_is_refused() -> None:
    rsa = issuer_key("RS256")
    keys = {"keys": [rsa.jwk | {"alg": "RS256"}]}
    forged = IssuerKey("PS256", rsa.private)
    error = await refused(verifier(jwks=keys), forged.token())
    assert error.check is Check.TOKEN_KEY
    assert error.description == "the issuer has no key that fits the access token"


async def test_an_unknown_key_of_a_static_set_is_refused() -> None:
    assert (await refused(verifier(), KEY.token(header={"kid": "other"}))).check is Check.TOKEN_KEY


async def test_a_token_without_kid_is_verified_by_the_key_that_fits() -> None:
    assert (await verifier().verify(KEY.token(header={"kid": ...}))).jkt == JKT
    nameless = issuer_key("ES256", number=4, kid=None)
    judge = verifier(KEY, nameless)
    assert (await judge.verify(nameless.token())).jkt == JKT
    assert (await judge.verify(nameless.token(header={"kid": "any"}))).jkt == JKT


async def test_a_token_without_kid_by_a_key_that_was_not_tried_says_what_it_lacks() -> None:
    keys = [issuer_key("ES256", number=number, kid=None) for number in (1, 2, 3)]
    error = await refused(verifier(*keys), keys[2].token())
    assert (error.check, error.expected) == (Check.TOKEN_KEY, "kid")
    # With two keys each was tried.
    assert (await refused(verifier(*keys[:2]), keys[2].token())).check is Check.TOKEN_SIGNATURE


async def test_claims_and_times_are_judged() -> None:
    clock = Clock()
    judge = verifier(clock=clock)
    assert (await refused(judge, KEY.token(iss="https://other.example"))).check is Check.TOKEN_ISS
    assert (await refused(judge, KEY.token(aud="other"))).check is Check.TOKEN_AUD
    assert (await refused(judge, KEY.token(exp=int(clock.now) - 20))).check is Check.TOKEN_TIME
    assert (await refused(judge, KEY.token(cnf={"x5t#S256": JKT}))).check is Check.BINDING
    assert (await refused(judge, KEY.token(sub=...))).check is Check.TOKEN_CLAIMS
    assert (
        await refused(judge, KEY.sign({"typ": "at+jwt", "alg": "ES256"}, "[]"))
    ).check is Check.TOKEN_CLAIMS


async def test_options_fit_issuers_that_differ_from_rfc_9068() -> None:
    judge = verifier(
        audience=["api", RESOURCE],
        token_types=("JWT", None),
        scope_claims=("scp",),
        client_id_claims=("cid",),
        required_claims=("iss", "exp", "aud", "client_id"),
    )
    claims: dict[str, Any] = {
        "client_id": ...,
        "jti": ...,
        "scope": ...,
        "cid": "app",
        "scp": ["a"],
        "aud": "api",
    }
    for typ in ("jwt", ...):
        token = await judge.verify(KEY.token(header={"typ": typ}, **claims))
        assert (token.client_id, token.scopes) == ("app", frozenset({"a"}))
    assert (await refused(judge, KEY.token(**claims))).check is Check.TOKEN_TYP


async def test_the_size_of_a_token_is_limited() -> None:
    error = await refused(verifier(), KEY.token(padding="x" * 16384))
    assert error.check is Check.TOKEN_FORMAT


async def test_characters_that_no_token_has_are_refused() -> None:
    for token in ("\ud800", "é.é.é", KEY.token() + "\u00e9"):
        assert (await refused(verifier(), token)).check is Check.TOKEN_FORMAT


@settings(max_examples=300)
@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){0,5}", fullmatch=True))
def test_no_string_raises_anything_but_our_errors(token: str) -> None:
    with pytest.raises(DPoPError):
        asyncio.run(verifier().verify(token))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
HEADER_NAMES = st.sampled_from(["typ", "alg", "kid", "crit", "b64", "zip", "enc", "jwk", "x"])
CLAIM_NAMES = st.sampled_from(
    ["iss", "aud", "exp", "iat", "nbf", "sub", "client_id", "jti", "scope", "cnf", "x"]
)


@settings(max_examples=300)
@given(st.dictionaries(HEADER_NAMES, JSON, max_size=2), st.dictionaries(CLAIM_NAMES, JSON, max_size=3))
def test_no_signed_token_raises_anything_but_our_errors(header: Any, claims: Any) -> None:
    try:
        token = asyncio.run(verifier().verify(KEY.token(header=header, **claims)))
    except InvalidToken:
        return
    assert "cnf" not in claims
    assert token.jkt == JKT


async def test_a_verified_token_is_remembered() -> None:
    judge = verifier()
    first = await judge.verify(KEY.token(jti="1"))
    assert await judge.verify(KEY.token(jti="1")) == first
    token = KEY.token(jti="2")
    assert await judge.verify(token) is await judge.verify(token)


async def test_refused_tokens_are_not_remembered() -> None:
    judge = verifier()
    for token in (KEY.token(aud="other"), issuer_key("ES256", number=2).token(), "x.y.z"):
        first = await refused(judge, token)
        again = await refused(judge, token)
        assert again is not first
        assert again.check is first.check


async def test_a_remembered_token_expires() -> None:
    clock = Clock()
    judge = verifier(clock=clock, clock_skew=5)
    token = KEY.token()
    await judge.verify(token)
    clock.now += 604
    await judge.verify(token)
    clock.now += 2
    error = await refused(judge, token)
    assert (error.check, error.description) == (Check.TOKEN_TIME, "the access token has expired")


async def test_a_remembered_token_is_not_valid_before_its_time() -> None:
    clock = Clock()
    judge = verifier(clock=clock)
    token = KEY.token()
    await judge.verify(token)
    clock.now -= 100
    assert (await refused(judge, token)).description == "the access token is not valid yet"


async def test_the_number_of_remembered_tokens_is_bounded() -> None:
    judge = verifier(max_cached_tokens=3)
    tokens = [KEY.token(jti=f"token-{number}") for number in range(5)]
    verified = [await judge.verify(token) for token in tokens]
    # A remembered token is the same object; the newest are looked up first, since a look-up keeps an entry.
    same = [await judge.verify(tokens[number]) is verified[number] for number in (4, 3, 2, 1, 0)]
    assert same == [True, True, True, False, False]


async def test_of_no_tokens_at_all_none_is_remembered() -> None:
    judge, token = verifier(max_cached_tokens=0), KEY.token()
    assert await judge.verify(token) is not await judge.verify(token)


async def test_a_token_with_the_end_of_a_remembered_one_is_another_token() -> None:
    judge, token = verifier(), KEY.token()
    verified = await judge.verify(token)
    signature = token.rpartition(".")[2]
    head, payload, _ = KEY.token(sub="mallory").split(".")
    error = await refused(judge, f"{head}.{payload}.{signature}")
    assert error.check is Check.TOKEN_SIGNATURE
    assert await judge.verify(token) is verified


async def test_many_requests_share_one_discovery_and_one_fetch(server: IssuerServer) -> None:
    server.publish(key_set(KEY))
    judge = verifier(issuer=server.origin, jwks=None)
    tokens = [KEY.token(iss=server.origin, jti=str(number)) for number in range(50)]
    verified = await asyncio.gather(*map(judge.verify, tokens))
    assert {token.claims["jti"] for token in verified} == {str(number) for number in range(50)}
    assert server.targets == [METADATA, "/jwks"]
    await judge.aclose()


async def test_an_issuer_that_is_down_from_the_beginning_is_503() -> None:
    judge = verifier(jwks="http://127.0.0.1:1/jwks")
    with pytest.raises(Unavailable) as caught:
        await judge.verify(KEY.token())
    assert (caught.value.check, caught.value.retry_after) == (Check.TOKEN_KEY, 1)
    assert (await refused(judge, "x.y.z")).check is Check.TOKEN_FORMAT


async def test_an_issuer_that_hangs_from_the_beginning_is_503(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.handlers["/jwks"] = lambda _: [10.0]
    judge, clock = verifier(jwks=f"{server.origin}/jwks", jwks_patience=1), LoopClock(monkeypatch)
    asking = asyncio.gather(
        *(judge.verify(KEY.token(jti=str(number))) for number in range(50)), return_exceptions=True
    )
    await clock.until(lambda: len(server.asked) == 1)
    assert not asking.done()
    # Much less than the fetch may take: no request waits for its end.
    clock.now += 1.1
    await clock.until(asking.done)
    outcomes = asking.result()
    assert {(type(outcome), getattr(outcome, "retry_after", 0)) for outcome in outcomes} == {(Unavailable, 1)}
    assert len(server.asked) == 1


async def test_a_malformed_token_causes_no_fetch(server: IssuerServer) -> None:
    judge = verifier(jwks=f"{server.origin}/jwks")
    for token in ("", "x.y.z", KEY.token(header={"alg": "HS256"}), KEY.token(header={"typ": "JWT"})):
        await refused(judge, token)
    assert server.asked == []


async def test_a_key_is_found_as_soon_as_it_is_published(server: IssuerServer) -> None:
    new = issuer_key("ES256", number=2, kid="key-2")
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    judge = verifier(jwks=f"{server.origin}/jwks")
    await judge.verify(KEY.token())
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY, new))
    tokens = [new.token(jti=str(number)) for number in range(50)]
    assert {token.jkt for token in await asyncio.gather(*map(judge.verify, tokens))} == {JKT}
    assert len(server.asked) == 2
    newest = issuer_key("ES384", kid="key-3")
    server.handlers["/jwks"] = lambda _: json_answer(key_set(new, newest))
    assert (await judge.verify(newest.token())).jkt == JKT
    assert len(server.asked) == 3


async def test_an_unknown_key_is_looked_for_once(server: IssuerServer) -> None:
    clock = Clock()
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    judge = verifier(jwks=f"{server.origin}/jwks", clock=clock, max_cached_tokens=3)
    good = KEY.token()
    verified = await judge.verify(good)
    clock.now += 10
    for number in range(20):
        error = await refused(judge, KEY.token(header={"kid": "other"}, jti=str(number)))
        assert (error.check, error.actual, error.expected) == (Check.TOKEN_KEY, "'other'", "ES256")
    assert len(server.asked) == 2
    # With another algorithm the key may be found.
    assert (await refused(judge, issuer_key("ES384", kid="other").token())).check is Check.TOKEN_KEY
    assert len(server.asked) == 3
    assert await judge.verify(good) is verified, "nothing was evicted by them"


async def test_a_name_whose_key_does_not_fit_is_looked_for_too(server: IssuerServer) -> None:
    renewed = issuer_key("ES384", kid="key-1")
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    judge = verifier(jwks=f"{server.origin}/jwks")
    await judge.verify(KEY.token())
    server.handlers["/jwks"] = lambda _: json_answer(key_set(renewed))
    assert (await judge.verify(renewed.token())).jkt == JKT


async def test_a_flood_of_unknown_keys_causes_few_fetches(server: IssuerServer) -> None:
    clock = Clock()
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    judge = verifier(jwks=f"{server.origin}/jwks", clock=clock)
    await judge.verify(KEY.token())
    clock.now += 10
    unknown = [KEY.token(header={"kid": f"random-{number}"}) for number in range(300)]
    begun = time.monotonic()
    outcomes = await asyncio.gather(*map(judge.verify, unknown), return_exceptions=True)
    # Which of the two depends on how many a busy machine judges within a second.
    assert {type(outcome) for outcome in outcomes} <= {InvalidToken, Unavailable}
    assert 2 <= len(server.asked) <= 3 + 2 * (time.monotonic() - begun)


async def test_a_token_that_no_key_could_make_acceptable_causes_no_fetch(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    judge = verifier(jwks=f"{server.origin}/jwks")
    await judge.verify(KEY.token())
    unknown = {"kid": "unknown"}
    for token in (
        KEY.token(header=unknown, iss="https://other.example"),
        KEY.token(header=unknown, exp=int(time.time()) - 1000),
        KEY.token(aud="other"),
    ):
        await refused(judge, token)
    assert len(server.asked) == 1
    # Unless looking would cost more than a verification.
    large = KEY.token(header=unknown, aud="other", roles=["x"] * 200)
    long = KEY.token(header=unknown, aud="other", note="x" * 6000)
    assert [(await refused(judge, token)).check for token in (large, long)] == [Check.TOKEN_KEY] * 2
    assert len(server.asked) == 2


async def test_a_token_that_no_key_could_make_acceptable_waits_for_none_at_the_start(
    server: IssuerServer,
) -> None:
    judge = verifier(jwks=f"{server.origin}/jwks")
    for wrong, check in (
        (KEY.token(iss="https://other.example"), Check.TOKEN_ISS),
        (KEY.token(aud="other"), Check.TOKEN_AUD),
        (KEY.token(exp=int(time.time()) - 1000), Check.TOKEN_TIME),
    ):
        assert (await refused(judge, wrong)).check is check
    assert server.asked == []
    server.publish(key_set(KEY))
    assert (await judge.verify(KEY.token())).jkt == JKT


async def test_a_key_that_is_left_out_is_named_in_the_log(server: IssuerServer) -> None:
    odd = issuer_key("ES384", kid="odd").jwk | {"key_ops": ["sign"]}
    server.handlers["/jwks"] = lambda _: json_answer({"keys": [KEY.jwk, odd]})
    judge = verifier(jwks=f"{server.origin}/jwks")
    error = await refused(judge, issuer_key("ES384", kid="odd").token())
    assert error.check is Check.TOKEN_KEY
    assert error.actual == (
        "key 1 of the JWK Set, kid 'odd', is left out: its key_ops are ['sign'], without 'verify'"
    )


async def test_a_set_without_a_usable_key_does_not_replace_the_previous_one(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
    clock = Clock()
    judge = verifier(jwks=f"{server.origin}/jwks", clock=clock, jwks_patience=3)
    with pytest.raises(Unavailable) as caught:
        await judge.verify(KEY.token())
    assert caught.value.retry_after == 1
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    clock.now += 1
    token = KEY.token()
    await judge.verify(token)
    server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
    clock.now += 400
    await judge.verify(token)
    await judge.aclose()
    # The previous keys stay in use, and any other key can't be known.
    assert (await judge.verify(KEY.token(jti="another"))).jkt == JKT
    with pytest.raises(Unavailable):
        await judge.verify(KEY.token(header={"kid": "unknown"}))


async def test_opening_fetches_and_logs_errors(
    server: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.publish(key_set(KEY), issuer=f"{server.origin}/")
    judge = verifier(issuer=server.origin, jwks=None)
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        await judge.open()
        await judge.aclose()
    (message,) = caplog.messages
    assert f"it says '{server.origin}/', not the configured '{server.origin}'" in message
    assert "only a trailing slash differs" in message
    health = await judge.health()
    assert (health.ok, health.keys) == (False, 0)
    assert health.error is not None
    assert "only a trailing slash differs" in health.error
    with pytest.raises(Unavailable) as caught:
        await judge.verify(KEY.token(iss=server.origin))
    assert server.origin not in caught.value.description
    assert "only a trailing slash differs" in str(caught.value.actual)


async def test_keys_rotate_in_a_set_without_names(server: IssuerServer) -> None:
    old, new, newest = (issuer_key("ES256", number=number, kid=None) for number in (5, 6, 7))
    server.handlers["/jwks"] = lambda _: json_answer(key_set(old))
    judge = verifier(jwks=f"{server.origin}/jwks")
    await judge.verify(old.token())
    server.handlers["/jwks"] = lambda _: json_answer(key_set(new))
    # One forged token without `kid` says nothing about the next one.
    assert (await refused(judge, newest.token())).check is Check.TOKEN_SIGNATURE
    assert (await judge.verify(new.token())).jkt == JKT
    server.handlers["/jwks"] = lambda _: json_answer(key_set(new, newest))
    assert (await judge.verify(newest.token())).jkt == JKT
    assert (await refused(judge, old.token(jti="another"))).check is Check.TOKEN_SIGNATURE


async def test_a_bad_signature_under_a_known_name_causes_no_fetch(server: IssuerServer) -> None:
    clock = Clock()
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    judge = verifier(jwks=f"{server.origin}/jwks", clock=clock)
    await judge.verify(KEY.token())
    clock.now += 100
    assert (await refused(judge, issuer_key("ES256", number=2).token())).check is Check.TOKEN_SIGNATURE
    assert len(server.asked) == 1


@pytest.mark.parametrize("replacement", [[], [issuer_key("ES256", number=2)]], ids=["removed", "replaced"])
async def test_tokens_are_refused_when_their_key_leaves_the_set(
    server: IssuerServer, replacement: list[IssuerKey]
) -> None:
    clock = Clock()
    stays = issuer_key("RS256", kid="stays")
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY, stays))
    judge = verifier(jwks=f"{server.origin}/jwks", clock=clock)
    gone, kept = KEY.token(exp=int(clock.now) + 9000), stays.token(exp=int(clock.now) + 9000)
    await judge.verify(gone)
    await judge.verify(kept)
    server.handlers["/jwks"] = lambda _: json_answer(key_set(stays, *replacement))
    clock.now += 300
    # The set is renewed in the background, so this request still uses the old one.
    await judge.verify(gone)
    await judge.aclose()
    expected = Check.TOKEN_SIGNATURE if replacement else Check.TOKEN_KEY
    assert (await refused(judge, gone)).check is expected
    assert (await judge.verify(kept)).jkt == JKT


async def test_keys_survive_an_outage_of_less_than_a_day(server: IssuerServer) -> None:
    clock = Clock()
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    judge = verifier(jwks=f"{server.origin}/jwks", clock=clock)
    token = KEY.token(exp=int(clock.now) + 10 * 86400)
    await judge.verify(token)
    server.handlers["/jwks"] = lambda _: answer(b"", status=503)
    clock.now += 86399
    await judge.verify(token)
    await judge.verify(KEY.token(exp=int(clock.now) + 600))
    clock.now += 1
    for known_or_not in (token, KEY.token(exp=int(clock.now) + 600)):
        with pytest.raises(Unavailable) as caught:
            await judge.verify(known_or_not)
        assert caught.value.retry_after >= 1
    server.handlers["/jwks"] = lambda _: json_answer(key_set(KEY))
    clock.now += 60
    await judge.verify(token)


async def test_a_cached_token_costs_no_task_and_no_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = verifier()
    token = KEY.token()
    await judge.verify(token)
    loop = asyncio.get_running_loop()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patched:
        for name in ("create_task", "run_in_executor", "call_soon", "create_future"):
            patched.setattr(loop, name, forbidden)
        assert (await judge.verify(token)).jkt == JKT


def test_insecure_hosts_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        verifier(issuer="http://auth:8080", insecure_http_hosts=["Auth", "keys"])
    assert caplog.messages == ["plain http is allowed for these hosts: auth, keys"]
    caplog.clear()
    verifier()
    assert caplog.messages == []


def test_insecure_hosts_are_for_issuer_and_keys() -> None:
    judge = verifier(issuer="http://auth:8080", jwks="http://keys/jwks", insecure_http_hosts=["Auth", "keys"])
    assert judge.issuers == ("http://auth:8080",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"issuer": "http://as.example.com"}, "issuer takes an https URL"),
        (
            {"issuer": "https://as.example.com/x/.well-known/openid-configuration"},
            "issuer takes the issuer's identifier, such as 'https://as.example.com/x', not the URL",
        ),
        (
            {"issuer": "https://as.example.com/.well-known/oauth-authorization-server/x"},
            "issuer takes the issuer's identifier, such as 'https://as.example.com/x', not the URL",
        ),
        ({"issuer": "as"}, "issuer takes an https URL"),
        ({"audience": ""}, "audience takes a sequence"),
        ({"audience": []}, "audience takes a sequence"),
        ({"audience": 5}, "audience takes a sequence of non-empty strings, not 5"),
        ({"jwks": {"keys": []}}, "jwks holds no usable key"),
        ({"jwks": "http://as.example.com/jwks"}, "jwks takes an https URL"),
        ({"algorithms": ["HS256"]}, "HS256"),
        ({"algorithms": []}, "algorithms takes at least one name"),
        ({"token_types": "JWT"}, "token_types takes"),
        ({"scope_claims": "scope"}, "scope_claims takes a sequence"),
        ({"client_id_claims": []}, "client_id_claims takes a sequence"),
        ({"required_claims": ["iss", "exp"]}, "required_claims takes names with iss, exp and aud among them"),
        (
            {"required_claims": ["exp", "aud", "sub"]},
            "required_claims takes names with iss, exp and aud among them",
        ),
        ({"required_claims": []}, "required_claims takes a sequence"),
        ({"clock_skew": -1}, "clock_skew takes a finite number of seconds, from 0 to 300"),
        ({"clock_skew": 301}, "clock_skew takes a finite number"),
        ({"clock": 5}, "clock takes a function that returns seconds since the epoch, such as time.time"),
        ({"clock": None}, "clock takes a function"),
        ({"insecure_http_hosts": "auth"}, "insecure_http_hosts takes a sequence"),
        ({"jwks": "http://keys/jwks", "insecure_http_hosts": ["auth"]}, "jwks takes an https URL"),
        ({"max_cached_tokens": -1}, "max_cached_tokens takes a whole number"),
        ({"jwks_lifetime": 0}, "jwks_lifetime takes a finite number of seconds, from 1"),
        ({"jwks_max_age": 86401}, "jwks_max_age takes a finite number of seconds, from 300 to 86400"),
        ({"jwks_max_age": 299}, "jwks_max_age takes a finite number of seconds, from 300 to 86400"),
        ({"jwks_cooldown": 0}, "jwks_cooldown takes a finite number of seconds, from 1"),
        ({"jwks_timeout": 0}, r"jwks_timeout takes a finite number of seconds, from 0\.1 to 60"),
        ({"jwks_patience": 0}, r"jwks_patience takes a finite number of seconds, from 0\.1 to 60"),
        ({"jwks": None, "ssl_context": "yes"}, "ssl_context takes"),
        ({"ssl_context": "yes"}, "ssl_context takes"),
        ({"ssl_context": ssl.create_default_context()}, "are given, not fetched: leave out ssl_context"),
        ({"jwks_proxy": "environment"}, "are given, not fetched: leave out jwks_proxy"),
        ({"jwks_headers": {"X-Api-Key": "k"}}, "are given, not fetched: leave out jwks_headers"),
        ({"fetch": print}, "are given, not fetched: leave out fetch"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        verifier(**options)


async def test_accepting_one_more_type_changes_nothing_of_the_verifier_itself() -> None:
    key = issuer_key()
    strict = verifier(key)
    lenient = strict.accepting_type("JWT").accepting_type(None)
    for typ in ("JWT", ...):
        token = key.token(header={"typ": typ})
        assert (await lenient.verify(token)).jkt == JKT
        assert (await refused(strict, token)).check is Check.TOKEN_TYP
    with pytest.raises(ConfigurationError, match="token_types takes"):
        strict.accepting_type("")
