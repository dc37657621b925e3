"""The resource server: configuration, siblings, nonces, and no 500."""

import asyncio
import json
import logging
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware import (
    AccessToken,
    DPoPMiddleware,
    DPoPPolicy,
    HMACNonceProvider,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    Nonce,
    ResourceMetadata,
    ResourceRequest,
    ResourceServer,
    VerifiedRequest,
)
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import (
    ConfigurationError,
    DPoPError,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidDPoPProof,
    Unavailable,
    UseDPoPNonce,
)
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.testing import TestIssuer
from tests.support.api import ISSUER, NOW, RESOURCE, SECRET, Api, Clock, Store, Tokens, edited, request
from tests.support.asgi import call

JWKS = TestIssuer(ISSUER).jwks()


def build(**changes: Any) -> ResourceServer:
    options: dict[str, Any] = {
        "issuer": ISSUER,
        "jwks": JWKS,
        "resource": RESOURCE,
        "replay_store": MemoryReplayStore(),
    }
    return ResourceServer(**{name: value for name, value in (options | changes).items() if value is not ...})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": ...}, "exactly one of issuer and verifier: none is given"),
        ({"verifier": Tokens()}, "leave them out, or leave out verifier"),
        ({"verifier": Tokens(), "jwks": ...}, "issuer, .* leave them out, or leave out verifier"),
        ({"verifier": Tokens(), "issuer": ..., "jwks": ..., "audience": RESOURCE}, "leave out verifier"),
        ({"verifier": Tokens(), "issuer": ...}, "leave out verifier"),
        ({"verifier": "x", "issuer": ..., "jwks": ...}, "verifier takes an AccessTokenVerifier"),
        ({"issuer": "http://auth.example.test"}, "takes an https URL"),
        ({"resource": "http://api.example.test"}, "resource takes an https URL"),
        ({"resource": "api"}, "resource takes an https URL"),
        ({"replay_store": None}, "replay_store takes a replay store: RedisReplayStore"),
        ({"replay_store": {}}, "replay_store takes a replay store"),
        ({"replay_store": MemoryReplayStore}, "replay_store takes a replay store"),
        ({"verifier": Tokens, "issuer": ..., "jwks": ...}, "verifier takes an AccessTokenVerifier"),
        ({"audience": ()}, "audience takes a sequence of non-empty strings"),
        ({"audience": ""}, "audience takes a sequence of non-empty strings"),
        ({"audience": 5}, "audience takes a sequence of non-empty strings"),
        ({"clock": None}, "clock takes a function"),
        ({"clock": 5.0}, "clock takes a function"),
        ({"nonces": HMACNonceProvider}, "nonces takes a NonceProvider"),
        ({"public_url": ()}, "public_url takes at least one URL"),
        ({"public_url": "http://api.example.test"}, "public_url takes an https URL"),
        ({"policy": "required"}, "policy takes a DPoPPolicy"),
        ({"policy": None}, "policy takes a DPoPPolicy"),
        ({"policy": DPoPPolicy(nonce="required")}, "nonce='required' needs nonces=HMACNonceProvider"),
        ({"policy": DPoPPolicy(nonce="fallback")}, "nonce='fallback' needs nonces=HMACNonceProvider"),
        ({"nonces": SECRET}, "nonces takes a NonceProvider"),
        ({"on_event": "print"}, "on_event takes a synchronous function"),
        ({"insecure_http_hosts": "auth"}, "insecure_http_hosts takes a sequence"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_fails_at_construction(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build(**changes)


def test_a_server_shows_its_configuration() -> None:
    policy = DPoPPolicy(proof_lifetime=30)
    server = build(policy=policy)
    assert server.policy is policy
    assert server.resource == RESOURCE
    assert server.issuers == (ISSUER,)
    assert not server.issues_nonces
    assert build(nonces=HMACNonceProvider(SECRET)).issues_nonces
    assert build(issuer=..., jwks=..., verifier=Tokens()).issuers == Tokens.issuers


def test_no_metadata_is_published_unless_asked() -> None:
    assert build().published_metadata is None
    assert build(metadata=ResourceMetadata()).published_metadata is not None


@pytest.mark.parametrize(
    ("audience", "aud", "accepted"),
    [
        (None, RESOURCE, True),
        (None, "https://other.example.test", False),
        ("notes", "notes", True),
        ("notes", RESOURCE, False),
        (["notes", "more"], ["x", "more"], True),
    ],
)
async def test_audience_is_the_resource_by_default(audience: Any, aud: Any, accepted: bool) -> None:
    issuer, key = TestIssuer(ISSUER, clock=Clock()), DPoPKey.generate()
    server = build(jwks=issuer.jwks(), audience=audience, clock=Clock())
    token = issuer.token(jkt=key.jkt, audience=aud)
    asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=NOW))
    if accepted:
        verified = await server.authenticate(asked)
        assert verified.access_token.claims["aud"] == aud
    else:
        with pytest.raises(DPoPError) as caught:
            await server.authenticate(asked)
        assert caught.value.check is Check.TOKEN_AUD


