"""Signed tokens with any content."""

import hashlib
import hmac
import json

import jwt
import pytest

from dpop_middleware.client import DPoPKey
from dpop_middleware.jose import base64url
from dpop_middleware.testing import ABSENT, encode_jws
from dpop_middleware.testing.jws import merged


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_the_key_signs_whatever_the_header_says(algorithm: str) -> None:
    key = DPoPKey.generate(algorithm)
    token = encode_jws({"alg": algorithm, "x": 1}, {"a": "ü"}, key=key)
    public = jwt.PyJWK(key.public_jwk, algorithm=algorithm)
    assert jwt.decode_complete(token, public, algorithms=[algorithm])["payload"] == {"a": "ü"}
    lying = encode_jws({"alg": "none"}, {}, key=key)
    assert len(base64url.decode(lying.split(".")[2])) == 64


def test_json_text_is_encoded_unchanged() -> None:
    header, payload, signature = encode_jws('{"a":1,"a":2}', "not json", key=ABSENT).split(".")
    assert base64url.decode(header) == b'{"a":1,"a":2}'
    assert base64url.decode(payload) == b"not json"
    assert signature == ""


def test_bytes_are_an_hmac_secret() -> None:
    token = encode_jws({"alg": "HS256"}, {}, key=b"secret")
    signing_input, _, signature = token.rpartition(".")
    expected = hmac.digest(b"secret", signing_input.encode(), hashlib.sha256)
    assert base64url.decode(signature) == expected


def test_absent_removes_a_member_and_null_stays() -> None:
    assert merged({"a": 1, "b": 2, "c": 3}, {"a": ABSENT, "b": None, "d": 4}) == {"b": None, "c": 3, "d": 4}
    assert json.dumps(merged({}, {"b": None})) == '{"b": null}'
