"""Base64url has one spelling for each string of bytes."""

import base64
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware.checks import Check, Reason
from dpop_middleware.jose import JOSEError, base64url

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

few = settings(max_examples=200)


def canonical(text: str) -> bytes | None:
    """An independent oracle: the standard library's result, if it encodes back to the same text."""
    if not set(text) <= set(ALPHABET):
        return None
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return data if base64.urlsafe_b64encode(data).decode().rstrip("=") == text else None


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"\x00", "AA"), (b"\xff\xfe", "__4"), (b"\xfb\xef\xff", "--__"), (b"abc", "YWJj")],
)
def test_encode_and_decode_are_inverse(data: bytes, text: str) -> None:
    assert base64url.encode(data) == text
    assert base64url.decode(text) == data


@pytest.mark.parametrize(
    "text",
    [
        *("AA==", "AAA=", "=", "AAAA=", "AAAA====", "A=AA", "AA=A", "=AAA"),
        *("A", "AAAAA", "AB", "AAB", "YWJjZB", "YWJ"),
        *("+AAA", "AA/A", "A+", "A/", "AA A", "AAA\n", "\nAAAA", "AA\tA", "AAAA ", "AAAA\r\n"),
        *("AA.A", "AAA!", "!!!!", "AAA\x00", "AAAé", "é", "\ud800AAA", "ＡＡＡＡ", "AAA\u017f"),
    ],
)
def test_decode_refuses_text_that_is_not_canonical(text: str) -> None:
    with pytest.raises(JOSEError) as caught:
        base64url.decode(text)
    assert (caught.value.check, caught.value.reason) == (Check.FORMAT, Reason.NOT_BASE64URL)
    assert re.fullmatch("a segment or member is not (canonical )?base64url", str(caught.value))


def test_decode_takes_no_character_outside_the_alphabet_anywhere() -> None:
    for character in map(chr, range(256)):
        for length in (2, 3, 4, 8):
            for place in range(length):
                text = "A" * place + character + "A" * (length - place - 1)
                if character in ALPHABET:
                    continue
                with pytest.raises(JOSEError):
                    base64url.decode(text)


def test_decode_takes_exactly_the_canonical_texts_of_two_and_three_characters() -> None:
    texts = [a + b for a in ALPHABET for b in ALPHABET] + ["A" + a + b for a in "A-_" for b in ALPHABET]
    for text in texts:
        expected = canonical(text)
        if expected is not None:
            assert base64url.decode(text) == expected
        else:
            with pytest.raises(JOSEError):
                base64url.decode(text)


@given(st.binary(max_size=300))
@few
def test_any_bytes_survive_a_round_trip(data: bytes) -> None:
    text = base64url.encode(data)
    assert set(text) <= set(ALPHABET)
    assert canonical(text) == data
    assert base64url.decode(text) == data


@given(st.text(max_size=12) | st.text(ALPHABET + "+/= ", max_size=12))
@few
def test_decode_raises_nothing_else_and_agrees_with_the_oracle(text: str) -> None:
    expected = canonical(text)
    try:
        data = base64url.decode(text)
    except JOSEError:
        assert expected is None
    else:
        assert data == expected
