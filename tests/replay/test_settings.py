import logging
import math
from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay.settings import Notices, Settings


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prefix": ""}, "prefix"),
        ({"prefix": "a{b}"}, "hash tag"),
        ({"prefix": "}"}, "hash tag"),
        ({"prefix": "a b"}, "prefix"),
        ({"prefix": "a\n"}, "prefix"),
        ({"timeout": 0}, "above 0"),
        ({"timeout": -1.0}, "above 0"),
        ({"timeout": math.inf}, "above 0"),
        ({"timeout": math.nan}, "above 0"),
        ({"timeout": True}, "above 0"),
        ({"max_waiting": 0}, "max_waiting"),
        ({"wait_replicas": -1}, "wait_replicas"),
        ({"new_server": "maybe"}, "new_server"),
        ({"on_unavailable": "pass"}, "on_unavailable"),
    ],
    ids=str,
)
def test_what_can_not_work_is_refused_with_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Settings(**options)


def test_a_warning_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices()
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        for sentence in ("one", "two", "one"):
            notices.warn(sentence)
    assert [record.message for record in caplog.records] == ["one", "two"]
