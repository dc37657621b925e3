"""PKCE pairs and authorization URLs."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from dpop_middleware.client import DPoPKey, authorization_url, pkce_pair
from dpop_middleware.client.authorization import PKCE
from dpop_middleware.jose import base64url


def test_the_challenge_is_that_of_rfc_7636_appendix_b(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_is_not_given_is_left_out() -> None:
    url = authorization_url(
        "https://auth.example.com/authorize",
        client_id="c",
        redirect_uri="https://app/cb",
        code_challenge="x",
        key=DPoPKey.generate(),
    )
    assert [name for name, _ in parse_qsl(urlsplit(url).query)] == [
        "response_type", "client_id", "redirect_uri", "code_challenge", "code_challenge_method", "dpop_jkt"
    ]  # fmt: skip
