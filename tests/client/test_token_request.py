"""Token requests of the three grants, over real sockets, with every kind of client."""

import asyncio
import base64
import importlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import pytest

from dpop_middleware.client import (
    AuthorizationCode,
    ClientCredentials,
    DPoPAuth,
    DPoPKey,
    RefreshToken,
    TokenRequestError,
    TokenResponse,
    fetch_token,
    fetch_token_async,
    pkce_pair,
    push_authorization_request,
    push_authorization_request_async,
)
from dpop_middleware.client.token_request import TokenRequestOptions
from dpop_middleware.errors import ConfigurationError
from tests.support.clients import CLIENTS, Answer, Answering, Caller, Handler, Seen, awaited, caller

KEY = DPoPKey.generate()
JSON = {"content-type": "application/json"}


def granting(**changes: Any) -> Handler:
    answer = {"access_token": "token", "token_type": "DPoP", "expires_in": 300} | changes
    content = json.dumps({name: value for name, value in answer.items() if value is not ...}).encode()
    return lambda _: Answer(200, JSON, content)


async def fetch(client: Caller, url: str, grant: Any, **arguments: Any) -> TokenResponse:
    arguments.setdefault("key", KEY)
    arguments.setdefault("client_id", "my_client")
    if client.is_async:
        return await fetch_token_async(client.client, url, grant, **arguments)
    return await asyncio.to_thread(fetch_token, client.client, url, grant, **arguments)


def form(seen: Seen) -> dict[str, str]:
    return dict(parse_qsl(seen.body.decode(), strict_parsing=True))


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("grant", "parameters"),
    [
        (
            AuthorizationCode(code="c", redirect_uri="https://app/cb", code_verifier="v"),
            {
                "grant_type": "authorization_code",
                "code": "c",
                "redirect_uri": "https://app/cb",
                "code_verifier": "v",
            },
        ),
        (ClientCredentials(), {"grant_type": "client_credentials"}),
        (RefreshToken(refresh_token="r"), {"grant_type": "refresh_token", "refresh_token": "r"}),
    ],
)
class TestEveryGrantAndClient:
    async def test_a_token_request_has_a_proof_for_the_token_endpoint(
        self, kind: str, grant: Any, parameters: dict[str, str], answering: Answering
    ) -> None:
        with answering(granting(scope="notes:read", refresh_token="next")) as server:
            async with caller(kind) as client:
                token = await fetch(
                    client, f"{server.origin}/token", grant, scopes=["notes:read"], resource="https://api"
                )
        (seen,) = server.seen
        assert form(seen) == parameters | {
            "client_id": "my_client",
            "scope": "notes:read",
            "resource": "https://api",
        }
        assert (seen.method, seen.proof["htm"], seen.proof["htu"]) == (
            "POST",
            "POST",
            f"{server.origin}/token",
        )
        assert "ath" not in seen.proof
        assert seen.all("authorization") == []
        assert seen.all("content-type") == ["application/x-www-form-urlencoded"]
        assert (token.access_token, token.token_type, token.expires_in) == ("token", "DPoP", 300)
        assert (token.scope, token.refresh_token) == ("notes:read", "next")
        assert token.parameters["scope"] == "notes:read"

    async def test_a_token_request_answers_a_nonce_challenge(
        self, kind: str, grant: Any, parameters: dict[str, str], answering: Answering
    ) -> None:
        def handler(seen: Seen) -> Answer:
            if seen.proof.get("nonce") == "n":
                return granting()(seen)
            return Answer(400, JSON | {"dpop-nonce": "n"}, b'{"error": "use_dpop_nonce"}')

        auth = DPoPAuth(KEY)
        with answering(handler) as server:
            async with caller(kind) as client:
                for _ in range(2):
                    assert (await fetch(client, server.origin, grant, key=auth)).access_token == "token"
        assert [seen.proof.get("nonce") for seen in server.seen] == [None, "n", "n"]
        assert all(form(seen).items() >= parameters.items() for seen in server.seen)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_the_answer_to_a_nonce_challenge_has_a_client_assertion_of_its_own(
    kind: str, answering: Answering
) -> None:
    def handler(seen: Seen) -> Answer:
        if "nonce" in seen.proof:
            return granting()(seen)
        return Answer(400, JSON | {"dpop-nonce": "n"}, b'{"error": "use_dpop_nonce"}')

    # Of another length each time.
    made: list[str] = []

    def assertion() -> dict[str, str]:
        made.append("x" * (len(made) + 1))
        return {"client_assertion": made[-1]}

    with answering(handler) as server:
        async with caller(kind) as client:
            for _ in range(2):
                await fetch(client, server.origin, ClientCredentials(), parameters=assertion)
    assert [form(seen)["client_assertion"] for seen in server.seen] == made == ["x", "xx", "xxx", "xxxx"]
    assert [seen.all("content-length") for seen in server.seen] == [
        [str(len(seen.body))] for seen in server.seen
    ]
    assert {form(seen)["client_id"] for seen in server.seen} == {"my_client"}


