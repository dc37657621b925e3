"""Where the option `jwks` makes keys come from, over real sockets."""

import json
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.tokens.issuer_keys import issuer_keys
from dpop_middleware.tokens.key_source import KeySource
from dpop_middleware.tokens.remote_key_source import Lifetimes
from tests.support.issuer_server import METADATA, OPENID, IssuerServer, answer, json_answer
from tests.support.issuer_tokens import issuer_key, key_set

JWKS = key_set(issuer_key())


@pytest.fixture
def server() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


def source(jwks: Any, *, issuer: str = "https://as.example.com", **arguments: Any) -> KeySource:
    return issuer_keys(jwks, issuer=issuer, lifetimes=Lifetimes(timeout=2), **arguments)


async def kids(keys: KeySource) -> list[str | None]:
    return [key.kid for key in (await keys.load()).keys]


async def test_a_mapping() -> None:
    assert await kids(source(JWKS)) == ["key-1"]


async def test_a_url(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: json_answer(JWKS)
    assert await kids(source(f"{server.origin}/jwks?p=1")) == ["key-1"]
    assert server.targets == ["/jwks?p=1"]


async def test_discovery(server: IssuerServer) -> None:
    server.publish(JWKS)
    assert await kids(source(None, issuer=server.origin)) == ["key-1"]
    assert server.targets == [METADATA, "/jwks"]


async def test_each_fetch_discovers_anew(server: IssuerServer) -> None:
    moments = [0.0]
    server.publish(JWKS)
    keys = source(None, issuer=server.origin, clock=lambda: moments[0])
    await kids(keys)
    del server.handlers["/jwks"]
    server.handlers["/new"] = lambda _: json_answer(key_set(issuer_key(kid="new")))
    server.handlers[METADATA] = lambda _: json_answer(
        {"issuer": server.origin, "jwks_uri": f"{server.origin}/new"}
    )
    moments[0] = 1000.0
    assert await kids(keys) == ["new"]


async def test_tls_with_a_private_ca() -> None:
    ca = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(serving)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    with IssuerServer(tls=serving) as server:
        issuer = f"https://localhost:{server.port}"
        server.handlers[OPENID] = lambda _: json_answer({"issuer": issuer, "jwks_uri": f"{issuer}/jwks"})
        server.handlers["/jwks"] = lambda _: json_answer(JWKS)
        assert await kids(source(None, issuer=issuer, ssl_context=trusting)) == ["key-1"]
        with pytest.raises(Unavailable) as caught:
            await source(None, issuer=issuer).load()
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value.actual)


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"issuer": "x"}])
async def test_a_document_that_is_no_set(server: IssuerServer, document: Any) -> None:
    server.handlers["/jwks"] = lambda _: json_answer(document)
    with pytest.raises(Unavailable) as caught:
        await source(f"{server.origin}/jwks").load()
    assert "no JWK Set" in str(caught.value.actual)


async def test_an_empty_set_is_an_answer(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
    assert await kids(source(f"{server.origin}/jwks")) == []


async def test_the_size_of_a_set_is_limited(server: IssuerServer) -> None:
    def of_size(size: int) -> bytes:
        body = json.dumps(JWKS).encode()
        return body + b" " * (size - len(body))

    limit = 512 * 1024
    server.handlers["/fits"] = lambda _: answer(of_size(limit))
    server.handlers["/huge"] = lambda _: answer(of_size(limit + 1))
    assert await kids(source(f"{server.origin}/fits")) == ["key-1"]
    with pytest.raises(Unavailable) as caught:
        await source(f"{server.origin}/huge").load()
    assert str(caught.value.actual).endswith("the answer is larger than the limit")


@pytest.mark.parametrize("jwks", [{}, {"keys": "x"}, {"keys": {}}])
def test_a_mapping_that_is_no_set(jwks: Any) -> None:
    with pytest.raises(ConfigurationError, match="jwks takes a JWK Set"):
        source(jwks)


@pytest.mark.parametrize("jwks", [{"keys": []}, {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}])
def test_a_mapping_without_a_usable_key(jwks: Any) -> None:
    with pytest.raises(ConfigurationError, match="jwks holds no usable key"):
        source(jwks)


@pytest.mark.parametrize("jwks", [5, [JWKS["keys"][0]], b"https://as.example.com/jwks"])
def test_what_jwks_is_not(jwks: Any) -> None:
    with pytest.raises(ConfigurationError, match="jwks takes a JWK Set as a mapping, its URL or None"):
        source(jwks)


@pytest.mark.parametrize("jwks", ["http://as.example.com/jwks", "/jwks", ""])
def test_urls_by_which_keys_must_not_travel(jwks: str) -> None:
    with pytest.raises(ConfigurationError, match="^jwks "):
        source(jwks)


def test_a_named_http_host() -> None:
    assert source("http://keys/jwks", insecure_http_hosts=("keys",)).current() is None
