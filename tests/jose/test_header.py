"""The header of a JWS, and how large it may be."""

import json

import pytest

from dpop_middleware.jose import base64url
from dpop_middleware.jose.errors import JOSEError
from dpop_middleware.jose.header import parse_header


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
