"""The explanation of a request agrees with the server, and shows which checks were reached."""

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
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    ResourceServer,
)
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.authorization_server import CHECKS, TokenEndpoint
from dpop_middleware.checks import CHECKS_OF_A_JWT, CHECKS_OF_AN_OPAQUE_TOKEN, Check
from dpop_middleware.cli.console import FindingState
from dpop_middleware.cli.explanation import explain
from dpop_middleware.cli.findings import Explanation, Finding
from dpop_middleware.cli.token_judge import TokenJudge
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import ConfigurationError, DPoPError, InvalidToken, UseDPoPNonce
from dpop_middleware.testing import BROKEN_PROOFS, broken_proof
from dpop_middleware.tokens.access_token import AccessToken
from tests.support.explained import (
    ISSUER,
    KEY,
    NONCES,
    NOW,
    RULES,
    TOKEN,
    URL,
    assert_is_told_in_order,
    explained,
    found,
    outcomes,
    proof,
    verifier,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "proof_vectors.json").read_text())


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
        judge=TokenJudge(access_tokens()),
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
    # Without an access token there is no key to compare the proof's with, and `ath` isn't checked.
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


async def test_a_nonce_that_is_refused_is_shown() -> None:
    policy = DPoPPolicy(nonce="required")
    for nonce in ("stale", None):
        told = found(await explained(proof(nonce=nonce), policy=policy, nonces=NONCES))
        assert (told[Check.NONCE].outcome, told[Check.NONCE].actual) == (FindingState.FAILED, nonce)


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


@settings(max_examples=60)
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
            judge=TokenJudge(verifier(), rules=RULES),
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
    """Another server's answer about every token: `says`."""

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
        method="GET",
        url=URL,
        proofs=(proof,),
        authorization=("DPoP opaque",),
        judge=TokenJudge(Remote(says)),
        now=NOW,
    )
    told = outcomes(explanation)
    assert list(told) == list(checks)
    assert explanation.error is not None
    assert told[explanation.error.check or Check.TARGET] is FindingState.FAILED
    if checks is CHECKS_OF_AN_OPAQUE_TOKEN:
        assert told[Check.SIGNATURE] is FindingState.PASSED
        assert told[Check.JKT] is told[Check.JTI] is FindingState.NOT_REACHED
