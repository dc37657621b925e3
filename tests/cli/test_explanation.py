"""The explanation of a request says what the server says, and how far the request came."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware import (
    DPoPPolicy,
    HMACNonceProvider,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    ResourceServer,
)
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.authorization_server import CHECKS, TokenEndpoint
from dpop_middleware.checks import CHECKS_OF_A_JWT, CHECKS_OF_AN_OPAQUE_TOKEN, Check
from dpop_middleware.cli.explanation import Explanation, Finding, FindingState, explain
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import ConfigurationError, DPoPError, InvalidToken, UseDPoPNonce
from dpop_middleware.jose import base64url
from dpop_middleware.profiles import RFC9068
from dpop_middleware.testing import ABSENT, BROKEN_PROOFS, TestIssuer, broken_proof, encode_jws
from dpop_middleware.testing.issuer import merged
from dpop_middleware.tokens.access_token import AccessToken, token_hash
from dpop_middleware.tokens.claims import ClaimRules

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "proof_vectors.json").read_text())
NOW = 1_800_000_000.0
URL = "https://api.example.test/notes"
ISSUER = TestIssuer(clock=lambda: NOW)
KEY = DPoPKey.generate()
TOKEN = ISSUER.token(jkt=KEY.jkt, scopes=["notes:read"])
RULES = ClaimRules(
    issuer=ISSUER.issuer,
    audiences=frozenset({str(ISSUER.audience)}),
    required=RFC9068.required_claims,
    scope_claims=RFC9068.scope_claims,
    client_id_claims=RFC9068.client_id_claims,
    clock_skew=15,
)
NONCES = HMACNonceProvider(bytes(range(32))).for_server(purpose="resource server", server="")


def verifier(issuer: TestIssuer = ISSUER) -> JWTAccessTokenVerifier:
    return JWTAccessTokenVerifier(
        issuer=issuer.issuer, audience=issuer.audience, jwks=issuer.jwks(), clock=lambda: NOW
    )


def proof(**changes: Any) -> str:
    arguments: dict[str, Any] = {"access_token": TOKEN, "now": NOW, **changes}
    return KEY.proof("GET", URL, **arguments)


async def explained(*proofs: str, **changes: Any) -> Explanation:
    arguments: dict[str, Any] = {
        "method": "GET",
        "url": URL,
        "access_token": TOKEN,
        "verifier": verifier(),
        "rules": RULES,
        "now": NOW,
        **changes,
    }
    token = arguments.pop("access_token")
    arguments.setdefault("authorization", None if token is None else (f"DPoP {token}",))
    return await explain(proofs=proofs, **arguments)


def found(explanation: Explanation) -> dict[Check, Finding]:
    return {finding.check: finding for finding in explanation.findings}


def outcomes(explanation: Explanation) -> dict[Check, FindingState]:
    """What the server finds: what it doesn't reach counts as that, whatever is told of it."""
    return {
        finding.check: FindingState.NOT_REACHED if finding.after_failure else finding.outcome
        for finding in explanation.findings
    }


def assert_is_told_in_order(explanation: Explanation, checks: tuple[Check, ...] = CHECKS_OF_A_JWT) -> None:
    """One row for each check, in order; one failure, if any; after it nothing that counts as judged."""
    assert [finding.check for finding in explanation.findings] == list(checks)
    told = outcomes(explanation)
    failed = [check for check, outcome in told.items() if outcome is FindingState.FAILED]
    error = explanation.error
    if error is None:
        assert failed == []
        assert FindingState.NOT_REACHED not in told.values()
        assert explanation.status is None
        return
    assert failed == [error.check]
    assert explanation.status == (400 if checks == CHECKS else error.status)
    unreached = [check for check, outcome in told.items() if outcome is FindingState.NOT_REACHED]
    order = list(checks)
    assert {FindingState.PASSED, FindingState.NOT_JUDGED}.isdisjoint(
        told[check] for check in order[order.index(unreached[0]) :] if unreached
    )


def vectors() -> list[Any]:
    return [
        pytest.param(case, step, id=f"{case['id']}-{number}")
        for case in VECTORS["cases"]
        for number, step in enumerate(case.get("steps") or [case | {"at": 0}])
    ]


