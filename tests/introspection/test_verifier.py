"""Opaque tokens, by an issuer that answers over real HTTP."""

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidToken
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from tests.support.introspection_server import API, IssuerOfOpaqueTokens, refusal

JKT = DPoPKey.generate().jkt
US = ClientSecretBasic(client_id="api", client_secret="s3cret:/+")
Verifier = Callable[..., IntrospectionVerifier]


async def test_an_active_token_is_accepted(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    token = issuer.issue(JKT, extra=[1])
    verified = await verifier().verify(token)
    assert (verified.issuer, verified.subject, verified.client_id) == (issuer.origin, "ann", "app")
    assert (verified.scopes, verified.jkt) == (frozenset({"notes:read"}), JKT)
    assert verified.expires_at == issuer.tokens[token]["exp"]
    assert dict(verified.claims) == issuer.tokens[token]
    (question,) = issuer.asked
    assert question.form == {"token": token, "token_type_hint": "access_token"}
    assert question.headers["accept"] == "application/json"


@pytest.mark.parametrize("token", ["x" * 16_385, "tökén"])
async def test_a_string_that_can_not_be_a_token_causes_no_question(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, token: str
) -> None:
    assert (await refusal(verifier(), token)).check is Check.TOKEN_FORMAT
    assert issuer.asked == []


async def test_the_endpoint_is_not_asked_again_while_an_answer_counts(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, token = verifier(), issuer.issue(JKT)
    presented = (token, "made-up", "x" * 16_385, "tökén")
    assert [opaque.is_remote(each) for each in presented] == [True, True, False, False]
    await opaque.verify(token)
    await refusal(opaque, "made-up")
    assert [opaque.is_remote(each) for each in presented] == [False] * 4
    at_once = verifier(active_lifetime=0, inactive_lifetime=0)
    await at_once.verify(token)
    assert at_once.is_remote(token)


async def test_a_token_that_was_revoked_is_refused_when_its_answer_is_old(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, token = verifier(active_lifetime=0), issuer.issue(JKT)
    await opaque.verify(token)
    del issuer.tokens[token]
    assert isinstance(await refusal(opaque, token), InvalidToken)


# A loop that ends without `aclose` leaves its sockets to the collector, which warns: that is what is tested.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_connections_of_a_loop_that_ended_without_closing_are_not_kept_for_ever(
    issuer: IssuerOfOpaqueTokens,
) -> None:
    opaque = IntrospectionVerifier(
        issuer=issuer.origin, audience=API, client_authentication=US, endpoint=issuer.endpoint
    )
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def ask(*, close: bool) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert (await opaque.verify(issuer.issue(JKT))).subject == "ann"
        if close:
            await opaque.aclose()

    for last in (False, False, True):
        asyncio.run(ask(close=last))
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3


async def test_many_requests_with_one_token_cause_one_question(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, token = verifier(active_lifetime=0), issuer.issue(JKT)
    waiting = [asyncio.create_task(opaque.verify(token)) for _ in range(100)]
    waiting[0].cancel("the first request may be cancelled")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["CancelledError", *["AccessToken"] * 99]
    assert issuer.asked_about(token) == 1


def test_the_verifier_reports_its_audiences(verifier: Verifier) -> None:
    assert verifier(audience=["https://a.test", "https://b.test"]).audiences == {
        "https://a.test",
        "https://b.test",
    }
