import asyncio
import hashlib
import json
import logging
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from dpop_middleware import errors
from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.authorization_server import (
    CHECKS,
    InvalidGrant,
    TokenEndpoint,
    check_code_binding,
    check_refresh_binding,
    confirmation,
    dpop_signing_alg_values_supported,
    refresh_jkt,
    requested_jkt,
)
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.jose import base64url
from dpop_middleware.nonces import HMACNonceProvider, Nonce
from dpop_middleware.policy import SUPPORTED_ALGORITHMS, DPoPPolicy
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayEntry
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.testing import ABSENT, TestIssuer, encode_jws
from dpop_middleware.testing.issuer import merged

URL = "https://auth.example.test/token"
PAR_URL = "https://auth.example.test/par"
API = "https://api.example.test"
NOW = 1_700_000_000.0
SECRET = bytes(range(32))
KEY = DPoPKey.generate("ES256")
STRANGER = DPoPKey.generate("ES256")


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryReplayStore:
    return MemoryReplayStore()


@pytest.fixture
def endpoint(clock: Clock, store: MemoryReplayStore) -> TokenEndpoint:
    return TokenEndpoint(url=URL, replay_store=store, clock=clock)


def endpoint_with_nonces(clock: Clock, **arguments: Any) -> TokenEndpoint:
    defaults: dict[str, Any] = {
        "url": URL,
        "replay_store": MemoryReplayStore(),
        "policy": DPoPPolicy(nonce="required"),
        "nonces": HMACNonceProvider(SECRET),
        "clock": clock,
    }
    return TokenEndpoint(**defaults | arguments)


def token_request(*dpop: str, method: str = "POST", path: str = "/token", **fields: Any) -> ResourceRequest:
    defaults: dict[str, Any] = {"hosts": ("auth.example.test",), "authorization": ()}
    return ResourceRequest(method=method, raw_path=path, dpop=dpop, **defaults | fields)


def proof_text(key: DPoPKey = KEY, method: str = "POST", url: str = URL, **arguments: Any) -> str:
    return key.proof(method, url, now=arguments.pop("now", NOW), **arguments)


def broken_proof(*, header: dict[str, Any] | None = None, **claims: Any) -> str:
    usual_header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.public_jwk}
    usual_claims = {"jti": "a-jti", "htm": "POST", "htu": URL, "iat": NOW}
    return encode_jws(merged(usual_header, header or {}), merged(usual_claims, claims), key=KEY)


def a_proof(key: DPoPKey = KEY) -> DPoPProof:
    """What `TokenEndpoint.verify` returns for a proof of `key`."""
    return DPoPProof(
        jti="a", htm="POST", htu=URL, iat=NOW, ath=None, nonce=None, jkt=key.jkt, algorithm="ES256"
    )


async def test_a_proof_is_verified_and_returned(endpoint: TokenEndpoint) -> None:
    proof = await endpoint.verify(token_request(proof_text(jti="first")))
    assert (proof.jti, proof.htm, proof.htu, proof.iat) == ("first", "POST", URL, NOW)
    assert (proof.ath, proof.nonce, proof.jkt, proof.algorithm) == (None, None, KEY.jkt, "ES256")


async def test_a_starlette_request_is_read(endpoint: TokenEndpoint) -> None:
    def request(*proofs: str) -> Request:
        return Request(
            {
                "type": "http",
                "method": "POST",
                "path": "/token",
                "raw_path": b"/token",
                "headers": [(b"host", b"auth.example.test"), *((b"dpop", one.encode()) for one in proofs)],
            }
        )

    assert (await endpoint.verify(request(proof_text()))).jkt == KEY.jkt
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        await endpoint.verify(request(proof_text(), proof_text()))
    assert caught.value.check is Check.ONE_HEADER


@pytest.mark.parametrize("algorithm", [name for name in SUPPORTED_ALGORITHMS if name[0] == "E"])
async def test_every_kind_of_key_may_ask(endpoint: TokenEndpoint, algorithm: str) -> None:
    key = DPoPKey.generate(algorithm)
    assert (await endpoint.verify(token_request(proof_text(key)))).jkt == key.jkt