async def test_public_url_is_the_origin_of_resource_by_default() -> None:
    key, tokens = DPoPKey.generate(), Tokens()
    token = tokens.issue(key.jkt)
    server = ResourceServer(
        verifier=tokens,
        resource="https://API.example.test:443/v1/notes",
        replay_store=MemoryReplayStore(),
        clock=Clock(),
    )
    proof = key.proof("GET", "https://api.example.test/anything", access_token=token, now=NOW)
    verified = await server.authenticate(request(token, proof, raw_path="/anything"))
    assert verified.access_token is tokens.known[token]


def test_with_policy_shares_all_but_the_policy() -> None:
    server = build(nonces=HMACNonceProvider(SECRET))
    sibling = server.with_policy(nonce="required", proof_lifetime=30)
    assert sibling.policy == DPoPPolicy(nonce="required", proof_lifetime=30)
    assert server.policy == DPoPPolicy()
    assert sibling.with_policy(nonce="off").policy == DPoPPolicy(proof_lifetime=30)
    assert sibling.is_sibling_of(server)
    assert server.is_sibling_of(sibling.with_policy())
    assert not server.is_sibling_of(build())


async def test_a_proof_that_one_server_took_is_used_for_its_sibling() -> None:
    api = Api()
    sibling = api.server.with_policy(proof_lifetime=30)
    asked = api.request()
    await api.server.authenticate(asked)
    with pytest.raises(InvalidDPoPProof) as caught:
        await sibling.authenticate(asked)
    assert caught.value.check is Check.JTI
    assert (sibling.resource, sibling.issuers) == (api.server.resource, api.server.issuers)
    assert len(api.tokens.asked) == 2, "both ask the same verifier"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"leeway": 5}, "with_policy takes fields of DPoPPolicy"),
        ({"nonce": "required"}, "needs nonces="),
        ({"nonce": "always"}, "nonce takes one of"),
        ({"clock_skew": -1}, "clock_skew takes a finite number"),
    ],
)
def test_a_wrong_policy_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build().with_policy(**changes)


async def test_the_error_response_is_by_the_servers_own_policy() -> None:
    api = Api()
    with pytest.raises(DPoPError) as caught:
        await api.server.authenticate(request())
    assert (
        len(
            [
                name
                for name, _ in api.server.error_response(caught.value).headers
                if name == "www-authenticate"
            ]
        )
        == 1
    )
    mixed = api.server.with_policy(accept_bearer=True, algorithms=("ES256",))
    assert [
        value for name, value in mixed.error_response(caught.value).headers if name == "www-authenticate"
    ] == [
        "Bearer",
        'DPoP algs="ES256"',
    ]


async def test_a_route_asks_for_all_that_it_requires() -> None:
    api = Api(scopes=("a",))
    authentication = await api.server.verify(api.request())
    with pytest.raises(InsufficientScope) as caught:
        api.server.authorize(authentication, Requirements(scopes=("b", "a")))
    assert caught.value.scopes == ("b", "a")
    with pytest.raises(InsufficientUserAuthentication):
        api.server.authorize(authentication, Requirements(scopes=("a",), max_age=1))
    with pytest.raises(ConfigurationError, match="scopes takes a sequence"):
        await api.server.authenticate(api.request(), scopes="a")


class Closable(Tokens):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def test_the_parts_of_a_server_are_closed() -> None:
    tokens = Closable()
    server = ResourceServer(verifier=tokens, resource=RESOURCE, replay_store=MemoryReplayStore())
    async with server as entered:
        assert entered is server
    assert tokens.closed == 1
    await server.aclose()
    assert tokens.closed == 2


def test_how_long_a_token_is_still_good() -> None:
    api = Api(clock_skew=10)
    token = api.tokens.known[api.tokens.issue(api.key.jkt, expires_in=60)]
    left = []
    for second in (0, 59, 60, 65, 70, 99):
        api.clock.now = NOW + second
        left.append(api.server.seconds_left(token))
    assert left == [60, 1, 15, 10, 5, 0]


