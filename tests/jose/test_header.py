"""The header of a JWS, how large it may be, and the media type in it."""

import json

import pytest

from dpop_middleware.jose import base64url
from dpop_middleware.jose.errors import JOSEError
from dpop_middleware.jose.header import media_type, parse_header


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
