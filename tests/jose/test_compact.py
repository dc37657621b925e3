"""A compact JWS has three segments."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware.checks import Check
from dpop_middleware.jose.compact import CompactJWS, split
from dpop_middleware.jose.errors import JOSEError


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
@settings(max_examples=200, deadline=None)
def test_split_loses_nothing_and_raises_nothing_else(text: str) -> None:
    try:
        jws = split(text)
    except JOSEError:
        return
    assert f"{jws.header}.{jws.payload}.{jws.signature}" == text
    assert jws.signing_input + b"." + jws.signature.encode() == text.encode()


def test_a_proof_or_token_is_not_shown() -> None:
    assert "secret" not in repr(split("secret.secret.secret"))