async def test_closing_goes_on_after_a_fault() -> None:
    class Faulty(Closable):
        async def aclose(self) -> None:
            raise OSError("gone")

    class Store(MemoryReplayStore):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    store = Store()
    server = ResourceServer(verifier=Faulty(), resource=RESOURCE, replay_store=store)
    with pytest.raises(OSError, match="gone"):
        await server.aclose()
    assert store.closed == 1


def given_nonce(verified: VerifiedRequest) -> str | None:
    headers = dict(verified.response_headers)
    assert len(headers) == len(verified.response_headers)
    if not headers:
        return None
    assert headers.keys() == {"dpop-nonce", "cache-control"}
    assert headers["cache-control"] == "no-store"
    return headers["dpop-nonce"]


@pytest.mark.parametrize("mode", ["required", "fallback"])
async def test_a_client_is_given_the_next_nonce_when_its_own_is_not_current(mode: str) -> None:
    api = Api(nonce=mode)
    nonce = api.server_nonces.issue(NOW)
    for second in (0, 30, 59):
        api.clock.now = NOW + second
        assert given_nonce(await api.server.authenticate(api.request(api.proof(nonce=nonce)))) is None
    for second in (60, 120, 299):
        api.clock.now = NOW + second
        handed = given_nonce(await api.server.authenticate(api.request(api.proof(nonce=nonce))))
        assert handed == api.server_nonces.issue(NOW + second)
    api.clock.now = NOW + 300
    with pytest.raises(UseDPoPNonce) as caught:
        await api.server.authenticate(api.request(api.proof(nonce=nonce)))
    assert caught.value.nonce == api.server_nonces.issue(NOW + 300)
    assert isinstance(
        await api.server.authenticate(api.request(api.proof(nonce=caught.value.nonce))), VerifiedRequest
    )


async def test_fallback_sends_a_nonce_to_a_client_without_one() -> None:
    api = Api(nonce="fallback")
    assert given_nonce(await api.server.authenticate(api.request())) == api.server_nonces.issue(NOW)


async def test_off_sends_no_nonce() -> None:
    api = Api()
    for nonce in (None, "x", api.server_nonces.issue(NOW), api.server_nonces.issue(NOW - 120)):
        assert given_nonce(await api.server.authenticate(api.request(api.proof(nonce=nonce)))) is None


@pytest.mark.parametrize("mode", ["required", "fallback"])
async def test_a_client_that_is_refused_after_the_proof_gets_the_next_nonce_too(mode: str) -> None:
    api = Api(nonce=mode)
    for age, handed in ((0, None), (60, api.server_nonces.issue(NOW))):
        proof = api.proof(nonce=api.server_nonces.issue(NOW - age))
        with pytest.raises(InsufficientScope) as caught:
            await api.server.authenticate(api.request(proof), scopes=["admin"])
        assert caught.value.nonce == handed
        headers = api.server.error_response(caught.value).headers
        assert [value for name, value in headers if name == "dpop-nonce"] == ([handed] if handed else [])


async def test_bearer_needs_no_nonce() -> None:
    api = Api(nonce="required", accept_bearer=True)
    asked = request(api.tokens.issue(name="unbound"), scheme="Bearer")
    assert given_nonce(await api.server.authenticate(asked)) is None


async def test_each_sibling_hands_out_nonces_by_its_own_policy() -> None:
    api = Api(nonce="fallback")
    authentication = await api.server.verify(api.request())
    assert given_nonce(api.server.authorize(authentication)) is not None
    assert given_nonce(api.server.with_policy(nonce="off").authorize(authentication)) is None


async def test_the_two_steps_of_authenticate_are_one_event() -> None:
    api = Api()
    authentication = await api.server.verify(api.request())
    assert api.events == []
    api.server.authorize(authentication)
    api.server.authorize(authentication, recalled=True)
    assert [event.outcome for event in api.events] == ["accepted"]


async def test_a_secret_is_replaced_without_refusing_anybody() -> None:
    old, new = SECRET, bytes(reversed(SECRET))
    api = Api(nonce="required", nonces=HMACNonceProvider((new, old)))
    before = HMACNonceProvider(old).for_server(purpose="resource server", server="")
    handed = given_nonce(await api.server.authenticate(api.request(api.proof(nonce=before.issue(NOW)))))
    assert handed == api.server_nonces.issue(NOW)
    assert given_nonce(await api.server.authenticate(api.request(api.proof(nonce=handed)))) is None


@pytest.mark.parametrize(
    ("purpose", "server"), [("authorization server", ""), ("resource server", "gateway")]
)
async def test_nonces_of_elsewhere_do_not_count(purpose: str, server: str) -> None:
    api = Api(nonce="required")
    elsewhere = HMACNonceProvider(SECRET).for_server(purpose=purpose, server=server)
    with pytest.raises(UseDPoPNonce):
        await api.server.authenticate(api.request(api.proof(nonce=elsewhere.issue(NOW))))


