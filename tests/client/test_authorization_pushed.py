"""Pushed authorization requests (RFC 9126), over real sockets, with every kind of client."""

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2
import pytest

from dpop_middleware.client import (
    DPoPAuth,
    DPoPKey,
    PushedAuthorizationRequest,
    TokenRequestError,
    push_authorization_request,
    push_authorization_request_async,
)
from dpop_middleware.client.authorization import PushedRequestOptions
from dpop_middleware.errors import ConfigurationError
from tests.support.clients import CLIENTS, Answer, Answering, Caller, Handler, Seen, awaited, caller

KEY = DPoPKey.generate()
JSON = {"content-type": "application/json"}
REQUEST_URI = "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c"


def taking(**changes: Any) -> Handler:
    answer = {"request_uri": REQUEST_URI, "expires_in": 60} | changes
    content = json.dumps({name: value for name, value in answer.items() if value is not ...}).encode()
    return lambda _: Answer(201, JSON, content)


async def push(client: Caller, url: str, **arguments: Any) -> PushedAuthorizationRequest:
    options: dict[str, Any] = {
        "key": KEY,
        "client_id": "my_client",
        "redirect_uri": "https://app.example/cb",
        "code_challenge": "challenge",
        **arguments,
    }
    if client.is_async:
        return await push_authorization_request_async(client.client, url, **options)
    return await asyncio.to_thread(push_authorization_request, client.client, url, **options)


def form(seen: Seen) -> dict[str, str]:
    return dict(parse_qsl(seen.body.decode(), strict_parsing=True))