@pytest.mark.parametrize(("case", "step"), vectors())
async def test_the_explanation_agrees_with_the_server_on_every_vector(
    case: dict[str, Any], step: dict[str, Any]
) -> None:
    config = VECTORS["defaults"] | case.get("config", {})
    now = float(VECTORS["now"] + step["at"])
    request = step["request"]
    fields = [(name.lower(), value) for name, value in request["headers"]]
    authorization = tuple(value for name, value in fields if name == "authorization")
    proofs = tuple(value for name, value in fields if name == "dpop")
    parts = urlsplit(request["url"])
    policy = DPoPPolicy(
        algorithms=tuple(config["algs"]),
        proof_lifetime=config["iat_past"] - config["iat_future"],
        clock_skew=config["iat_future"],
        accept_bearer=not config["require_dpop"],
        nonce="required" if config["require_nonce"] else "off",
    )

    def access_tokens() -> JWTAccessTokenVerifier:
        return JWTAccessTokenVerifier(
            issuer=config["issuer"],
            audience=config["audience"],
            jwks=config["as_jwks"],
            clock_skew=policy.clock_skew,
            clock=lambda: now,
        )

    server = ResourceServer(
        verifier=access_tokens(),
        resource=config["audience"],
        public_url=f"{parts.scheme}://{parts.netloc}",
        insecure_http_hosts=("api.example.com",),
        replay_store=MemoryReplayStore(),
        nonces=NONCES,
        policy=policy,
        clock=lambda: now,
    )
    error: DPoPError | None = None
    try:
        await server.authenticate(
            ResourceRequest(
                method=request["method"],
                raw_path=parts.path or "/",
                hosts=(parts.netloc,),
                authorization=authorization,
                dpop=proofs,
            )
        )
    except DPoPError as refused:
        error = refused
    explanation = await explain(
        method=request["method"],
        url=request["url"],
        proofs=proofs,
        authorization=authorization,
        verifier=access_tokens(),
        nonces=NONCES.for_server(purpose="resource server", server=config["audience"]),
        policy=policy,
        now=now,
    )
    is_bearer = len(authorization) == 1 and authorization[0].startswith("Bearer ")
    rows = tuple(finding.check for finding in explanation.findings)
    assert_is_told_in_order(explanation, rows if is_bearer else CHECKS_OF_A_JWT)
    if error is None:
        assert explanation.error is None
    else:
        assert type(explanation.error) is type(error)
        assert explanation.error is not None
        assert (explanation.error.check, explanation.error.description) == (error.check, error.description)


@pytest.mark.parametrize("name", [name for name in BROKEN_PROOFS if name != "replayed"])
async def test_the_check_that_catches_each_defect_is_named(name: str) -> None:
    lines = broken_proof(name, key=KEY, method="GET", url=URL, access_token=TOKEN, now=NOW)
    explanation = await explained(*(value for _, value in lines))
    assert explanation.error is not None
    assert explanation.error.check is BROKEN_PROOFS[name].check
    assert_is_told_in_order(explanation)


async def test_a_good_request_passes_every_check_that_can_be_judged() -> None:
    explanation = await explained(proof(jti="the-jti"))
    assert explanation.error is None
    told = found(explanation)
    unjudged = {
        check: finding.hint for check, finding in told.items() if finding.outcome is FindingState.NOT_JUDGED
    }
    assert unjudged == {
        Check.NONCE: "the server's nonce is not given",
        Check.JTI: "only the server's replay store knows whether the proof was used before",
        Check.SCOPE: "no scope is required",
        Check.AUTHENTICATION: "a route must require it",
    }
    assert {check for check in CHECKS_OF_A_JWT if told[check].outcome is FindingState.PASSED} == set(
        CHECKS_OF_A_JWT
    ) - set(unjudged)
    assert {
        check: told[check].actual for check in (Check.HTM, Check.HTU, Check.IAT, Check.JTI, Check.ALG)
    } == {
        Check.HTM: "GET",
        Check.HTU: URL,
        Check.IAT: NOW,
        Check.JTI: "the-jti",
        Check.ALG: "ES256",
    }
    assert told[Check.BINDING].actual == told[Check.JKT].actual == KEY.jkt
    assert told[Check.TOKEN_ISS].actual == ISSUER.issuer
    assert told[Check.TOKEN_AUD].actual == ISSUER.audience
    assert told[Check.TOKEN_TIME].actual == NOW + 300
    assert told[Check.JWK].actual == "P-256"


