"""For how long an answer of the endpoint counts, and what is kept of it."""

import tracemalloc
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from dpop_middleware._runtime import Moment
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidToken
from dpop_middleware.introspection import IntrospectionVerifier
from dpop_middleware.introspection._answer import AnswerRules, judge_answer
from dpop_middleware.introspection._verdicts import Verdict, Verdicts
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.cache import CLIENT_SIZE, read_only_claims
from dpop_middleware.tokens.claims import claim_rules
from tests.support.introspection_server import API, IssuerOfOpaqueTokens, refusal

JKT = DPoPKey.generate().jkt
Verifier = Callable[..., IntrospectionVerifier]


async def test_an_answer_is_used_for_its_lifetime_and_until_the_token_expires(
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


NOW, MIB = 1_800_000_000.0, 1024 * 1024
REFUSED = InvalidToken("the access token is not active", check=Check.TOKEN_ACTIVE)


def token(*, expires_at: float = NOW + 600, scopes: frozenset[str] = frozenset()) -> AccessToken:
    return AccessToken(
        claims={},
        issuer="https://auth.example.test",
        subject="ann",
        client_id="app",
        scopes=scopes,
        expires_at=expires_at,
        jkt=JKT,
    )


class Known:
    """Verdicts whose two clocks a test moves; an active token counts for 30 seconds, any other for 5."""

    def __init__(self, **bounds: Any) -> None:
        self.wall, self.monotonic = NOW, 100.0
        options: dict[str, Any] = {
            "active_lifetime": 30,
            "inactive_lifetime": 5,
            "max_tokens": 100,
            "max_bytes": 10**6,
            **bounds,
        }
        self.verdicts = Verdicts(clock=lambda: self.wall, monotonic=lambda: self.monotonic, **options)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def put(self, digest: bytes, outcome: AccessToken | InvalidToken) -> Verdict:
        verdict = Verdict(outcome, self.verdicts.now())
        self.verdicts.put(digest, verdict)
        return verdict


def test_a_moment_is_told_by_both_clocks() -> None:
    known = Known()
    known.passes(2.5)
    assert known.verdicts.now() == Moment(wall=NOW + 2.5, monotonic=102.5)


def test_of_a_token_that_nobody_asked_about_nothing_is_known() -> None:
    verdicts = Known().verdicts
    assert verdicts.get(b"digest") is None
    assert not verdicts.is_known(b"digest")


@pytest.mark.parametrize(("outcome", "lifetime"), [(token(), 30), (REFUSED, 5)], ids=["active", "refused"])
def test_each_kind_counts_for_its_own_lifetime(outcome: AccessToken | InvalidToken, lifetime: float) -> None:
    known = Known()
    verdict = known.put(b"digest", outcome)
    assert known.verdicts.get(b"digest") is verdict
    known.passes(lifetime - 0.5)
    assert known.verdicts.get(b"digest") is verdict
    known.passes(0.5)
    assert known.verdicts.get(b"digest") is None


@pytest.mark.parametrize("kind", ["active_lifetime", "inactive_lifetime"])
def test_what_has_no_lifetime_never_counts(kind: str) -> None:
    known = Known(**{kind: 0})
    known.put(b"digest", token() if kind == "active_lifetime" else REFUSED)
    assert known.verdicts.get(b"digest") is None


def test_no_answer_counts_when_its_token_has_expired() -> None:
    known = Known()
    verdict = known.put(b"digest", token(expires_at=NOW + 10))
    known.passes(9.5)
    assert known.verdicts.get(b"digest") is verdict
    known.passes(0.5)
    assert known.verdicts.get(b"digest") is None


def test_a_clock_that_is_set_ahead_makes_an_answer_old() -> None:
    known = Known()
    known.put(b"digest", token(expires_at=NOW + 10**6))
    known.wall += 1000
    assert known.verdicts.get(b"digest") is None


def test_an_answer_is_as_old_as_its_question() -> None:
    known = Known()
    asked = known.verdicts.now()
    known.passes(29.5)
    known.verdicts.put(b"digest", Verdict(token(), asked))
    known.passes(0.5)
    assert known.verdicts.get(b"digest") is None


def test_a_token_that_was_active_is_known_until_it_is_refused() -> None:
    known = Known()
    known.put(b"digest", token(expires_at=NOW + 10))
    known.passes(10**6)
    assert known.verdicts.is_known(b"digest")
    refusal = known.put(b"digest", REFUSED)
    assert not known.verdicts.is_known(b"digest")
    assert known.verdicts.get(b"digest") is refusal


def test_a_token_that_was_refused_may_become_active() -> None:
    known = Known()
    known.put(b"digest", REFUSED)
    assert not known.verdicts.is_known(b"digest")
    active = known.put(b"digest", token())
    known.passes(6)
    assert known.verdicts.get(b"digest") is active, "it has the lifetime of an active one"


def test_a_refusal_is_forgotten_even_where_the_newer_answer_cannot_be_kept() -> None:
    known = Known(max_bytes=0)
    known.put(b"digest", REFUSED)
    known.put(b"digest", token())
    assert known.verdicts.get(b"digest") is None


def test_made_up_tokens_push_no_known_one_out_and_are_bounded_themselves() -> None:
    known = Known(max_tokens=1, max_bytes=6000)
    active = known.put(b"known", token())
    for number in range(10_001):
        known.put(b"%d" % number, REFUSED)
    assert known.verdicts.get(b"known") is active
    assert known.verdicts.get(b"0") is None
    assert known.verdicts.get(b"1") is not None
    assert known.verdicts.get(b"10000") is not None


def test_of_too_many_active_tokens_the_one_that_was_not_used_for_longest_goes() -> None:
    known = Known(max_tokens=2)
    for digest in (b"a", b"b"):
        known.put(digest, token())
    assert known.verdicts.get(b"a") is not None
    known.put(b"c", token())
    assert [known.verdicts.is_known(digest) for digest in (b"a", b"b", b"c")] == [True, False, True]


@pytest.mark.parametrize(
    ("size", "scopes", "kept"),
    [(90_000, 0, True), (100_000, 0, False), (2, 100, True), (2, 2000, False), (90_000, 200, False)],
)
def test_an_answer_counts_by_its_size_and_its_scopes(size: int, scopes: int, kept: bool) -> None:
    known = Known(max_bytes=100_000)
    claims = read_only_claims(b"{}".ljust(size))
    names = frozenset(f"scope:{number}" for number in range(scopes))
    known.put(b"digest", replace(token(scopes=names), claims=claims))
    assert known.verdicts.is_known(b"digest") is kept


@pytest.mark.parametrize(
    "said",
    [
        {"name": "名" * 30_000},
        {"name": "😀" * 20_000},
        {"sub": "a" * 100_000 + "😀"},
        {"client_id": "é" * 50_000 + "😀"},
        {"amounts": [9e15] * 20_000},
        {"scope": " ".join(f"scope:{number}" for number in range(9000))},
    ],
    ids=lambda said: next(iter(said)),
)
def test_what_is_kept_takes_no_more_memory_than_is_allowed(said: dict[str, Any]) -> None:
    known = Known(max_bytes=2 * MIB)
    rules = AnswerRules(
        claims=claim_rules(
            issuer="https://auth.example.test",
            audience=API,
            required=("iss", "aud"),
            scope_claims=("scope",),
            client_id_claims=("client_id",),
            clock_skew=15,
        ),
        accept_missing_audience=False,
    )
    tracemalloc.start()
    try:
        for number in range(40):
            answer = {"active": True, "aud": API, "sub": "ann", "client_id": "app", **said}
            known.put(b"%d" % number, judge_answer(answer, rules=rules, now=NOW))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert known.verdicts.is_known(b"39")
    assert held <= 2 * MIB


def test_an_active_token_counts_with_the_key_of_its_client() -> None:
    known = Known(max_bytes=100_000)
    digests = [bytes([number]) for number in range(100)]
    for digest in digests:
        known.put(digest, token())
    assert sum(map(known.verdicts.is_known, digests)) <= 100_000 // CLIENT_SIZE


def test_what_is_kept_does_not_change() -> None:
    verdict: Any = Verdict(REFUSED, Moment(0, 0))
    with pytest.raises(FrozenInstanceError):
        verdict.outcome = token()


def test_a_verdict_is_the_token_itself() -> None:
    active = token()
    assert Verdict(active, Moment(0, 0)).access_token() is active


def test_a_refusal_is_raised_anew_each_time_and_what_is_kept_holds_no_traceback() -> None:
    kept = InvalidToken("the access token is not active", check=Check.TOKEN_ACTIVE)
    verdict = Verdict(kept, Moment(0, 0))
    raised = []
    for _ in range(2):
        with pytest.raises(InvalidToken, match="not active") as caught:
            verdict.access_token()
        assert caught.value.check is Check.TOKEN_ACTIVE
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert kept not in raised
    assert kept.__traceback__ is None
