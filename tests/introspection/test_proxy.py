"""An introspection endpoint that is reached through an egress proxy."""

import ssl
from collections.abc import Iterator
from time import time
from typing import Any

import pytest
import trustme

from dpop_middleware.client import DPoPKey
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from tests.support.egress_proxy import EgressProxy
from tests.support.introspection_server import API, PATIENT, IssuerOfOpaqueTokens, refusal, signed_jwt
from tests.support.issuer_server import METADATA, IssuerServer, answer, json_answer
from tests.support.ports import free_port

NAME = "auth.internal.test"  # no resolver knows it
ISSUER = f"https://{NAME}"
JKT = DPoPKey.generate().jkt


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[IssuerServer]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(tls)
    issuer = IssuerOfOpaqueTokens(ISSUER)
    token = issuer.issue(JKT)
    with IssuerServer(tls=tls) as server:
        server.handlers[METADATA] = lambda _: json_answer(
            {"issuer": ISSUER, "introspection_endpoint": issuer.endpoint, "jwks_uri": f"{ISSUER}/jwks"}
        )
        server.handlers["/introspect"] = lambda _: json_answer(issuer.says(token))
        yield server


@pytest.fixture
def proxy(server: IssuerServer) -> Iterator[EgressProxy]:
    with EgressProxy(server.port) as proxy:
        yield proxy


def verifier(authority: trustme.CA, **options: Any) -> IntrospectionVerifier:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    usual: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": API,
        "client_authentication": ClientSecretBasic(client_id="api", client_secret="s3cret"),
        "ssl_context": trusting,
        **PATIENT,
    }
    return IntrospectionVerifier(**(usual | options))


async def test_metadata_and_answers_come_through_the_proxy(
    authority: trustme.CA, server: IssuerServer, proxy: EgressProxy
) -> None:
    opaque = verifier(authority, proxy=f"http://user:p%40ss@127.0.0.1:{proxy.port}")
    assert (await opaque.verify("any")).jkt == JKT
    assert server.targets == [METADATA, "/introspect"]
    for asked in proxy.asked:
        assert asked.startswith(f"CONNECT {NAME}:443 HTTP/1.1\r\n")
        assert "\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n" in asked
        assert "s3cret" not in asked
    assert all("proxy-authorization" not in asked.headers for asked in server.asked)
    await opaque.aclose()


async def test_without_the_option_the_environment_is_not_read(
    authority: trustme.CA, proxy: EgressProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    direct, through = verifier(authority), verifier(authority, proxy="environment")
    assert (await refusal(direct, "any")).status == 503
    assert proxy.asked == []
    assert (await through.verify("any")).jkt == JKT
    await direct.aclose()
    await through.aclose()


async def test_a_host_of_no_proxy_is_reached_directly(
    authority: trustme.CA, proxy: EgressProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", NAME)
    opaque = verifier(authority, proxy="environment")
    assert (await refusal(opaque, "any")).status == 503
    assert proxy.asked == []
    await opaque.aclose()


async def test_plain_http_goes_without_the_proxy(authority: trustme.CA, proxy: EgressProxy) -> None:
    with IssuerServer() as plain:
        plain.handlers["/introspect"] = lambda _: json_answer({"active": False})
        opaque = verifier(
            authority, endpoint=f"{plain.origin}/introspect", proxy=f"http://127.0.0.1:{proxy.port}"
        )
        assert (await refusal(opaque, "any")).status == 401
        assert plain.targets == ["/introspect"]
    assert proxy.asked == []
    await opaque.aclose()


async def test_the_keys_of_signed_answers_come_through_it_too(
    authority: trustme.CA, server: IssuerServer, proxy: EgressProxy
) -> None:
    key = DPoPKey.generate()
    said = IssuerOfOpaqueTokens(ISSUER)
    claims = {
        "iss": ISSUER,
        "aud": API,
        "iat": int(time()),
        "token_introspection": said.says(said.issue(JKT)),
    }
    signed = signed_jwt(key, claims).encode()
    media_type = {"Content-Type": "application/token-introspection+jwt"}
    server.handlers["/introspect"] = lambda _: answer(signed, headers=media_type)
    server.handlers["/jwks"] = lambda _: json_answer({"keys": [key.public_jwk | {"kid": "1"}]})
    opaque = verifier(authority, signed_answers=True, proxy=f"http://127.0.0.1:{proxy.port}")
    assert (await opaque.verify("any")).jkt == JKT
    assert "/jwks" in server.targets
    await opaque.aclose()


async def test_the_reason_of_a_refusing_proxy_is_told_without_its_password(
    authority: trustme.CA, proxy: EgressProxy
) -> None:
    proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    opaque = verifier(authority, proxy=f"http://user:hidden@127.0.0.1:{proxy.port}")
    error = await refusal(opaque, "any")
    assert error.status == 503
    assert f"through the proxy 127.0.0.1:{proxy.port}: 407" in str(error.actual)
    assert "hidden" not in repr(vars(error)) + repr(vars(opaque))
    await opaque.aclose()


async def test_a_proxy_that_can_not_be_reached_is_named(authority: trustme.CA) -> None:
    port = free_port()
    through = verifier(authority, proxy=f"http://user:hidden@127.0.0.1:{port}")
    direct = verifier(authority, issuer=f"https://127.0.0.1:{port}")
    assert f"through the proxy 127.0.0.1:{port}: " in str((await refusal(through, "any")).actual)
    assert "proxy" not in str((await refusal(direct, "any")).actual)
    await through.aclose()
    await direct.aclose()