@pytest.mark.parametrize("library", ["httpx2", "httpx"])
def test_hooks_and_mock_transports_see_the_client_assertion_that_is_sent(library: str) -> None:
    module = importlib.import_module(library)
    numbers, contents = iter("12"), list[bytes]()

    def answer(request: Any) -> Any:
        assert request.content == b"".join(request.stream)
        contents.append(request.content)
        if len(contents) == 1:
            return module.Response(400, headers={"dpop-nonce": "n"}, json={"error": "use_dpop_nonce"})
        return module.Response(200, json={"access_token": "token", "token_type": "DPoP"})

    with module.Client(transport=module.MockTransport(answer)) as client:
        fetch_token(
            client,
            "https://as.example.test/token",
            ClientCredentials(),
            key=KEY,
            client_id="my_client",
            parameters=lambda: {"client_assertion": next(numbers)},
        )
    assert [content[-1:] for content in contents] == [b"1", b"2"]


@pytest.mark.parametrize("none", [None, ""])
async def test_an_error_that_is_none_is_no_refusal(none: object, answering: Answering) -> None:
    handler = granting(error=none, error_description=none, error_uri=none, scope=None, refresh_token=None)
    with answering(handler) as server:
        async with caller(CLIENTS[0]) as client:
            token = await fetch(client, server.origin, ClientCredentials())
    assert (token.access_token, token.scope, token.refresh_token) == ("token", None, None)


@pytest.fixture
def kind() -> str:
    return "httpx2-async"