async def test_client_authentication_is_not_ours(endpoint: TokenEndpoint) -> None:
    for authorization in (("Basic Zm9vOmJhcg==",), ("Basic a", "DPoP b"), ("DPoP x",)):
        proof = await endpoint.verify(token_request(proof_text(), authorization=authorization))
        assert proof.jkt == KEY.jkt


BROKEN = [
    ("two fields", (proof_text(), proof_text()), Check.ONE_HEADER),
    ("two in one field", (f"{proof_text()},{proof_text()}",), Check.ONE_HEADER),
    ("empty", ("",), Check.ONE_HEADER),
    ("too large", ("a" * 8193,), Check.ONE_HEADER),
    ("not a JWT", ("nonsense",), Check.FORMAT),
    ("another typ", (broken_proof(header={"typ": "JWT"}),), Check.TYP),
    ("crit", (broken_proof(header={"crit": ["b64"], "b64": True}),), Check.CRIT),
    ("alg none", (broken_proof(header={"alg": "none"}),), Check.ALG),
    ("alg HS256", (broken_proof(header={"alg": "HS256"}),), Check.ALG),
    ("no key", (broken_proof(header={"jwk": ABSENT}),), Check.JWK),
    ("a private key", (broken_proof(header={"jwk": {**KEY.public_jwk, "d": "AA"}}),), Check.JWK),
    ("a stranger's key named", (broken_proof(header={"jwk": STRANGER.public_jwk}),), Check.SIGNATURE),
    ("no jti", (broken_proof(jti=ABSENT),), Check.CLAIMS),
    ("no iat", (broken_proof(iat=ABSENT),), Check.CLAIMS),
    ("no htm", (broken_proof(htm=ABSENT),), Check.CLAIMS),
    ("no htu", (broken_proof(htu=ABSENT),), Check.CLAIMS),
    ("another method", (broken_proof(htm="GET"),), Check.HTM),
    ("the method in lower case", (broken_proof(htm="post"),), Check.HTM),
    ("the issuer's URL", (broken_proof(htu="https://auth.example.test"),), Check.HTU),
    ("another endpoint", (proof_text(url=PAR_URL),), Check.HTU),
    ("another host", (proof_text(url="https://evil.example.test/token"),), Check.HTU),
    ("http", (proof_text(url="http://auth.example.test/token"),), Check.HTU),
    ("a signature cut off", (proof_text().rpartition(".")[0] + ".",), Check.SIGNATURE),
    ("old", (proof_text(now=NOW - 91),), Check.IAT),
    ("from the future", (proof_text(now=NOW + 31),), Check.IAT),
    ("expired by its own exp", (broken_proof(exp=NOW - 60),), Check.IAT),
]


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(("dpop", "check"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
async def test_a_bad_proof_is_refused_and_not_remembered(
    endpoint: TokenEndpoint,
    store: MemoryReplayStore,
    dpop: tuple[str, ...],
    check: Check,
    required: bool,
) -> None:
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        await endpoint.verify(token_request(*dpop), required=required)
    assert caught.value.check is check
    assert check in CHECKS
    assert len(store) == 0


def test_the_checks_are_in_the_order_of_all_checks() -> None:
    everything = list(Check)
    assert list(CHECKS) == sorted(CHECKS, key=everything.index)
    assert not {Check.ATH, Check.BINDING, Check.TOKEN_SIGNATURE} & set(CHECKS)


async def test_the_requests_own_target_is_not_believed(endpoint: TokenEndpoint) -> None:
    evil = "https://evil.example.test/token"
    spoofed = token_request(proof_text(url=evil), hosts=("evil.example.test",))
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        await endpoint.verify(spoofed)
    assert (caught.value.check, caught.value.expected, caught.value.actual) == (Check.HTU, URL, evil)
    # A proxy that strips a prefix changes the path that arrives, not the URL that the client called.
    stripped = token_request(proof_text(), path="/../x", hosts=("10.0.0.1", "b"), root_path="/as")
    await endpoint.verify(stripped)


async def test_the_url_is_compared_in_normal_form(clock: Clock, store: MemoryReplayStore) -> None:
    endpoint = TokenEndpoint(url="HTTPS://Auth.example.test:443/%74oken", replay_store=store, clock=clock)
    proof = await endpoint.verify(token_request(broken_proof(htu="https://AUTH.example.test/token?x=1#y")))
    assert proof.htu == "https://AUTH.example.test/token?x=1#y", "told as the client wrote it"


async def test_a_proof_works_once(endpoint: TokenEndpoint, clock: Clock) -> None:
    request = token_request(proof_text(jti="once"))
    await endpoint.verify(request)
    for later in (0, 30, 90):
        clock.now = NOW + later
        with pytest.raises(errors.InvalidDPoPProof) as caught:
            await endpoint.verify(request)
        assert caught.value.check is Check.JTI


async def test_a_jti_signed_again_is_still_used(endpoint: TokenEndpoint) -> None:
    await endpoint.verify(token_request(proof_text(jti="once")))
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        await endpoint.verify(token_request(proof_text(jti="once", now=NOW + 1)))
    assert caught.value.check is Check.JTI
    await endpoint.verify(token_request(proof_text(STRANGER, jti="once")))


async def test_of_many_at_once_one_wins(endpoint: TokenEndpoint) -> None:
    request = token_request(proof_text())
    outcomes = await asyncio.gather(*(endpoint.verify(request) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, DPoPProof) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, errors.InvalidDPoPProof) for outcome in outcomes) == 19


async def test_a_resource_servers_entries_are_other_entries(clock: Clock, store: MemoryReplayStore) -> None:
    """One store serves an authorization server and an API of the same origin."""
    origin = "https://auth.example.test"
    issuer = TestIssuer(origin, audience=origin, clock=clock)
    api = ResourceServer(issuer=origin, resource=origin, jwks=issuer.jwks(), replay_store=store, clock=clock)
    endpoint = TokenEndpoint(url=URL, replay_store=store, clock=clock)
    await endpoint.verify(token_request(proof_text(jti="same")))
    token = issuer.token(jkt=KEY.jkt)
    request = token_request(proof_text(jti="same", access_token=token), authorization=(f"DPoP {token}",))
    assert (await api.authenticate(request)).access_token.jkt == KEY.jkt
    assert len(store) == 2


async def test_endpoints_share_what_is_used_unless_their_namespaces_differ(
    clock: Clock, store: MemoryReplayStore
) -> None:
    par = TokenEndpoint(url=PAR_URL, replay_store=store, clock=clock)
    apart = TokenEndpoint(url=PAR_URL, replay_store=store, clock=clock, replay_namespace="pushed")
    endpoint = TokenEndpoint(url=URL, replay_store=store, clock=clock)
    same = TokenEndpoint(url="https://AUTH.example.test:443/token", replay_store=store, clock=clock)
    await apart.verify(token_request(proof_text(jti="same", url=PAR_URL)))
    await endpoint.verify(token_request(proof_text(jti="same")))
    with pytest.raises(errors.InvalidDPoPProof):
        await same.verify(token_request(proof_text(jti="same")))
    with pytest.raises(errors.InvalidDPoPProof):
        await par.verify(token_request(proof_text(jti="same", url=PAR_URL)))


class FailingStore:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def add(self, entry: ReplayEntry) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


async def test_no_failure_of_the_store_lets_a_request_through(clock: Clock) -> None:
    for trouble in (OSError("down"), errors.Unavailable("the replay store is down", retry_after=7)):
        endpoint = TokenEndpoint(url=URL, replay_store=FailingStore(trouble), clock=clock)
        with pytest.raises(errors.Unavailable) as caught:
            await endpoint.verify(token_request(proof_text()))
        answer = endpoint.error_response(caught.value)
        assert answer.status == 503
        assert dict(answer.headers)["retry-after"] == str(caught.value.retry_after)
        assert dict(answer.headers)["cache-control"] == "no-store"
        assert json.loads(answer.body) == {"error_description": caught.value.description}
    for answered in (None, 1, "yes"):
        endpoint = TokenEndpoint(url=URL, replay_store=FailingStore(answered), clock=clock)
        with pytest.raises(errors.InvalidDPoPProof):
            await endpoint.verify(token_request(proof_text()))


async def test_a_request_without_a_proof_is_refused_unless_it_is_optional(endpoint: TokenEndpoint) -> None:
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        await endpoint.verify(token_request())
    assert caught.value.check is Check.ONE_HEADER
    assert await endpoint.verify(token_request(), required=False) is None
    optional = await endpoint.verify(token_request(proof_text()), required=False)
    assert optional is not None
    assert optional.jkt == KEY.jkt


@pytest.mark.parametrize("unset", [None, "", "no", 0])
async def test_a_setting_that_is_not_there_makes_nothing_optional(
    endpoint: TokenEndpoint, unset: Any
) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        await endpoint.verify(token_request(), required=unset)
    assert str(caught.value) == f"required takes True or False, not {unset!r}"
    with pytest.raises(errors.ConfigurationError) as caught:
        refresh_jkt(a_proof(), public_client=unset)
    assert str(caught.value) == f"public_client takes True or False, not {unset!r}"


@pytest.mark.parametrize("request_of_another_kind", [None, {"DPoP": "proof"}, httpx2.Request("POST", URL)])
async def test_a_request_of_another_kind_is_refused(
    endpoint: TokenEndpoint, request_of_another_kind: Any
) -> None:
    with pytest.raises(
        errors.ConfigurationError, match="^request takes a Starlette request or a ResourceRequest, not"
    ):
        await endpoint.verify(request_of_another_kind)


@pytest.mark.parametrize("required", [True, False])
async def test_a_proof_among_too_many_fields_is_not_taken_for_none(
    endpoint: TokenEndpoint, required: bool
) -> None:
    fields = [(b"dpop", proof_text().encode()), *[(b"x-%d" % number, b"") for number in range(256)]]
    scope = {"type": "http", "method": "POST", "path": "/token", "headers": fields}
    with pytest.raises(errors.InvalidRequest, match="too many header fields") as caught:
        await endpoint.verify(Request(scope), required=required)
    assert caught.value.check is Check.ONE_HEADER
    scope["headers"] = fields[:-1]
    assert (await endpoint.verify(Request(scope), required=False)) is not None


async def test_refusals_are_oauth_errors_in_json(endpoint: TokenEndpoint) -> None:
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        await endpoint.verify(token_request(broken_proof(htm='"}<script>')))
    answer = endpoint.error_response(caught.value)
    assert answer.status == 400
    assert answer.headers == (
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("content-length", str(len(answer.body))),
    )
    assert json.loads(answer.body) == {
        "error": "invalid_dpop_proof",
        "error_description": "the htm of the DPoP proof is not the method of the request",
    }


def test_errors_of_every_kind_are_client_errors_without_a_challenge(endpoint: TokenEndpoint) -> None:
    for error, code in (
        (errors.InvalidRequest("malformed"), "invalid_request"),
        (InvalidGrant("bound"), "invalid_grant"),
        (errors.MissingCredentials("none"), "invalid_request"),
    ):
        answer = endpoint.error_response(error)
        assert answer.status == 400
        assert json.loads(answer.body)["error"] == code
        assert "www-authenticate" not in dict(answer.headers)


async def test_a_nonce_is_asked_for_and_then_suffices(clock: Clock) -> None:
    endpoint = endpoint_with_nonces(clock)
    with pytest.raises(errors.UseDPoPNonce) as caught:
        await endpoint.verify(token_request(proof_text()))
    answer = endpoint.error_response(caught.value)
    fields = dict(answer.headers)
    assert answer.status == 400
    assert json.loads(answer.body)["error"] == "use_dpop_nonce"
    assert fields["cache-control"] == "no-store"
    assert [name for name, _ in answer.headers].count("dpop-nonce") == 1
    proof = await endpoint.verify(token_request(proof_text(nonce=fields["dpop-nonce"], now=NOW - 3600)))
    assert endpoint.response_headers(proof) == (("cache-control", "no-store"),)
    clock.now = NOW + 61
    assert dict(endpoint.response_headers(proof)).keys() == {"dpop-nonce", "cache-control"}
    assert dict(endpoint.response_headers(proof))["dpop-nonce"] != fields["dpop-nonce"]


async def test_a_nonce_is_no_answer_to_a_forged_proof(clock: Clock) -> None:
    endpoint = endpoint_with_nonces(clock)
    forged = proof_text().rpartition(".")[0] + "." + base64url.encode(bytes(64))
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        await endpoint.verify(token_request(forged))
    assert caught.value.check is Check.SIGNATURE


async def test_nonces_count_at_this_server_only(clock: Clock) -> None:
    provider = HMACNonceProvider(SECRET)
    endpoint = endpoint_with_nonces(clock)
    origin = "https://auth.example.test"
    for foreign in (
        provider.for_server(purpose="resource server", server=origin).issue(NOW),
        provider.for_server(purpose="token endpoint", server="another namespace").issue(NOW),
        "nonsense",
    ):
        with pytest.raises(errors.UseDPoPNonce):
            await endpoint.verify(token_request(proof_text(nonce=foreign)))
    with pytest.raises(errors.UseDPoPNonce) as caught:
        await endpoint_with_nonces(clock, url=PAR_URL).verify(token_request(proof_text(url=PAR_URL)))
    await endpoint.verify(token_request(proof_text(nonce=caught.value.nonce)))


async def test_a_proof_accepted_by_its_nonce_stays_used(clock: Clock) -> None:
    endpoint = endpoint_with_nonces(clock)
    with pytest.raises(errors.UseDPoPNonce) as caught:
        await endpoint.verify(token_request(proof_text()))
    request = token_request(proof_text(nonce=caught.value.nonce))
    await endpoint.verify(request)
    for later in range(0, 330, 15):
        clock.now = NOW + later
        with pytest.raises((errors.InvalidDPoPProof, errors.UseDPoPNonce)):
            await endpoint.verify(request)


async def test_fallback_gives_the_first_nonce_on_success(clock: Clock) -> None:
    endpoint = endpoint_with_nonces(clock, policy=DPoPPolicy(nonce="fallback"))
    proof = await endpoint.verify(token_request(proof_text()))
    nonce = dict(endpoint.response_headers(proof))["dpop-nonce"]
    assert (await endpoint.verify(token_request(proof_text(nonce=nonce)))).nonce == nonce


class Failing:
    """A provider of the user's own, whose methods in `failing` raise."""

    def __init__(self) -> None:
        self._provider = HMACNonceProvider(SECRET).for_server(purpose="test", server="one")
        self.failing = ""

    def issue(self, now: float) -> str:
        if self.failing == "issue":
            raise ConnectionError
        return self._provider.issue(now)

    def check(self, nonce: str, now: float) -> Nonce | None:
        if self.failing == "check":
            raise ConnectionError
        return self._provider.check(nonce, now)


@pytest.mark.parametrize("method", ["issue", "check"])
async def test_a_provider_that_fails_keeps_no_token_from_its_client(clock: Clock, method: str) -> None:
    provider = Failing()
    endpoint = endpoint_with_nonces(clock, policy=DPoPPolicy(nonce="fallback"), nonces=provider)
    first = await endpoint.verify(token_request(proof_text()))
    nonce = dict(endpoint.response_headers(first))["dpop-nonce"]
    second = await endpoint.verify(token_request(proof_text(nonce=nonce)))
    clock.now += 61
    provider.failing = method
    assert endpoint.response_headers(second) == (("cache-control", "no-store"),)


@pytest.mark.parametrize(("mode", "warnings"), [("off", 1), ("fallback", 0), ("required", 0)])
def test_nonces_that_the_policy_does_not_ask_for_are_a_warning(
    clock: Clock, mode: Any, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        endpoint_with_nonces(clock, policy=DPoPPolicy(nonce=mode))
    message = "nonces= of TokenEndpoint has no effect, since no policy asks for any: set policy="
    assert caplog.messages == [f"{message}DPoPPolicy(nonce='required')"] * warnings


async def test_where_nonces_are_off_none_is_sent(clock: Clock) -> None:
    for endpoint in (
        endpoint_with_nonces(clock, policy=DPoPPolicy()),
        endpoint_with_nonces(clock, policy=DPoPPolicy(), nonces=None),
    ):
        proof = await endpoint.verify(token_request(proof_text(nonce="whatever")))
        assert endpoint.response_headers(proof) == (("cache-control", "no-store"),)
    assert endpoint_with_nonces(clock).response_headers(None) == (("cache-control", "no-store"),)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"url": "http://auth.example.test/token"}, "takes an https URL"),
        ({"url": "https://auth.example.test/token?x=1"}, "without user, query and fragment"),
        ({"url": "/token"}, "url takes an https URL"),
        ({"url": None}, "url takes an https URL"),
        ({"replay_store": None}, "takes a replay store"),
        ({"nonces": None}, "needs nonces="),
        ({"policy": "required"}, "policy takes a DPoPPolicy"),
        ({"policy": None}, "policy takes a DPoPPolicy"),
    ],
)
def test_bad_configuration_is_refused_at_once(clock: Clock, arguments: Any, says: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=says):
        endpoint_with_nonces(clock, **arguments)


