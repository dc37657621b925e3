"""Keys through an egress proxy: the request to it, its limits, and the secrecy of its password."""

import base64
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from dpop_middleware import JWTAccessTokenVerifier
from dpop_middleware._request.secure_url import checked_endpoint
from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.tokens.connections import Deadline, FetchError, Proxy, checked_proxy, checked_ssl_context
from dpop_middleware.tokens.fetch import Fetcher
from tests.support.egress_proxy import EgressProxy
from tests.support.issuer_server import IssuerServer, drip, json_answer
from tests.support.issuer_tokens import issuer_key, key_set
from tests.support.ports import free_port

NAME = "auth.internal.test"  # no resolver knows it
VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[IssuerServer]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, "localhost").configure_cert(tls)
    with IssuerServer(tls=tls) as server:
        server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
        yield server


@pytest.fixture
def proxy(server: IssuerServer) -> Iterator[EgressProxy]:
    with EgressProxy(server.port) as proxy:
        yield proxy


def get(proxy: Any, trusting: ssl.SSLContext, url: str = f"https://{NAME}/jwks", **options: Any) -> Any:
    fetcher = Fetcher(ssl_context=trusting, proxy=checked_proxy("jwks_proxy", proxy), **options)
    endpoint = checked_endpoint("jwks", url, insecure_http_hosts=())
    return fetcher.get(endpoint, deadline=Deadline(5), limit=4096)


def test_a_tunnel_leads_to_the_issuer(
    proxy: EgressProxy, server: IssuerServer, trusting: ssl.SSLContext
) -> None:
    assert get(f"http://127.0.0.1:{proxy.port}", trusting) == {"keys": []}
    assert proxy.asked == [f"CONNECT {NAME}:443 HTTP/1.1\r\nHost: {NAME}:443\r\n\r\n"]
    assert server.asked[0].headers["host"] == NAME
    assert "proxy-authorization" not in server.asked[0].headers


def test_the_password_is_sent_to_the_proxy_only(
    proxy: EgressProxy, server: IssuerServer, trusting: ssl.SSLContext
) -> None:
    get(f"http://user:p%40ss@127.0.0.1:{proxy.port}", trusting)
    basic = base64.b64encode(b"user:p@ss").decode()
    assert f"\r\nProxy-Authorization: Basic {basic}\r\n" in proxy.asked[0]
    assert "proxy-authorization" not in server.asked[0].headers
    assert basic not in repr(
        checked_proxy("jwks_proxy", f"http://user:p%40ss@127.0.0.1:{proxy.port}").for_host(NAME)
    )


