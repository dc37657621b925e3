"""From an issuer to where its keys are."""

from collections.abc import Iterator
from typing import Any

import pytest

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.discovery import discover, jwks_endpoint, metadata_urls
from dpop_middleware.tokens.fetch import Deadline, Endpoint, Fetcher, FetchError
from tests.support.issuer_server import METADATA, OPENID, IssuerServer, answer, json_answer


@pytest.fixture
def server() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


def found(issuer: str) -> Endpoint:
    return discover(issuer, fetcher=Fetcher(), deadline=Deadline(5), insecure_http_hosts=())


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://as.example.com",
            (
                "https://as.example.com/.well-known/oauth-authorization-server",
                "https://as.example.com/.well-known/openid-configuration",
            ),
        ),
        (
            "https://as.example.com/",
            (
                "https://as.example.com/.well-known/oauth-authorization-server",
                "https://as.example.com/.well-known/openid-configuration",
            ),
        ),
        (
            "https://as.example.com:8443/realms/x/",
            (
                "https://as.example.com:8443/.well-known/oauth-authorization-server/realms/x",
                "https://as.example.com:8443/realms/x/.well-known/openid-configuration",
            ),
        ),
    ],
)
def test_where_metadata_may_be(issuer: str, urls: tuple[str, str]) -> None:
    assert metadata_urls(issuer, insecure_http_hosts=()) == urls


def test_an_issuer_that_is_no_url() -> None:
    with pytest.raises(ConfigurationError, match="issuer"):
        metadata_urls("https://as.example.com?tenant=1", insecure_http_hosts=())


def test_authorization_server_metadata_comes_first(server: IssuerServer) -> None:
    server.publish({"keys": []})
    server.handlers[OPENID] = lambda _: json_answer(
        {"issuer": server.origin, "jwks_uri": "https://x.example"}
    )
    assert found(server.origin).url == f"{server.origin}/jwks"
    assert server.targets == [METADATA]


@pytest.mark.parametrize(
    "first",
    [
        {"issuer": "https://other.example", "jwks_uri": "https://other.example/jwks"},
        {"jwks_uri": "https://other.example/jwks"},
        None,
        [],
    ],
)
def test_openid_metadata_comes_second(server: IssuerServer, first: Any) -> None:
    issuer = f"{server.origin}/realms/x"
    if first is not None:
        server.handlers[f"{METADATA}/realms/x"] = lambda _: json_answer(first)
    server.handlers[f"/realms/x{OPENID}"] = lambda _: json_answer(
        {"issuer": issuer, "jwks_uri": f"{server.origin}/certs?x=1"}
    )
    assert found(issuer).target == "/certs?x=1"
    assert server.targets == [f"{METADATA}/realms/x", f"/realms/x{OPENID}"]


def test_neither_document_leads_to_keys(server: IssuerServer) -> None:
    server.handlers[METADATA] = lambda _: json_answer(
        {"issuer": server.origin + "/", "jwks_uri": "https://x"}
    )
    server.handlers[OPENID] = lambda _: answer(b"", status=404)
    with pytest.raises(FetchError) as caught:
        found(server.origin)
    assert str(caught.value) == (
        f"{server.origin}{METADATA}: the metadata is another issuer's: it says '{server.origin}/', and we "
        f"were told '{server.origin}'; only a trailing slash differs, so set issuer='{server.origin}/'; "
        f"{server.origin}{OPENID}: the status is 404, not 200"
    )


@pytest.mark.parametrize(
    "said", ["https://AS.example.com", "https://as.example.com/", "https://as.example.com:443", None, 1, []]
)
def test_the_issuer_must_be_exactly_ours(said: object) -> None:
    with pytest.raises(FetchError, match="another issuer's"):
        jwks_endpoint(
            {"issuer": said, "jwks_uri": "https://as.example.com/jwks"},
            issuer="https://as.example.com",
            insecure_http_hosts=(),
        )


@pytest.mark.parametrize("uri", [None, 7, "", "jwks", "http://as.example.com/jwks", "file:///etc/passwd"])
def test_keys_must_be_at_an_acceptable_url(uri: object) -> None:
    with pytest.raises(FetchError, match="of no use: jwks_uri"):
        jwks_endpoint(
            {"issuer": "https://as.example.com", "jwks_uri": uri},
            issuer="https://as.example.com",
            insecure_http_hosts=(),
        )


