"""Which issuer a token names: the one at the top, whatever else is in the payload, at a bounded cost."""

import json
from typing import Any

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import base64url
from dpop_middleware.testing import TestIssuer
from dpop_middleware.tokens.unverified_issuer import (
    _STRING,  # pyright: ignore[reportPrivateUsage]
    unverified_issuer,
)

A, B = "https://a.example.com", "https://b.example.com/realms/main"


def token(payload: str | bytes) -> str:
    octets = payload.encode() if isinstance(payload, str) else payload
    return f"e30.{base64url.encode(octets)}.AAAA"


def nested(*, before: bool, **members: Any) -> str:
    inner = {"act": {"iss": B, "sub": "x"}, **members}
    return json.dumps(inner | {"iss": A} if before else {"iss": A} | inner)


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps({"iss": A, "sub": "1"}),
        json.dumps({"sub": "1", "iss": A}, separators=(",", ":")),
        f'{{"iss"\n \t:  "{A}"}}',
        # As PHP writes URLs.
        '{"iss":"https:\\/\\/a.example.com"}',
        '{"iss":"https://\\u0061.example.com"}',
        json.dumps({"iss": A, "act": {"iss": A}}),
        nested(before=True),
        nested(before=False),
        nested(before=True, l=[1, [2, {"a": []}]], s='}]"{["iss":"x"', e="\\"),
        nested(before=True, roles=[f"role-{n}" for n in range(300)]),
        json.dumps({"note": '"iss":"https://b.example.com"', "iss": A}),
        json.dumps({"note": "iss", "iss": A, "x": {"note": 'a"iss":', "iss": B}}),
        json.dumps({"events": [{"iss": B}, {"iss": "c"}], "iss": A, "x": [{"iss": "d"}]}),
    ],
)
def test_the_issuer_at_the_top_is_found(payload: str) -> None:
    assert unverified_issuer(token(payload)) == A


@pytest.mark.parametrize("made", [TestIssuer(A), TestIssuer(A, algorithm="EdDSA")])
def test_a_real_token_names_its_issuer(made: TestIssuer) -> None:
    assert unverified_issuer(made.token(scopes=["a"], act={"sub": "b", "iss": B})) == A


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "{}",
        "null",
        '{"iss":1}',
        '{"iss":null}',
        '{"iss":""}',
        '{"iss":["https://a.example.com"]}',
        '{"iss":"a b"}',
        '{"iss":"https://ä.example.com"}',
        '{"iss":"a\\u0000"}',
        '{"iss":"a\\ud800"}',
        '{"iss":"a\\x"}',
        '{"iss":"' + "a" * 513 + '"}',
        '{"iss":"unclosed',
        '{"issuer":"https://a.example.com"}',
        '{"x":{"iss":"a"},"y":{"iss":"b"}}',
        '[{"iss":"a"},{"iss":"b"}]',
        b'{"iss":"\xff"}',
        # More than an honest token has: nothing is looked at for long.
        json.dumps({f"a{n}": {"iss": f"b{n}"} for n in range(9)} | {"iss": A}),
        nested(before=True, roles=[str(n) for n in range(600)]),
    ],
)
def test_a_token_that_names_no_issuer_is_refused(payload: str | bytes) -> None:
    with pytest.raises(InvalidToken) as caught:
        unverified_issuer(token(payload))
    assert (caught.value.check, caught.value.expected) == (Check.TOKEN_CLAIMS, "iss")


@pytest.mark.parametrize(
    "text", ["", ".", "a.b", "....", "a.b.c.d.e", "é.é.é", "e30.=.x", "e30.e30=.x", "a." * 9000, "x" * 17_000]
)
def test_what_is_no_jwt_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        unverified_issuer(text)
    assert caught.value.check is Check.TOKEN_FORMAT


@pytest.mark.parametrize("end", [b"", b"\\", b"\n"])
def test_a_string_without_an_end_is_looked_at_once(end: bytes) -> None:
    # From each of its escaped quotes, another search would go to the end.
    unterminated = b'"' + b'\\"' * 290 + b"x" * 9000 + end
    assert _STRING.findall(unterminated) == [unterminated]
    with pytest.raises(InvalidToken):
        unverified_issuer(token(b'[{"iss":"' + A.encode() + b'"' + unterminated + b'"iss":"b"}'))


def test_among_several_issuers_three_hundred_escapes_are_looked_at() -> None:
    for escapes, found in ((150, True), (151, False)):
        payload = json.dumps({"act": {"iss": B}, "s": "\\" * escapes, "iss": A})
        if found:
            assert unverified_issuer(token(payload)) == A
        else:
            with pytest.raises(InvalidToken):
                unverified_issuer(token(payload))
