"""How many may wait, be asked about, be told that they can't be served, and be remembered."""

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


def test_so_many_503_at_once_and_so_many_a_second(caplog: pytest.LogCaptureFixture) -> None:
    room = WaitingRoom()
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        assert sum(room.may_be_unavailable(50.0) for _ in range(1000)) == MAX_UNAVAILABLE
        assert sum(room.may_be_unavailable(51.0) for _ in range(1000)) == UNAVAILABLE_PER_SECOND
        assert sum(room.may_be_unavailable(51.05) for _ in range(1000)) == 0
        assert sum(room.may_be_unavailable(51.15) for _ in range(1000)) == 1
        # A clock that stands still, or goes back, gives nothing.
        assert sum(room.may_be_unavailable(51.0) for _ in range(1000)) == 0
        assert len(caplog.messages) == 1
        assert sum(room.may_be_unavailable(5000.0) for _ in range(1000)) == MAX_UNAVAILABLE
        assert len(caplog.messages) == 2
    assert "answered 401 instead of 503" in caplog.messages[0]


def test_what_is_missing_is_of_one_set_only() -> None:
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


def test_what_is_missing_is_bounded() -> None:
    missing, keys = MissingKeys(), KeySet(())
    for number in range(2 * MAX_MISSING):
        missing.add(str(number), keys)
    assert sum(missing.has(str(number), keys) for number in range(2 * MAX_MISSING)) == MAX_MISSING


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