@pytest.mark.parametrize("kind", CLIENTS)
class TestEveryClient:
    async def test_a_pushed_request_has_the_parameters_and_a_proof(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(taking()) as server:
            async with caller(kind) as client:
                pushed = await push(
                    client,
                    f"{server.origin}/par",
                    state="s",
                    scopes=["openid", "notes:read"],
                    resource="https://api.example",
                    parameters={"nonce": "n"},
                )
        (seen,) = server.seen
        assert form(seen) == {
            "response_type": "code",
            "client_id": "my_client",
            "redirect_uri": "https://app.example/cb",
            "code_challenge": "challenge",
            "code_challenge_method": "S256",
            "dpop_jkt": KEY.jkt,
            "state": "s",
            "scope": "openid notes:read",
            "resource": "https://api.example",
            "nonce": "n",
        }
        assert (seen.proof["htm"], seen.proof["htu"]) == ("POST", f"{server.origin}/par")
        assert "ath" not in seen.proof
        assert (pushed.request_uri, pushed.expires_in) == (REQUEST_URI, 60)

    async def test_several_resources_are_pushed_one_by_one(self, kind: str, answering: Answering) -> None:
        resources = ["https://api.example", "https://files.example"]
        with answering(taking()) as server:
            async with caller(kind) as client:
                await push(client, f"{server.origin}/par", resource=resources)
        (seen,) = server.seen
        assert parse_qs(seen.body.decode())["resource"] == resources

    async def test_one_nonce_challenge_is_answered(self, kind: str, answering: Answering) -> None:
        def handler(seen: Seen) -> Answer:
            if "nonce" in seen.proof:
                return taking()(seen)
            content = json.dumps({"error": "use_dpop_nonce"}).encode()
            return Answer(400, {**JSON, "dpop-nonce": "fresh"}, content)

        with answering(handler) as server:
            async with caller(kind) as client:
                pushed = await push(client, f"{server.origin}/par", key=DPoPAuth(KEY))
        first, second = server.seen
        assert "nonce" not in first.proof
        assert second.proof["nonce"] == "fresh"
        assert form(second)["dpop_jkt"] == KEY.jkt
        assert pushed.request_uri == REQUEST_URI


@pytest.mark.parametrize(
    ("options", "field", "in_form"),
    [
        ({}, None, {}),
        ({"client_secret": "s3:cret"}, "Basic bXlfY2xpZW50OnMzJTNBY3JldA==", {}),
        ({"client_secret": "s", "client_authentication": "post"}, None, {"client_secret": "s"}),
    ],
    ids=["a public client", "basic", "post"],
)
async def test_the_client_is_authenticated_as_at_the_token_endpoint(
    options: dict[str, str], field: str | None, in_form: dict[str, str], answering: Answering
) -> None:
    with answering(taking()) as server:
        async with caller("httpx2-async") as client:
            await push(client, f"{server.origin}/par", **options)
    (seen,) = server.seen
    assert seen.all("authorization") == ([] if field is None else [field])
    # It is a parameter of the request too, whatever the client authentication.
    assert form(seen)["client_id"] == "my_client"
    assert form(seen).items() >= in_form.items()
    assert ("client_secret" in form(seen)) == bool(in_form)


def test_the_url_for_the_browser_has_only_the_client_and_the_request_uri() -> None:
    pushed = PushedAuthorizationRequest(client_id="my client", request_uri=REQUEST_URI, expires_in=None)
    for endpoint in ("https://auth.example/authorize", "https://auth.example/authorize?tenant=a"):
        url = pushed.authorization_url(endpoint)
        assert url.startswith(endpoint)
        asked = parse_qs(urlsplit(url).query)
        asked.pop("tenant", None)
        assert asked == {"client_id": ["my client"], "request_uri": [REQUEST_URI]}
    with pytest.raises(ConfigurationError, match="endpoint"):
        pushed.authorization_url("http://auth.example/authorize")
    named = pushed.authorization_url("http://auth.example/authorize", insecure_http_hosts=["auth.example"])
    assert named.startswith("http://auth.example/")


@pytest.mark.parametrize(
    ("answer", "message", "error"),
    [
        (
            Answer(400, JSON, b'{"error":"invalid_dpop_proof","error_description":"no proof"}'),
            r"the endpoint for pushed requests refused: invalid_dpop_proof \(HTTP 400\): no proof",
            "invalid_dpop_proof",
        ),
        (Answer(200, JSON, b"{}"), r"refused: no OAuth error \(HTTP 200\)", None),
        (Answer(201, JSON, b"<html>"), "answer of the endpoint for pushed requests is not", None),
        (taking(request_uri="")(Seen("", "", (), b"")), "has no request_uri", None),
        (taking(request_uri=["a"])(Seen("", "", (), b"")), "request_uri is not a string", None),
        (taking(expires_in="soon")(Seen("", "", (), b"")), "expires_in is not a number of seconds", None),
        (
            Answer(302, {"location": "https://elsewhere.example"}),
            r"refused: no OAuth error \(HTTP 302\)",
            None,
        ),
    ],
    ids=["refused", "another status", "no JSON", "empty", "a list", "no seconds", "a redirect"],
)
async def test_an_answer_that_is_no_success_is_an_error_that_says_why(
    answer: Answer, message: str, error: str | None, answering: Answering
) -> None:
    with answering(lambda _: answer) as server:
        async with caller("httpx2-async") as client:
            with pytest.raises(TokenRequestError, match=message) as caught:
                await push(client, f"{server.origin}/par")
    assert len(server.seen) == 1
    assert (caught.value.status, caught.value.error) == (answer.status, error)


async def test_plain_http_to_another_machine_is_refused_before_anything_is_sent() -> None:
    async with caller("httpx2-async") as client:
        with pytest.raises(ConfigurationError, match="endpoint"):
            await push(client, "http://auth.example/par")


@pytest.mark.parametrize("push", [push_authorization_request, push_authorization_request_async])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code_challenge": ...}, "code_challenge takes the code_challenge of a pkce_pair(), not None"),
        ({"code_challenge": b"x"}, "code_challenge takes the code_challenge of a pkce_pair(), not a bytes"),
        ({"redirect_uri": ...}, "redirect_uri takes the client's URL, not None"),
        ({"client_id": ...}, "client_id takes a non-empty string, not a NoneType"),
        ({"key": ...}, "key takes a DPoPKey or a DPoPAuth, not None"),
        ({"key": "-----BEGIN PRIVATE KEY-----"}, "key takes a DPoPKey or a DPoPAuth, not a str"),
        (
            {"scope": "notes:read"},
            f"{{name}} takes {', '.join(sorted(PushedRequestOptions.__annotations__))}, not 'scope'",
        ),
    ],
)
async def test_an_argument_that_is_missing_or_wrong_is_named_before_anything_is_sent(
    push: Any, changes: dict[str, Any], message: str
) -> None:
    given = {"key": KEY, "client_id": "c", "redirect_uri": "https://app.example/cb", "code_challenge": "x"}
    given = {name: value for name, value in (given | changes).items() if value is not ...}
    is_async = push is push_authorization_request_async
    client = httpx2.AsyncClient() if is_async else httpx2.Client()
    with pytest.raises(ConfigurationError) as caught:
        await awaited(push(client, "https://auth.example/par", **given))
    assert str(caught.value) == message.format(name=push.__name__)