async def test_a_failed_check_has_expected_actual_and_a_guess() -> None:
    told = found(await explained(KEY.proof("GET", URL.replace("https", "http"), access_token=TOKEN, now=NOW)))
    failed = told[Check.HTU]
    assert (failed.expected, failed.actual) == (URL, URL.replace("https", "http"))
    assert failed.hint == "scheme differs (http, not https): TLS ends at a proxy? set public_url"
    assert told[Check.HTM] == Finding(check=Check.HTM, outcome=FindingState.PASSED, actual="GET")
    assert told[Check.ATH].after_failure
    assert told[Check.JTI].outcome is FindingState.NOT_REACHED


@pytest.mark.parametrize("name", ["no_htm", "no_iat", "no_jti", "duplicate_member"])
async def test_a_claim_of_the_wrong_type_is_met_before_any_claim_is_compared(name: str) -> None:
    lines = broken_proof(name, key=KEY, method="GET", url=URL, access_token=TOKEN, now=NOW)
    told = outcomes(await explained(*(value for _, value in lines)))
    assert told[Check.JKT] is FindingState.PASSED
    assert told[Check.TYP] is FindingState.PASSED
    for check in (Check.CLAIMS, Check.HTM, Check.HTU, Check.ATH, Check.SIGNATURE, Check.IAT, Check.JTI):
        assert told[check] is (FindingState.FAILED if check is Check.CLAIMS else FindingState.NOT_REACHED)


async def test_unreadable_claims_do_not_hide_an_earlier_failure() -> None:
    lines = broken_proof("no_htm", key=KEY, method="GET", url=URL, access_token=TOKEN, now=NOW)
    other = ISSUER.token(jkt=DPoPKey.generate().jkt)
    told = outcomes(await explained(*(value for _, value in lines), access_token=other))
    assert told[Check.JKT] is FindingState.FAILED
    assert told[Check.JWK] is FindingState.PASSED
    assert told[Check.CLAIMS] is FindingState.NOT_REACHED


async def test_an_expired_token_stops_at_its_check() -> None:
    told = found(await explained(proof(), access_token=ISSUER.token(jkt=KEY.jkt, expires_in=-100)))
    assert told[Check.TOKEN_TIME].outcome is FindingState.FAILED
    assert told[Check.TOKEN_TIME].hint == "it expired 100 s ago"
    assert told[Check.TOKEN_SIGNATURE].outcome is FindingState.PASSED
    assert told[Check.BINDING].after_failure


TOKEN_URL = "https://auth.example.test/token"


async def token_request(*proofs: str, **changes: Any) -> Explanation:
    return await explained(*proofs, **{"method": "POST", "url": TOKEN_URL, "access_token": None, **changes})


async def test_without_a_token_it_is_judged_as_a_token_endpoint_does() -> None:
    explanation = await token_request(KEY.proof("POST", TOKEN_URL, now=NOW))
    assert_is_told_in_order(explanation, CHECKS)
    told = outcomes(explanation)
    assert {check for check in CHECKS if told[check] is not FindingState.PASSED} == {Check.NONCE, Check.JTI}
    refused = await token_request(KEY.proof("GET", TOKEN_URL, now=NOW))
    assert refused.error is not None
    assert (refused.error.check, refused.status) == (Check.HTM, 400)
    assert_is_told_in_order(refused, CHECKS)


@pytest.mark.parametrize("name", [name for name in BROKEN_PROOFS if name != "replayed"])
async def test_each_defect_is_caught_as_at_a_token_endpoint(name: str) -> None:
    lines = broken_proof(name, key=KEY, method="POST", url=TOKEN_URL, access_token=TOKEN, now=NOW)
    explanation = await token_request(*(value for _, value in lines))
    assert_is_told_in_order(explanation, CHECKS)
    # Without an access token there is no key to compare the proof's with, and no `ath` is looked at.
    only_with_a_token = BROKEN_PROOFS[name].check not in CHECKS
    assert (explanation.error is None) is only_with_a_token


