"""The form of every request to an authorization server, and how the answer is read."""

import json
from functools import partial
from typing import Any

import httpx2
import pytest

from dpop_middleware.client import DPoPAuth, DPoPKey, TokenRequestError
from dpop_middleware.client.form_request import form_request, seconds_in, text_in, what_it_granted
from dpop_middleware.errors import ConfigurationError

KEY = DPoPKey.generate()
ENDPOINT = "https://auth.example/par"


def made(
    url: str = ENDPOINT,
    data: dict[str, str] | None = None,
    *,
    base_url: str = "https://auth.example",
    **options: Any,
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "option": "endpoint",
        "key": KEY,
        "client_id": "my client",
        "client_secret": None,
        "client_authentication": "basic",
        "parameters": {},
        "insecure_http_hosts": (),
        **options,
    }
    with httpx2.Client(base_url=base_url) as client:
        return form_request(client, url, {"a": "1"} if data is None else data, **arguments)


def test_a_public_client_names_itself_in_the_form() -> None:
    request = made()
    assert request["data"] == {"client_id": "my client", "a": "1"}
    assert request["headers"] == {"Accept": "application/json"}
    assert request["follow_redirects"] is False


@pytest.mark.parametrize(
    ("way", "data", "field"),
    [
        ("basic", {"a": "1"}, "Basic bXkrY2xpZW50OnMlM0FjcmV0"),
        ("post", {"client_id": "my client", "client_secret": "s:cret", "a": "1"}, None),
    ],
)
def test_a_secret_is_in_the_field_or_in_the_form(way: str, data: dict[str, str], field: str | None) -> None:
    request = made(client_secret="s:cret", client_authentication=way)
    assert request["data"] == data
    assert request["headers"].get("Authorization") == field


def test_the_form_of_the_caller_takes_precedence() -> None:
    assert made(data={"client_id": "another"})["data"] == {"client_id": "another"}


def test_parameters_that_a_function_makes_are_made_for_each_form() -> None:
    assert made()["extensions"] is None
    numbers = iter("12")
    request = made(parameters=lambda: {"client_assertion": next(numbers)})
    assert request["data"] == {"client_id": "my client", "a": "1", "client_assertion": "1"}
    (again,) = request["extensions"].values()
    assert again() == request["data"] | {"client_assertion": "2"}


async def asynchronous() -> dict[str, str]:
    return {"client_assertion": "the-secret"}


def later() -> Any:
    return asynchronous()


