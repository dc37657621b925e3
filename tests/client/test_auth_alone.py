"""Tests of DPoPAuth that need no particular client or server."""

import asyncio
import copy
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest

from dpop_middleware.client import DPoPAuth, DPoPKey, DPoPTransport, authorization_url
from dpop_middleware.client.auth import UncopiedHeaders
from dpop_middleware.errors import ConfigurationError
from tests.support.clients import NO_AUTHORITIES

KEY = DPoPKey.generate()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DPoPAuth(KEY.private_jwk()),  # type: ignore[arg-type] # a JWK is no key, on purpose
        lambda: DPoPTransport(KEY.private_jwk()),  # type: ignore[arg-type] # as above
        lambda: DPoPAuth(KEY, {"access_token": "s3cr3t"}),  # type: ignore[arg-type] # an answer is no token
        lambda: authorization_url(
            "https://auth.example.com/authorize",
            client_id="my_client",
            redirect_uri="https://app.example.com/back",
            code_challenge="challenge",
            key=KEY.private_jwk(),  # type: ignore[arg-type] # as above
        ),
    ],
)
def test_no_error_shows_a_private_jwk_or_a_token(wrong: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match=r"^(key|token) takes .*, not a dict$") as caught:
        wrong()
    assert not {KEY.private_jwk()["d"], "s3cr3t"} & set(re.findall(r"[\w-]+", str(caught.value)))


@pytest.mark.parametrize(
    "origin", ["", "api.example.com", "ftp://h", "https://", "https://h:99999", "https://ü"]
)
def test_an_origin_is_an_http_url(origin: str) -> None:
    with pytest.raises(ValueError, match=r"absolute|port"):
        DPoPAuth(KEY, "token", origin=origin)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("api.example.com", "api.example.com"),
        ("ftp://h", "ftp://h"),
        ("ftp://ann:s3cr3t@h", "ftp://...@h"),
        (["https://h", "/token"], "/token"),
    ],
)
def test_the_error_for_a_url_of_another_form_names_the_option_and_the_url(wrong: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^origin takes an https URL, not '{named}': "):
        DPoPAuth(KEY, "token", origin=wrong)
    for option in ("origin", "token_endpoint"):
        with pytest.raises(ConfigurationError, match=rf"^{option} takes an https URL, not '{named}': "):
            DPoPTransport(KEY, **{option: wrong})


@pytest.mark.parametrize("wrong", [5, 0, [5], [], b"https://h", [b"https://h"], [""]])
def test_the_error_for_a_value_that_is_no_url_names_the_option(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^origin takes a URL, or several, not "):
        DPoPAuth(KEY, "token", origin=wrong)
    for option in ("origin", "token_endpoint"):
        with pytest.raises(ConfigurationError, match=rf"^{option} takes a URL, or several, not "):
            DPoPTransport(KEY, **{option: wrong})


TOKENS = "an access token as a string, a function that returns it, such as source.token, or None"
TRANSPORTS = "a transport of httpx2 or httpx, such as httpx2.HTTPTransport(http2=True)"


# Some have a wrong type on purpose: a user without a type checker must be told.
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPoPAuth("the-secret", KEY), "key takes a DPoPKey, not a str"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: DPoPAuth(None, "token"), "key takes a DPoPKey, not None"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: DPoPAuth(KEY, b"the-secret"), f"token takes {TOKENS}, not a bytes"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: DPoPAuth(KEY, 5), f"token takes {TOKENS}, not 5"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: DPoPAuth(KEY, follow_redirects="no"), "follow_redirects takes True or False, not 'no'"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: DPoPTransport(KEY, "https://h"), f"transport takes {TRANSPORTS}, not a str"),
        (
            lambda: DPoPTransport(KEY, httpx2.HTTPTransport),
            f"transport takes {TRANSPORTS}, not {httpx2.HTTPTransport!r}",
        ),
    ],
)
def test_an_argument_of_another_type_is_named_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make()
    assert str(refused.value) == message


@pytest.mark.parametrize("nothing", [None, b"the-secret", 5])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_request_is_sent_where_the_callable_returns_no_token(nothing: Any, asynchronous: bool) -> None:
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200)

    transport = httpx2.MockTransport(answer)
    auth = DPoPAuth(KEY, lambda: nothing)

    async def ask() -> None:
        async with httpx2.AsyncClient(transport=transport, auth=auth) as client:
            await client.get("https://api.example.com/")

    says = f"the token callable returned a {type(nothing).__name__}, not an access token"
    with httpx2.Client(transport=transport, auth=auth) as client, pytest.raises(ValueError, match=says):
        asyncio.run(ask()) if asynchronous else client.get("https://api.example.com/")
    assert sent == []


def test_the_default_port_and_upper_case_are_of_the_same_origin() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200)

    auth = DPoPAuth(KEY, "token", origin="https://API.example.com:443")
    with httpx2.Client(transport=httpx2.MockTransport(handler), auth=auth) as client:
        for url in ("https://api.example.com/", "https://api.EXAMPLE.com:443/", "wss://api.example.com/"):
            client.get(url)
        for url in ("http://api.example.com/", "https://api.example.com:444/", "https://example.com/"):
            client.get(url)
    assert ["DPoP" in request.headers for request in seen] == [True] * 3 + [False] * 3


def test_two_threads_can_not_both_set_the_origin() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200)

    urls = [f"https://api{number}.example.com/" for number in range(40)]
    transport = httpx2.MockTransport(handler)
    auth = DPoPAuth(KEY, "token")
    with httpx2.Client(transport=transport, auth=auth) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(client.get, urls))
    assert sum("Authorization" in request.headers for request in seen) == 1