async def test_the_clock_is_a_synchronous_function() -> None:
    async def later() -> float:
        raise NotImplementedError

    wrong: Any
    for wrong in (NOW, later):
        with pytest.raises(errors.ConfigurationError, match="clock takes a function"):
            endpoint_with_nonces(wrong)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/token", "http://auth:9000/token"])
async def test_plain_http_is_allowed_for_named_hosts_and_loopback(
    url: str, clock: Clock, store: MemoryReplayStore
) -> None:
    endpoint = TokenEndpoint(url=url, replay_store=store, clock=clock, insecure_http_hosts=("auth",))
    assert (await endpoint.verify(token_request(proof_text(url=url)))).htu == url


async def test_a_token_gets_the_confirmation_that_the_api_compares(clock: Clock) -> None:
    endpoint = TokenEndpoint(url=URL, replay_store=MemoryReplayStore(), clock=clock)
    proof = await endpoint.verify(token_request(proof_text()))
    assert confirmation(proof) == {"jkt": KEY.jkt}
    issuer = TestIssuer("https://auth.example.test", audience=API, clock=clock)
    api = ResourceServer(
        issuer=issuer.issuer,
        resource=API,
        jwks=issuer.jwks(),
        replay_store=MemoryReplayStore(),
        clock=clock,
    )
    token = issuer.token(cnf=confirmation(proof))

    def api_request(key: DPoPKey) -> ResourceRequest:
        text = proof_text(key, method="GET", url=f"{API}/", access_token=token)
        return token_request(text, method="GET", path="/", authorization=(f"DPoP {token}",))

    assert (await api.authenticate(api_request(KEY))).access_token.jkt == proof.jkt
    with pytest.raises(errors.InvalidToken) as caught:
        await api.authenticate(api_request(STRANGER))
    assert caught.value.check is Check.JKT


