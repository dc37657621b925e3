"""What a batch makes of replies and of its neighbours' settings, without a server."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from dpop_middleware.replay.redis.batch import Batch
from dpop_middleware.replay.redis.options import Settings

NOW = 1_800_000_000.0


class Fence(SimpleNamespace):
    """A fence that says what the test says, and counts its looks."""

    def looked(self, *_: object, **__: object) -> None:
        self.looks += 1


def batch(**fence: Any) -> Any:
    sights = SimpleNamespace(since=[])
    vitals = SimpleNamespace(is_evicting=False)
    said = Fence(**({"vitals": vitals, "too_far_ahead": None, "looks": 0, "sights": sights} | fence))
    retentions: Any = None
    made: Any = Batch([], Settings(), said, retentions, True)  # type: ignore[arg-type]
    return made


def test_a_look_that_the_server_refused_says_nothing() -> None:
    refused = batch()
    refused._read_look(RuntimeError("NOPERM"), now=NOW, at=0.0)
    assert refused._fence.looks == 0
    refused._read_look(b"run_id:1\r\n", now=NOW, at=0.0)
    assert refused._fence.looks == 1


def test_a_loss_that_was_dated_far_ahead_is_an_error_that_names_both_clocks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch(too_far_ahead=3600.0)._say_what_is_wrong(NOW)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "3600 s ahead" in record.getMessage()
    assert "1800000000" in record.getMessage()


def test_neighbours_are_asked_about_once_a_namespace_and_batch() -> None:
    asked: list[str] = []

    def shortest(namespace: str, now: float) -> float:
        asked.append(namespace)
        return 1000.0

    one = batch()
    one._settings = SimpleNamespace(living=SimpleNamespace(shortest=shortest))
    write = SimpleNamespace(namespace="n", retention=105.0, made_at=NOW)
    assert [one._judge_age(write), one._judge_age(write)] == [True, True]
    assert asked == ["n"]
