"""How many questions untrusted senders can cause, by a clock of the test's own."""

import logging

import pytest

from dpop_middleware.introspection._admission import MAX_UNAVAILABLE, UNAVAILABLE_PER_SECOND, Admission


def admitted(admission: Admission, now: float, of: int = 100) -> int:
    return sum(admission.pause(now) == 0.0 for _ in range(of))


def test_so_many_questions_at_once_and_so_many_a_second() -> None:
    admission = Admission(per_second=10)
    assert admitted(admission, 0.0) == 10
    assert 0 < admission.pause(0.0) <= 0.1
    assert admitted(admission, 0.5) == 5
    assert admitted(admission, 100.0) == 10, "a quiet hour is not saved up"


def test_a_clock_that_goes_back_gives_nothing() -> None:
    admission = Admission(per_second=10)
    assert admitted(admission, 50.0) == 10
    assert admitted(admission, 40.0) == 0


def test_a_question_about_an_active_token_is_given_back() -> None:
    admission = Admission(per_second=1)
    for _ in range(5):
        assert admission.pause(0.0) == 0.0
        admission.answered(active=True)
    assert admission.pause(0.0) == 0.0
    admission.answered(active=False)
    assert admission.pause(0.0) > 0


def test_honest_clients_are_always_told_that_they_can_not_be_served_now() -> None:
    admission = Admission(per_second=1)
    assert all(admission.may_be_unavailable(0.0) for _ in range(10 * MAX_UNAVAILABLE))


def test_where_most_tokens_are_made_up_so_many_are_answered_503(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission(per_second=1)
    for _ in range(100):
        admission.answered(active=False)
    with caplog.at_level(logging.WARNING):
        told = [admission.may_be_unavailable(100.0) for _ in range(3 * MAX_UNAVAILABLE)]
    assert told == [True] * MAX_UNAVAILABLE + [False] * 2 * MAX_UNAVAILABLE
    assert len(caplog.messages) == 1, "the log is told once a minute"
    assert sum(admission.may_be_unavailable(101.0) for _ in range(100)) == UNAVAILABLE_PER_SECOND
    for _ in range(100):
        admission.answered(active=True)
    assert admission.may_be_unavailable(101.0)
