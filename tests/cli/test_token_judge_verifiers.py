"""The verifiers of `explain`: what they say of key and signature, of claims, and of a saved answer."""

import json

import pytest

from dpop_middleware import JWTAccessTokenVerifier
from dpop_middleware.checks import Check
from dpop_middleware.cli.token_judge import BySavedAnswer, WithFetchedKeys, WithoutKeys
from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.introspection._answer import AnswerRules
from dpop_middleware.testing import TestIssuer
from tests.support.command import run
from tests.support.explained import ISSUER, KEY, NOW, RULES, TOKEN, URL
from tests.support.issuer_server import IssuerServer


def judge(server: IssuerServer) -> WithFetchedKeys:
    return WithFetchedKeys(
        JWTAccessTokenVerifier(
            issuer=ISSUER.issuer,
            audience=ISSUER.audience,
            jwks=f"{server.origin}/jwks",
            clock=lambda: NOW,
        )
    )


# A server refuses these for their claims, without their keys. Nothing is known of a signature then.
@pytest.mark.parametrize(
    ("signer", "kid", "outcomes"),
    [
        (TestIssuer(clock=lambda: NOW), ISSUER.kid, ("passed", "failed")),
        (TestIssuer(clock=lambda: NOW), "unknown", ("failed", "not reached")),
        (ISSUER, ISSUER.kid, ("passed", "passed")),
    ],
    ids=["forged", "another key", "the issuer's"],
)
def test_a_token_is_called_signed_by_its_issuer_only_where_it_is(
    signer: TestIssuer, kid: str, outcomes: tuple[str, str]
) -> None:
    token = signer.token(jkt=KEY.jkt, expires_in=-1000, header={"kid": kid})
    with IssuerServer() as server:
        server.publish(ISSUER.jwks())
        ran = run(
            "explain", "--method", "GET", "--url", URL, "--token", token, "--now", str(NOW), "--json",
            "--proof", KEY.proof("GET", URL, access_token=token, now=NOW), "--jwks", f"{server.origin}/jwks",
        )  # fmt: skip
    shown = {row["check"]: row["outcome"] for row in json.loads(ran.out)["checks"]}
    assert ran.status == 1
    assert (shown["token_key"], shown["token_signature"]) == outcomes
    assert shown["token_time"] == "failed"


async def test_what_is_wrong_before_the_claims_needs_no_keys() -> None:
    with IssuerServer() as server:
        of_type_jwt = ISSUER.token(expires_in=-1000, header={"typ": "JWT"})
        with pytest.raises(InvalidToken) as caught:
            await judge(server).verify(of_type_jwt)
        assert (caught.value.check, server.asked) == (Check.TOKEN_TYP, [])
        server.publish(ISSUER.jwks())
        with pytest.raises(InvalidToken) as caught:
            await judge(server).accepting_type("JWT").verify(of_type_jwt)
    assert caught.value.check is Check.TOKEN_TIME


async def test_without_keys_nothing_is_known() -> None:
    with IssuerServer() as server:
        asking = judge(server)
        assert asking.issuers == (ISSUER.issuer,)
        with pytest.raises(Unavailable):
            await asking.verify(ISSUER.token(expires_in=-1000))
        await asking.aclose()


async def test_without_keys_a_token_is_judged_by_all_but_its_signature() -> None:
    forged = TestIssuer(clock=lambda: NOW).token(jkt=KEY.jkt)
    without_keys = WithoutKeys(RULES, ("at+jwt",), NOW)
    assert without_keys.issuers == (ISSUER.issuer,)
    assert (await without_keys.verify(forged)).jkt == KEY.jkt
    of_type_jwt = ISSUER.token(header={"typ": "JWT"})
    with pytest.raises(InvalidToken) as caught:
        await without_keys.verify(of_type_jwt)
    assert caught.value.check is Check.TOKEN_TYP
    assert (await without_keys.accepting_type("JWT").verify(of_type_jwt)).issuer == ISSUER.issuer


async def test_a_saved_answer_decides_about_any_token() -> None:
    rules = AnswerRules(claims=RULES, accept_missing_audience=True)
    inactive = BySavedAnswer(rules, {"active": False, "email": "s3cr3t@example.com"}, NOW)
    assert inactive.issuers == (ISSUER.issuer,)
    assert "s3cr3t" not in repr(inactive)
    with pytest.raises(InvalidToken) as caught:
        await inactive.verify(TOKEN)
    assert caught.value.check is Check.TOKEN_ACTIVE
    with pytest.raises(Unavailable):
        await BySavedAnswer(rules, {}, NOW).verify(TOKEN)
