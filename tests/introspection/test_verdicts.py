"""For how long an answer of the endpoint counts, and what is kept of it."""

from collections.abc import Callable

from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidToken
from dpop_middleware.introspection import IntrospectionVerifier
from dpop_middleware.introspection._verdicts import Verdict, Verdicts
from tests.support.introspection_server import IssuerOfOpaqueTokens, refusal

JKT = DPoPKey.generate().jkt
Verifier = Callable[..., IntrospectionVerifier]


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