def test_its_repr_has_no_token() -> None:
    assert "secret-token" not in repr(DPoPAuth(KEY, "secret-token"))


@pytest.mark.parametrize(
    "token", ["", "the-secret\n", "the-secret\r\nX: y", "the secret", "the-secret\u20ac"]
)
def test_a_token_that_no_field_can_hold_is_refused_without_quoting_it(token: str) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200))
    with (
        httpx2.Client(transport=transport, auth=DPoPAuth(KEY, token)) as client,
        pytest.raises(ValueError, match="does it end in a line break") as refused,
    ):
        client.get("https://api.example.com/")
    assert "secret" not in str(refused.value)


def test_the_key_alone_imports_neither_library() -> None:
    code = (
        f"import sys; sys.path += {sys.path!r}\n"
        "from dpop_middleware.client import DPoPKey, pkce_pair, authorization_url\n"
        "assert not {'httpx', 'httpx2'} & set(sys.modules), 'imported too early'\n"
        "from dpop_middleware.client import DPoPAuth, fetch_token\n"
        "import httpx, httpx2; assert issubclass(DPoPAuth, (httpx.Auth, httpx2.Auth))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_httpx2_may_stand_for_httpx_too() -> None:
    """As after `httpx2.alias_httpx()`, for applications that move from httpx to httpx2."""
    code = (
        f"import sys; sys.path += {sys.path!r}\n"
        "import httpx2; sys.modules['httpx'] = httpx2\n"
        "from dpop_middleware.client import DPoPAuth, DPoPKey, DPoPTransport, TokenSource\n"
        "network = httpx2.MockTransport(lambda request: httpx2.Response(200, text=request.headers['DPoP']))\n"
        "url, key = 'https://api.example.com/', DPoPKey.generate()\n"
        "with httpx2.Client(transport=network, auth=DPoPAuth(key, 'token')) as client:\n"
        "    assert client.get(url).text\n"
        "with httpx2.Client(transport=DPoPTransport(key, network)) as client:\n"
        "    assert client.get(url, headers={'Authorization': 'Bearer token'}).text\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_the_package_has_these_names() -> None:
    module = importlib.import_module("dpop_middleware.client")
    assert sorted(module.__all__) == [
        "AuthorizationCode", "ClientCredentials", "DPoPAuth", "DPoPKey", "DPoPTransport", "PKCE",
        "PushedAuthorizationRequest", "RefreshToken", "TokenRequestError", "TokenResponse", "TokenSource",
        "authorization_url", "fetch_token", "fetch_token_async", "pkce_pair", "push_authorization_request",
        "push_authorization_request_async",
    ]  # fmt: skip
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def copied_by_the_client(module: Any, fields: UncopiedHeaders) -> dict[str, str]:
    with module.Client(headers={}, verify=NO_AUTHORITIES) as client:
        request = client.build_request("GET", "https://api.example.com/", headers=fields)
    added = ("host", "accept-encoding", "connection", "user-agent")
    return {name: value for name, value in request.headers.items() if name not in added}


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_a_copy_has_neither_proof_nor_token_and_the_fields_themselves_have_both(module: Any) -> None:
    fields = UncopiedHeaders(module.Headers({"Authorization": "DPoP t", "DPoP": "p", "Accept": "text/plain"}))
    assert (fields["dpop"], fields["authorization"], len(fields)) == ("p", "DPoP t", 3)
    assert sorted(fields) == ["accept", "authorization", "dpop"]
    assert copied_by_the_client(module, fields) == {"accept": "text/plain"}
    assert (b"DPoP", b"p") in fields.raw


@pytest.mark.parametrize("module", [httpx2, httpx])
@pytest.mark.parametrize("copied", [dict, lambda fields: dict(fields.items()), "Headers", "Request"])
def test_a_transport_may_send_a_copy(module: Any, copied: Any) -> None:
    fields = UncopiedHeaders(module.Headers({"Authorization": "DPoP t", "DPoP": "p"}))
    if copied == "Headers":
        copy = dict(module.Headers(fields))
    elif copied == "Request":
        copy = dict(module.Request("GET", "https://api.example.com/", headers=fields).headers)
    else:
        copy = copied(fields)
    assert (copy["dpop"], copy["authorization"]) == ("p", "DPoP t")


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_a_request_is_sent_with_both_by_a_transport_that_copies_it(module: Any) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(module.Request(request.method, request.url, headers=request.headers))
        redirects = request.url.path == "/old"
        return module.Response(302 if redirects else 200, headers={"Location": "https://b.example/"})

    auth = DPoPAuth(KEY, "token")
    with module.Client(transport=module.MockTransport(handler), auth=auth, follow_redirects=True) as client:
        client.get("https://api.example.com/old")
    assert [sorted({"dpop", "authorization"} & set(request.headers)) for request in seen] == [
        ["authorization", "dpop"],
        [],
    ]


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_fields_can_be_set_and_removed(module: Any) -> None:
    fields = UncopiedHeaders(module.Headers({"Authorization": "Basic eDp5"}))
    fields["X-Request"] = "1"
    del fields["authorization"]
    assert dict(module.Headers(fields)) == {"x-request": "1"}


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_fields_can_be_shown_and_the_object_can_be_copied(module: Any) -> None:
    fields = UncopiedHeaders(module.Headers({"Accept": "text/plain"}))
    assert repr(fields) == repr(module.Headers({"Accept": "text/plain"}))
    assert copy.copy(fields)["accept"] == "text/plain"