class Asynchronous:
    async def __call__(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize("function", [asynchronous, partial(asynchronous), Asynchronous()])
def test_an_asynchronous_function_makes_no_parameters(function: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(parameters=function)
    takes = "a mapping, or a synchronous function that returns one"
    assert str(caught.value) == f"parameters takes {takes}, not {function!r}"


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ("client_assertion=the-secret", "str"),
        ([("client_assertion", "the-secret")], "list"),
        (None, "NoneType"),
        (lambda: None, "NoneType"),
        (lambda: [("client_assertion", "the-secret")], "list"),
        (later, "coroutine"),
    ],
)
def test_parameters_that_are_no_mapping_are_refused_without_quoting_them(parameters: Any, kind: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(parameters=parameters)
    takes = "a mapping, or a synchronous function that returns one"
    assert str(caught.value) == f"parameters takes {takes}, not a {kind}"


@pytest.mark.parametrize("way", ["client_secret_post", "Basic", "none", None])
def test_a_secret_is_sent_in_no_other_way_than_was_asked_for(way: Any) -> None:
    for secret in ("s3cret", None):
        with pytest.raises(
            ConfigurationError, match="client_authentication takes one of 'basic', 'post', not"
        ):
            made(client_secret=secret, client_authentication=way)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_id": ""}, "client_id takes a non-empty string, not an empty one"),
        ({"client_id": 7}, "client_id takes a non-empty string, not a int"),
        ({"client_secret": 7}, "client_secret takes a non-empty string, not a int"),
        ({"client_secret": "s3cret\n"}, "client_secret takes a non-empty string, not one with a line break"),
    ],
)
def test_an_identifier_and_a_secret_are_texts_without_line_breaks(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(**options)
    assert str(caught.value).startswith(message)


def test_an_empty_secret_is_sent() -> None:
    assert made(client_secret="")["headers"]["Authorization"] == "Basic bXkrY2xpZW50Og=="


@pytest.mark.parametrize("url", [None, "auth.example/par"])
def test_the_error_for_an_endpoint_that_is_no_url_names_the_option(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="^endpoint takes an https URL, not "):
        made(url, base_url="")


def test_the_option_is_named_where_plain_http_is_refused() -> None:
    for url in ("http://auth.example/par", "http://AUTH.example./par"):
        with pytest.raises(ConfigurationError, match="endpoint"):
            made(url)
    assert made("http://127.0.0.1/par")["url"] == "http://127.0.0.1/par"
    assert made("http://auth.example/par", insecure_http_hosts=["auth.example"])["data"] == {
        "client_id": "my client",
        "a": "1",
    }


def test_an_auth_of_the_caller_remembers_nonces_and_has_no_token() -> None:
    auth = DPoPAuth(KEY)
    assert made(key=auth)["auth"] is auth
    with pytest.raises(ValueError, match=r"use DPoPAuth\(key\)"):
        made(key=DPoPAuth(KEY, "token"))
    with pytest.raises(ValueError, match="follows no redirect"):
        made(key=DPoPAuth(KEY, follow_redirects=True))


def test_an_auth_of_ones_own_makes_a_proof_for_the_endpoint_or_nothing_is_sent() -> None:
    auth = DPoPAuth(KEY)
    made(key=auth)
    made("https://AUTH.example:443/token", key=auth)
    with pytest.raises(
        ValueError, match="makes no proof for this origin: name all of the server's by origin="
    ):
        made("https://token.auth.example/token", key=auth)
    both = DPoPAuth(KEY, origin=["https://auth.example", "https://token.auth.example"])
    for url in (ENDPOINT, "https://token.auth.example/token"):
        assert made(url, key=both)["auth"] is both


@pytest.mark.parametrize(
    ("status", "content", "message", "error"),
    [
        (
            400,
            {"error": "invalid_request"},
            r"the server refused: invalid_request \(HTTP 400\)",
            "invalid_request",
        ),
        (201, {"error": "slow_down"}, r"refused: slow_down \(HTTP 201\)", "slow_down"),
        (400, {"error": "a\nb", "error_description": "c\nd"}, r"refused: no OAuth error \(HTTP 400\)$", None),
        (400, {"error": 7}, "no OAuth error", None),
        (500, ["error"], r"no OAuth error \(HTTP 500\)", None),
    ],
)
def test_a_refusal_is_reported_in_one_line_that_a_server_can_not_forge(
    status: int, content: object, message: str, error: str | None
) -> None:
    with pytest.raises(TokenRequestError, match=message) as caught:
        what_it_granted(status, json.dumps(content).encode(), expected=201, endpoint="the server")
    assert (caught.value.status, caught.value.error) == (status, error)
    assert "\n" not in str(caught.value)


def test_an_answer_may_begin_with_a_byte_order_mark() -> None:
    assert what_it_granted(200, b'\xef\xbb\xbf{"a":"b"}', expected=200, endpoint="it") == {"a": "b"}


def test_an_answer_that_is_too_large_is_not_read() -> None:
    assert what_it_granted(200, b'{"a":"' + b"x" * 60_000 + b'"}', expected=200, endpoint="it")
    with pytest.raises(TokenRequestError, match="the answer of it is not a JSON object of at most 64 KiB"):
        what_it_granted(200, b'{"a":"' + b"x" * 70_000 + b'"}', expected=200, endpoint="it")


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), (60, 60), (0.5, 0.5), ("60", 60), (0, 0), ("0", 0)]
)
def test_seconds_are_a_number_or_its_digits(value: object, seconds: float | None) -> None:
    assert seconds_in({"expires_in": value}, "expires_in", status=200, endpoint="it") == seconds


@pytest.mark.parametrize("value", [True, -1, float("inf"), "soon", "-1", "1e3", "٣", "9" * 16, [60], {}])
def test_a_value_that_is_no_number_of_seconds_is_an_error(value: object) -> None:
    with pytest.raises(TokenRequestError, match="it's expires_in is not a number of seconds"):
        seconds_in({"expires_in": value}, "expires_in", status=200, endpoint="it")


def test_a_member_that_should_be_text_is_text_or_missing() -> None:
    assert text_in({"scope": "a b"}, "scope", status=200, endpoint="it") == "a b"
    assert text_in({}, "scope", status=200, endpoint="it") is None
    with pytest.raises(TokenRequestError, match="it's scope is not a string"):
        text_in({"scope": ["a"]}, "scope", status=200, endpoint="it")
