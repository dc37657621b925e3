import traceback
from pathlib import Path
from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay import RedisReplayStore
from dpop_middleware.replay.redis.url import parse_store_url, shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "localhost", "port": 6379}),
        ("redis:///2", {"host": "localhost", "port": 6379, "db": 2}),
        ("REDIS://h:1/", {"host": "h", "port": 1}),
        ("redis://h/?db=2", {"host": "h", "port": 6379, "db": 2}),
        ("rediss://u:p%40%26@[::1]:7", {"host": "::1", "port": 7, "username": "u", "password": "p@&"}),
        ("redis://:p@h", {"host": "h", "port": 6379, "password": "p"}),
        ("redis://h?password=a%26b", {"host": "h", "port": 6379, "password": "a&b"}),
        ("unix://u:p@/run/v%20k.sock", {"path": "/run/v k.sock", "username": "u", "password": "p"}),
        ("unix:///v.sock?db=1", {"path": "/v.sock", "db": 1}),
        ("redis+cluster://a,b/0", {"host": "a", "port": 6379, "db": 0}),
        ("redis+sentinel://s/proofs/3?lib_name=x", {"host": "s", "port": 26379, "db": 3, "lib_name": "x"}),
    ],
)
def test_urls_are_read(url: str, expected: dict[str, Any]) -> None:
    assert parse_store_url(url).options == expected


@pytest.mark.parametrize(
    ("url", "scheme", "deployment"),
    [
        ("redis://h", "redis", "standalone"),
        ("rediss://h", "rediss", "standalone"),
        ("valkey://h", "redis", "standalone"),
        ("valkeys://h", "rediss", "standalone"),
        ("unix:///h", "unix", "standalone"),
        ("redis+sentinel://h/s", "redis", "sentinel"),
        ("rediss+sentinel://h/s", "rediss", "sentinel"),
        ("redis+cluster://h", "redis", "cluster"),
        ("rediss+cluster://h", "rediss", "cluster"),
    ],
)
def test_a_scheme_says_what_is_deployed_and_whether_with_tls(url: str, scheme: str, deployment: str) -> None:
    parsed = parse_store_url(url)
    assert (parsed.scheme, parsed.deployment) == (scheme, deployment)


