"""Where the option `jwks` makes keys come from, over real sockets."""

import json
import logging
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.tokens.fetching import Fetching
from dpop_middleware.tokens.issuer_keys import issuer_keys
from dpop_middleware.tokens.key_source import KeySource
from dpop_middleware.tokens.remote_key_source import Lifetimes
from tests.support.issuer_server import METADATA, OPENID, IssuerServer, answer, json_answer
from tests.support.issuer_tokens import issuer_key, key_set

JWKS = key_set(issuer_key())
NO_KTY = "its kty None is not supported"


@pytest.fixture
def server() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


def source(jwks: Any, *, issuer: str = "https://as.example.com", **arguments: Any) -> KeySource:
    options = {name: arguments.pop(name) for name in ("ssl_context", "fetch") if name in arguments}
    return issuer_keys(
        jwks, issuer=issuer, lifetimes=Lifetimes(timeout=2), fetching=Fetching(**options), **arguments
    )


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


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([], "it is empty"),
        (
            [{"kty": "x", "kid": "a\r\n"}, JWKS["keys"][0] | {"use": "enc"}],
            (
                "key 0 of the JWK Set, kid 'a\\r\\n', is left out: its kty 'x' is not supported; "
                "key 1 of the JWK Set, kid 'key-1', is left out: its use is 'enc', not 'sig'"
            ),
        ),
        (
            [{}] * 7,
            "; ".join([f"key {n} of the JWK Set is left out: {NO_KTY}" for n in range(5)] + ["and 2 more"]),
        ),
    ],
)
async def test_a_set_without_a_usable_key_is_no_answer(server: IssuerServer, keys: Any, reason: str) -> None:
    server.handlers["/jwks"] = lambda _: json_answer({"keys": keys})
    with pytest.raises(Unavailable) as caught:
        await source(f"{server.origin}/jwks").load()
    assert caught.value.actual == f"{server.origin}/jwks: the JWK Set holds no usable key: {reason}"
    assert caught.value.retry_after == 1


async def test_the_keys_before_a_set_without_a_usable_key_serve_on(server: IssuerServer) -> None:
    moments = [0.0]
    server.handlers["/jwks"] = lambda _: json_answer(JWKS)
    keys = source(f"{server.origin}/jwks", clock=lambda: moments[0])
    await kids(keys)
    server.handlers["/jwks"] = lambda _: json_answer({"keys": []})
    moments[0] = 80000.0
    assert await kids(keys) == ["key-1"]
    health = await keys.health()
    assert (health.ok, health.keys, health.error) == (
        True,
        1,
        f"{server.origin}/jwks: the JWK Set holds no usable key: it is empty",
    )
    moments[0] = 86400.0
    with pytest.raises(Unavailable):
        await keys.load()


async def test_a_key_that_is_left_out_is_warned_about_once(
    server: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    moments = [0.0]
    odd = [{"kty": "x", "kid": "odd"}]
    server.handlers["/jwks"] = lambda _: json_answer({"keys": [*JWKS["keys"], *odd]})
    keys = source(f"{server.origin}/jwks", clock=lambda: moments[0])
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        for _ in range(3):
            await kids(keys)
            moments[0] += 1000
        assert caplog.messages == [
            "key 1 of the JWK Set, kid 'odd', is left out: its kty 'x' is not supported"
        ]
        odd.append({"kty": "y", "kid": "new"})
        await kids(keys)
        assert len(caplog.messages) == 2


async def test_warnings_about_keys_end(server: IssuerServer, caplog: pytest.LogCaptureFixture) -> None:
    moments = [0.0]
    rounds = iter(range(10))
    server.handlers["/jwks"] = lambda _: json_answer(
        {
            "keys": [
                *JWKS["keys"],
                *({"kid": f"{round_}.{n}"} for round_ in [next(rounds)] for n in range(100)),
            ]
        }
    )
    keys = source(f"{server.origin}/jwks", clock=lambda: moments[0])
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        for _ in range(4):
            await kids(keys)
            moments[0] += 1000
    assert len(caplog.messages) == 256


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


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([], "it is empty"),
        (
            [{"kty": "oct", "k": "c2VjcmV0"}],
            "key 0 of the JWK Set is left out: it holds private or symmetric",
        ),
        (
            [JWKS["keys"][0] | {"kid": "\n", "use": "enc"}],
            r"key 0 of the JWK Set, kid '\n', is left out: its use",
        ),
        (
            [5, JWKS["keys"][0] | {"alg": "none"}],
            "key 1 of the JWK Set, kid 'key-1', is left out: its alg is 'none'",
        ),
    ],
)
def test_a_mapping_without_a_usable_key(keys: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        source({"keys": keys})
    message = str(caught.value)
    assert message.startswith("jwks holds no usable key: ")
    assert reason in message
    assert "c2VjcmV0" not in message
    assert message.endswith(". Give a public RSA, P-256, P-384, P-521 or Ed25519 key for signatures")


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
