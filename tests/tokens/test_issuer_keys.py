"""The discovery of an issuer's keys, and keys that are given once."""

import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from dpop_middleware._request.secure_url import Endpoint
from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.tokens.connections import Deadline, FetchError
from dpop_middleware.tokens.fetch import Fetcher
from dpop_middleware.tokens.issuer_keys import (
    Discovery,
    FetchOptions,
    KeySource,
    endpoint_named,
    issuer_keys,
    metadata_urls,
)
from dpop_middleware.tokens.jwks import MAX_KEYS
from dpop_middleware.tokens.remote_key_source import Lifetimes
from tests.support.issuer_server import METADATA, OPENID, IssuerServer, answer, json_answer
from tests.support.issuer_tokens import issuer_key, key_set

JWKS = key_set(issuer_key())
NO_KTY = "its kty None is not supported"


@pytest.fixture
def server() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


def found(issuer: str) -> Endpoint:
    return Discovery(issuer, insecure_http_hosts=()).endpoint(Fetcher(), deadline=Deadline(5))


@pytest.mark.parametrize("hangs", [METADATA, OPENID])
def test_a_place_that_hangs_is_tried_last_at_the_next_attempt(server: IssuerServer, hangs: str) -> None:
    document = {"issuer": server.origin, "jwks_uri": f"{server.origin}/jwks"}
    server.handlers[METADATA if hangs == OPENID else OPENID] = lambda _: json_answer(document)
    server.handlers[hangs] = lambda _: [60.0]
    discovery = Discovery(server.origin, insecure_http_hosts=())
    if hangs == METADATA:
        with pytest.raises(FetchError, match="timed out|time limit"):
            discovery.endpoint(Fetcher(), deadline=Deadline(0.3))
    for _ in range(2):
        assert discovery.endpoint(Fetcher(), deadline=Deadline(5)).target == "/jwks"
    assert server.targets.count(hangs) == (hangs == METADATA)


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
def test_metadata_may_be_at_two_urls(issuer: str, urls: tuple[str, str]) -> None:
    assert metadata_urls(issuer, insecure_http_hosts=()) == urls


def test_an_issuer_that_is_no_url_is_refused() -> None:
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
        f"only a trailing slash differs, so set issuer='{server.origin}/': the metadata is another issuer's: "
        f"it says '{server.origin}/', not the configured '{server.origin}' (at {server.origin}{METADATA}); "
        f"{server.origin}{OPENID}: the status is 404, not 200"
    )


@pytest.mark.parametrize(
    "said", ["https://AS.example.com", "https://as.example.com/", "https://as.example.com:443", None, 1, []]
)
def test_the_issuer_in_metadata_must_match_exactly(said: object) -> None:
    with pytest.raises(FetchError, match="another issuer's"):
        endpoint_named(
            "jwks_uri",
            {"issuer": said, "jwks_uri": "https://as.example.com/jwks"},
            issuer="https://as.example.com",
            insecure_http_hosts=(),
        )


@pytest.mark.parametrize("uri", [None, 7, "", "jwks", "http://as.example.com/jwks", "file:///etc/passwd"])
def test_keys_must_be_at_an_acceptable_url(uri: object) -> None:
    advice = "^correct jwks_uri in the metadata, or set jwks=: it can't be used: jwks_uri "
    with pytest.raises(FetchError, match=advice):
        endpoint_named(
            "jwks_uri",
            {"issuer": "https://as.example.com", "jwks_uri": uri},
            issuer="https://as.example.com",
            insecure_http_hosts=(),
        )


def test_keys_may_be_at_a_named_http_host() -> None:
    place = endpoint_named(
        "jwks_uri",
        {"issuer": "https://as.example.com", "jwks_uri": "http://keys/jwks"},
        issuer="https://as.example.com",
        insecure_http_hosts=("keys",),
    )
    assert (place.secure, place.host) == (False, "keys")


def refused(metadata: dict[str, Any], issuer: str, hosts: tuple[str, ...] = ()) -> str:
    with pytest.raises(FetchError) as caught:
        endpoint_named("jwks_uri", metadata, issuer=issuer, insecure_http_hosts=hosts)
    return str(caught.value)


@pytest.mark.parametrize(
    ("told", "says", "hint"),
    [
        ("https://a.example", "https://a.example/", "only a trailing slash differs"),
        ("https://a.example/", "https://a.example", "only a trailing slash differs"),
        ("https://a.example/x", "https://a.example/X", "only upper and lower case differ"),
        ("https://a.example/x", "https://a.example/X/", "a trailing slash and upper and lower case differ"),
        ("https://a.example", "https://b.example", None),
        ("https://a.example", "http://a.example", None),
        ("https://a.example", None, None),
        ("https://a.example", ["https://a.example"], None),
        ("https://a.example", "https://a.example/\r\n\u202e", None),
    ],
)
def test_the_error_names_both_issuers_and_the_difference(told: str, says: object, hint: str | None) -> None:
    message = refused({"issuer": says}, told)
    both = f"the metadata is another issuer's: it says {says!a}, not the configured '{told}'"
    assert message == (both if hint is None else f"{hint}, so set issuer='{says}': {both}")
    assert message.isascii()
    assert message.isprintable()