class Plain:
    """A provider without `for_server`."""

    def issue(self, now: float) -> str:
        return "the-nonce"

    def check(self, nonce: str, now: float) -> Any:
        return Nonce(issued_at=now, expires_at=now + 300, current=True) if nonce == "the-nonce" else None


async def test_another_provider_is_used_as_it_is() -> None:
    api = Api(nonce="required", nonces=Plain())
    await api.server.authenticate(api.request(api.proof(nonce="the-nonce")))
    with pytest.raises(UseDPoPNonce) as caught:
        await api.server.authenticate(api.request(api.proof(nonce="another")))
    assert caught.value.nonce == "the-nonce"


async def test_the_verifier_of_an_issuer_may_be_given_whole() -> None:
    issuer, key = TestIssuer(ISSUER, audience=RESOURCE, clock=Clock()), DPoPKey.generate()
    verifier = JWTAccessTokenVerifier(issuer=ISSUER, audience=RESOURCE, jwks=issuer.jwks(), clock=Clock())
    server = ResourceServer(
        verifier=verifier, resource=RESOURCE, replay_store=MemoryReplayStore(), clock=Clock()
    )
    token = issuer.token(jkt=key.jkt, scopes=["a"])
    asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=NOW))
    assert (await server.authenticate(asked, scopes=("a",))).access_token.scopes == {"a"}


PROOF = object()  # in place of an honest proof
OK_TOKEN = b"DPoP access-token"


def headers_of(api: Api, authorization: list[bytes], proofs: list[Any]) -> list[tuple[bytes, bytes]]:
    made = [api.proof().encode() if proof is PROOF else proof for proof in proofs]
    return [(b"authorization", value) for value in authorization] + [(b"dpop", proof) for proof in made]


@pytest.mark.parametrize(
    ("authorization", "proofs", "status", "error", "on"),
    [
        ([], [], 401, None, ""),
        ([], [PROOF], 401, None, ""),
        ([b"Basic dXNlcjpwYXNz"], [PROOF], 401, None, ""),
        ([OK_TOKEN, OK_TOKEN], [PROOF], 400, "invalid_request", "Bearer DPoP"),
        ([OK_TOKEN, b"Bearer unbound"], [PROOF], 400, "invalid_request", "Bearer DPoP"),
        ([b"DPoP"], [PROOF], 400, "invalid_request", "DPoP"),
        ([b"Bearer"], [PROOF], 400, "invalid_request", "Bearer"),
        ([b"DPoP a b"], [PROOF], 400, "invalid_request", "DPoP"),
        ([b"Bearer access-token"], [PROOF], 401, "invalid_token", "Bearer"),
        ([b"DPoP unbound"], [PROOF], 401, "invalid_token", "DPoP"),
        ([b"DPoP of-another"], [PROOF], 401, "invalid_token", "DPoP"),
        ([b"DPoP unknown"], [PROOF], 401, "invalid_token", "DPoP"),
        ([b"Bearer unknown"], [], 401, "invalid_token", "Bearer"),
        ([OK_TOKEN], [], 401, "invalid_dpop_proof", "DPoP"),
        ([OK_TOKEN], [PROOF, PROOF], 401, "invalid_dpop_proof", "DPoP"),
        ([OK_TOKEN], [b"x.y"], 401, "invalid_dpop_proof", "DPoP"),
        ([b"DPoP broken"], [PROOF], 503, None, None),
        ([OK_TOKEN], [PROOF], 200, None, None),
        ([b"Bearer unbound"], [], 200, None, None),
        ([b"Bearer unbound"], [PROOF], 200, None, None),
    ],
)
async def test_the_verdict_table_as_a_client_sees_it(
    authorization: list[bytes], proofs: list[Any], status: int, error: str | None, on: str | None
) -> None:
    api = Api(accept_bearer=True)
    api.tokens.issue(name="unbound")
    api.tokens.issue("0" * 43, name="of-another")
    api.tokens.known["broken"] = OSError("the issuer is down")

    async def reached(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"reached"})

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/notes",
        "raw_path": b"/notes",
        "query_string": b"",
        "headers": headers_of(api, authorization, proofs),
    }
    answer = await call(DPoPMiddleware(reached, api.server), scope)
    assert answer.status == status
    assert (answer.body == b"reached") == (status == 200)
    assert bool(answer.values("retry-after")) == (status == 503)
    if on is None:
        assert answer.challenges == []
        return
    bearer, dpop = sorted(answer.challenges)
    assert (bearer.split()[0], dpop.split()[0]) == ("Bearer", "DPoP")
    named = [challenge.split()[0] for challenge in (bearer, dpop) if f'error="{error}"' in challenge]
    assert named == on.split()
    assert "algs=" in dpop
    assert "algs=" not in bearer
    assert json.loads(answer.body).get("error") == error


