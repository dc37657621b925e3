"""Which URLs may be trusted."""

from typing import Any

import pytest

from dpop_middleware._request.secure_url import (
    checked_endpoint,
    checked_hosts,
    checked_url,
    is_loopback,
    is_this_machine,
)
from dpop_middleware._request.uri import BaseURL
from dpop_middleware.errors import ConfigurationError


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.255.0.9", "::1"])
def test_loopback_hosts_are_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["example.com", "localhost.example.com", "10.0.0.1", "128.0.0.1", "127.1", "2130706433", "::2", ""],
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "::1", "::", "0.0.0.0", "::ffff:7f00:1"),
        *("127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0"),
    ],
)
def test_loopback_names_and_addresses_are_this_machine(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host",
    ["example.com", "localhost.example.com", "10.0.0.1", "::2", "::ffff:a00:1", "1.example", "0xg", ""],
)
def test_other_hosts_are_another_machine(host: str) -> None:
    assert not is_this_machine(host)


@pytest.mark.parametrize(
    "url",
    [
        "https://as.example.com",
        "https://as.example.com:8443/tenant",
        "http://localhost",
        "http://LOCALHOST:8080",
        "http://127.0.0.1:9000/x",
        "http://127.8.8.8",
        "http://[::1]:9000",
        "http://[0:0::1]",
        "http://auth",
        "http://AUTH:8080/realms/x",
        "http://[fd00::1]:80",
    ],
)
def test_https_urls_and_named_http_hosts_are_accepted(url: str) -> None:
    assert isinstance(checked_url("issuer", url, insecure_http_hosts=("Auth", "[fd00:0::1]")), BaseURL)


def test_the_parts_are_in_normal_form() -> None:
    base = checked_url("issuer", "HTTPS://AS.Example.com:443/a/", insecure_http_hosts=())
    assert (base.origin, base.path) == ("https://as.example.com", "/a")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ann:s3cr3t@as.example.com", "'https://...@as.example.com'"),
        ("ftp://:s3@cr3t@as.example.com/a@b", "'ftp://...@b'"),
        ("https://ann:s3/cr3t@as.example.com", "'https://...@as.example.com'"),
        ("https://s3\ncr3t@as.example.com", "'https://...@as.example.com'"),
        ("https://s3#c/r3t@as.example.com", "'https://...@as.example.com'"),
        ("ann:s3/cr3t@as.example.com/a", "'...@as.example.com/a'"),
        ("https:s3cr3t@as.example.com/a", "'...@as.example.com/a'"),
        ("https:///ann:s3cr3t@as.example.com", "'https:///...@as.example.com'"),
        ("ann:s3cr3t@as.example.com/a", "'...@as.example.com/a'"),
    ],
)
def test_no_error_shows_the_password_in_a_url(url: str, shown: str) -> None:
    with pytest.raises(ConfigurationError, match="^issuer takes an https URL without user") as caught:
        checked_url("issuer", url, insecure_http_hosts=())
    assert f", not {shown}: " in str(caught.value)
    with pytest.raises(ConfigurationError, match="^jwks takes an https URL without user") as caught:
        checked_endpoint("jwks", url, insecure_http_hosts=())
    assert f", not {shown}: " in str(caught.value)


@pytest.mark.parametrize("url", ["http://as.example.com", "http://127.1", "http://[fd00::1]", "http://auth."])
def test_plain_http_is_refused_and_the_way_out_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"issuer takes an https URL.*insecure_http_hosts=\('"):
        checked_url("issuer", url, insecure_http_hosts=("auth",))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "as.example.com",
        "ftp://as.example.com",
        "https://user@as.example.com",
        "https://as.example.com?x",
        "https://as.example.com/#f",
        "https://as.example.com\n",
        "https://as.exämple.com",
    ],
)
def test_unacceptable_urls_are_refused(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match="resource takes an https URL without user, query and fragment"
    ):
        checked_url("resource", url, insecure_http_hosts=())


@pytest.mark.parametrize("url", [None, 1, b"https://as.example.com", ["https://as.example.com"]])
def test_a_url_must_be_a_string(url: object) -> None:
    with pytest.raises(ConfigurationError, match="issuer takes an https URL as a string"):
        checked_url("issuer", url, insecure_http_hosts=())


def test_host_names_are_compared_in_lower_case() -> None:
    assert checked_hosts(["Auth", "KEYS.internal", "10.0.0.7", "[fd00:0::1]", "fd00::2"]) == {
        "auth",
        "keys.internal",
        "10.0.0.7",
        "fd00::1",
        "fd00::2",
    }


@pytest.mark.parametrize("hosts", ["auth", None, 5])
def test_hosts_are_a_collection(hosts: object) -> None:
    with pytest.raises(ConfigurationError, match="takes a sequence of host names"):
        checked_hosts(hosts)


@pytest.mark.parametrize("hosts", ["auth", 5, ["auth:8080"]])
def test_hosts_are_checked_where_they_are_not_needed_too(hosts: Any) -> None:
    with pytest.raises(ConfigurationError, match="insecure_http_hosts"):
        checked_url("resource", "https://api.example.com", insecure_http_hosts=hosts)


@pytest.mark.parametrize("host", ["http://auth", "auth:8080", "auth/x", "", "a b", None, 7, "*", "[auth]"])
def test_hosts_are_names_only(host: object) -> None:
    with pytest.raises(ConfigurationError, match="without scheme and port"):
        checked_hosts([host])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://as.example.com", (True, "as.example.com", 443, "/")),
        ("https://as.example.com?p=1", (True, "as.example.com", 443, "/?p=1")),
        ("https://AS.example.com:8443/a/../jwks/?p=?/", (True, "as.example.com", 8443, "/jwks/?p=?/")),
        ("http://localhost/jwks", (False, "localhost", 80, "/jwks")),
        ("http://[::1]:90/jwks", (False, "::1", 90, "/jwks")),
        ("https://[2001:db8::1]/jwks", (True, "2001:db8::1", 443, "/jwks")),
    ],
)
def test_an_endpoint_is_parsed(url: str, expected: tuple[bool, str, int, str]) -> None:
    found = checked_endpoint("jwks", url, insecure_http_hosts=())
    assert (found.secure, found.host, found.port, found.target) == expected
    assert found.url == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        "http://as.example.com/jwks",
        "https://as.example.com/jwks#f",
        "https://as.example.com/jwks?p=1#f",
        "https://as.example.com/jwks?p=a b",
        "https://as.example.com/jwks?p=\r\nX: y",
        "https://as.example.com/jwks?p=é",
        "https://as.example.com/j wks",
        "https://u:p@as.example.com/jwks",
    ],
)
def test_a_url_that_is_no_endpoint_is_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="^jwks "):
        checked_endpoint("jwks", url, insecure_http_hosts=())
