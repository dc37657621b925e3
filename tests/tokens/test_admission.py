"""Bounds on requests that wait, questions, answers 503, and remembered keys."""

import logging
import os

import pytest

from dpop_middleware.tokens.admission import (
    MAX_MISSING,
    MAX_UNAVAILABLE,
    MAX_WAITING,
    UNAVAILABLE_PER_SECOND,
    Admission,
    MissingKeys,
    Tendency,
    WaitingRoom,
)
from dpop_middleware.tokens.jwks import KeySet


def test_places_are_bounded_and_given_back() -> None:
    room = WaitingRoom()
    places = [room.place() for _ in range(MAX_WAITING)]
    assert all(place.__enter__() for place in places)
    with room.place() as admitted:
        assert not admitted
    places.pop().__exit__(None, None, None)
    for _ in range(2):
        with room.place() as admitted:
            assert admitted


def test_a_place_is_given_back_when_a_request_is_cancelled() -> None:
    room = WaitingRoom()

    def cancelled() -> None:
        with room.place() as admitted:
            assert admitted
            raise KeyboardInterrupt

    for _ in range(MAX_WAITING + 1):
        with pytest.raises(KeyboardInterrupt):
            cancelled()


def test_a_child_has_places_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    room = WaitingRoom()
    places = [room.place() for _ in range(MAX_WAITING)]
    assert all(place.__enter__() for place in places)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with room.place() as admitted:
        assert admitted


def test_answers_503_are_bounded_at_once_and_per_second(caplog: pytest.LogCaptureFixture) -> None:
    room = WaitingRoom()
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        assert sum(room.may_be_unavailable(50.0) for _ in range(1000)) == MAX_UNAVAILABLE
        assert sum(room.may_be_unavailable(51.0) for _ in range(1000)) == UNAVAILABLE_PER_SECOND
        assert sum(room.may_be_unavailable(51.05) for _ in range(1000)) == 0
        assert sum(room.may_be_unavailable(51.15) for _ in range(1000)) == 1
        # A clock that stands still, or goes back, allows no more.
        assert sum(room.may_be_unavailable(51.0) for _ in range(1000)) == 0
        assert len(caplog.messages) == 1
        assert sum(room.may_be_unavailable(5000.0) for _ in range(1000)) == MAX_UNAVAILABLE
        assert len(caplog.messages) == 2
    assert caplog.messages[0] == (
        "too many access tokens name keys that can't be looked up now: those beyond 100, and 10 a second, "
        "are answered 401 instead of 503"
    )


def test_missing_keys_are_remembered_for_one_set_only() -> None:
    missing, first, second = MissingKeys(), KeySet(()), KeySet(())
    missing.add("a", first)
    missing.add("b", first)
    assert missing.has("a", first)
    assert missing.has("b", first)
    assert not missing.has("c", first)
    assert not missing.has("a", second)
    missing.add("c", second)
    assert not missing.has("a", first)
    assert missing.has("c", second)


def test_missing_keys_are_bounded() -> None:
    missing, keys = MissingKeys(), KeySet(())
    for number in range(2 * MAX_MISSING):
        missing.add(str(number), keys)
    assert sum(missing.has(str(number), keys) for number in range(2 * MAX_MISSING)) == MAX_MISSING


def admitted(admission: Admission, now: float, of: int = 100) -> int:
    return sum(admission.pause(now) == 0.0 for _ in range(of))


def test_questions_are_bounded_at_once_and_per_second() -> None:
    admission = Admission(per_second=10)
    assert admitted(admission, 0.0) == 10
    assert admission.pause(0.0) == 0.1
    assert admission.pause(0.075) == pytest.approx(0.025)
    assert admitted(admission, 0.5) == 5
    assert admitted(admission, 100.0) == 10, "a quiet hour is not saved up"


def test_a_clock_that_goes_back_allows_no_more_questions() -> None:
    admission = Admission(per_second=10)
    assert admitted(admission, 50.0) == 10
    assert admitted(admission, 40.0) == 0


def test_a_question_about_an_active_token_does_not_count() -> None:
    admission = Admission(per_second=1)
    for _ in range(5):
        assert admission.pause(0.0) == 0.0
        admission.answered(0.0, active=True)
    assert admission.pause(0.0) == 0.0
    admission.answered(0.0, active=False)
    assert admission.pause(0.0) > 0


