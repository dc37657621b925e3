"""Opaque tokens, by an issuer that answers over real HTTP."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import Response

from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError, InvalidToken, Unavailable
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from dpop_middleware.introspection._verdicts import Verdict, Verdicts
from tests.support.introspection_server import IssuerOfOpaqueTokens, Question

JKT = DPoPKey.generate().jkt
US = ClientSecretBasic(client_id="api", client_secret="s3cret:/+")
Verifier = Callable[..., IntrospectionVerifier]


async def refusal(verifier: IntrospectionVerifier, token: str) -> DPoPError:
    with pytest.raises(DPoPError) as caught:
        await verifier.verify(token)
    return caught.value


async def test_an_active_token(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
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
async def test_what_can_be_no_token_is_not_asked_about(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, token: str
) -> None:
    assert (await refusal(verifier(), token)).check is Check.TOKEN_FORMAT
    assert issuer.asked == []


async def test_the_endpoint_is_found_by_the_issuers_metadata(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(endpoint=None)
    tokens = [issuer.issue(JKT) for _ in range(3)]
    await asyncio.gather(*map(opaque.verify, tokens))
    assert issuer.requests == ["/.well-known/oauth-authorization-server"]


async def test_a_token_that_is_not_active(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    opaque = verifier()
    for _ in range(3):
        error = await refusal(opaque, "made-up")
        assert isinstance(error, InvalidToken)
        assert error.check is Check.TOKEN_ACTIVE
        assert "made-up" not in repr((error.args, error.expected, error.actual))
    assert issuer.asked_about("made-up") == 1


@pytest.mark.parametrize(
    ("claims", "check"),
    [
        ({"aud": "https://other.example"}, Check.TOKEN_AUD),
        ({"aud": None}, Check.TOKEN_AUD),
        ({"aud": 7}, Check.TOKEN_CLAIMS),
        ({"iss": "https://other.example"}, Check.TOKEN_ISS),
        ({"exp": 1000}, Check.TOKEN_TIME),
        ({"exp": None}, Check.TOKEN_CLAIMS),
        ({"exp": "tomorrow"}, Check.TOKEN_CLAIMS),
        ({"nbf": 4_000_000_000}, Check.TOKEN_TIME),
        ({"sub": None, "client_id": None}, Check.TOKEN_CLAIMS),
        ({"scope": {"notes": True}}, Check.TOKEN_CLAIMS),
        ({"token_type": None}, Check.TOKEN_CLAIMS),
        ({"token_type": "Bearer"}, Check.BINDING),
        ({"token_type": "refresh_token"}, Check.BINDING),
        ({"token_type": 1}, Check.BINDING),
        ({"cnf": {"x5t#S256": "x"}}, Check.BINDING),
        ({"cnf": {"jkt": JKT, "x5t#S256": "x"}}, Check.BINDING),
        ({"cnf": []}, Check.BINDING),
        ({"cnf": None}, Check.BINDING),
    ],
)
async def test_an_active_token_that_is_not_for_us_is_refused(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, claims: dict[str, Any], check: Check
) -> None:
    opaque, token = verifier(), issuer.issue(JKT, **claims)
    for _ in range(2):
        error = await refusal(opaque, token)
        assert isinstance(error, InvalidToken)
        assert error.check is check
    assert len(issuer.asked) == 1, "the refusal is remembered too"


async def test_an_audience_may_be_missing_where_that_is_named(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(accept_missing_audience=True)
    verified = await opaque.verify(issuer.issue(JKT, aud=None, iss=None))
    assert verified.issuer == issuer.origin
    assert {"aud", "iss"}.isdisjoint(verified.claims)
    assert (await refusal(opaque, issuer.issue(JKT, aud="https://other.example"))).check is Check.TOKEN_AUD


async def test_what_an_issuer_leaves_out_can_be_named(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(required_claims=())
    verified = await opaque.verify(issuer.issue(JKT, exp=None, token_type=None))
    assert verified.expires_at == float("inf")
    assert (await refusal(verifier(required_claims=("acr",)), issuer.issue(JKT))).check is Check.TOKEN_CLAIMS


async def test_an_unbound_token_says_that_it_is_a_bearer_token(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    assert (await verifier().verify(issuer.issue())).jkt is None
    assert (await refusal(verifier(), issuer.issue(token_type="DPoP"))).check is Check.BINDING


def answers(status: int = 200, body: bytes = b"{}", **headers: str) -> Callable[[Question], Any]:
    async def behave(_question: Question) -> Response:
        fields = {"Content-Type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}
        return Response(body, status_code=status, headers=fields)

    return behave


@pytest.mark.parametrize(
    ("behaves", "reason"),
    [
        (answers(), "doesn't say whether the token is active"),
        (answers(body=b'{"active": "true"}'), "doesn't say whether the token is active"),
        (answers(body=b'{"active": 1}'), "doesn't say whether the token is active"),
        (answers(body=b'{"active": false, "active": true}'), "not a JSON object"),
        (answers(body=b"[true]"), "not a JSON object"),
        (answers(body=b'{"active": true, "x": "' + b"y" * 200_000 + b'"}'), "larger than the limit"),
        (answers(Content_Encoding="gzip"), "content coding"),
        (answers(Content_Type="text/html"), "media type"),
        (answers(Content_Type="application/token-introspection+jwt"), "media type"),
        (answers(302, Location="https://evil.example/"), "the status is 302"),
        (answers(401), "the status is 401"),
        (answers(400), "the status is 400"),
        (answers(500), "the status is 500"),
        (answers(503), "the status is 503"),
    ],
)
async def test_what_is_no_answer_makes_503(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, behaves: Any, reason: str
) -> None:
    issuer.behaves = behaves
    opaque, token = verifier(), issuer.issue(JKT)
    error = await refusal(opaque, token)
    assert isinstance(error, Unavailable)
    assert error.retry_after == 1
    assert error.check is Check.TOKEN_ACTIVE
    assert reason in str(error.actual)
    assert token not in str(error.actual)
    issuer.behaves = None
    assert (await opaque.verify(token)).subject == "ann"


async def test_the_server_says_when_to_come_back(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    for value, seconds in (("7", 7), ("100000", 60), ("0", 1), ("soon", 1), ("9" * 30, 1)):
        issuer.behaves = answers(429, Retry_After=value)
        error = await refusal(verifier(), "any")
        assert isinstance(error, Unavailable)
        assert error.retry_after == seconds


async def test_an_answer_counts_for_a_while_and_until_the_token_expires(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    now = [1_800_000_000.0]
    opaque = verifier(clock=lambda: now[0], active_lifetime=30)
    token, short = issuer.issue(JKT, exp=now[0] + 600), issuer.issue(JKT, exp=now[0] + 10)
    for moment, times, times_of_short in ((0, 1, 1), (9, 1, 1), (11, 1, 2), (29, 1, 2), (31, 2, 2)):
        now[0] = 1_800_000_000.0 + moment
        await opaque.verify(token)
        if moment > 9:
            issuer.tokens.pop(short, None)
            assert (await refusal(opaque, short)).check is Check.TOKEN_ACTIVE
        else:
            await opaque.verify(short)
        assert issuer.asked_about(token) == times, moment
        assert issuer.asked_about(short) >= times_of_short, moment


def test_a_clock_that_is_set_back_makes_no_answer_last_longer() -> None:
    now, passed = [1_800_000_000.0], [0.0]
    verdicts = Verdicts(
        active_lifetime=30,
        inactive_lifetime=5,
        max_tokens=10,
        max_bytes=10_000,
        clock=lambda: now[0],
        monotonic=lambda: passed[0],
    )
    answer = Verdict(InvalidToken("the access token is not active"), verdicts.now())
    verdicts.put(b"digest", answer)
    now[0] -= 1000
    passed[0] += 4.9
    assert verdicts.get(b"digest") is answer
    passed[0] += 0.2
    assert verdicts.get(b"digest") is None


async def test_a_token_that_was_revoked_is_refused_when_its_answer_is_old(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, token = verifier(active_lifetime=0), issuer.issue(JKT)
    await opaque.verify(token)
    del issuer.tokens[token]
    assert isinstance(await refusal(opaque, token), InvalidToken)


async def test_many_requests_with_one_token_are_one_question(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque, token = verifier(active_lifetime=0), issuer.issue(JKT)
    waiting = [asyncio.create_task(opaque.verify(token)) for _ in range(100)]
    waiting[0].cancel("whoever came first may go")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["CancelledError", *["AccessToken"] * 99]
    assert issuer.asked_about(token) == 1


def test_its_audiences_are_told(verifier: Verifier) -> None:
    assert verifier(audience=["https://a.test", "https://b.test"]).audiences == {
        "https://a.test",
        "https://b.test",
    }