# No hostile input causes a 500.

KEY = DPoPKey.generate()
OTHERS = [DPoPKey.generate(name) for name in ("ES384", "Ed25519", "RS256")]
HONEST = KEY.proof("GET", f"{RESOURCE}/notes", access_token="access-token", now=NOW)


def middleware() -> DPoPMiddleware:
    async def reached(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    api = Api(
        key=KEY,
        nonce="fallback",
        accept_bearer=True,
        public_url=(RESOURCE, "https://b.example.test/v1"),
    )
    return DPoPMiddleware(reached, api.server)


def field_values(*likely: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=60) | st.sampled_from(likely) | st.builds(
        lambda text, at, octets: text[:at] + octets + text[at:],
        st.sampled_from(likely),
        st.integers(0, 600),
        st.binary(max_size=8),
    )  # fmt: skip


NAMES = (
    st.sampled_from([b"authorization", b"Authorization", b"dpop", b"DPoP", b"host", b"HOST", b"x"])
    | st.binary()
)
VALUES = field_values(
    b"DPoP access-token",
    b"Bearer access-token",
    b"DPoP",
    b"",
    HONEST.encode(),
    b"api.example.test",
    b"b.example.test",
)
HONEST_HEADERS = [
    (b"host", b"api.example.test"),
    (b"authorization", b"DPoP access-token"),
    (b"dpop", HONEST.encode()),
]


def check_answer(answer: Any) -> None:
    assert answer.status in {200, 400, 401}
    assert len(answer.values("dpop-nonce")) <= 1
    for _, value in answer.headers:
        assert re.fullmatch(r"[\x20-\x7e]*", value)
    if answer.status != 200:
        assert len(answer.challenges) == 2
        assert answer.values("cache-control") == ["no-store"]


@settings(max_examples=300)
@given(
    method=st.sampled_from(["GET", "get", "GET\n", "POſT", ""]) | st.text(max_size=10),
    raw_path=st.none()
    | field_values(b"/notes", b"/a/%2e%2e/b", b"http://api.example.test/notes", b"*", b"//x"),
    path=st.text(max_size=10).map(lambda text: "/" + text) | st.just("/\ud800"),
    root_path=st.sampled_from(["", "/", "/v1", "/notes", "é", "/\ud800", "%"]),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=5).flatmap(
        lambda more: st.permutations(HONEST_HEADERS + more)
    )
    | st.lists(st.tuples(NAMES, VALUES), max_size=5),
)
async def test_no_request_gives_a_500(
    method: str, raw_path: bytes | None, path: str, root_path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    logger = logging.getLogger("dpop_middleware")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": raw_path,
        "root_path": root_path,
        "query_string": b"",
        "headers": headers,
    }
    logger.setLevel(logging.INFO)  # refusals are written too
    try:
        check_answer(await call(middleware(), scope))
    finally:
        logger.setLevel(logging.NOTSET)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
HEADER_NAMES = st.sampled_from(["typ", "alg", "jwk", "crit", "kid", "x5c", "zip"])
CLAIM_NAMES = st.sampled_from(["jti", "htm", "htu", "iat", "exp", "nbf", "ath", "nonce", "aud"])
JWKS_LIKE = st.one_of(
    st.sampled_from([key.public_jwk for key in OTHERS]),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "use", "key_ops", "alg"]),
        st.sampled_from(["EC", "RSA", "OKP", "P-256", "Ed25519", "AQAB", "sig", "ES256", "A" * 43]) | JSON,
    ),
)


@settings(max_examples=150)
@given(
    header=st.dictionaries(HEADER_NAMES, JSON, max_size=3) | st.fixed_dictionaries({"jwk": JWKS_LIKE}),
    claims=st.dictionaries(CLAIM_NAMES, JSON, max_size=4),
)
async def test_no_signed_json_gives_a_500(header: dict[str, Any], claims: dict[str, Any]) -> None:
    proof = edited(KEY, HONEST, header=header, **claims)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/notes",
        "raw_path": b"/notes",
        "query_string": b"",
        "headers": [*HONEST_HEADERS[:2], (b"dpop", proof.encode())],
    }
    check_answer(await call(middleware(), scope))