def test_a_question_about_an_active_token_brings_back_one_and_no_more() -> None:
    admission = Admission(per_second=10)
    assert admitted(admission, 0.0) == 10
    admission.answered(0.0, active=True)
    assert admitted(admission, 0.0) == 1


def test_honest_clients_that_can_not_be_served_always_get_503() -> None:
    admission = Admission(per_second=1)
    assert all(admission.may_be_unavailable(0.0) for _ in range(10 * MAX_UNAVAILABLE))


def test_where_most_tokens_are_made_up_answers_503_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission(per_second=1)
    for _ in range(100):
        admission.answered(0.0, active=False)
    with caplog.at_level(logging.WARNING):
        told = [admission.may_be_unavailable(100.0) for _ in range(3 * MAX_UNAVAILABLE)]
    assert told == [True] * MAX_UNAVAILABLE + [False] * 2 * MAX_UNAVAILABLE
    assert len(caplog.messages) == 1, "there is one warning a minute"
    assert caplog.messages[0].startswith("too many unknown access tokens or issuers wait for a look-up, and")
    assert sum(admission.may_be_unavailable(101.0) for _ in range(100)) == UNAVAILABLE_PER_SECOND
    for _ in range(100):
        admission.answered(0.0, active=True)
    assert admission.may_be_unavailable(101.0)


def test_a_flood_that_ended_ten_minutes_ago_is_no_reason_for_401() -> None:
    admission = Admission(per_second=1)
    for _ in range(100):
        admission.answered(0.0, active=False)
    assert not all(admission.may_be_unavailable(599.0) for _ in range(2 * MAX_UNAVAILABLE))
    assert all(admission.may_be_unavailable(600.0) for _ in range(10 * MAX_UNAVAILABLE))
    admission.answered(600.0, active=False)
    assert all(admission.may_be_unavailable(600.0) for _ in range(10 * MAX_UNAVAILABLE)), "one is no flood"


def test_a_flood_that_goes_on_is_not_forgotten() -> None:
    admission = Admission(per_second=1)
    for second in range(0, 3600, 60):
        admission.answered(float(second), active=False)
    assert not all(admission.may_be_unavailable(3600.0) for _ in range(2 * MAX_UNAVAILABLE))


def test_there_is_a_flood_once_made_up_tokens_took_the_questions_of_two_seconds() -> None:
    admission = Admission(per_second=2)
    for _ in range(20):
        admission.answered(0.0, active=False)
    assert not admission.is_flooded(2, 0.0), "there are questions left"
    assert [admission.pause(0.0) for _ in range(2)] == [0.0, 0.0]
    assert [admission.is_flooded(waiting, 0.0) for waiting in (1, 2)] == [False, True]
    assert not admission.is_flooded(2, 0.5), "there is a question left"
    for _ in range(20):
        admission.answered(0.0, active=True)
    assert [admission.pause(0.0) for _ in range(2)] == [0.0, 0.0]
    assert not admission.is_flooded(2, 0.0), "most tokens are active"


def test_tokens_that_a_filter_blocks_are_a_flood_too_but_no_reason_for_401() -> None:
    admission = Admission(per_second=2)
    for _ in range(20):
        admission.blocked(0.0)
    assert admitted(admission, 0.0) == 2
    assert admission.is_flooded(2, 0.0)
    assert all(admission.may_be_unavailable(0.0) for _ in range(10 * MAX_UNAVAILABLE))


def test_a_flood_goes_on_while_most_answers_are_in_vain_and_then_has_ended() -> None:
    admission = Admission(per_second=8)
    for _ in range(20):
        admission.answered(0.0, active=False)
    assert admitted(admission, 0.0) == 8
    for eighth in range(1, 30):
        assert admission.pause(eighth / 8) == 0.0
        admission.answered(eighth / 8, active=False)
        assert admission.is_flooded(8, eighth / 8)
    assert admitted(admission, 10.0) == 8
    assert not admission.is_flooded(8, 10.0), "no answer was in vain lately"


def test_a_tendency_follows_the_last_outcomes() -> None:
    tendency = Tendency()
    assert not tendency.is_most
    for _ in range(13):
        tendency.note(True)
    assert not tendency.is_most
    tendency.note(True)
    assert tendency.is_most
    tendency.note(False)
    assert not tendency.is_most
