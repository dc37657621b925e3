"""Checks that the server does not reach are still reported, with every fault of a request."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware import (
    DPoPPolicy,
)
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware.checks import Check
from dpop_middleware.cli.console import FindingState
from dpop_middleware.cli.findings import Finding
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import base64url
from dpop_middleware.testing import ABSENT, encode_jws
from dpop_middleware.testing.issuer import merged
from dpop_middleware.tokens.access_token import AccessToken, token_hash
from tests.support.explained import (
    ISSUER,
    KEY,
    NONCES,
    NOW,
    TOKEN,
    URL,
    assert_is_told_in_order,
    explained,
    found,
    later,
    proof,
)

PASSED, FAILED = FindingState.PASSED, FindingState.FAILED


async def test_checks_that_the_server_does_not_reach_are_still_judged() -> None:
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


async def test_a_verifier_that_asks_the_issuer_is_not_called_for_checks_that_the_server_does_not_reach() -> (
    None
):
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


@settings(max_examples=150)
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


FAR_AHEAD = NOW + 2 * 86_400
WITH_NONCE: dict[str, Any] = {"policy": DPoPPolicy(nonce="required"), "nonces": NONCES}


@pytest.mark.parametrize(("days", "is_found"), [(3, True), (1, False)])
async def test_a_proof_dated_too_far_ahead_is_found_where_the_server_would_find_it(
    days: float, is_found: bool
) -> None:
    token = ISSUER.token(jkt=KEY.jkt, expires_in=days * 86_400 - 300)
    signed = proof(access_token=token, now=FAR_AHEAD, nonce=NONCES.issue(NOW))
    reached = await explained(signed, access_token=token, **WITH_NONCE)
    told = await explained(signed, access_token=token, url="https://api.example.test/other", **WITH_NONCE)
    assert (found(reached)[Check.IAT].outcome is FAILED) is is_found
    assert (later(told).get(Check.IAT) is FAILED) is is_found
    assert found(told)[Check.IAT].reason == found(reached)[Check.IAT].reason


async def test_no_proof_is_dated_too_far_ahead_for_a_token_that_is_not_known() -> None:
    signed = proof(access_token="x.y.z", now=FAR_AHEAD, nonce=NONCES.issue(NOW))
    told = await explained(signed, access_token="x.y.z", **WITH_NONCE)
    assert told.error is not None
    assert told.error.check is Check.TOKEN_FORMAT
    assert later(told)[Check.NONCE] is PASSED


async def test_a_token_request_with_a_proof_dated_too_far_ahead_has_this_fault_too() -> None:
    signed = KEY.proof("PUT", URL, now=FAR_AHEAD, nonce=NONCES.issue(NOW))
    told = await explained(signed, access_token=None, method="POST", **WITH_NONCE)
    assert told.error is not None
    assert told.error.check is Check.HTM
    assert later(told)[Check.IAT] is FAILED
