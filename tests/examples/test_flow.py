"""examples/flow: its servers, called and attacked by hand; test_flow_page.py plays its page."""

import base64
import json
import re
import socket
import subprocess
from collections.abc import Generator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from dpop_middleware.authorization_server import CHECKS
from dpop_middleware.checks import CHECKS_OF_A_JWT, Check
from dpop_middleware.client import DPoPAuth, DPoPKey, pkce_pair
from examples.flow.decisions import EXPLANATIONS, HEADER, check_list
from examples.flow.kept import Kept
from tests.support.flow import COMMAND, HOUSE, Flow, decision_of, running_flow

KEY = DPoPKey.generate("ES256")
PKCE = pkce_pair()


@pytest.fixture(scope="module")
def flow() -> Generator[Flow]:
    with running_flow() as origins:
        yield origins


@pytest.fixture
def client() -> Generator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as one:
        yield one


def test_the_whole_flow_runs_without_a_browser() -> None:
    done = subprocess.run(
        [*COMMAND, "--port", "0", "--check"],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert re.search(r"GET /accounts +200 .*user123", done.stdout)
    assert re.search(r"GET /vault +200 ", done.stdout)


def test_a_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)],
            cwd=HOUSE,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    assert done.returncode == 1
    assert f"port {port} or one of the next two can't be used" in done.stdout
    assert done.stderr == ""


def test_every_check_is_explained() -> None:
    assert set(EXPLANATIONS) == set(CHECKS_OF_A_JWT)
    assert all(text.endswith(".") for text in EXPLANATIONS.values())


def test_checks_after_a_failure_are_not_reached() -> None:
    checks = (Check.HTM, Check.HTU, Check.NONCE, Check.JTI)
    assert check_list(checks, failed=Check.HTU, not_asked=()) == [
        ("htm", "passed"),
        ("htu", "failed"),
        ("nonce", "not reached"),
        ("jti", "not reached"),
    ]
    assert check_list(checks, failed=None, not_asked={Check.NONCE}) == [
        ("htm", "passed"),
        ("htu", "passed"),
        ("nonce", "not asked"),
        ("jti", "passed"),
    ]


def test_kept_values_expire_and_are_bounded() -> None:
    kept = Kept[int](lifetime=60, at_most=2)
    first, second, third = (kept.put(number) for number in range(3))
    assert (kept.get(first), kept.get(second), kept.take(third), kept.take(third)) == (None, 1, 2, None)
    expired = Kept[int](lifetime=-1)
    assert expired.take(expired.put(1)) is None


def authorize(client: httpx2.Client, flow: Flow, decision: str = "allow", **changes: str) -> httpx2.Response:
    """Ask for a code and decide; the answer is the last redirect, or the page that refuses."""
    parameters = {
        "response_type": "code",
        "client_id": "my_client",
        "redirect_uri": f"{flow.page}/",
        "state": "a-state",
        "code_challenge": PKCE.code_challenge,
        "code_challenge_method": "S256",
        "dpop_jkt": KEY.jkt,
    }
    asked = client.get(f"{flow.issuer}/authorize", params=parameters | changes)
    name = re.search(r'name="request" value="([^"]+)"', asked.text)
    if name is None:
        return asked
    return client.post(f"{flow.issuer}/authorize", data={"request": name[1], "decision": decision})


def answer_of(response: httpx2.Response) -> dict[str, str]:
    query = parse_qs(urlsplit(response.headers["location"]).query)
    return {name: value for name, (value,) in query.items()}


def ask_for_a_token(
    client: httpx2.Client, flow: Flow, *, key: DPoPKey = KEY, **changes: str
) -> httpx2.Response:
    form = {
        "grant_type": "authorization_code",
        "client_id": "my_client",
        "redirect_uri": f"{flow.page}/",
        "code_verifier": PKCE.code_verifier,
    }
    return client.post(f"{flow.issuer}/token", data=form | changes, auth=DPoPAuth(key))