def test_a_code_is_bound_by_dpop_jkt_by_a_pushed_proof_or_by_both() -> None:
    assert requested_jkt(dpop_jkt=None) is None
    assert requested_jkt(dpop_jkt=KEY.jkt) == KEY.jkt
    assert requested_jkt(dpop_jkt=None, proof=a_proof()) == KEY.jkt
    assert requested_jkt(dpop_jkt=KEY.jkt, proof=a_proof()) == KEY.jkt


def test_a_pushed_request_that_names_another_key_is_refused() -> None:
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        requested_jkt(dpop_jkt=STRANGER.jkt, proof=a_proof())
    assert caught.value.check is Check.JKT
    assert (caught.value.expected, caught.value.actual) == (STRANGER.jkt, KEY.jkt)


@pytest.mark.parametrize(
    "dpop_jkt",
    [
        "",
        " ",
        KEY.jkt + "=",
        KEY.jkt[:-1],
        KEY.jkt + "A",
        KEY.jkt[:-1] + "B",  # bits that no 32 bytes have
        hashlib.sha256(b"").hexdigest(),
        KEY.jkt[:-1] + "\N{KELVIN SIGN}",
        "\ud800",
        base64url.encode(hashlib.sha512(b"").digest()),
        # A request object (RFC 9101) may have any JSON.
        5,
        True,
        [KEY.jkt],
        {"jkt": KEY.jkt},
    ],
    ids=lambda _: "text",  # a key of each run would give each run other names
)
@pytest.mark.parametrize("proof", [None, a_proof()])
def test_a_dpop_jkt_that_is_no_thumbprint_is_refused(dpop_jkt: Any, proof: DPoPProof | None) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        requested_jkt(dpop_jkt=dpop_jkt, proof=proof)
    assert caught.value.check is Check.JKT


