"""An error becomes a response, by the verdict table."""

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dpop_middleware
from dpop_middleware import DPoPPolicy, ErrorResponse, ResourceMetadata
from dpop_middleware._judge.verdicts import error_response, nonce_headers
from dpop_middleware._request.public_urls import PublicURLs
from dpop_middleware._resource_metadata import published
from dpop_middleware.errors import (
    DPoPError,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidDPoPProof,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    Refusal,
    Scheme,
    Unavailable,
    UseDPoPNonce,
)

STRICT = DPoPPolicy(algorithms=("ES256", "EdDSA"))
MIXED = DPoPPolicy(algorithms=("ES256", "EdDSA"), accept_bearer=True)
API = "https://api.example.com"
METADATA = published(ResourceMetadata(), API, origin=API, urls=PublicURLs(API, insecure_http_hosts=()))
ALGS = 'algs="ES256 EdDSA"'


def used(error: DPoPError, scheme: Scheme | None) -> DPoPError:
    return error.restated(refusal=Refusal(scheme=scheme, nonce=error.nonce))


def values(response: ErrorResponse, name: str) -> list[str]:
    return [value for header, value in response.headers if header == name]


def challenges(error: DPoPError, policy: DPoPPolicy) -> list[str]:
    return values(error_response(error, policy), "www-authenticate")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MissingCredentials("m"), 401, None),
        (InvalidRequest("m"), 400, "invalid_request"),
        (InvalidToken("m"), 401, "invalid_token"),
        (InvalidDPoPProof("m"), 401, "invalid_dpop_proof"),
        (UseDPoPNonce("m", nonce="n"), 401, "use_dpop_nonce"),
        (InsufficientScope("m", scopes=("a",)), 403, "insufficient_scope"),
        (
            InsufficientUserAuthentication("m", acr_values=(), max_age=1),
            401,
            "insufficient_user_authentication",
        ),
        (Unavailable("m"), 503, None),
    ],
)
@pytest.mark.parametrize("policy", [STRICT, MIXED])
def test_a_refusal_has_status_body_and_no_store(
    error: DPoPError, status: int, code: str | None, policy: DPoPPolicy
) -> None:
    response = error_response(error, policy)
    assert response.status == status
    body = json.loads(response.body)
    assert body.pop("error_description") == "m"
    assert body == ({"error": code} if code else {})
    assert values(response, "content-type") == ["application/json"]
    assert values(response, "cache-control") == ["no-store"]
    assert values(response, "content-length") == [str(len(response.body))]
    assert bool(values(response, "www-authenticate")) == (status != 503)


def test_without_credentials_a_challenge_has_no_error() -> None:
    assert challenges(MissingCredentials("m"), STRICT) == [f"DPoP {ALGS}"]
    assert challenges(MissingCredentials("m"), MIXED) == ["Bearer", f"DPoP {ALGS}"]


def test_the_error_stands_on_the_scheme_that_was_used() -> None:
    plain = 'error="invalid_token", error_description="m"'
    assert challenges(used(InvalidToken("m"), "DPoP"), MIXED) == [f"DPoP {plain}, {ALGS}", "Bearer"]
    assert challenges(used(InvalidToken("m"), "Bearer"), MIXED) == [f"Bearer {plain}", f"DPoP {ALGS}"]


def test_the_error_stands_on_both_when_it_is_ambiguous() -> None:
    plain = 'error="invalid_request", error_description="m"'
    assert challenges(InvalidRequest("m"), MIXED) == [f"Bearer {plain}", f"DPoP {plain}, {ALGS}"]


@pytest.mark.parametrize("scheme", ["Bearer", "DPoP", None])
def test_one_scheme_has_one_challenge(scheme: Scheme | None) -> None:
    assert challenges(used(InvalidToken("m"), scheme), STRICT) == [
        f'DPoP error="invalid_token", error_description="m", {ALGS}'
    ]