class TestClientAuthentication:
    async def test_basic_authentication_encodes_both_parts(self, kind: str, answering: Answering) -> None:
        with answering(granting()) as server:
            async with caller(kind) as client:
                await fetch(
                    client, server.origin, ClientCredentials(), client_id="a:b c", client_secret="ü/?+"
                )
        (value,) = server.seen[0].all("authorization")
        assert base64.b64decode(value.removeprefix("Basic ")) == b"a%3Ab+c:%C3%BC%2F%3F%2B"
        assert form(server.seen[0]) == {"grant_type": "client_credentials"}

    async def test_post_authentication_puts_the_secret_into_the_form(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(granting()) as server:
            async with caller(kind) as client:
                await fetch(
                    client,
                    server.origin,
                    ClientCredentials(),
                    client_secret="secret",
                    client_authentication="post",
                )
        assert server.seen[0].all("authorization") == []
        assert form(server.seen[0])["client_secret"] == "secret"

    async def test_other_kinds_of_authentication_use_parameters(
        self, kind: str, answering: Answering
    ) -> None:
        with answering(granting()) as server:
            async with caller(kind) as client:
                await fetch(
                    client, server.origin, ClientCredentials(), parameters={"client_assertion": "jwt"}
                )
        assert form(server.seen[0])["client_assertion"] == "jwt"


class TestAnswer:
    @pytest.mark.parametrize(
        ("changes", "expires_in"),
        [
            ({}, 300),
            ({"expires_in": "3600"}, 3600),
            ({"expires_in": 0.5}, 0.5),
            ({"expires_in": ...}, None),
            ({"expires_in": None}, None),
            ({"token_type": "dpop", "unknown": [1]}, 300),
        ],
    )
    async def test_an_answer_is_read_as_servers_write_it(
        self, changes: dict[str, Any], expires_in: float | None, kind: str, answering: Answering
    ) -> None:
        with answering(granting(**changes)) as server:
            async with caller(kind) as client:
                token = await fetch(client, server.origin, ClientCredentials())
        assert token.expires_in == expires_in
        assert (token.scope, token.refresh_token) == (None, None)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"token_type": "Bearer"}, "token_type is not DPoP"),
            ({"token_type": ...}, "token_type is not DPoP"),
            ({"token_type": 7}, "token_type is not DPoP"),
            ({"access_token": ...}, "no access_token"),
            ({"access_token": ""}, "no access_token"),
            ({"access_token": ["t"]}, "no access_token"),
            ({"access_token": "t\r\nX: y"}, "no access_token"),
            ({"access_token": "a b"}, "no access_token"),
            ({"access_token": "tü"}, "no access_token"),
            ({"expires_in": "soon"}, "expires_in"),
            ({"expires_in": "9" * 16}, "expires_in"),
            ({"expires_in": "²"}, "expires_in"),
            ({"expires_in": True}, "expires_in"),
            ({"expires_in": -1}, "expires_in"),
            ({"scope": ["notes:read"]}, "scope is not a string"),
            ({"scope": "notes:read\x1b[2J"}, "scope is not a string"),
            ({"refresh_token": 7}, "refresh_token is not a string"),
            ({"refresh_token": "r\n"}, "refresh_token is not a string of visible characters"),
        ],
    )
    async def test_an_answer_without_a_dpop_token_is_an_error(
        self, changes: dict[str, Any], message: str, kind: str, answering: Answering
    ) -> None:
        with answering(granting(**changes)) as server:
            async with caller(kind) as client:
                with pytest.raises(TokenRequestError, match=message) as caught:
                    await fetch(client, server.origin, ClientCredentials())
        assert (caught.value.status, caught.value.error) == (200, None)

    @pytest.mark.parametrize(
        ("status", "body", "error", "message"),
        [
            (
                400,
                b'{"error": "invalid_grant", "error_description": "code used"}',
                "invalid_grant",
                r"refused: invalid_grant \(HTTP 400\): code used$",
            ),
            (401, b'{"error": "invalid_client"}', "invalid_client", r"invalid_client \(HTTP 401\)$"),
            (200, b'{"error": "invalid_grant"}', "invalid_grant", "refused: invalid_grant"),
            (400, b'{"error": "a\\nb", "error_description": "c\\nd"}', None, r"no OAuth error \(HTTP 400\)$"),
            (400, b'{"error": 7}', None, "no OAuth error"),
            (502, b"<html>", None, r"no OAuth error \(HTTP 502\)$"),
            (500, b"[]", None, "no OAuth error"),
            (500, b"", None, "no OAuth error"),
            (302, b"", None, r"HTTP 302"),
            (200, b"{" + b" " * 70_000 + b"}", None, "not a JSON object of at most 64 KiB"),
            (200, b"<html>", None, "the answer of the token endpoint is not a JSON object"),
        ],
    )
    async def test_a_refusal_is_an_error(
        self, status: int, body: bytes, error: str | None, message: str, kind: str, answering: Answering
    ) -> None:
        with answering(lambda _: Answer(status, JSON | {"location": "/elsewhere"}, body)) as server:
            async with caller(kind, follow_redirects=True) as client:
                with pytest.raises(TokenRequestError, match=message) as caught:
                    await fetch(client, server.origin, ClientCredentials())
        assert (caught.value.status, caught.value.error) == (status, error)
        assert len(server.seen) == 1

    async def test_the_repr_of_an_answer_has_no_secrets(self, kind: str, answering: Answering) -> None:
        with answering(granting(access_token="s3cret-1", refresh_token="s3cret-2")) as server:
            async with caller(kind) as client:
                token = await fetch(client, server.origin, ClientCredentials())
        assert "s3cret" not in repr(token)
        for grant in (
            AuthorizationCode(code="s3cret", redirect_uri="https://app/cb", code_verifier="s3cret"),
            RefreshToken(refresh_token="s3cret"),
        ):
            assert "s3cret" not in repr(grant)


async def test_an_auth_that_follows_redirects_is_refused(kind: str) -> None:
    auth = DPoPAuth(KEY, follow_redirects=True)
    async with caller(kind) as client:
        with pytest.raises(ValueError, match="follows no redirect"):
            await fetch(client, "http://127.0.0.1:1/", ClientCredentials(), key=auth)