@settings(max_examples=200)
@given(
    authorization=st.lists(st.text(max_size=30), max_size=2),
    dpop=st.lists(st.text(max_size=30) | st.just(HONEST), max_size=2),
    hosts=st.lists(st.text(max_size=30), max_size=2),
    raw_path=st.text(max_size=30),
    root_path=st.text(max_size=10),
    method=st.text(max_size=10),
)
async def test_authenticate_raises_our_errors_only(
    authorization: list[str], dpop: list[str], hosts: list[str], raw_path: str, root_path: str, method: str
) -> None:
    api = Api(key=KEY)
    asked = ResourceRequest(
        method=method,
        raw_path=raw_path,
        hosts=tuple(hosts),
        authorization=(*authorization, "DPoP access-token")[:1] if raw_path else tuple(authorization),
        dpop=tuple(dpop),
        root_path=root_path,
    )
    try:
        await api.server.authenticate(asked)
    except DPoPError as error:
        assert api.server.error_response(error).status in {400, 401}


async def test_an_audience_named_twice_is_the_same_keyspace() -> None:
    issuer, key = TestIssuer(ISSUER, audience=RESOURCE), DPoPKey.generate()
    token = issuer.token(jkt=key.jkt)
    asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token))
    store = MemoryReplayStore()
    for audience, first in ((RESOURCE, True), ((RESOURCE, RESOURCE), False)):
        server = build(jwks=issuer.jwks(), audience=audience, replay_store=store)
        if first:
            assert (await server.authenticate(asked)).access_token.jkt == key.jkt
        else:
            with pytest.raises(InvalidDPoPProof, match="used before"):
                await server.authenticate(asked)


# The values that the server passes to its parts.


@pytest.mark.parametrize(
    ("resource", "public_url"),
    [("http://API:8000/v1", None), ("http://api", "https://api.example.test"), (RESOURCE, "http://api:8000")],
)
async def test_insecure_hosts_are_for_resource_and_public_url(resource: str, public_url: str | None) -> None:
    key, tokens = DPoPKey.generate(), Tokens()
    server = ResourceServer(
        verifier=tokens,
        resource=resource,
        replay_store=MemoryReplayStore(),
        clock=Clock(),
        public_url=public_url,
        insecure_http_hosts=["Api"],
    )
    token = tokens.issue(key.jkt)
    url = f"{public_url or 'http://api:8000'}/notes"
    verified = await server.authenticate(request(token, key.proof("GET", url, access_token=token, now=NOW)))
    assert verified.proof is not None
    assert verified.proof.htu == url


def test_insecure_hosts_are_for_issuer_and_keys() -> None:
    hosts = {"issuer": "http://auth:9000", "jwks": "http://keys:9000/jwks"}
    assert build(**hosts, insecure_http_hosts=["auth", "keys"]).issuers == ("http://auth:9000",)
    for named in ("auth", "keys"):
        with pytest.raises(ConfigurationError, match="takes an https URL"):
            build(**hosts, insecure_http_hosts=[named])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"audience": "everything"}, {"audience": ["everything", "more"]}),
        ({"audience": ["more", "everything"]}, {"audience": ["everything", "more", "everything"]}),
        ({"resource": RESOURCE}, {"resource": f"{RESOURCE}/"}),
        ({"resource": f"{RESOURCE}/first"}, {"resource": f"{RESOURCE}/second"}),
        ({"public_url": RESOURCE}, {"public_url": [RESOURCE, "https://api.example.org"]}),
        (
            {"policy": DPoPPolicy(algorithms=("ES256",))},
            {"policy": DPoPPolicy(algorithms=("ES256", "RS256"))},
        ),
        ({"nonces": HMACNonceProvider(SECRET)}, {"nonces": None}),
        ({"token_clock_skew": 0}, {"token_clock_skew": 300}),
    ],
)
async def test_workers_that_are_configured_differently_share_what_is_used(one: Any, other: Any) -> None:
    issuer, key, store = TestIssuer(ISSUER, clock=Clock()), DPoPKey.generate(), MemoryReplayStore()
    usual = {"resource": RESOURCE, "audience": "everything", "public_url": RESOURCE}
    workers = [
        build(jwks=issuer.jwks(), replay_store=store, clock=Clock(), **(usual | options))
        for options in (one, other)
    ]
    token = issuer.token(jkt=key.jkt, audience="everything")
    for first, second in (workers, reversed(workers)):
        asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=NOW))
        await first.authenticate(asked)
        with pytest.raises(DPoPError) as caught:
            await second.authenticate(asked)
        assert caught.value.check is Check.JTI
    assert len(store) == 2


