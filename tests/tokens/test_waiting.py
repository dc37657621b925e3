"""How many may wait for keys, be told that they can't be known, and be remembered."""

import logging
import os

import pytest

from dpop_middleware.tokens.jwks import KeySet
from dpop_middleware.tokens.waiting import (
    MAX_MISSING,
    MAX_UNAVAILABLE,
    MAX_WAITING,
    UNAVAILABLE_PER_SECOND,
    MissingKeys,
    WaitingRoom,
)


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