def tokens(client: httpx2.Client, flow: Flow) -> dict[str, Any]:
    code = answer_of(authorize(client, flow))["code"]
    response = ask_for_a_token(client, flow, code=code)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    return dict(response.json())


def test_the_metadata_is_the_issuers_own(client: httpx2.Client, flow: Flow) -> None:
    metadata = client.get(f"{flow.issuer}/.well-known/oauth-authorization-server").json()
    assert metadata["issuer"] == flow.issuer
    assert metadata["dpop_signing_alg_values_supported"] == ["ES256"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    (jwk,) = client.get(metadata["jwks_uri"]).json()["keys"]
    assert "d" not in jwk


@pytest.mark.parametrize(
    "changes",
    [{"client_id": "another"}, {"redirect_uri": "https://evil.example"}, {"redirect_uri": ""}],
)
def test_no_user_is_redirected_to_an_unknown_client(
    client: httpx2.Client, flow: Flow, changes: dict[str, str]
) -> None:
    response = authorize(client, flow, **changes)
    assert response.status_code == 400
    assert "location" not in response.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"dpop_jkt": "<b>"}, "invalid_request"),
    ],
)
def test_a_bad_authorization_request_goes_back_with_an_error(
    client: httpx2.Client, flow: Flow, changes: dict[str, str], error: str
) -> None:
    answer = answer_of(authorize(client, flow, **changes))
    assert answer == {"error": error, "state": "a-state", "iss": flow.issuer}


def test_the_user_may_refuse_consent(client: httpx2.Client, flow: Flow) -> None:
    assert answer_of(authorize(client, flow, decision="deny"))["error"] == "access_denied"
    made_up = client.post(f"{flow.issuer}/authorize", data={"request": "made-up", "decision": "allow"})
    assert made_up.status_code == 400


def test_the_consent_page_can_not_be_framed(client: httpx2.Client, flow: Flow) -> None:
    response = client.get(
        f"{flow.issuer}/authorize",
        params={
            "response_type": "code",
            "client_id": "my_client",
            "redirect_uri": f"{flow.page}/",
            "code_challenge": PKCE.code_challenge,
            "code_challenge_method": "S256",
        },
    )
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"


def test_the_token_has_the_claims_of_the_sample(client: httpx2.Client, flow: Flow) -> None:
    answer = tokens(client, flow)
    assert answer["token_type"] == "DPoP"
    header, claims = (
        json.loads(base64.urlsafe_b64decode(part + "==")) for part in answer["access_token"].split(".")[:2]
    )
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    assert claims.keys() == {"iss", "sub", "aud", "exp", "iat", "client_id", "jti", "cnf"}
    assert (claims["iss"], claims["sub"], claims["aud"]) == (flow.issuer, "user123", flow.resource)
    assert (claims["cnf"], claims["exp"] - claims["iat"]) == ({"jkt": KEY.jkt}, 3600)


def test_a_code_works_once_and_for_its_own_client_only(client: httpx2.Client, flow: Flow) -> None:
    other_verifier = pkce_pair().code_verifier
    for changes, error, check in (
        ({"code": "made-up"}, "invalid_grant", None),
        ({"code_verifier": other_verifier}, "invalid_grant", None),
        ({"code_verifier": ""}, "invalid_grant", None),
        ({"client_id": "another"}, "invalid_grant", None),
        ({"redirect_uri": "https://evil.example"}, "invalid_grant", None),
        ({"grant_type": "password"}, "unsupported_grant_type", None),
        ({"key": "another"}, "invalid_grant", "jkt"),
    ):
        code = answer_of(authorize(client, flow))["code"]
        key = DPoPKey.generate("ES256") if "key" in changes else KEY
        form = {name: value for name, value in changes.items() if name != "key"}
        response = ask_for_a_token(client, flow, key=key, **({"code": code} | form))
        assert (response.status_code, response.json()["error"]) == (400, error), changes
        assert decision_of(response)["check"] == check
    code = answer_of(authorize(client, flow))["code"]
    assert ask_for_a_token(client, flow, code=code).status_code == 200
    assert ask_for_a_token(client, flow, code=code).json()["error"] == "invalid_grant"