async def test_servers_that_must_each_judge_a_request_have_a_namespace_each() -> None:
    issuer, key, store = TestIssuer(ISSUER, clock=Clock()), DPoPKey.generate(), MemoryReplayStore()
    events: list[AuthenticationEvent] = []
    api = build(jwks=issuer.jwks(), replay_store=store, clock=Clock(), on_event=events.append)
    gateway = build(jwks=issuer.jwks(), replay_store=store, clock=Clock(), replay_namespace="gateway")
    token = issuer.token(jkt=key.jkt, audience=RESOURCE)
    asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=NOW))
    for server in (gateway, api):
        await server.authenticate(asked)
    with pytest.raises(DPoPError):
        await api.authenticate(asked)
    assert events[-1].hint is not None
    assert "need a replay_namespace each" in events[-1].hint
    with pytest.raises(ConfigurationError, match="replay_namespace takes a printable text"):
        build(jwks=issuer.jwks(), replay_store=store, replay_namespace=None)


@pytest.mark.parametrize(
    ("options", "late", "accepted"),
    [
        ({}, 14, True),
        ({}, 15, False),
        ({"policy": DPoPPolicy(clock_skew=300)}, 14, True),
        ({"policy": DPoPPolicy(clock_skew=300)}, 15, False),
        ({"policy": DPoPPolicy(clock_skew=300)}, 290, False),
        ({"policy": DPoPPolicy(clock_skew=0)}, 14, True),
        ({"token_clock_skew": 0}, 0, False),
        ({"token_clock_skew": 0.5}, 0, True),
        ({"token_clock_skew": 100}, 99, True),
        ({"token_clock_skew": 100}, 100, False),
        ({"token_clock_skew": 300, "policy": DPoPPolicy(clock_skew=0)}, 299, True),
        ({"token_clock_skew": 300, "policy": DPoPPolicy(clock_skew=0)}, 300, False),
    ],
)
async def test_tokens_have_a_clock_skew_of_their_own(
    options: dict[str, Any], late: int, accepted: bool
) -> None:
    # RFC 9068 section 4 leaves the token's leeway to us, RFC 9449 section 11.1 the proof's.
    clock = Clock()
    issuer, key = TestIssuer(ISSUER, clock=clock), DPoPKey.generate()
    server = build(jwks=issuer.jwks(), clock=clock, **options)
    token = issuer.token(jkt=key.jkt, audience=RESOURCE, exp=int(NOW) - late)
    asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=NOW))
    if accepted:
        verified = await server.authenticate(asked)
        assert server.seconds_left(verified.access_token) == options.get("token_clock_skew", 15) - late
        clock.now += server.seconds_left(verified.access_token)
    with pytest.raises(DPoPError) as caught:
        await server.authenticate(asked)
    assert caught.value.check is Check.TOKEN_TIME


async def test_the_tokens_skew_is_for_nbf_and_iat_too() -> None:
    clock = Clock()
    issuer, key = TestIssuer(ISSUER, clock=clock), DPoPKey.generate()
    for early, options in ((15, {"policy": DPoPPolicy(clock_skew=0)}), (40, {"token_clock_skew": 40})):
        server = build(jwks=issuer.jwks(), clock=clock, **options)
        for claim in ("nbf", "iat"):
            for seconds, accepted in ((early, True), (early + 1, False)):
                claims: dict[str, Any] = {claim: int(NOW) + seconds}
                token = issuer.token(jkt=key.jkt, audience=RESOURCE, **claims)
                asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=NOW))
                if accepted:
                    await server.authenticate(asked)
                    continue
                with pytest.raises(DPoPError) as caught:
                    await server.authenticate(asked)
                assert caught.value.check is Check.TOKEN_TIME


@pytest.mark.parametrize("skew", [-1, 301, math.nan, math.inf, True, "15", [15]])
def test_a_token_clock_skew_is_0_to_300_seconds(skew: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_clock_skew"):
        build(token_clock_skew=skew)


def test_a_verifier_of_ones_own_has_its_own_skew() -> None:
    own: dict[str, Any] = {"issuer": ..., "jwks": ..., "verifier": Tokens()}
    for skew in (0, 15, 300):
        with pytest.raises(
            ConfigurationError, match="token_clock_skew, max_cached_tokens, max_cached_bytes make a verifier"
        ):
            build(**own, token_clock_skew=skew)

    class Lenient(Tokens):
        clock_skew: Any = 60

    token = Api().tokens.known["access-token"]
    late = Clock(token.expires_at + 10)
    assert build(**own, clock=late).seconds_left(token) == 5
    assert build(**own | {"verifier": Lenient()}, clock=late).seconds_left(token) == 50
    wrong: list[Any] = [301, -1, "60", None, math.nan]
    for skew in wrong:
        Lenient.clock_skew = skew
        with pytest.raises(ConfigurationError, match="the verifier's clock_skew"):
            build(**own | {"verifier": Lenient()})
    jwt = JWTAccessTokenVerifier(issuer=ISSUER, audience=RESOURCE, clock_skew=40)
    assert jwt.clock_skew == 40
    assert build(**own | {"verifier": jwt}, clock=late).seconds_left(token) == 30


async def test_a_stand_in_for_the_issuer_keeps_the_skew() -> None:
    clock = Clock()
    production = build(token_clock_skew=120)
    issuer, key = TestIssuer.of(production, clock=clock), DPoPKey.generate()
    server = issuer.resource_server(production)
    token = issuer.token(jkt=key.jkt, exp=int(NOW) - 100)
    proof = key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=NOW)
    verified = await server.authenticate(request(token, proof))
    assert server.seconds_left(verified.access_token) == 20


