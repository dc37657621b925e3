"""TLS that verifies nobody is refused, and a password in the clear is warned of."""

import ssl
from typing import Any

import pytest
import redis.asyncio

from dpop_middleware import RedisReplayStore
from dpop_middleware.errors import ConfigurationError

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
def test_tls_that_verifies_nobody_is_refused_unless_it_is_asked_for(url: str) -> None:
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
def test_a_client_that_verifies_nobody_is_refused_too(options: dict[str, Any]) -> None:
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
def test_a_password_in_the_clear_is_warned_of_once(
    url: str, warned_of: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    RedisReplayStore.from_url(url)
    said = [record.getMessage() for record in caplog.records]
    if warned_of is None:
        assert said == []
    else:
        assert said == [f"the replay store sends its password in the clear to {warned_of}: use rediss://"]