def test_the_name_of_another_issuer_is_cut_in_the_error() -> None:
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
def test_metadata_of_an_issuer_elsewhere_can_not_name_this_machine(uri: str) -> None:
    issuer = "https://as.example.com"
    assert "names" in refused({"issuer": issuer, "jwks_uri": uri}, issuer)
    message = refused({"issuer": issuer, "jwks_uri": uri}, issuer, ("keys",))
    assert "which is this machine and not the issuer's" in message
    assert message.startswith("correct jwks_uri in the metadata, or set jwks= if the URL is right: ")


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
def test_keys_may_be_at_these_urls(issuer: str, uri: str, hosts: tuple[str, ...]) -> None:
    place = endpoint_named(
        "jwks_uri", {"issuer": issuer, "jwks_uri": uri}, issuer=issuer, insecure_http_hosts=hosts
    )
    assert place.url == uri


def test_metadata_of_an_issuer_here_can_not_name_plain_http_elsewhere() -> None:
    issuer = "http://localhost:9000"
    message = refused({"issuer": issuer, "jwks_uri": "http://as.example.com/jwks"}, issuer)
    assert "jwks_uri takes an https URL, not 'http://as.example.com/jwks'" in message


def source(
    jwks: Any,
    *,
    issuer: str = "https://as.example.com",
    clock: Callable[[], float] = time.time,
    insecure_http_hosts: tuple[str, ...] = (),
    **options: Any,
) -> KeySource:
    return issuer_keys(
        jwks,
        issuer=issuer,
        lifetimes=Lifetimes(timeout=2),
        clock=clock,
        insecure_http_hosts=insecure_http_hosts,
        fetch_options=FetchOptions(**options),
    )


async def kids(keys: KeySource) -> list[str | None]:
    return [key.kid for key in (await keys.load()).keys]


async def test_keys_may_be_a_mapping() -> None:
    assert await kids(source(JWKS)) == ["key-1"]


async def test_keys_may_be_fetched_from_a_url(server: IssuerServer) -> None:
    server.handlers["/jwks"] = lambda _: json_answer(JWKS)
    assert await kids(source(f"{server.origin}/jwks?p=1")) == ["key-1"]
    assert server.targets == ["/jwks?p=1"]


async def test_keys_may_be_discovered(server: IssuerServer) -> None:
    server.publish(JWKS)
    assert await kids(source(None, issuer=server.origin)) == ["key-1"]
    assert server.targets == [METADATA, "/jwks"]


async def test_each_fetch_repeats_the_discovery(server: IssuerServer) -> None:
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


async def test_keys_may_be_fetched_with_a_private_ca() -> None:
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
async def test_a_document_that_is_no_set_is_refused(server: IssuerServer, document: Any) -> None:
    server.handlers["/jwks"] = lambda _: json_answer(document)
    with pytest.raises(Unavailable) as caught:
        await source(f"{server.origin}/jwks").load()
    assert "isn't a JWK Set" in str(caught.value.actual)


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
async def test_a_set_without_a_usable_key_counts_as_a_failed_fetch(
    server: IssuerServer, keys: Any, reason: str
) -> None:
    server.handlers["/jwks"] = lambda _: json_answer({"keys": keys})
    with pytest.raises(Unavailable) as caught:
        await source(f"{server.origin}/jwks").load()
    assert caught.value.actual == f"{server.origin}/jwks: the JWK Set holds no usable key: {reason}"
    assert caught.value.retry_after == 1


async def test_previous_keys_stay_in_use_after_a_set_without_a_usable_key(server: IssuerServer) -> None:
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


async def test_a_set_that_is_too_long_is_warned_about_once(
    server: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    moments = [0.0]
    server.handlers["/jwks"] = lambda _: json_answer({"keys": JWKS["keys"] * (MAX_KEYS + 2)})
    keys = source(f"{server.origin}/jwks", clock=lambda: moments[0])
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        for _ in range(3):
            await kids(keys)
            moments[0] += 1000
    assert len(server.targets) >= 3, "on a busy machine one may be fetched again"
    assert len(caplog.messages) == 1
    assert (await keys.health()).warnings == tuple(caplog.messages)


async def test_warnings_about_keys_are_bounded(
    server: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
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
def test_a_mapping_that_is_no_set_is_refused(jwks: Any) -> None:
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
def test_a_mapping_without_a_usable_key_is_refused(keys: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        source({"keys": keys})
    message = str(caught.value)
    assert message.startswith("jwks holds no usable key: ")
    assert reason in message
    assert "c2VjcmV0" not in message
    assert message.endswith(". Give a public RSA, P-256, P-384, P-521 or Ed25519 key for signatures")


@pytest.mark.parametrize("jwks", [5, [JWKS["keys"][0]], b"https://as.example.com/jwks"])
def test_other_values_of_jwks_are_refused(jwks: Any) -> None:
    with pytest.raises(ConfigurationError, match="jwks takes a JWK Set as a mapping, its URL or None"):
        source(jwks)


@pytest.mark.parametrize(
    ("jwks", "kind"),
    [
        ([{"kty": "EC", "d": "c2VjcmV0"}], "list"),
        ('{"keys": [{"kty": "EC", "d": "c2VjcmV0"}]}', "str"),
        ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0", "str"),
    ],
)
def test_of_keys_in_another_form_only_the_type_is_shown(jwks: Any, kind: str) -> None:
    """They may be private ones."""
    with pytest.raises(ConfigurationError) as caught:
        source(jwks)
    assert str(caught.value) == f"jwks takes a JWK Set as a mapping, its URL or None, not a {kind}"


@pytest.mark.parametrize("jwks", ["http://as.example.com/jwks", "/jwks", ""])
def test_an_insecure_url_for_keys_is_refused(jwks: str) -> None:
    with pytest.raises(ConfigurationError, match="^jwks "):
        source(jwks)


def test_keys_may_be_at_a_named_http_host_by_url() -> None:
    assert source("http://keys/jwks", insecure_http_hosts=("keys",)).current() is None
