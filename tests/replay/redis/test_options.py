"""The options of a store are checked: TLS that verifies nothing is refused, for example."""

import logging
import math
import ssl
from typing import Any

import pytest
import redis.asyncio

from dpop_middleware import RedisReplayStore
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay.redis.options import Notices, Settings
from dpop_middleware.replay.store import StoreExchange
from tests.support.clock import Clock


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prefix": ""}, "prefix takes a name that is not empty, such as 'dpop', not ''"),
        ({"prefix": 5}, "prefix takes a name .*, not 5"),
        ({"prefix": b"dpop"}, "prefix takes a name .*, not b'dpop'"),
        ({"prefix": None}, "prefix takes a name .*, not None"),
        ({"prefix": "a{b}"}, "hash tag .*, not 'a{b}'"),
        ({"prefix": "}"}, "hash tag .*, not '}'"),
        ({"prefix": "a b"}, "without spaces .*, not 'a b'"),
        ({"prefix": "a\n"}, r"without spaces .*, not 'a\\n'"),
        ({"prefix": "dpop:"}, "that doesn't end in a colon.*, not 'dpop:'"),
        ({"timeout": 0}, "timeout takes a finite number of seconds above 0, such as 0.25, not 0"),
        ({"timeout": -1.0}, "above 0, .*, not -1.0"),
        ({"timeout": math.inf}, "above 0, .*, not inf"),
        ({"timeout": math.nan}, "above 0, .*, not nan"),
        ({"timeout": 10**400}, "above 0, .*, not 1000"),
        ({"timeout": True}, "above 0, .*, not True"),
        ({"timeout": "0.25"}, "above 0, .*, not '0.25'"),
        ({"timeout": None}, "above 0, .*, not None"),
        ({"max_waiting": 0}, "max_waiting takes a whole number of requests of at least 1, not 0"),
        ({"max_waiting": 1.5}, "max_waiting takes .*, not 1.5"),
        ({"max_waiting": "1"}, "max_waiting takes .*, not '1'"),
        ({"max_waiting": True}, "max_waiting takes .*, not True"),
        ({"max_waiting": None}, "max_waiting takes .*, not None"),
        ({"wait_replicas": -1}, "wait_replicas takes a whole number of replicas of at least 0, not -1"),
        ({"wait_replicas": 1.5}, "wait_replicas takes .*, not 1.5"),
        ({"wait_replicas": "1"}, "wait_replicas takes .*, not '1'"),
        ({"wait_replicas": True}, "wait_replicas takes .*, not True"),
        ({"retention": -1}, "retention takes a finite number of seconds, "),
        ({"retention": 100_000}, "retention takes a finite number of seconds, "),
        ({"retention": "90"}, "retention takes a finite number of seconds, "),
        ({"strict": "yes"}, "strict takes True or False, not "),
        ({"strict": None}, "strict takes True or False, not "),
        ({"new_server": "maybe"}, "new_server takes one of 'wait', 'accept', not 'maybe'"),
        ({"on_unavailable": "pass"}, "on_unavailable takes one of 'refuse', 'local', not 'pass'"),
        ({"on_unavailable": []}, r"on_unavailable takes .*, not \[\]"),
        (
            {"tiemout": 1},
            r"^RedisReplayStore takes the options prefix, timeout, .*, not tiemout$",
        ),
        ({"notices": Notices()}, ", not notices"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else str(value),
)
def test_unusable_options_are_refused_with_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Settings.of(options)


def test_usable_options_are_accepted() -> None:
    options = {"prefix": "shop:dpop", "timeout": 1, "max_waiting": 1, "wait_replicas": 2, "strict": True}
    settings = Settings.of(options)
    assert {name: getattr(settings, name) for name in options} == options
    assert Settings.of({}).prefix == "dpop"


def test_a_warning_about_the_configuration_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices()
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        for sentence in ("one", "two", "one"):
            notices.warn(sentence)
    assert [record.message for record in caplog.records] == ["one", "two"]


