"""What each check found of one request, row by row."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from dpop_middleware._judge.hints import hint_of
from dpop_middleware.checks import CHECKS_OF_A_JWT, CHECKS_OF_AN_OPAQUE_TOKEN, Check
from dpop_middleware.cli.console import FindingState
from dpop_middleware.cli.findings import Explanation, Finding, findings_of
from dpop_middleware.errors import DPoPError, InvalidDPoPProof, InvalidToken, MissingCredentials, Unavailable
from dpop_middleware.tokens.access_token import AccessToken
from tests.support.api import request
from tests.support.explained import KEY, NOW, TOKEN, URL, explained, found, outcomes, proof


async def test_a_failed_check_has_expected_actual_and_a_guess() -> None:
    told = found(await explained(KEY.proof("GET", URL.replace("https", "http"), access_token=TOKEN, now=NOW)))
    failed = told[Check.HTU]
    assert (failed.expected, failed.actual) == (URL, URL.replace("https", "http"))
    assert failed.hint == "scheme differs (http, not https): TLS ends at a proxy? set public_url"
    assert told[Check.HTM] == Finding(check=Check.HTM, outcome=FindingState.PASSED, actual="GET")
    assert told[Check.ATH].after_failure
    assert told[Check.JTI].outcome is FindingState.NOT_REACHED


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


PASSED, FAILED = FindingState.PASSED, FindingState.FAILED
NOT_REACHED, NOT_JUDGED = FindingState.NOT_REACHED, FindingState.NOT_JUDGED
SHORT = (Check.HTM, Check.HTU, Check.ATH, Check.IAT)
WRONG_HTU = InvalidDPoPProof(
    "the htu is another", check=Check.HTU, expected="https://a.example/x", actual="http://a.example/x"
)


def rows(checks: tuple[Check, ...] = SHORT, error: DPoPError | None = None, **known: Any) -> list[Finding]:
    """The findings of one request, by what is known of it."""
    arguments: dict[str, Any] = {"reading": {}, "token": None, "unknown": {}, "later": {}, **known}
    return list(findings_of(request(), checks, error, **arguments))


def test_an_accepted_request_passes_each_check_with_the_value_that_was_read() -> None:
    assert rows(reading={Check.HTM: "GET", Check.IAT: 7}) == [
        Finding(check=Check.HTM, outcome=PASSED, actual="GET"),
        Finding(check=Check.HTU, outcome=PASSED),
        Finding(check=Check.ATH, outcome=PASSED),
        Finding(check=Check.IAT, outcome=PASSED, actual=7),
    ]


def test_a_refused_request_has_passed_what_comes_before_and_not_reached_what_comes_after() -> None:
    assert rows(error=WRONG_HTU, reading={Check.HTU: "http://a.example/x", Check.IAT: 7}) == [
        Finding(check=Check.HTM, outcome=PASSED),
        Finding(
            check=Check.HTU,
            outcome=FAILED,
            expected="https://a.example/x",
            actual="http://a.example/x",
            hint=hint_of(WRONG_HTU, request()),
            reason="the htu is another",
        ),
        Finding(check=Check.ATH, outcome=NOT_REACHED),
        Finding(check=Check.IAT, outcome=NOT_REACHED),
    ]


def test_what_was_judged_beside_the_server_is_told_as_after_the_failure() -> None:
    late = InvalidDPoPProof("too old", check=Check.IAT, expected=(5, 9), actual=3)
    told = rows(
        error=WRONG_HTU, reading={Check.ATH: "hash", Check.IAT: 3}, later={Check.ATH: None, Check.IAT: late}
    )
    assert told[2:] == [
        Finding(check=Check.ATH, outcome=PASSED, actual="hash", after_failure=True),
        Finding(
            check=Check.IAT,
            outcome=FAILED,
            expected=(5, 9),
            actual=3,
            hint=hint_of(late),
            reason="too old",
            after_failure=True,
        ),
    ]
    assert not any(finding.after_failure for finding in told[:2])


def test_what_is_judged_beside_the_server_changes_nothing_of_what_the_server_reached() -> None:
    early = InvalidDPoPProof("no", check=Check.HTM)
    assert rows(error=WRONG_HTU, later={Check.HTM: early, Check.HTU: None})[:2] == rows(error=WRONG_HTU)[:2]
    assert rows(later=dict.fromkeys(SHORT, early)) == rows()


def test_a_check_that_cannot_be_made_here_is_neither_passed_nor_reached() -> None:
    unknown = {Check.HTM: "nobody knows", Check.IAT: "nobody knows either"}
    told = rows(error=WRONG_HTU, unknown=unknown, reading={Check.HTM: "GET"}, later={Check.IAT: None})
    assert told[0] == Finding(check=Check.HTM, outcome=NOT_JUDGED, actual="GET", hint="nobody knows")
    assert told[3] == Finding(check=Check.IAT, outcome=NOT_REACHED)


def test_a_check_that_fails_is_judged_whatever_was_thought_unknown() -> None:
    told = rows(error=WRONG_HTU, unknown={Check.HTU: "nobody knows"})
    assert (told[1].outcome, told[1].reason) == (FAILED, "the htu is another")


@pytest.mark.parametrize("error", [InvalidToken("unknown"), Unavailable("no route")])
def test_a_refusal_by_no_check_is_one_by_the_first(error: DPoPError) -> None:
    told = rows(CHECKS_OF_A_JWT, error)
    assert [finding.check for finding in told] == list(CHECKS_OF_A_JWT)
    assert (told[0].outcome, told[0].reason) == (FAILED, error.description)
    assert {finding.outcome for finding in told[1:]} == {NOT_REACHED}


@pytest.mark.parametrize("checks", [SHORT, CHECKS_OF_A_JWT])
def test_a_refusal_by_a_check_that_was_not_foreseen_shows_every_check(checks: tuple[Check, ...]) -> None:
    told = rows(checks, InvalidToken("not active", check=Check.TOKEN_ACTIVE))
    assert [finding.check for finding in told] == list(Check)
    assert [finding.check for finding in told if finding.outcome is FAILED] == [Check.TOKEN_ACTIVE]


def test_the_rows_stand_in_the_order_in_which_they_were_asked_for() -> None:
    error = InvalidToken("not active", check=Check.TOKEN_ACTIVE)
    told = rows(CHECKS_OF_AN_OPAQUE_TOKEN, error)
    assert [finding.check for finding in told] == list(CHECKS_OF_AN_OPAQUE_TOKEN)
    outcomes = {finding.check: finding.outcome for finding in told}
    assert (outcomes[Check.SIGNATURE], outcomes[Check.TOKEN_ISS]) == (PASSED, NOT_REACHED)


def test_the_values_of_a_known_token_stand_in_its_rows() -> None:
    token = AccessToken(
        claims={"aud": ["a", "b"]},
        issuer="https://auth.example.test",
        subject="ann",
        client_id="app",
        scopes=frozenset({"b", "a", "c"}),
        expires_at=12.5,
        jkt="thumb",
    )
    checks = (Check.TOKEN_ISS, Check.TOKEN_AUD, Check.TOKEN_TIME, Check.BINDING, Check.SCOPE)
    assert [finding.actual for finding in rows(checks, token=token)] == [
        "https://auth.example.test",
        ["a", "b"],
        12.5,
        "thumb",
        ("a", "b", "c"),
    ]
    assert [finding.actual for finding in rows(checks)] == [None] * 5


def test_the_hint_of_a_failure_looks_at_the_request_too() -> None:
    missing = MissingCredentials("an access token is required", check=Check.AUTHORIZATION)
    nothing: dict[str, Any] = {"reading": {}, "token": None, "unknown": {}, "later": {}}
    with_proof = findings_of(request(None, "proof"), CHECKS_OF_A_JWT, missing, **nothing)
    assert with_proof[0].hint == "a proof without its token: did a proxy drop Authorization?"
    assert rows(CHECKS_OF_A_JWT, missing)[0].hint is None


def test_what_was_found_does_not_change() -> None:
    finding: Any = rows()[0]
    explanation: Any = Explanation(findings=(finding,), error=None, status=None)
    with pytest.raises(FrozenInstanceError):
        finding.outcome = FAILED
    with pytest.raises(FrozenInstanceError):
        explanation.error = WRONG_HTU


def test_values_are_told_as_they_came() -> None:
    assert rows(reading={Check.HTM: "\x1b[2J\n"})[0].actual == "\x1b[2J\n"
