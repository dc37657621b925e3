"""Attacks with headers and proofs: how little of them is parsed."""

import json
from typing import Any

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import JOSEError, base64url, strict
from dpop_middleware.jose.algorithms import Algorithm
from dpop_middleware.jose.strict import parse_untrusted_object
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.tokens.jwks import parse_key_set
from dpop_middleware.tokens.jwt import JWTAccessTokenVerifier
from dpop_middleware.tokens.signed_token import SigningKeys, parse_signed_token
from tests.support.issuer_tokens import ISSUER, RESOURCE, issuer_key, key_set

HOSTILE = {
    "objects": '{"a":[' + ",".join(["{}"] * 1500) + "]}",
    "numbers": '{"a":[' + ",".join(["1"] * 3000) + "]}",
    "names": json.dumps({f"n{number}": 1 for number in range(500)}),
    "escapes": '{"a":"' + "\\u0041" * 1300 + '"}',
    "depth": '{"a":' + "[" * 3000 + "]" * 3000 + "}",
    "size": json.dumps({"a": "x" * 9000}),
    "colons": "{" + ":" * 3000 + "}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_attacker_wants_the_parser_to_build_thousands_of_values(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict, "_DECODERS", {})  # decoding fails
    with pytest.raises(JOSEError):
        parse_untrusted_object(text.encode())
    with pytest.raises(InvalidToken) as caught:
        parse_signed_token(
            f"{base64url.encode(text.encode())}.e30.AA",
            token_types=("at+jwt",),
            algorithms=SUPPORTED_ALGORITHMS,
        )
    assert caught.value.check is Check.TOKEN_FORMAT


@pytest.mark.parametrize("escaped", [False, True])
def test_an_honest_header_with_three_certificates_passes(escaped: bool) -> None:
    certificate = ("MIIF/zCCA" * 270)[:2400]
    header = json.dumps({"typ": "at+jwt", "alg": "ES256", "kid": "1", "x5c": [certificate] * 3})
    if escaped:
        header = header.replace("/", "\\/", 200)
    assert parse_untrusted_object(header.encode())["x5c"] == [certificate] * 3


@pytest.mark.parametrize("alg", ["ES256", "ES512"])
async def test_the_attacker_wants_every_key_of_the_issuer_tried(
    alg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    verify = Algorithm.verify

    def counting(self: Algorithm, *arguments: Any) -> bool:
        tries.append(self.name)
        return verify(self, *arguments)

    monkeypatch.setattr(Algorithm, "verify", counting)
    keys = key_set(*[issuer_key(alg, number=number, kid=f"key-{number}") for number in range(8)])
    stranger = issuer_key(alg, number=99, kid=None)
    verifier = JWTAccessTokenVerifier(issuer=ISSUER, audience=RESOURCE, jwks=keys)
    with pytest.raises(InvalidToken):
        await verifier.verify(stranger.token())
    assert len(tries) <= 2


async def test_the_attacker_wants_a_costlier_algorithm_than_the_issuers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Algorithm, "verify", None)  # verifying fails
    verifier = JWTAccessTokenVerifier(issuer=ISSUER, audience=RESOURCE, jwks=key_set(issuer_key("ES256")))
    with pytest.raises(InvalidToken):
        await verifier.verify(issuer_key("ES512").token(header={"kid": "key-1"}))


def test_an_honest_issuer_that_rotates_without_kid_is_understood() -> None:
    old, new = issuer_key("ES256", number=1, kid=None), issuer_key("ES256", number=2, kid=None)
    keys = parse_key_set(key_set(old, new))
    for number, key in enumerate((old, new)):
        signed = parse_signed_token(key.token(), token_types=("at+jwt",), algorithms=SUPPORTED_ALGORITHMS)
        assert SigningKeys().search(signed).among(keys.keys) is keys.keys[number]


def test_many_small_objects_are_refused_before_they_are_parsed() -> None:
    """Each object is a call; a header has one for its key, and few others."""
    with pytest.raises(JOSEError, match="too many members"):
        parse_untrusted_object(('{"a":[' + ",".join(["{}"] * 39) + "]}").encode())
    assert len(parse_untrusted_object(('{"a":[' + ",".join(["{}"] * 38) + "]}").encode())["a"]) == 38