def test_a_warning_about_a_temporary_state_is_logged_again_after_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = Clock()
    notices = Notices(now)
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        for moment in (5.0, 64.9, 65.0, 66.0, 124.9, 125.0):
            now.now = moment
            notices.warn(f"an outage at {moment}", again_after=60)
            notices.warn("an outage", again_after=60)
            notices.warn("a setting")
            notices.warn(f"a clock shows {moment}", again_after=60, topic="a clock")
    messages = [record.message for record in caplog.records]
    assert messages.count("an outage") == 3
    assert messages.count("a setting") == 1
    assert [message for message in messages if "clock" in message] == [
        f"a clock shows {moment}" for moment in (5.0, 65.0, 125.0)
    ]
    assert len(messages) == 6 + 3 + 1 + 3


def test_without_a_listener_an_exchange_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    Settings(timeout=0.25).report(StoreExchange(entries=1, seconds=0.001, answered=True))
    assert caplog.records == []


URLS_THAT_VERIFY_NOBODY = [
    "rediss://cache.example.com/0?ssl_cert_reqs=none",
    "rediss://cache.example.com/0?ssl_cert_reqs=none&ssl_check_hostname=false",
    "rediss://cache.example.com/0?ssl_cert_reqs=optional",
    "rediss://cache.example.com/0?ssl_check_hostname=false",
    "valkeys://cache.example.com/0?ssl_cert_reqs=none",
    "rediss+sentinel://cache.example.com/main/0?ssl_cert_reqs=none",
    "rediss+sentinel://cache.example.com/main/0?sentinel_ssl_cert_reqs=none",
    "rediss+cluster://cache.example.com?ssl_check_hostname=false",
]


@pytest.mark.parametrize("url", URLS_THAT_VERIFY_NOBODY)
def test_tls_that_verifies_nothing_is_refused_unless_it_is_allowed(url: str) -> None:
    with pytest.raises(ConfigurationError, match="accept that with unverified_tls=True"):
        RedisReplayStore.from_url(url)
    RedisReplayStore.from_url(url, unverified_tls=True)


@pytest.mark.parametrize(
    "options",
    [
        {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
        {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False},
        {"ssl_cert_reqs": "required", "ssl_check_hostname": False},
    ],
)
def test_a_client_that_verifies_nothing_is_refused_too(options: dict[str, Any]) -> None:
    client = redis.asyncio.Redis(host="cache.example.com", ssl=True, **options)
    with pytest.raises(ConfigurationError, match="unverified_tls"):
        RedisReplayStore(client)
    RedisReplayStore(client, unverified_tls=True)


@pytest.mark.parametrize(
    "url", ["rediss://cache.example.com/0", "rediss+sentinel://cache.example.com/main/0"]
)
def test_tls_that_verifies_is_accepted(url: str, caplog: pytest.LogCaptureFixture) -> None:
    RedisReplayStore.from_url(url)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("url", "warned_of"),
    [
        ("redis://api:secret@cache.example.com/0", "'cache.example.com'"),
        ("redis://:secret@10.0.0.7/0", "'10.0.0.7'"),
        ("redis+sentinel://:secret@a.example,127.0.0.1/main/0", "'a.example'"),
        ("redis+sentinel://a.example/main/0?sentinel_password=secret", "'a.example'"),
        ("redis+cluster://:secret@a.example,b.example", "'a.example', 'b.example'"),
        ("redis://cache.example.com/0", None),
        ("redis://api:secret@localhost/0", None),
        ("redis://api:secret@127.0.0.9/0", None),
        ("redis://api:secret@[::1]/0", None),
        ("rediss://api:secret@cache.example.com/0", None),
        ("unix:///run/valkey.sock?password=secret", None),
    ],
)
def test_a_password_in_the_clear_causes_one_warning(
    url: str, warned_of: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    RedisReplayStore.from_url(url)
    said = [record.getMessage() for record in caplog.records]
    if warned_of is None:
        assert said == []
    else:
        assert said == [f"the replay store sends its password in the clear to {warned_of}: use rediss://"]