def test_without_a_proof_there_is_no_token(client: httpx2.Client, flow: Flow) -> None:
    response = client.post(f"{flow.issuer}/token", data={"grant_type": "authorization_code"})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_dpop_proof")
    decision = decision_of(response)
    assert [name for name, _ in decision["checks"]] == [*CHECKS, "jkt"]
    assert decision["checks"][:2] == [["one_header", "failed"], ["format", "not reached"]]


def test_a_refresh_token_is_bound_and_rotated(client: httpx2.Client, flow: Flow) -> None:
    def refresh(token: str, key: DPoPKey = KEY) -> httpx2.Response:
        return ask_for_a_token(client, flow, key=key, grant_type="refresh_token", refresh_token=token)

    first = tokens(client, flow)["refresh_token"]
    stolen = refresh(first, DPoPKey.generate("ES256"))
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    assert decision_of(stolen)["check"] == "jkt"
    renewed = refresh(first)
    assert renewed.status_code == 200
    assert refresh(first).json()["error"] == "invalid_grant"
    assert refresh(renewed.json()["refresh_token"]).status_code == 200


def test_the_api_reports_its_decision_and_no_secret(client: httpx2.Client, flow: Flow) -> None:
    token = tokens(client, flow)["access_token"]
    url = f"{flow.resource}/accounts"
    proof = KEY.proof("GET", url, access_token=token)
    headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
    accepted = decision_of(client.get(url, headers=headers))
    assert (accepted["outcome"], accepted["check"]) == ("accepted", None)
    assert [name for name, _ in accepted["checks"]] == [check.value for check in CHECKS_OF_A_JWT]
    states = dict(accepted["checks"])
    assert {name for name, state in states.items() if state != "passed"} == {
        "nonce",
        "scope",
        "authentication",
    }
    replayed = client.get(url, headers=headers)
    assert decision_of(replayed)["check"] == "jti"
    assert token not in replayed.headers[HEADER]
    assert proof not in replayed.headers[HEADER]


def test_a_check_that_was_not_made_has_no_tick(client: httpx2.Client, flow: Flow) -> None:
    bearer = client.get(f"{flow.resource}/accounts", headers={"Authorization": "Bearer nonsense"})
    states = dict(decision_of(bearer)["checks"])
    assert states["binding"] == "failed"
    assert (states["token_signature"], states["one_header"]) == ("not asked", "not asked")


@pytest.mark.parametrize("path", ["/accounts", "/transfers", "/vault", "/", "/unknown", "/vault/"])
def test_nothing_of_the_api_is_open(client: httpx2.Client, flow: Flow, path: str) -> None:
    response = client.get(flow.resource + path)
    assert response.status_code == 401
    assert decision_of(response)["check"] == "authorization"


def test_only_the_page_may_read_the_answers(client: httpx2.Client, flow: Flow) -> None:
    def preflight(url: str, origin: str) -> httpx2.Response:
        return client.options(
            url,
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization,dpop",
            },
        )

    url = f"{flow.resource}/accounts"
    assert preflight(url, flow.page).headers["access-control-allow-origin"] == flow.page
    assert "access-control-allow-origin" not in preflight(url, "https://evil.example").headers
    refused = client.get(url, headers={"Origin": flow.page})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == flow.page
    assert HEADER in refused.headers["access-control-expose-headers"]


def test_the_page_needs_nothing_from_elsewhere(client: httpx2.Client, flow: Flow) -> None:
    response = client.get(flow.page)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    websocket = flow.resource.replace("http", "ws", 1)
    assert f"connect-src 'self' {flow.issuer} {flow.resource} {websocket};" in policy
    for path in ("/index.html", "/main.js", "/style.css"):
        assert not re.search(r"https?://", client.get(flow.page + path).text)