def test_keys_may_be_at_a_named_http_host() -> None:
    place = jwks_endpoint(
        {"issuer": "https://as.example.com", "jwks_uri": "http://keys/jwks"},
        issuer="https://as.example.com",
        insecure_http_hosts=("keys",),
    )
    assert (place.secure, place.host) == (False, "keys")


def refused(metadata: dict[str, Any], issuer: str, hosts: tuple[str, ...] = ()) -> str:
    with pytest.raises(FetchError) as caught:
        jwks_endpoint(metadata, issuer=issuer, insecure_http_hosts=hosts)
    return str(caught.value)


@pytest.mark.parametrize(
    ("told", "says", "hint"),
    [
        ("https://a.example", "https://a.example/", "only a trailing slash differs, so set issuer="),
        ("https://a.example/", "https://a.example", "only a trailing slash differs, so set issuer="),
        ("https://a.example/x", "https://a.example/X/", "only upper and lower case differ, so set issuer="),
        ("https://a.example", "https://b.example", None),
        ("https://a.example", "http://a.example", None),
        ("https://a.example", None, None),
        ("https://a.example", ["https://a.example"], None),
        ("https://a.example", "https://a.example/\r\n\u202e", None),
    ],
)
def test_both_issuers_are_named_and_what_differs(told: str, says: object, hint: str | None) -> None:
    message = refused({"issuer": says}, told)
    start = f"the metadata is another issuer's: it says {says!a}, and we were told '{told}'"
    assert message == (start if hint is None else f"{start}; {hint}'{says}'")
    assert message.isascii()
    assert message.isprintable()


def test_what_another_issuer_says_is_cut_short() -> None:
    assert len(refused({"issuer": "https://a.example/" + "x" * 10_000}, "https://a.example")) < 400


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost/jwks",
        "http://127.0.0.1:8080/jwks",
        "http://[::1]/jwks",
        "https://localhost/jwks",
        "https://LOCALHOST./jwks",
        "https://issuer.localhost/jwks",
        "https://127.9.9.9/jwks",
        "https://127.1/jwks",
        "https://2130706433/jwks",
        "https://0x7f000001/jwks",
        "https://0.0.0.0/jwks",
        "https://[::]/jwks",
        "https://[::ffff:127.0.0.1]/jwks",
    ],
)
def test_an_issuer_elsewhere_does_not_send_us_to_this_machine(uri: str) -> None:
    issuer = "https://as.example.com"
    assert "names" in refused({"issuer": issuer, "jwks_uri": uri}, issuer)
    assert "which is this machine and not the issuer's" in refused(
        {"issuer": issuer, "jwks_uri": uri}, issuer, ("keys",)
    )


@pytest.mark.parametrize(
    ("issuer", "uri", "hosts"),
    [
        ("http://localhost:9000", "http://localhost:9001/jwks", ()),
        ("http://127.0.0.1:9000", "http://[::1]/jwks", ()),
        ("https://localhost", "http://localhost/jwks", ()),
        ("http://auth:8080", "http://localhost/jwks", ("auth",)),
        ("https://as.example.com", "http://localhost/jwks", ("localhost",)),
        ("https://as.example.com", "https://keys.example.net/jwks", ()),
        ("https://as.example.com", "https://localhost.example.com/jwks", ()),
        ("https://as.example.com", "https://10.0.0.7/jwks", ()),
        ("https://as.example.com", "https://[fd00::7]/jwks", ()),
    ],
)
def test_where_keys_may_be(issuer: str, uri: str, hosts: tuple[str, ...]) -> None:
    place = jwks_endpoint({"issuer": issuer, "jwks_uri": uri}, issuer=issuer, insecure_http_hosts=hosts)
    assert place.url == uri


def test_an_issuer_here_may_not_send_us_elsewhere_by_plain_http() -> None:
    issuer = "http://localhost:9000"
    message = refused({"issuer": issuer, "jwks_uri": "http://as.example.com/jwks"}, issuer)
    assert "jwks_uri must be an https URL, not 'http://as.example.com/jwks'" in message