def test_no_scope_is_named_where_a_claim_is_missing() -> None:
    error = used(InsufficientScope("m", scopes=(), claim="realm_access", actual="secret"), "DPoP")
    assert challenges(error, STRICT) == [f'DPoP error="insufficient_scope", error_description="m", {ALGS}']
    assert b"realm_access" not in error_response(error, STRICT).body


def test_a_missing_scope_is_in_the_challenge() -> None:
    error = used(InsufficientScope("m", scopes=("a", "b:c")), "DPoP")
    assert challenges(error, STRICT) == [
        f'DPoP error="insufficient_scope", error_description="m", scope="a b:c", {ALGS}'
    ]


@pytest.mark.parametrize(
    ("acr_values", "max_age", "asked"),
    [
        (("gold", "silver"), None, 'acr_values="gold silver", '),
        ((), 0, 'max_age="0", '),
        (("gold",), 60, 'acr_values="gold", max_age="60", '),
    ],
)
def test_a_step_up_challenge_names_what_the_route_needs(
    acr_values: tuple[str, ...], max_age: int | None, asked: str
) -> None:
    error = used(InsufficientUserAuthentication("m", acr_values=acr_values, max_age=max_age), "DPoP")
    assert challenges(error, STRICT) == [
        f'DPoP error="insufficient_user_authentication", error_description="m", {asked}{ALGS}'
    ]


def test_exactly_one_nonce_and_only_where_one_is_needed() -> None:
    response = error_response(UseDPoPNonce("m", nonce="abc"), STRICT)
    assert values(response, "dpop-nonce") == ["abc"]
    assert not values(error_response(InvalidDPoPProof("m"), STRICT), "dpop-nonce")
    assert nonce_headers("abc") == (("dpop-nonce", "abc"), ("cache-control", "no-store"))


def test_unavailable_says_when_to_come_again() -> None:
    response = error_response(Unavailable("m", retry_after=7), MIXED)
    assert values(response, "retry-after") == ["7"]
    assert not values(error_response(InvalidToken("m"), MIXED), "retry-after")


@given(st.text())
def test_no_text_of_a_verifier_breaks_a_challenge(description: str) -> None:
    response = error_response(InvalidToken(description), MIXED)
    for name, value in response.headers:
        assert re.fullmatch(r"[\x20-\x7e]*", name + value)
    for challenge in values(response, "www-authenticate"):
        assert challenge.count('"') in (4, 6)
        assert "\\" not in challenge
    assert json.loads(response.body)["error_description"] == description


def test_our_own_descriptions_pass_unchanged() -> None:
    seen = 0
    for path in Path(dpop_middleware.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                kind = getattr(dpop_middleware.errors, node.func.id, None)
                if isinstance(kind, type) and issubclass(kind, DPoPError):
                    text = node.args[0]
                    if isinstance(text, ast.Constant):
                        assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]+", str(text.value)), text.value
                        seen += 1
    assert seen > 20


def test_every_challenge_names_the_url_of_the_metadata() -> None:
    where = f'resource_metadata="{API}/.well-known/oauth-protected-resource"'

    def told(error: DPoPError, policy: DPoPPolicy) -> list[str]:
        return values(error_response(error, policy, metadata=METADATA), "www-authenticate")

    assert told(MissingCredentials("m"), STRICT) == [f"DPoP {ALGS}, {where}"]
    assert told(MissingCredentials("m"), MIXED) == [f"Bearer {where}", f"DPoP {ALGS}, {where}"]
    (challenge,) = told(used(InvalidToken("m"), "DPoP"), STRICT)
    assert challenge == f'DPoP error="invalid_token", error_description="m", {ALGS}, {where}'
    assert told(Unavailable("m"), MIXED) == []
    assert "resource_metadata" not in str(challenges(MissingCredentials("m"), MIXED))


def test_a_response_is_made_once_for_each_kind_of_error() -> None:
    first, again = (error_response(InvalidToken("m"), STRICT, metadata=METADATA) for _ in range(2))
    assert first is again
    assert error_response(InvalidToken("m"), STRICT) is not first