async def test_the_explanation_agrees_with_the_token_endpoint() -> None:
    endpoint = TokenEndpoint(
        url=TOKEN_URL,
        replay_store=MemoryReplayStore(),
        policy=DPoPPolicy(nonce="required"),
        nonces=NONCES,
        clock=lambda: NOW,
    )
    given = KEY.proof("POST", TOKEN_URL, now=NOW)
    request = ResourceRequest(method="POST", raw_path="/token", hosts=(), authorization=(), dpop=(given,))
    with pytest.raises(UseDPoPNonce) as challenge:
        await endpoint.verify(request)
    policy = DPoPPolicy(nonce="required")
    explanation = await token_request(given, policy=policy, nonces=NONCES)
    assert isinstance(explanation.error, UseDPoPNonce)
    assert explanation.status == 400
    answer = KEY.proof("POST", TOKEN_URL, now=NOW, nonce=challenge.value.nonce)
    assert (await token_request(answer, policy=policy, nonces=NONCES)).error is None


async def test_a_nonce_decides_in_place_of_iat() -> None:
    policy = DPoPPolicy(nonce="required")
    nonce = NONCES.issue(NOW)
    told = found(await explained(proof(nonce=nonce, now=NOW - 9999), policy=policy, nonces=NONCES))
    assert told[Check.NONCE].outcome is FindingState.PASSED
    assert told[Check.NONCE].actual == nonce
    assert told[Check.IAT].outcome is FindingState.NOT_JUDGED
    assert told[Check.IAT].hint == "the nonce decides"
    refused = await explained(proof(), policy=policy, nonces=NONCES)
    assert outcomes(refused)[Check.NONCE] is FindingState.FAILED
    assert outcomes(refused)[Check.IAT] is FindingState.NOT_JUDGED
    assert "DPoP-Nonce" in (found(refused)[Check.NONCE].hint or "")


async def test_a_required_scope_is_checked() -> None:
    told = found(await explained(proof(), requirements=Requirements(scopes=("notes:read",))))
    assert told[Check.SCOPE] == Finding(
        check=Check.SCOPE, outcome=FindingState.PASSED, actual=("notes:read",)
    )
    told = found(await explained(proof(), requirements=Requirements(scopes=("notes:write",))))
    assert told[Check.SCOPE].outcome is FindingState.FAILED
    assert told[Check.SCOPE].actual == ("notes:read",)
    assert told[Check.AUTHENTICATION].outcome is FindingState.NOT_REACHED


async def test_a_check_that_the_verifier_cannot_make_is_not_judged() -> None:
    told = found(await explained(proof(), unknown={Check.TOKEN_KEY: "no keys"}))
    assert told[Check.TOKEN_KEY] == Finding(
        check=Check.TOKEN_KEY, outcome=FindingState.NOT_JUDGED, hint="no keys"
    )


async def test_an_error_without_a_check_fails_the_authorization_check() -> None:
    class Opaque:
        issuers = ()

        async def verify(self, token: str) -> AccessToken:
            raise InvalidToken("unknown")

    told = outcomes(await explained(proof(), verifier=Opaque()))
    assert told[Check.AUTHORIZATION] is FindingState.FAILED
    assert told[Check.TARGET] is FindingState.NOT_REACHED


@pytest.mark.parametrize(
    "url", ["http://[2001:db8::1]:8080/notes", "http://API.example.test:80", "http://127.0.0.1/a%2Fb?c#d"]
)
async def test_any_absolute_url_is_accepted(url: str) -> None:
    assert (await explained(KEY.proof("GET", url, access_token=TOKEN, now=NOW), url=url)).error is None


async def test_a_path_with_dot_segments_fails_the_target_check() -> None:
    explanation = await explained(proof(), url="https://api.example.test/a/../notes")
    assert outcomes(explanation)[Check.TARGET] is FindingState.FAILED
    assert outcomes(explanation)[Check.AUTHORIZATION] is FindingState.PASSED


