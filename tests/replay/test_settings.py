import logging
import math
from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay.exchange import StoreExchange
from dpop_middleware.replay.redis.options import Notices, Settings


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prefix": ""}, 'must be a name that is not empty, such as "dpop"'),
        ({"prefix": 5}, "must be a name"),
        ({"prefix": b"dpop"}, "must be a name"),
        ({"prefix": None}, "must be a name"),
        ({"prefix": "a{b}"}, "hash tag"),
        ({"prefix": "}"}, "hash tag"),
        ({"prefix": "a b"}, "without spaces"),
        ({"prefix": "a\n"}, "without spaces"),
        ({"prefix": "dpop:"}, "must not end in a colon"),
        ({"timeout": 0}, "above 0"),
        ({"timeout": -1.0}, "above 0"),
        ({"timeout": math.inf}, "above 0"),
        ({"timeout": math.nan}, "above 0"),
        ({"timeout": True}, "above 0"),
        ({"timeout": "0.25"}, "above 0"),
        ({"timeout": None}, "above 0"),
        ({"max_waiting": 0}, "max_waiting"),
        ({"max_waiting": 1.5}, "max_waiting"),
        ({"max_waiting": "1"}, "max_waiting"),
        ({"max_waiting": True}, "max_waiting"),
        ({"max_waiting": None}, "max_waiting"),
        ({"wait_replicas": -1}, "wait_replicas"),
        ({"wait_replicas": 1.5}, "wait_replicas"),
        ({"wait_replicas": "1"}, "wait_replicas"),
        ({"wait_replicas": True}, "wait_replicas"),
        ({"strict": "yes"}, "strict takes True or False, not "),
        ({"strict": None}, "strict takes True or False, not "),
        ({"new_server": "maybe"}, "new_server"),
        ({"on_unavailable": "pass"}, "on_unavailable"),
        ({"on_unavailable": []}, "on_unavailable"),
        (
            {"tiemout": 1},
            r"^RedisReplayStore takes the options prefix, timeout, .*: tiemout is none of them$",
        ),
        ({"notices": Notices()}, "notices is none of them"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else str(value),
)
def test_what_can_not_work_is_refused_with_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Settings.of(options)


def test_what_can_work() -> None:
    options = {"prefix": "shop:dpop", "timeout": 1, "max_waiting": 1, "wait_replicas": 2, "strict": True}
    settings = Settings.of(options)
    assert {name: getattr(settings, name) for name in options} == options
    assert Settings.of({}).prefix == "dpop"


def test_what_is_wrong_with_the_configuration_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices()
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        for sentence in ("one", "two", "one"):
            notices.warn(sentence)
    assert [record.message for record in caplog.records] == ["one", "two"]


def test_what_comes_and_goes_is_said_again_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [5.0]
    monkeypatch.setattr("dpop_middleware.replay.redis.options.time.monotonic", lambda: now[0])
    notices = Notices()
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        for moment in (5.0, 64.9, 65.0, 66.0, 124.9, 125.0):
            now[0] = moment
            notices.warn(f"an outage at {moment}", again_after=60)
            notices.warn("an outage", again_after=60)
            notices.warn("a setting")
    assert [record.message for record in caplog.records].count("an outage") == 3
    assert [record.message for record in caplog.records].count("a setting") == 1
    assert len(caplog.records) == 6 + 3 + 1


def test_where_nobody_listens_an_exchange_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    Settings(timeout=0.25).tell(StoreExchange(entries=1, seconds=0.001, answered=True))
    assert caplog.records == []
