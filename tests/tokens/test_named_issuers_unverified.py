"""The issuer at the top of a token's payload, found before anything is verified, at a bounded cost."""

import json
import time
from typing import Any

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.jose import base64url
from dpop_middleware.testing import TestIssuer
from dpop_middleware.tokens.named_issuers import unverified_issuer

URL_OF_A, URL_OF_B = "https://a.example.com", "https://b.example.com/realms/main"


def token(payload: str | bytes) -> str:
    octets = payload.encode() if isinstance(payload, str) else payload
    return f"e30.{base64url.encode(octets)}.AAAA"


def nested(*, before: bool, **members: Any) -> str:
    inner = {"act": {"iss": URL_OF_B, "sub": "x"}, **members}
    return json.dumps(inner | {"iss": URL_OF_A} if before else {"iss": URL_OF_A} | inner)


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps({"iss": URL_OF_A, "sub": "1"}),
        json.dumps({"sub": "1", "iss": URL_OF_A}, separators=(",", ":")),
        f'{{"iss"\n \t:  "{URL_OF_A}"}}',
        # PHP writes URLs so.
        '{"iss":"https:\\/\\/a.example.com"}',
        '{"iss":"https://\\u0061.example.com"}',
        json.dumps({"iss": URL_OF_A, "act": {"iss": URL_OF_A}}),
        nested(before=True),
        nested(before=False),
        # What white space is around it doesn't count (RFC 8259 section 2).
        f"\r\n {nested(before=True)}\n",
        nested(before=True, l=[1, [2, {"a": []}]], s='}]"{["iss":"x"', e="\\"),
        nested(before=True, roles=[f"role-{n}" for n in range(300)]),
        json.dumps({"note": '"iss":"https://b.example.com"', "iss": URL_OF_A}),
        json.dumps({"note": "iss", "iss": URL_OF_A, "x": {"note": 'a"iss":', "iss": URL_OF_B}}),
        json.dumps({"events": [{"iss": URL_OF_B}, {"iss": "c"}], "iss": URL_OF_A, "x": [{"iss": "d"}]}),
    ],
)
def test_the_issuer_at_the_top_is_found(payload: str) -> None:
    assert unverified_issuer(token(payload)) == URL_OF_A


@pytest.mark.parametrize("made", [TestIssuer(URL_OF_A), TestIssuer(URL_OF_A, algorithm="EdDSA")])
def test_a_real_token_names_its_issuer(made: TestIssuer) -> None:
    assert unverified_issuer(made.token(scopes=["a"], act={"sub": "b", "iss": URL_OF_B})) == URL_OF_A


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
        # More than an honest token has: such a payload isn't searched for long.
        json.dumps({f"a{n}": {"iss": f"b{n}"} for n in range(9)} | {"iss": URL_OF_A}),
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
def test_a_string_that_is_no_jwt_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        unverified_issuer(text)
    assert caught.value.check is Check.TOKEN_FORMAT


def test_a_token_of_over_16_kib_is_no_jwt() -> None:
    usual = token(json.dumps({"iss": URL_OF_A}))
    longest = usual + "A" * (16 * 1024 - len(usual))
    assert unverified_issuer(longest) == URL_OF_A
    with pytest.raises(InvalidToken) as caught:
        unverified_issuer(longest + "A")
    assert caught.value.check is Check.TOKEN_FORMAT


def cost_of_naming(payload: bytes) -> float:
    """Seconds that this thread worked on it: a busy machine adds none."""
    text, costs = token(payload), list[float]()
    for _ in range(5):
        begun = time.thread_time()
        with pytest.raises(InvalidToken):
            unverified_issuer(text)
        costs.append(time.thread_time() - begun)
    return min(costs)


@pytest.mark.parametrize("end", [b"", b"\\", b"\\\nx"])
def test_an_unterminated_string_costs_no_more_than_a_terminated_one(end: bytes) -> None:
    # A naive search would go to the end from each escaped quote: a hundred times the work.
    begin = b'[{"iss":"' + URL_OF_A.encode() + b'","' + b'\\"' * 290 + b"x" * 9000
    ended, endless = (cost_of_naming(begin + text + b'"iss":"b"}') for text in (b'":', end))
    assert endless < 20 * ended


def test_the_name_of_an_issuer_has_at_most_128_escapes() -> None:
    name = "https://a.example.com/"
    for escapes in (128, 129):
        payload = '{"iss":"' + name + "\\u0061" * escapes + '"}'
        if escapes == 128:
            assert unverified_issuer(token(payload)) == name + "a" * 128
        else:
            with pytest.raises(InvalidToken):
                unverified_issuer(token(payload))


def assert_names_an_issuer(payload: str, *, found: bool) -> None:
    """`payload` names the issuer URL_OF_A, or none that is found."""
    if found:
        assert unverified_issuer(token(payload)) == URL_OF_A
    else:
        with pytest.raises(InvalidToken):
            unverified_issuer(token(payload))


def test_among_several_issuers_three_hundred_escapes_are_read() -> None:
    for escapes, found in ((300, True), (301, False)):
        payload = nested(before=True, s="a" * escapes).replace("a" * escapes, "\\/" * escapes)
        assert_names_an_issuer(payload, found=found)


def test_eight_issuers_are_read_and_not_one_more() -> None:
    for others, found in ((7, True), (8, False)):
        payload = json.dumps({f"a{n}": {"iss": f"b{n}"} for n in range(others)} | {"iss": URL_OF_A})
        assert_names_an_issuer(payload, found=found)


def test_among_several_issuers_a_thousand_quotes_are_read() -> None:
    # Each role has two quotes, and an escaped one counts too; the other names and values have sixteen.
    for roles, more, found in ((492, {}, True), (490, {"e": '"'}, False)):
        payload = nested(before=True, roles=["a"] * roles, **more)
        assert_names_an_issuer(payload, found=found)