@pytest.mark.parametrize(
    "url", ["", "/notes", "ftp://api.example.test/", "https://", "https://a b/", "https://u@h/"]
)
async def test_other_urls_are_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^the URL (must be absolute|can't be used)"):
        await explained(proof(), url=url)


async def test_the_order_of_the_server_is_the_order_of_the_checks() -> None:
    """Requests with two defects: the earlier check catches them."""
    stale = ISSUER.token(jkt=KEY.jkt, expires_in=-100, audience="https://other.example")
    told = await explained(proof(now=NOW - 999, access_token="x"), access_token=stale, method="POST")
    assert told.error is not None
    assert told.error.check is Check.TOKEN_AUD
    assert_is_told_in_order(told)
    told = await explained(proof(now=NOW - 999, access_token="x"))
    assert told.error is not None
    assert told.error.check is Check.ATH


@settings(max_examples=60, deadline=None)
@given(
    proofs=st.lists(st.text(max_size=60), max_size=2).map(tuple),
    token=st.none() | st.text(max_size=60),
    method=st.text(max_size=10),
    path=st.text(max_size=30),
)
def test_nothing_makes_it_raise_anything_else(
    proofs: tuple[str, ...], token: str | None, method: str, path: str
) -> None:
    async def told() -> Explanation:
        return await explain(
            method=method,
            url=f"https://api.example.test/{path}",
            proofs=proofs,
            authorization=None if token is None else (f"DPoP {token}",),
            verifier=verifier(),
            rules=RULES,
            now=NOW,
        )

    try:
        explanation = asyncio.run(told())
    except ConfigurationError:
        assert token is None, "a token endpoint's URL is configured: an impossible one is not the client's"
        return
    assert explanation.error is not None
    assert_is_told_in_order(explanation, CHECKS if token is None else CHECKS_OF_A_JWT)


class Remote:
    """Another server's word on every token: what `says` is."""

    remote = True
    issuers = ("https://auth.example.test",)

    def __init__(self, says: Exception) -> None:
        self.says = says

    async def verify(self, token: str) -> AccessToken:
        raise self.says


@pytest.mark.parametrize(
    ("says", "checks"),
    [
        (InvalidToken("not active", check=Check.TOKEN_ACTIVE), CHECKS_OF_AN_OPAQUE_TOKEN),
        (OSError("no route"), tuple(Check)),
    ],
)
async def test_where_another_server_is_asked_the_proof_comes_first(
    says: Exception, checks: tuple[Check, ...]
) -> None:
    proof = KEY.proof("GET", URL, access_token="opaque", now=NOW)
    explanation = await explain(
        method="GET", url=URL, proofs=(proof,), authorization=("DPoP opaque",), verifier=Remote(says), now=NOW
    )
    told = outcomes(explanation)
    assert list(told) == list(checks)
    assert explanation.error is not None
    assert told[explanation.error.check or Check.TARGET] is FindingState.FAILED
    if checks is CHECKS_OF_AN_OPAQUE_TOKEN:
        assert told[Check.SIGNATURE] is FindingState.PASSED
        assert told[Check.JKT] is told[Check.JTI] is FindingState.NOT_REACHED


def later(explanation: Explanation) -> dict[Check, FindingState]:
    """What the server doesn't reach, and is told all the same."""
    return {finding.check: finding.outcome for finding in explanation.findings if finding.after_failure}


PASSED, FAILED = FindingState.PASSED, FindingState.FAILED


async def test_what_the_server_does_not_reach_is_judged_all_the_same() -> None:
    expired = ISSUER.token(jkt=KEY.jkt, expires_in=-100, scopes=["notes:read"])
    told = await explained(
        proof(access_token=expired, now=NOW - 999),
        access_token=expired,
        url="https://api.example.test/other",
        requirements=Requirements(scopes=["notes:write"]),
    )
    assert told.error is not None
    assert told.error.check is Check.TOKEN_TIME
    assert later(told) == {
        Check.BINDING: PASSED,
        Check.FORMAT: PASSED,
        Check.TYP: PASSED,
        Check.CRIT: PASSED,
        Check.ALG: PASSED,
        Check.JWK: PASSED,
        Check.JKT: PASSED,
        Check.CLAIMS: PASSED,
        Check.HTM: PASSED,
        Check.HTU: FAILED,
        Check.ATH: PASSED,
        Check.SIGNATURE: PASSED,
        Check.IAT: FAILED,
        Check.SCOPE: FAILED,
    }
    rows = found(told)
    assert rows[Check.HTU].actual == URL
    assert rows[Check.IAT].hint is not None
    assert rows[Check.IAT].reason == "the iat of the DPoP proof is not recent"
    assert rows[Check.BINDING].actual == KEY.jkt
    assert rows[Check.JTI] == Finding(check=Check.JTI, outcome=FindingState.NOT_REACHED)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"aud": "https://other.example"}, {Check.TOKEN_AUD}),
        (
            {"iss": "https://other.example", "aud": ["x"], "exp": 5},
            {Check.TOKEN_ISS, Check.TOKEN_AUD, Check.TOKEN_TIME},
        ),
        ({"jti": ABSENT, "iss": "https://other.example"}, {Check.TOKEN_CLAIMS, Check.TOKEN_ISS}),
        ({"header": {"typ": "JWT"}, "aud": "x"}, {Check.TOKEN_TYP, Check.TOKEN_AUD}),
        ({"header": {"alg": "none"}}, {Check.TOKEN_ALG}),
        ({"key": KEY}, {Check.TOKEN_SIGNATURE}),
        ({"header": {"typ": "JWT"}, "cnf": {"jkt": "x"}}, {Check.TOKEN_TYP, Check.BINDING}),
        ({"header": {"typ": "JWT"}, "cnf": ABSENT}, {Check.TOKEN_TYP, Check.BINDING}),
    ],
)
async def test_every_fault_of_a_token_is_told(changes: dict[str, Any], failed: set[Check]) -> None:
    arguments: dict[str, Any] = {"jkt": KEY.jkt, **changes}
    token = ISSUER.token(**arguments)
    told = await explained(proof(access_token=token), access_token=token)
    assert {finding.check for finding in told.findings if finding.outcome is FAILED} == failed
    if Check.BINDING not in failed:
        assert later(told)[Check.JKT] is PASSED
    assert later(told)[Check.SIGNATURE] is PASSED


