"""PKCE pairs and authorization URLs."""

from functools import partial
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2
import pytest

from dpop_middleware.client import (
    ClientCredentials,
    DPoPKey,
    TokenSource,
    authorization_url,
    fetch_token,
    pkce_pair,
)
from dpop_middleware.client.authorization import PKCE, PushedAuthorizationRequest
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import base64url
from dpop_middleware.testing import TestIssuer


def asked_at(endpoint: str = "https://auth.example.com/authorize", **options: Any) -> str:
    return authorization_url(
        endpoint,
        client_id="c",
        redirect_uri="https://app/cb",
        code_challenge="x",
        key=DPoPKey.generate(),
        **options,
    )


def test_the_challenge_is_the_one_of_rfc_7636_appendix_b(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: verifier)
    assert pkce_pair() == PKCE(
        code_verifier=verifier, code_challenge="E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


def test_each_pair_is_new_and_hides_its_verifier() -> None:
    pairs = [pkce_pair() for _ in range(50)]
    assert len({pair.code_verifier for pair in pairs}) == 50
    assert len(base64url.decode(pairs[0].code_verifier)) * 8 == 256
    assert pairs[0].code_verifier not in repr(pairs[0])


def test_the_url_binds_the_code_to_the_key() -> None:
    key = DPoPKey.generate()
    url = authorization_url(
        "https://auth.example.com/authorize?tenant=7",
        client_id="my client",
        redirect_uri="https://app.example.com/callback",
        code_challenge="challenge",
        key=key,
        state="a&b",
        scopes=["notes:read", "notes:write"],
        resource="https://api.example.com",
        parameters={"nonce": "n", "prompt": "login"},
    )
    assert url.startswith("https://auth.example.com/authorize?tenant=7&response_type=code&")
    assert dict(parse_qsl(urlsplit(url).query, strict_parsing=True)) == {
        "tenant": "7",
        "response_type": "code",
        "client_id": "my client",
        "redirect_uri": "https://app.example.com/callback",
        "code_challenge": "challenge",
        "code_challenge_method": "S256",
        "dpop_jkt": key.jkt,
        "state": "a&b",
        "scope": "notes:read notes:write",
        "resource": "https://api.example.com",
        "nonce": "n",
        "prompt": "login",
    }


@pytest.mark.parametrize("given", ["resource", "parameters"])
def test_several_resources_are_named_one_by_one(given: str) -> None:
    # RFC 8707 section 2.
    resources = ["https://api.example.com", "https://files.example.com/a"]
    several: Any = {"resource": resources} if given == "resource" else {"parameters": {"resource": resources}}
    url = asked_at(**several)
    assert parse_qs(urlsplit(url).query)["resource"] == resources


@pytest.mark.parametrize("wrong", [b"https://api.example.com", ["https://api.example.com", None], [""], 7])
def test_a_resource_that_is_no_text_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="^resource takes a sequence of non-empty strings, not "):
        asked_at(resource=wrong)


@pytest.mark.parametrize("none", [None, "", (), []])
def test_no_resource_is_named_where_there_is_none(none: Any) -> None:
    url = asked_at(resource=none)
    assert "resource" not in parse_qs(urlsplit(url).query, keep_blank_values=True)


def test_parameters_that_are_not_given_are_left_out() -> None:
    url = asked_at()
    assert [name for name, _ in parse_qsl(urlsplit(url).query)] == [
        "response_type", "client_id", "redirect_uri", "code_challenge", "code_challenge_method", "dpop_jkt"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "endpoint",
    ["http://auth.example.com/authorize", "HTTP://auth.example.com?tenant=7", "http://auth.example.com"],
)
def test_a_login_by_plain_http_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match=r"insecure_http_hosts=\('auth.example.com',\)"):
        asked_at(endpoint)
    assert asked_at(endpoint, insecure_http_hosts=("auth.example.com",)).startswith(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    ["http://localhost:8000/authorize", "http://[::1]/authorize", "/authorize", "openid4vp://authorize"],
)
def test_endpoints_on_this_machine_and_of_other_schemes_are_accepted(endpoint: str) -> None:
    assert asked_at(endpoint).startswith(f"{endpoint}?response_type=code&")


@pytest.mark.parametrize(
    "endpoint",
    [
        " http://auth.example.com/authorize",
        "\thttp://auth.example.com/authorize",
        "ht\ntp://auth.example.com/authorize",
        "https://auth.example.com/authorize#login",
        None,
    ],
)
def test_an_endpoint_that_a_browser_reads_otherwise_is_refused(endpoint: Any) -> None:
    says = "endpoint takes a URL without white space or a fragment, not "
    with pytest.raises(ConfigurationError, match=says):
        asked_at(endpoint)
    pushed = PushedAuthorizationRequest(client_id="c", request_uri="urn:r", expires_in=None)
    with pytest.raises(ConfigurationError, match=says):
        pushed.authorization_url(endpoint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_id": ""}, "client_id takes a non-empty string, not an empty one"),
        ({"redirect_uri": 5}, "redirect_uri takes the client's URL, not 5"),
        ({"parameters": "a=b"}, "parameters takes a mapping, not a str"),
    ],
)
def test_an_argument_of_another_type_is_named(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"client_id": "c", "redirect_uri": "https://c/", "code_challenge": "x"}
    with pytest.raises(ConfigurationError) as caught:
        authorization_url("https://auth.example/authorize", key=DPoPKey.generate(), **given | options)
    assert str(caught.value) == message


def test_an_http_endpoint_without_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match="absolute"):
        asked_at("http:/authorize")


def test_one_string_is_no_sequence_of_scopes() -> None:
    # Of "notes:read" it would ask for the scopes n, o, t, e, s and so on.
    wrong: Any = "notes:read"
    takes = "scopes takes a sequence of strings"
    key, endpoint, grant = DPoPKey.generate(), "https://auth.example.com/token", ClientCredentials()
    code: dict[str, Any] = {"client_id": "c", "redirect_uri": "https://c.example/", "code_challenge": "x"}
    with httpx2.Client() as client:
        asking: list[Any] = [
            partial(authorization_url, endpoint, key=key, **code),
            partial(fetch_token, client, endpoint, grant, key=key, client_id="c"),
            partial(TokenSource, client, endpoint, grant, key=key, client_id="c"),
            TestIssuer().token,
        ]
        for ask in asking:
            with pytest.raises(ConfigurationError, match=takes):
                ask(scopes=wrong)


def test_a_pair_is_no_challenge() -> None:
    pair: Any = pkce_pair()
    with pytest.raises(ConfigurationError) as caught:
        authorization_url(
            "https://auth.example/authorize",
            client_id="c",
            redirect_uri="https://app.example/cb",
            code_challenge=pair,
            key=DPoPKey.generate(),
        )
    assert str(caught.value).startswith(
        "code_challenge takes the code_challenge of a pkce_pair(), not PKCE(code_challenge="
    )
    assert pair.code_verifier not in str(caught.value)
