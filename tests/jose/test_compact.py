"""A compact JWS has three segments."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware.checks import Check
from dpop_middleware.jose import JOSEError, base64url
from dpop_middleware.jose.compact import CompactJWS, media_type, parse_header, split


def test_split_returns_the_three_segments() -> None:
    jws = split("aGVhZA.cGF5.c2ln")
    assert jws == CompactJWS("aGVhZA", "cGF5", "c2ln", b"aGVhZA.cGF5")
    assert jws.signing_input == b"aGVhZA.cGF5"


def test_segments_may_be_empty() -> None:
    assert split("..") == CompactJWS("", "", "", b".")


@pytest.mark.parametrize(
    "text", ["", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "." * 8000, "é.b.c", "a.b.\ud800", "a。b.c"]
)
def test_split_refuses_anything_but_three_segments(text: str) -> None:
    with pytest.raises(JOSEError) as caught:
        split(text)
    assert caught.value.check is Check.FORMAT


@given(st.text(max_size=30) | st.text("ab.", max_size=30))
@settings(max_examples=200)
def test_split_loses_nothing_and_raises_nothing_else(text: str) -> None:
    try:
        jws = split(text)
    except JOSEError:
        return
    assert f"{jws.header}.{jws.payload}.{jws.signature}" == text
    assert jws.signing_input + b"." + jws.signature.encode() == text.encode()


def test_a_proof_or_token_is_not_shown() -> None:
    assert "secret" not in repr(split("secret.secret.secret"))


def encoded(text: str) -> str:
    return base64url.encode(text.encode())


def test_a_header_is_a_json_object() -> None:
    assert parse_header(encoded('{"alg":"ES256"}')) == {"alg": "ES256"}
    with pytest.raises(JOSEError, match="not a JSON object"):
        parse_header(encoded("[]"))


def test_a_header_has_four_kibibytes_at_most() -> None:
    longest = json.dumps({"a": "x" * (4096 - 9)})
    assert len(parse_header(encoded(longest))["a"]) == 4096 - 9
    with pytest.raises(JOSEError, match="too large"):
        parse_header(encoded(longest + " "))


def test_a_header_has_room_for_two_certificates_whose_slashes_are_escaped() -> None:
    certificate = ("x" * 63 + "/") * 24
    text = json.dumps({"alg": "ES256", "x5c": [certificate] * 2}).replace("/", "\\/")
    assert parse_header(encoded(text))["x5c"] == [certificate] * 2
    with pytest.raises(JOSEError, match="escapes"):
        parse_header(encoded('{"a":"' + "\\/" * 161 + '"}'))


def test_a_header_has_sixteen_objects_and_arrays_at_most() -> None:
    assert len(parse_header(encoded(json.dumps({"a": [{}] * 14})))["a"]) == 14
    with pytest.raises(JOSEError, match="too many members"):
        parse_header(encoded(json.dumps({"a": [{}] * 15})))


@pytest.mark.parametrize("typ", ["dpop+jwt", "DPoP+JWT", "application/dpop+jwt", "APPLICATION/DPOP+JWT"])
def test_one_media_type_has_several_spellings(typ: str) -> None:
    assert media_type(typ) == "dpop+jwt"


@pytest.mark.parametrize("typ", [None, 1, True, [], {}, b"jwt", "jw\u017f", "to\u212aen", "é"])
def test_a_value_that_names_no_media_type_gives_none(typ: object) -> None:
    assert media_type(typ) is None


@pytest.mark.parametrize(
    ("typ", "name"),
    [
        ("", ""),
        ("application/", "application/"),
        ("application/x/y", "application/x/y"),
        ("application/application/jwt", "application/application/jwt"),
        ("Text/JWT", "text/jwt"),
        ("JWT;v=1", "jwt;v=1"),
        (" jwt", " jwt"),
    ],
)
def test_nothing_else_is_unified(typ: str, name: str) -> None:
    assert media_type(typ) == name
    assert media_type(name) == name