@pytest.mark.parametrize(
    ("header", "changes", "failed"),
    [
        ({"typ": "JWT"}, {}, set()),
        ({"typ": ABSENT}, {"key": KEY}, {Check.TOKEN_SIGNATURE}),
        ({"typ": "JWT", "kid": "another"}, {}, {Check.TOKEN_KEY}),
        ({"typ": "JWT", "alg": "none"}, {"aud": "x"}, {Check.TOKEN_ALG, Check.TOKEN_AUD}),
    ],
)
async def test_a_token_of_another_type_is_judged_as_if_that_were_right(
    header: dict[str, Any], changes: dict[str, Any], failed: set[Check]
) -> None:
    token = ISSUER.token(jkt=KEY.jkt, header=header, **changes)
    told = await explained(proof(access_token=token), access_token=token)
    assert told.error is not None
    assert told.error.check is Check.TOKEN_TYP
    made = {check: outcome for check, outcome in later(told).items() if check.startswith("token_")}
    assert {check for check, outcome in made.items() if outcome is FAILED} == failed
    assert (made.get(Check.TOKEN_SIGNATURE) is PASSED) is (not failed)
    assert_is_told_in_order(told)


@pytest.mark.parametrize("typ", [None, 7, "", "\u212awt"])
async def test_a_type_that_no_server_can_accept_is_no_obstacle_either(typ: object) -> None:
    token = ISSUER.token(jkt=KEY.jkt, header={"typ": typ})
    told = await explained(proof(access_token=token), access_token=token)
    assert told.error is not None
    assert told.error.check is Check.TOKEN_TYP
    assert Check.TOKEN_SIGNATURE not in later(told)
    assert later(told)[Check.TOKEN_TIME] is later(told)[Check.JKT] is PASSED


@pytest.mark.parametrize("changes", [{"sub": 7}, {"aud": 7}, {"aud": []}, {"iss": ABSENT}, {"exp": "soon"}])
async def test_a_token_that_cannot_be_put_right_is_no_obstacle_for_the_proof(changes: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"header": {"typ": "JWT"}, **changes}
    token = ISSUER.token(jkt=KEY.jkt, **arguments)
    told = await explained(proof(access_token=token), access_token=token)
    assert FAILED in later(told).values()
    assert Check.JKT not in later(told)
    assert later(told)[Check.ATH] is PASSED


async def test_a_token_that_is_no_jwt_is_no_obstacle_either() -> None:
    told = await explained(proof(access_token="a.b"), access_token="a.b")
    assert {check for check, outcome in later(told).items() if outcome is FAILED} == set()
    assert Check.TOKEN_CLAIMS not in later(told)
    assert later(told)[Check.ATH] is PASSED