async def test_a_server_knows_no_more_tokens_and_their_clients_than_it_should() -> None:
    known: dict[str, AccessToken] = {}
    issuer, key, clock = TestIssuer(audience=RESOURCE), DPoPKey.generate(), Clock()
    server = ResourceServer(
        issuer=issuer.issuer,
        jwks=issuer.jwks(),
        resource=RESOURCE,
        replay_store=Store(),
        clock=clock,
        max_cached_tokens=2,
    )
    tokens = {name: issuer.token(jkt=key.jkt, sub=name, iat=int(NOW), exp=int(NOW) + 300) for name in "abc"}

    async def called(name: str) -> bool:
        """Send a request with the token of that name; return whether it is the object of the time before."""
        proof = key.proof("GET", f"{RESOURCE}/notes", access_token=tokens[name], now=NOW)
        before = known.get(name)
        known[name] = (await server.authenticate(request(tokens[name], proof))).access_token
        return known[name] is before

    assert [await called(name) for name in ("a", "b", "a", "b")] == [False, False, True, True]
    assert [await called(name) for name in ("c", "b", "c", "a")] == [False, True, True, False]


@pytest.mark.parametrize("own_verifier", [False, True])
def test_insecure_hosts_are_logged_once(caplog: pytest.LogCaptureFixture, own_verifier: bool) -> None:
    own: dict[str, Any] = {"verifier": Tokens(), "issuer": ..., "jwks": ...} if own_verifier else {}
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        build(**own, insecure_http_hosts=["B", "a"])
        assert caplog.messages == ["plain http is allowed for these hosts: a, b"]
        build(**own)
    assert len(caplog.messages) == 1


async def cancelled_inside(*_: object) -> Any:
    """Wait for a task that others wait for too, and that one of them has cancelled."""
    shared = asyncio.create_task(asyncio.sleep(60))
    shared.cancel()
    await shared


async def waiting(*_: object) -> Any:
    await asyncio.sleep(60)


@pytest.mark.parametrize("part", ["tokens", "store"])
async def test_a_part_that_was_cancelled_inside_has_failed_and_the_request_is_answered(part: str) -> None:
    api = Api()
    setattr(getattr(api, part), "verify" if part == "tokens" else "add", cancelled_inside)
    with pytest.raises(Unavailable) as caught:
        await api.server.authenticate(api.request())
    assert caught.value.actual == "CancelledError"
    assert api.events[-1].status == 503


@pytest.mark.parametrize("part", ["tokens", "store"])
async def test_a_request_that_is_cancelled_ends(part: str) -> None:
    api = Api()
    setattr(getattr(api, part), "verify" if part == "tokens" else "add", waiting)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await api.server.authenticate(api.request())
    assert api.events == []


@pytest.mark.parametrize(
    ("nonces", "mode", "sibling", "warnings"),
    [
        (HMACNonceProvider(SECRET), "off", None, 1),
        (HMACNonceProvider(SECRET), "required", None, 0),
        (HMACNonceProvider(SECRET), "off", "fallback", 0),
        (None, "off", None, 0),
    ],
)
async def test_nonces_that_no_policy_asks_for_are_one_warning_when_the_server_opens(
    nonces: Any, mode: Any, sibling: str | None, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = build(nonces=nonces, policy=DPoPPolicy(nonce=mode))
    if sibling is not None:
        server.with_policy(nonce=sibling)
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        for _ in range(2):
            async with server:
                await server.with_policy(clock_skew=29).open()
    found = [told for told in caplog.messages if "nonce" in told]
    message = "nonces= of ResourceServer has no effect, since no policy asks for any: set policy="
    assert found == [f"{message}DPoPPolicy(nonce='required')"] * warnings