async def test_an_auth_with_a_token_is_refused(kind: str) -> None:
    async with caller(kind) as client:
        with pytest.raises(ValueError, match=r"use DPoPAuth\(key\)"):
            await fetch(client, "http://127.0.0.1:1/", ClientCredentials(), key=DPoPAuth(KEY, "token"))


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_secret_is_not_sent_in_the_clear(kind: str) -> None:
    for url, base in (("http://auth.example.com/token", ""), ("/token", "http://auth.example.com")):
        async with caller(kind, base_url=base) as client:
            with pytest.raises(ConfigurationError, match=r"insecure_http_hosts=\('auth.example.com',\)"):
                await fetch(client, url, ClientCredentials(), client_secret="s")


def test_where_plain_http_is_allowed_the_request_has_its_proof() -> None:
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, json={"access_token": "token", "token_type": "DPoP"})

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as client:
        fetch_token(
            client,
            "http://auth.internal/token",
            ClientCredentials(),
            key=KEY,
            client_id="my_client",
            insecure_http_hosts=["auth.internal"],
        )
    assert "DPoP" in sent[0].headers


OPTIONS = sorted(TokenRequestOptions.__annotations__)
GRANTS = "an AuthorizationCode(…), a ClientCredentials() or a RefreshToken(…)"


@pytest.mark.parametrize("fetch", [fetch_token, fetch_token_async])
@pytest.mark.parametrize(
    ("grant", "changes", "message"),
    [
        (ClientCredentials(), {"client_id": ...}, "client_id takes a non-empty string, not a NoneType"),
        (ClientCredentials(), {"key": ...}, "key takes a DPoPKey or a DPoPAuth, not None"),
        (ClientCredentials(), {"scope": "a"}, f"{{name}} takes {', '.join(OPTIONS)}, not 'scope'"),
        ("client_credentials", {}, f"grant takes {GRANTS}, not a str"),
        (ClientCredentials, {}, f"grant takes {GRANTS}, not {ClientCredentials!r}"),
    ],
)
async def test_an_argument_that_is_missing_or_wrong_is_named_before_anything_is_sent(
    fetch: Any, grant: Any, changes: dict[str, Any], message: str
) -> None:
    given = {"key": KEY, "client_id": "c"} | changes
    given = {name: value for name, value in given.items() if value is not ...}
    client = httpx2.Client() if fetch is fetch_token else httpx2.AsyncClient()
    with pytest.raises(ConfigurationError) as caught:
        await awaited(fetch(client, "https://auth.example/token", grant, **given))
    assert str(caught.value) == message.format(name=fetch.__name__)


@pytest.mark.parametrize(
    ("fetch", "client", "takes"),
    [
        (fetch_token, httpx2.AsyncClient(), "a synchronous Client of httpx2 or httpx"),
        (fetch_token_async, httpx2.Client(), "an AsyncClient of httpx2 or httpx"),
        (fetch_token, None, "a client of httpx2 or httpx"),
        (fetch_token_async, httpx2, "a client of httpx2 or httpx"),
        (push_authorization_request, httpx2.AsyncClient(), "a synchronous Client of httpx2 or httpx"),
        (push_authorization_request_async, httpx2.Client(), "an AsyncClient of httpx2 or httpx"),
    ],
)
async def test_a_client_of_the_other_kind_is_refused_before_anything_is_sent(
    fetch: Any, client: Any, takes: str
) -> None:
    code: dict[str, Any] = {"redirect_uri": "https://c/", "code_challenge": "x"}
    of_a_token = fetch in (fetch_token, fetch_token_async)
    given: tuple[Any, dict[str, Any]] = ((ClientCredentials(),), {}) if of_a_token else ((), code)
    with pytest.raises(ConfigurationError) as caught:
        await awaited(fetch(client, "https://auth.example/", *given[0], key=KEY, client_id="c", **given[1]))
    assert str(caught.value) == f"client takes {takes}, not {client!r}"


# Some have a wrong type on purpose: a user without a type checker must be told.
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RefreshToken(refresh_token="r\n"), "refresh_token takes a non-empty string, not one with"),
        (lambda: RefreshToken(refresh_token=None), "refresh_token takes a non-empty string, not a NoneType"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (
            lambda: AuthorizationCode(code="", redirect_uri="https://c/", code_verifier="v"),
            "code takes a non-empty string, not an empty one",
        ),
        (
            lambda: AuthorizationCode(code="c", redirect_uri="https://c/", code_verifier=pkce_pair()),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
            "code_verifier takes a non-empty string, not a PKCE",
        ),
    ],
)
def test_a_grant_has_texts_only(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        make()