HEADER = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.public_jwk}
CLAIMS = {"jti": "1", "htm": "GET", "htu": URL, "iat": NOW, "ath": token_hash(TOKEN)}


@pytest.mark.parametrize(
    ("header", "claims", "failed"),
    [
        ({"typ": "JWT"}, {}, {Check.TYP}),
        ({"typ": "JWT", "crit": ["x"], "zip": "DEF"}, {"htm": "PUT"}, {Check.TYP, Check.CRIT, Check.HTM}),
        ({"typ": "JWT", "alg": "ML-DSA-44"}, {}, {Check.TYP, Check.ALG, Check.JWK}),
        ({"typ": "JWT", "alg": "none"}, {"iat": 5}, {Check.TYP, Check.ALG, Check.IAT}),
        ({"typ": "JWT", "alg": ["ES256"]}, {"htm": "PUT"}, {Check.TYP, Check.ALG, Check.HTM}),
        ({"typ": "JWT", "jwk": ABSENT}, {"ath": "x"}, {Check.TYP, Check.JWK, Check.ATH}),
        ({"typ": "JWT", "jwk": KEY.private_jwk()}, {}, {Check.TYP, Check.JWK}),
        ({"typ": "JWT"}, {"jti": ABSENT, "htm": 7, "htu": "x"}, {Check.TYP, Check.CLAIMS, Check.HTU}),
        ({"typ": "JWT"}, {"iat": "now", "htm": "PUT"}, {Check.TYP, Check.CLAIMS, Check.HTM}),
        ({"typ": "JWT"}, {"ath": None, "nonce": 7, "htm": "PUT"}, {Check.TYP, Check.CLAIMS, Check.HTM}),
        ({"typ": "JWT"}, {"exp": "x", "nbf": "y"}, {Check.TYP, Check.CLAIMS}),
    ],
)
async def test_every_fault_of_a_proof_is_told(
    header: dict[str, Any], claims: dict[str, Any], failed: set[Check]
) -> None:
    given = encode_jws(merged(HEADER, header), merged(CLAIMS, claims), key=KEY)
    told = await explained(given)
    assert {finding.check for finding in told.findings if finding.outcome is FAILED} == failed
    assert_is_told_in_order(told)


async def test_a_header_that_is_too_long_when_put_right_ends_the_telling() -> None:
    short = encode_jws(merged(HEADER, {"typ": "JWT", "x": ""}), CLAIMS, key=KEY).partition(".")[0]
    filler = "a" * (4096 - len(base64url.decode(short)))
    given = encode_jws(merged(HEADER, {"typ": "JWT", "x": filler}), CLAIMS, key=KEY)
    told = await explained(given)
    assert told.error is not None
    assert told.error.check is Check.TYP
    assert {check: later(told).get(check) for check in (Check.FORMAT, Check.CRIT, Check.JWK, Check.HTM)} == {
        Check.FORMAT: None,
        Check.CRIT: None,
        Check.JWK: None,
        Check.HTM: PASSED,
    }


@pytest.mark.parametrize("lines", [(), ("a", "b"), ("no proof",), ("e30.e30.e30",)])
async def test_without_a_proof_that_can_be_read_the_token_is_told_of(lines: tuple[str, ...]) -> None:
    expired = ISSUER.token(jkt=KEY.jkt, expires_in=-100)
    told = later(await explained(*lines, access_token=expired))
    assert told.get(Check.BINDING, PASSED) is PASSED
    assert told.get(Check.FORMAT, FAILED) is (PASSED if lines == ("e30.e30.e30",) else FAILED)
    assert Check.HTM not in told


@pytest.mark.parametrize(
    ("nonce", "policy", "failed"),
    [
        (None, "required", Check.NONCE),
        ("stale", "fallback", Check.NONCE),
        ("stale", "off", None),
    ],
)
async def test_the_nonce_is_judged_after_a_failure_too(
    nonce: str | None, policy: Any, failed: Check | None
) -> None:
    told = await explained(proof(nonce=nonce), method="POST", policy=DPoPPolicy(nonce=policy), nonces=NONCES)
    judged = Check.IAT if failed is None else failed
    assert later(told)[judged] is (PASSED if failed is None else FAILED)


async def test_a_path_that_is_refused_leaves_the_url_unjudged() -> None:
    told = later(await explained(proof(), url="https://api.example.test/a/../notes"))
    assert Check.HTU not in told
    assert told[Check.HTM] is told[Check.SIGNATURE] is told[Check.TOKEN_SIGNATURE] is PASSED