def test_a_code_is_redeemed_by_its_own_key_only() -> None:
    check_code_binding(a_proof(), dpop_jkt=KEY.jkt)
    with pytest.raises(InvalidGrant) as caught:
        check_code_binding(a_proof(STRANGER), dpop_jkt=KEY.jkt)
    assert (caught.value.status, caught.value.code) == (400, "invalid_grant")
    assert (caught.value.expected, caught.value.actual) == (KEY.jkt, STRANGER.jkt)
    # Leaving the proof out must not turn a bound code into a Bearer token.
    with pytest.raises(errors.InvalidDPoPProof):
        check_code_binding(None, dpop_jkt=KEY.jkt)


def test_an_unbound_code_may_come_with_any_key_or_none() -> None:
    check_code_binding(a_proof(), dpop_jkt=None)
    check_code_binding(None, dpop_jkt=None)
    with pytest.raises(InvalidGrant):
        check_code_binding(a_proof(), dpop_jkt=STRANGER.jkt)


def test_a_public_clients_refresh_token_is_bound() -> None:
    jkt = refresh_jkt(a_proof(), public_client=True)
    assert jkt == KEY.jkt
    check_refresh_binding(a_proof(), jkt=jkt)
    with pytest.raises(InvalidGrant) as caught:
        check_refresh_binding(a_proof(STRANGER), jkt=jkt)
    assert caught.value.check is Check.JKT
    with pytest.raises(errors.InvalidDPoPProof):
        check_refresh_binding(None, jkt=jkt)


