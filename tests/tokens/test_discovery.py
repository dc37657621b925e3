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
    server.handlers[OPENID] = lambda _: answer(b"", status=302, headers={"Location": METADATA})
    with pytest.raises(FetchError) as caught:
        found(server.origin)
    assert str(caught.value) == (
        f"{server.origin}{METADATA}: the metadata is another issuer's; "
        f"{server.origin}{OPENID}: the status is 302, not 200"
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