async def test_a_verifier_of_ones_own_that_refuses_a_type_says_no_more() -> None:
    class Strict:
        issuers = ()

        async def verify(self, token: str) -> AccessToken:
            raise InvalidToken("no", check=Check.TOKEN_TYP)

    told = await explained(proof(), verifier=Strict())
    assert Check.TOKEN_SIGNATURE not in later(told)
    assert later(told)[Check.TOKEN_AUD] is later(told)[Check.SIGNATURE] is PASSED


async def test_a_verifier_that_breaks_or_cannot_know_is_not_asked_to_say_more() -> None:
    class Broken:
        issuers = ()

        async def verify(self, token: str) -> AccessToken:
            raise OSError("down")

    told = await explained(proof(), verifier=Broken(), rules=None, url="https://api.example.test/../x")
    assert Check.TOKEN_FORMAT not in later(told)
    assert later(told)[Check.ATH] is PASSED
    asked = await explained(proof(), verifier=Broken(), rules=None, method="POST")
    assert asked.status == 503
    assert later(asked)[Check.HTM] is FAILED


async def test_whoever_asks_the_issuer_is_not_asked_for_what_the_server_does_not_reach() -> None:
    class Asking:
        remote = True
        issuers = ()

        async def verify(self, token: str) -> AccessToken:
            raise AssertionError("the proof is bad: no token is asked about")

    told = await explained(proof(), verifier=Asking(), rules=None, asks=True, method="POST")
    assert told.error is not None
    assert told.error.check is Check.HTM
    assert Check.TOKEN_FORMAT not in later(told)


# Each is one fault of a token or a proof, which hides no other of them.
OF_TOKENS: dict[Check, dict[str, Any]] = {
    Check.TOKEN_TYP: {"header": {"typ": "JWT"}},
    Check.TOKEN_CLAIMS: {"jti": ABSENT},
    Check.TOKEN_ISS: {"iss": "https://other.example"},
    Check.TOKEN_AUD: {"aud": "https://other.example"},
    Check.TOKEN_TIME: {"exp": int(NOW) - 100},
    Check.TOKEN_SIGNATURE: {"key": KEY},
}
OF_PROOFS: dict[Check, tuple[dict[str, Any], dict[str, Any]]] = {
    Check.TYP: ({"typ": "JWT"}, {}),
    Check.CRIT: ({"crit": ["x"]}, {}),
    Check.CLAIMS: ({}, {"ath": ABSENT, "jti": 7}),
    Check.HTM: ({}, {"htm": "PUT"}),
    Check.HTU: ({}, {"htu": "https://api.example.test/other"}),
    Check.IAT: ({}, {"iat": NOW - 5000}),
}


@settings(max_examples=150, deadline=None)
@given(
    of_token=st.sets(st.sampled_from(list(OF_TOKENS))),
    of_proof=st.sets(st.sampled_from(list(OF_PROOFS))),
    scope=st.booleans(),
)
def test_every_fault_of_a_request_is_told_and_no_other(
    of_token: set[Check], of_proof: set[Check], scope: bool
) -> None:
    claims: dict[str, Any] = {}
    for fault in of_token:
        claims |= OF_TOKENS[fault]
    token = ISSUER.token(jkt=KEY.jkt, **claims)
    header, says = HEADER, {**CLAIMS, "ath": token_hash(token)}
    for fault in of_proof:
        header, says = merged(header, OF_PROOFS[fault][0]), merged(says, OF_PROOFS[fault][1])
    told = asyncio.run(
        explained(
            encode_jws(header, says, key=KEY),
            access_token=token,
            requirements=Requirements(scopes=["write"] if scope else []),
        )
    )
    wanted = {*of_token, *of_proof, *([Check.SCOPE] if scope else [])}
    if Check.CLAIMS in of_proof:
        wanted.add(Check.ATH)  # without one it fits no token
    failed = [finding for finding in told.findings if finding.outcome is FAILED]
    assert {finding.check for finding in failed} == wanted
    assert [finding.check for finding in failed if not finding.after_failure] == (
        [] if told.error is None else [told.error.check]
    )
    assert (told.error is None) is (not wanted)