def test_the_proxy_can_not_impersonate_the_issuer(
    authority: trustme.CA, server: IssuerServer, trusting: ssl.SSLContext
) -> None:
    other = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert(NAME).configure_cert(tls)
    with IssuerServer(tls=tls) as impostor, EgressProxy(impostor.port) as proxy:
        with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
            get(f"http://127.0.0.1:{proxy.port}", trusting)
        assert impostor.asked == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "it answers b'407'"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://x\r\n\r\n", "it answers b'301'"),
        (b"SSH-2.0-OpenSSH 200\r\n\r\n", "opens no tunnel"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x16\x03", "opens no tunnel"),
        (b"HTTP/1.1 407 x\r\nx: " + b"y" * 40_000, "doesn't answer as a proxy"),
        (b"HTTP/1.1 407 ", "doesn't answer as a proxy"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_an_error(
    proxy: EgressProxy, server: IssuerServer, trusting: ssl.SSLContext, answer: bytes, reason: str
) -> None:
    proxy.answer = answer
    with pytest.raises(FetchError, match=reason) as caught:
        get(f"http://user:secret@127.0.0.1:{proxy.port}", trusting)
    assert "secret" not in str(caught.value)
    assert server.asked == []


def test_a_proxy_that_can_not_be_reached_is_named(trusting: ssl.SSLContext) -> None:
    port = free_port()
    with pytest.raises(FetchError) as caught:
        get(f"http://user:secret@127.0.0.1:{port}", trusting)
    assert f"the proxy 127.0.0.1:{port} can't be reached: ConnectionRefusedError: " in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_slow_proxy_has_the_time_of_the_whole_fetch_only() -> None:
    with IssuerServer(before=lambda: drip(b"x" * 1000, pause=0.02)) as slow:
        proxy = Proxy(host="127.0.0.1", port=slow.port)
        with pytest.raises((FetchError, TimeoutError), match="time"):
            proxy.tunnel(NAME, 443, deadline=Deadline(0.5))


def test_plain_http_on_this_machine_needs_no_proxy(trusting: ssl.SSLContext) -> None:
    with IssuerServer() as server:
        server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
        assert get("http://127.0.0.1:1", trusting, f"{server.origin}/jwks") == {"keys": []}


def test_an_ipv6_literal_is_requested_in_brackets(proxy: EgressProxy, trusting: ssl.SSLContext) -> None:
    with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
        get(f"http://127.0.0.1:{proxy.port}", trusting, "https://[2001:db8::1]/jwks")
    assert proxy.asked[0].startswith("CONNECT [2001:db8::1]:443 HTTP/1.1\r\n")


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_environment_is_read_when_that_is_set(
    proxy: EgressProxy, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.port}")
    assert get("environment", trusting) == {"keys": []}
    assert len(proxy.asked) == 1


def test_the_environment_alone_changes_nothing(
    proxy: EgressProxy, server: IssuerServer, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert get(None, trusting, f"https://localhost:{server.port}/jwks") == {"keys": []}
    assert proxy.asked == []


def test_hosts_of_no_proxy_are_reached_directly(
    proxy: EgressProxy, server: IssuerServer, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", "localhost,.example.com")
    assert get("environment", trusting, f"https://localhost:{server.port}/jwks") == {"keys": []}
    assert proxy.asked == []
    assert checked_proxy("jwks_proxy", "environment").for_host("auth.example.com") is None
    assert checked_proxy("jwks_proxy", "environment").for_host(NAME) is not None


def test_an_environment_without_a_proxy_is_refused() -> None:
    assert checked_proxy("jwks_proxy", "environment").for_host(NAME) is None


@pytest.mark.parametrize("variable", ["https://proxy:443", "socks5://proxy:1080", "http://proxy/path"])
def test_an_environment_with_another_kind_of_proxy_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", variable)
    with pytest.raises(ConfigurationError, match="^jwks_proxy='environment' finds no"):
        checked_proxy("jwks_proxy", "environment")


@pytest.mark.parametrize(
    "value",
    [
        1,
        b"http://proxy:3128",
        "",
        "proxy:3128",
        "ENVIRONMENT",
        "https://user:secret@proxy:3128",
        "socks5://user:secret@proxy:3128",
        "http://user:secret@proxy:3128/path",
        "http://user:secret@proxy:3128?q",
        "http://user:secret@proxy:3128#f",
        "http://user:secret@proxy:99999",
        "http://user:secret@proxy:port",
        "http://user:secret@",
        "http://user:sécret@proxy:3128",
        "http://user:secret@[::1",
    ],
)
def test_a_value_that_is_no_proxy_is_refused_without_its_password(value: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="^jwks_proxy takes 'environment', None or the URL"
    ) as caught:
        checked_proxy("jwks_proxy", value)
    told = "".join(map(str, (caught.value, caught.value.__cause__)))
    assert "secret" not in told
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_a_verifier_gets_its_keys_through_the_proxy(
    proxy: EgressProxy, server: IssuerServer, trusting: ssl.SSLContext
) -> None:
    key = issuer_key()
    issuer = f"https://{NAME}"
    server.handlers["/.well-known/oauth-authorization-server"] = lambda _: json_answer(
        {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
    )
    server.handlers["/jwks"] = lambda _: json_answer(key_set(key))

    def verifier(**options: Any) -> JWTAccessTokenVerifier:
        return JWTAccessTokenVerifier(
            issuer=issuer, audience="https://api.example.com", ssl_context=trusting, **options
        )

    through = verifier(jwks_proxy=f"http://127.0.0.1:{proxy.port}", jwks_headers={"X-Api-Key": "k1"})
    token = key.token(iss=issuer)
    assert (await through.verify(token)).issuer == issuer
    assert [asked.headers["x-api-key"] for asked in server.asked] == ["k1", "k1"]
    with pytest.raises(Unavailable):
        await verifier().verify(token)
    await through.aclose()


def test_an_ssl_context_that_verifies_is_accepted() -> None:
    context = ssl.create_default_context()
    assert checked_ssl_context(None) is None
    assert checked_ssl_context(context) is context


def test_an_ssl_context_that_trusts_everybody_is_refused() -> None:
    no_host_names = ssl.create_default_context()
    no_host_names.check_hostname = False
    no_certificates = ssl.create_default_context()
    no_certificates.check_hostname = False
    no_certificates.verify_mode = ssl.CERT_NONE
    for context in (no_host_names, no_certificates):
        with pytest.raises(ConfigurationError, match="takes one that checks certificates and host names"):
            checked_ssl_context(context)
    with pytest.raises(ConfigurationError, match=r"takes an ssl\.SSLContext"):
        checked_ssl_context("yes")
