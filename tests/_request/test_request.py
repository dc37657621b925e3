"""The credentials of a request, before anything is decoded."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpop_middleware._request.public_urls import check_request_path
from dpop_middleware._request.request import (
    MAX_PROOF_SIZE,
    MAX_TOKEN_SIZE,
    ResourceRequest,
    credentials,
    one_proof,
)
from dpop_middleware._request.uri import URIError
from dpop_middleware.checks import Check
from dpop_middleware.errors import (
    DPoPError,
    InvalidDPoPProof,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
)


def scope(*headers: tuple[bytes, bytes], **members: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/a/b",
        "raw_path": b"/a%2Fb",
        "headers": list(headers),
        **members,
    }


def test_a_scope_becomes_a_request_as_it_was_received() -> None:
    request = ResourceRequest.from_scope(
        scope(
            (b"Host", b"api.example.test"),
            (b"host", b"other.example.test"),
            (b"AUTHORIZATION", b"DPoP one \t"),
            (b"dPoP", b"\t first"),
            (b"dpop", b"second"),
            (b"date", b"none of ours"),
            (b"if-none-match", b"of the length of authorization"),
            root_path="/svc",
        )
    )
    assert request._replace(fields=0) == ResourceRequest(
        method="POST",
        raw_path="/a%2Fb",
        hosts=("api.example.test", "other.example.test"),
        authorization=("DPoP one",),
        dpop=("first", "second"),
        root_path="/svc",
    )


# The last two are as long as `dpop` and `authorization`.
@pytest.mark.parametrize("other", [b"accept", b"Accept", b"x-Other", b"date", b"if-none-match"])
@pytest.mark.parametrize("again", [b"dpop", b"DPoP", b"dPOP"])
def test_a_second_field_is_seen_in_whatever_spelling_and_company(again: bytes, other: bytes) -> None:
    once = scope((b"host", b"h"), (b"dpop", b"first"), (other, b"a"), (b"authorization", b"DPoP one"))
    twice = {**once, "headers": [*once["headers"], (again, b"second")]}
    assert ResourceRequest.from_scope(once).dpop == ("first",)
    assert ResourceRequest.from_scope(once).authorization == ("DPoP one",)
    assert ResourceRequest.from_scope(twice).dpop == ("first", "second")
    assert ResourceRequest.from_scope(scope((again, b"first"), (other, b"a"))).dpop == ("first",)


def test_only_spaces_and_tabs_are_removed_around_a_field() -> None:
    read = ResourceRequest.from_scope(scope((b"dpop", b"\x0b\x85proof\xa0")))
    assert read.dpop == ("\x0b\x85proof\xa0",)


def test_a_handshake_is_a_get() -> None:
    assert ResourceRequest.from_scope(scope(type="websocket", method="POST")).method == "GET"
    handshake = scope(type="websocket")
    del handshake["method"]
    assert ResourceRequest.from_scope(handshake).method == "GET"


@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        ("/a b", "/a%20b"),
        ("/é", "/%C3%A9"),
        ("/50%", "/50%25"),
        ("/a?b#c", "/a%3Fb%23c"),
        ("/~a.b-c_d!$&'()*+,;=:@", "/~a.b-c_d!$&'()*+,;=:@"),
        ("/\udce9", "/%ED%B3%A9"),
    ],
)
def test_without_a_raw_path_the_path_is_quoted(path: str, raw_path: str) -> None:
    assert ResourceRequest.from_scope(scope(path=path, raw_path=None)).raw_path == raw_path
    absent = scope(path=path)
    del absent["raw_path"]
    assert ResourceRequest.from_scope(absent).raw_path == raw_path


@given(st.text(st.sampled_from('/a~%日ü "\U0001f600\udce9\0'), max_size=200))
def test_a_path_is_quoted_as_clients_do(path: str) -> None:
    """With any characters, which may be half of a pair too."""
    read = ResourceRequest.from_scope(scope(path=f"/{path}", raw_path=None)).raw_path
    assert read == quote(f"/{path}", safe="/!$&'()*+,;=:@", errors="surrogatepass")


@pytest.mark.parametrize("runs", [128, 129])
def test_a_path_of_over_128_parts_to_encode_is_read_as_none_that_is_accepted(runs: int) -> None:
    read = ResourceRequest.from_scope(scope(path="/" + "a b" * runs, raw_path=None)).raw_path
    assert (read == "/" + "a%20b" * runs) is (runs == 128)
    assert read.startswith("/") is (runs == 128)


@pytest.mark.parametrize("begin", ["/", "/\u00e9", "/\U0001f600"])
def test_a_path_of_4_kib_is_read_whole_and_a_longer_one_is_refused_for_its_length(begin: str) -> None:
    room = 4096 - len(quote(begin))
    longest = ResourceRequest.from_scope(scope(path=begin + "a" * room, raw_path=None)).raw_path
    assert longest == quote(begin) + "a" * room
    check_request_path(longest)
    for more in (1, 2, 5000):
        longer = ResourceRequest.from_scope(scope(path=begin + "a" * (room + more), raw_path=None)).raw_path
        with pytest.raises(URIError, match="too long"):
            check_request_path(longer)


def test_a_path_of_too_many_parts_to_encode_is_readable_in_logs_and_refused_for_that() -> None:
    read = ResourceRequest.from_scope(scope(path="/notes/" + "a b" * 129, raw_path=None)).raw_path
    assert read.startswith("%2Fnotes/a%20ba%20b")
    with pytest.raises(URIError, match="or needs too much percent-encoding"):
        check_request_path(read)


def test_a_server_that_leaves_the_query_in_the_raw_path() -> None:
    assert ResourceRequest.from_scope(scope(raw_path=b"/a?token=secret?")).raw_path == "/a"


def test_octets_of_a_raw_path_stay_apart() -> None:
    assert ResourceRequest.from_scope(scope(raw_path=b"/\xff\xc3\xa9")).raw_path == "/\xff\xc3\xa9"


def test_the_root_path_is_the_servers_and_not_that_of_a_mount() -> None:
    mounted = scope(root_path="/svc/mounted", app_root_path="/svc")
    assert ResourceRequest.from_scope(mounted).root_path == "/svc"
    assert ResourceRequest.from_scope(scope()).root_path == ""


def test_no_token_and_no_proof_shows_in_a_repr() -> None:
    request = ResourceRequest.from_scope(scope((b"authorization", b"DPoP secret"), (b"dpop", b"secret")))
    assert "secret" not in repr(request)


@pytest.mark.parametrize("name", ["DPoP", "dpop", "DPOP", "dPoP"])
@pytest.mark.parametrize("blanks", [" ", "   "])
def test_the_scheme_may_stand_in_any_case(name: str, blanks: str) -> None:
    assert credentials((f"{name}{blanks}abc",)) == ("DPoP", "abc")


@pytest.mark.parametrize("name", ["Bearer", "bearer", "BEARER"])
def test_bearer_is_the_other_scheme(name: str) -> None:
    assert credentials((f"{name} abc",)) == ("Bearer", "abc")


@pytest.mark.parametrize("token", ["a", "A.b-c_d~e+f/g", "abc=", "abc==", "x" * MAX_TOKEN_SIZE])
def test_a_token_is_token68(token: str) -> None:
    assert credentials((f"DPoP {token}",)) == ("DPoP", token)


def refused(*authorization: str) -> DPoPError:
    with pytest.raises(DPoPError) as caught:
        credentials(authorization)
    assert caught.value.check is Check.AUTHORIZATION
    return caught.value


@pytest.mark.parametrize(
    "value",
    ["", "Basic abc", "DPoPx abc", "DPo abc", "DPoP\tabc", "DPoP,abc", "abc", "ＤPoP abc", "DPoP\xa0abc"],
)
def test_another_scheme_is_no_credentials(value: str) -> None:
    error = refused(value)
    assert isinstance(error, MissingCredentials)
    assert error.scheme is None


def test_no_field_is_no_credentials() -> None:
    assert isinstance(refused(), MissingCredentials)


def test_two_fields_are_ambiguous_even_when_equal() -> None:
    error = refused("DPoP abc", "DPoP abc")
    assert isinstance(error, InvalidRequest)
    assert (error.expected, error.actual, error.scheme) == (1, 2, None)


@pytest.mark.parametrize("scheme", ["DPoP", "Bearer"])
@pytest.mark.parametrize("rest", ["", " ", "    "])
def test_a_scheme_alone_is_malformed(scheme: str, rest: str) -> None:
    error = refused(f"{scheme}{rest}")
    assert isinstance(error, InvalidRequest)
    assert error.scheme == scheme
    assert error.description == "the Authorization field has no access token"


@pytest.mark.parametrize(
    "token",
    ["a b", "a,b", "a, DPoP b", "=", "a=b", "\ta", "a\t", 'a"', "é", "a\n", "a\x00", "{}", "a%20", "token=a"],
)
def test_illegal_characters_are_malformed(token: str) -> None:
    error = refused(f"DPoP {token}")
    assert isinstance(error, InvalidRequest)
    assert error.scheme == "DPoP"
    assert error.description == "the access token has illegal characters"


def test_a_token_over_16_kib_is_not_looked_at() -> None:
    error = refused(f"Bearer {'é' * (MAX_TOKEN_SIZE + 1)}")
    assert isinstance(error, InvalidToken)
    assert (error.scheme, error.expected, error.actual) == ("Bearer", 16_384, 16_385)


def test_one_proof_is_returned_as_it_is() -> None:
    assert one_proof(("a.b.c",), ("ES256",)) == "a.b.c"
    assert one_proof(("x" * MAX_PROOF_SIZE,), ("ES256",)) == "x" * MAX_PROOF_SIZE


@pytest.mark.parametrize(
    ("fields", "actual"),
    [
        ((), 0),
        (("a", "a"), 2),
        (("a,b",), 2),
        (("a", "b, c"), 3),
        (("",), None),
        (("", ""), 2),
        ((",",), 2),
        (("x" * (MAX_PROOF_SIZE + 1),), 8193),
    ],
)
def test_more_or_fewer_than_one_proof_is_refused(fields: tuple[str, ...], actual: int | None) -> None:
    with pytest.raises(InvalidDPoPProof) as caught:
        one_proof(fields, ("ES256",))
    assert caught.value.check is Check.ONE_HEADER
    assert caught.value.actual == actual