def test_a_confidential_client_may_change_its_key() -> None:
    assert refresh_jkt(a_proof(), public_client=False) is None
    assert refresh_jkt(None, public_client=True) is None
    check_refresh_binding(a_proof(STRANGER), jkt=None)
    check_refresh_binding(None, jkt=None)


def test_the_comparison_is_exact() -> None:
    other_case = a_proof()._replace(jkt=KEY.jkt.swapcase())
    with pytest.raises(InvalidGrant):
        check_code_binding(other_case, dpop_jkt=KEY.jkt)


def test_the_metadata_names_what_is_accepted() -> None:
    assert dpop_signing_alg_values_supported(DPoPPolicy(algorithms=("RS256", "ES256"))) == ["ES256", "RS256"]
    assert json.dumps(dpop_signing_alg_values_supported(DPoPPolicy()))


async def test_an_algorithm_that_is_not_announced_is_refused(clock: Clock, store: MemoryReplayStore) -> None:
    endpoint = TokenEndpoint(
        url=URL, replay_store=store, clock=clock, policy=DPoPPolicy(algorithms=("Ed25519",))
    )
    with pytest.raises(errors.InvalidDPoPProof) as caught:
        await endpoint.verify(token_request(proof_text()))
    assert caught.value.check is Check.ALG


@pytest.mark.parametrize("path", ["/", "/elsewhere", "/a/../token", "https://other.example.test/token", "*"])
async def test_the_target_of_a_token_request_is_never_looked_at(clock: Clock, path: str) -> None:
    endpoint = TokenEndpoint(url=URL, replay_store=MemoryReplayStore(), clock=clock)
    request = token_request(proof_text(), path=path, hosts=("other.example.test",))
    assert (await endpoint.verify(request)).jkt == KEY.jkt