def test_a_sentinel_url_is_read() -> None:
    parsed = parse_store_url(
        "rediss+sentinel://s1,s2:1/my%20proofs/0?sentinel_username=u&sentinel_password=p"
    )
    assert (parsed.deployment, parsed.scheme, parsed.service) == ("sentinel", "rediss", "my proofs")
    assert parsed.addresses == (("s1", 26379), ("s2", 1))
    assert parsed.sentinel_options == {"username": "u", "password": "p"}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (5, "takes a URL as a string"),
        (None, "takes a URL as a string"),
        (b"redis://h", "takes a URL as a string"),
        ("http://localhost", "scheme"),
        ("localhost:6379", "scheme"),
        ("redis:/h", "scheme"),
        ("", "scheme"),
        ("redis://[::1", "brackets or a port that can't be read; in a password write"),
        ("redis://h#frag", "has a fragment; in a password write"),
        ("redis+cluster://n1,[::1,n2", "brackets or a port that can't be read"),
        ("redis://localhost:port", "port that can't be read; in a password write"),
        ("redis://localhost:99999", "port that can't be read"),
        ("redis://localhost:0", "port 0"),
        ("redis://user:secret/@localhost", "port that can't be read"),
        ("redis://a,b", r"several hosts belong in a redis\+sentinel:// or redis\+cluster:// URL"),
        ("redis://localhost/secret", "^the database in the replay store's URL must be a number, as in …/0$"),
        ("redis://localhost/0/1", "database .* must be a number"),
        ("redis://localhost/-1", "database .* must be a number"),
        ("redis://localhost/\u0662", "database .* must be a number"),
        ("redis://localhost?db=-1", "database .* must be a number"),
        ("redis://localhost?db=secret", "no usable value for db"),
        ("redis://localhost?db=", "no usable value for db"),
        ("redis://localhost/0?db=1", "an option twice: db"),
        ("redis://localhost?db=1&db=2", "an option twice: db"),
        ("redis://localhost?host=secret", "an option twice: host"),
        ("redis://u:p@localhost?password=secret", "an option twice: one that is not named here"),
        ("redis://localhost?timeout=5", "leave timeout out of the URL: the store has its own timeout="),
        ("redis://localhost?socket_timeout=5", "leave socket_timeout out of the URL: the store has its own"),
        ("redis://localhost?socket_connect_timeout=5", "leave socket_connect_timeout out of the URL"),
        ("rediss://h?ssl_ca_certs=/nope", "ssl_ca_certs .* names a file that isn't there: /nope"),
        ("rediss://h?ssl_keyfile=/nope", "ssl_keyfile .* names a file that isn't there: /nope"),
        ("unix://", "three slashes and a path"),
        ("unix:///", "three slashes and a path"),
        ("unix://run/valkey.sock", "three slashes and a path"),
        ("redis+sentinel://h:26379", "names the master"),
        ("redis+sentinel://h:x/proofs", "port"),
        ("redis+sentinel:///proofs", "lacks a host"),
        ("redis+sentinel://h:1,/proofs", "lacks a host"),
        ("redis+sentinel://h/proofs/secret", "database .* must be a number"),
        ("redis+sentinel://h/proofs/1/2", "database .* must be a number"),
        ("redis+cluster://h:7000/1", "database 0"),
        ("redis+cluster://h:7000?db=3", "database 0"),
        ("redis+cluster://h:7000?db=one", "no usable value for db"),
    ],
)
def test_a_part_that_can_not_be_used_is_named(url: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        RedisReplayStore.from_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("password", ["a[b]c", "[", "p\u2100", "a b", "a:b"])
def test_a_password_is_read_as_it_is_written(password: str) -> None:
    parsed = parse_store_url(f"  redis+cluster://:{password}@n1,[::1]:7001,n2\n")
    assert parsed.options["password"] == password
    assert parsed.addresses == (("n1", 6379), ("::1", 7001), ("n2", 6379))


def test_a_file_that_exists_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    assert parse_store_url(f"rediss://h?ssl_ca_certs={tmp_path}/ca.pem").options["ssl_ca_certs"]


@pytest.mark.parametrize("query", ["password=ab&cd=ef", "sentinel_password=ab&cd=ef", "cd=e@h"])
def test_a_piece_of_a_password_is_not_shown(query: str) -> None:
    assert "cd" not in shown("cd", query)
    assert shown("ssl_cd", query) == "ssl_cd"
    assert shown("cd", "cd=1") == "cd"


@pytest.mark.parametrize(
    "url",
    [
        "redis://api:SECRET/xyz@h",
        "redis://h?password=abc&SECRET",
        "redis://h?password=abc&SECRET=1",
        "redis://h?password=a&db=SECRET",
        "redis://u:12?ssl_SECRET@h:6379/0",
    ],
)
def test_no_traceback_shows_a_piece_of_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisReplayStore.from_url(url)
    error = caught.value
    told = "".join(traceback.format_exception(error.with_traceback(None)))
    assert "SECRET" not in told


def test_options_of_sentinels_are_read_like_the_others() -> None:
    url = "rediss+sentinel://h/proofs?sentinel_ssl_check_hostname=false&ssl_check_hostname=false"
    parts = parse_store_url(url)
    assert parts.options["ssl_check_hostname"] is parts.sentinel_options["ssl_check_hostname"] is False
    with pytest.raises(ConfigurationError, match="leave sentinel_socket_timeout out"):
        parse_store_url("redis+sentinel://h/proofs?sentinel_socket_timeout=3")
