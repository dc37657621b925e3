"""JSON and a compact JWS can be read in one way only."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware.checks import Check
from dpop_middleware.jose import JOSEError, base64url
from dpop_middleware.jose.strict import (
    MAX_DEPTH,
    CompactJWS,
    media_type,
    parse_document,
    parse_header,
    parse_object,
    split,
)

few = settings(max_examples=200)


def test_a_document_of_a_server_may_begin_with_one_byte_order_mark() -> None:
    assert parse_document(b'{"a":1}') == parse_document(b'\xef\xbb\xbf{"a":1}') == {"a": 1}
    for other in (b"\xef\xbb\xbf\xef\xbb\xbf{}", b"{}\xef\xbb\xbf", b"\xff\xfe{\x00}\x00"):
        with pytest.raises(JOSEError, match="not JSON in UTF-8"):
            parse_document(other)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (
            b' \t\r\n{"a" : [1, -0, 2.5, 1e3, true, false, null, "x"]} \n',
            {"a": [1, 0, 2.5, 1e3, True, False, None, "x"]},
        ),
        ('{"é":"\U0001f511"}'.encode(), {"é": "\U0001f511"}),
        (rb'{"a":"\ud83d\udd11"}', {"a": "\U0001f511"}),
        (rb'{"\uD83D\uDD11":["\\ud800"]}', {"\U0001f511": ["\\ud800"]}),
        (b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}', {"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]}),
        (b'{"a":1e-400}', {"a": 0.0}),
        (b'{"a":' + b"9" * 308 + b"}", {"a": int("9" * 308)}),
        (b'{"a":"NaN"}', {"a": "NaN"}),
    ],
)
def test_parse_object_returns_the_object(data: bytes, value: dict[str, Any]) -> None:
    assert parse_object(data) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON in UTF-8"),
        (b" ", "not JSON in UTF-8"),
        (b"{", "not JSON in UTF-8"),
        (b"{}{}", "not JSON in UTF-8"),
        (b"{}\x00", "not JSON in UTF-8"),
        (b"{'a':1}", "not JSON in UTF-8"),
        (b'{"a":1,}', "not JSON in UTF-8"),
        (b'{"a":01}', "not JSON in UTF-8"),
        (b'{"a":+1}', "not JSON in UTF-8"),
        (b'{"a":.5}', "not JSON in UTF-8"),
        (b'{"a":1.}', "not JSON in UTF-8"),
        (b'{"a":0x10}', "not JSON in UTF-8"),
        (b'{"a":"\n"}', "not JSON in UTF-8"),
        (b'{"a":"\x00"}', "not JSON in UTF-8"),
        (b'{"a":"\\x41"}', "not JSON in UTF-8"),
        (b"{1:2}", "not JSON in UTF-8"),
        (b"{}//", "not JSON in UTF-8"),
        ("\u00a0{}".encode(), "not JSON in UTF-8"),
        ('{"a":\u0661}'.encode(), "not JSON in UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON in UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not JSON in UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), "not JSON in UTF-8"),
        ('{"a":1}'.encode("utf-32"), "not JSON in UTF-8"),
        ('{"a":1}'.encode("utf-32-be"), "not JSON in UTF-8"),
        (b'{"a":"\xff"}', "not JSON in UTF-8"),
        (b'{"a":"\xc0\xaf"}', "not JSON in UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not JSON in UTF-8"),
        (rb'{"a":"\ud800"}', "not JSON in UTF-8"),
        (rb'{"a":"\uDFFFx"}', "not JSON in UTF-8"),
        (rb'{"a":[{"b":["\udd11\ud83d"]}]}', "not JSON in UTF-8"),
        (rb'{"\ud800":1}', "not JSON in UTF-8"),
        (rb'{"a":{"\uD800":1}}', "not JSON in UTF-8"),
        (b"[" * 5000, "not JSON in UTF-8"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"1", "not a JSON object"),
        (b'"{}"', "not a JSON object"),
        (b"[{}]", "not a JSON object"),
        (b'{"a":1,"a":1}', "same member name twice"),
        (rb'{"a":1,"\u0061":2}', "same member name twice"),
        (b'{"a":[{"b":{"c":1,"c":2}}]}', "same member name twice"),
        (b'{"":1,"":2}', "same member name twice"),
        (b'{"a":NaN}', "NaN and Infinity"),
        (b'{"a":[Infinity]}', "NaN and Infinity"),
        (b'{"a":-Infinity}', "NaN and Infinity"),
        (b'{"a":1e400}', "out of range"),
        (b'{"a":[-1.5e400]}', "out of range"),
        (b'{"a":1' + b"0" * 308 + b"}", "out of range"),
        (b'{"a":-1' + b"0" * 5000 + b"}", "out of range"),
    ],
)
def test_parse_object_refuses_what_is_not_strict_json(data: bytes, reason: str) -> None:
    with pytest.raises(JOSEError, match=reason) as caught:
        parse_object(data)
    assert caught.value.check is Check.FORMAT


def nested(depth: int, opening: str, closing: str) -> bytes:
    """An object whose innermost value lies `depth` objects and arrays deep."""
    return ('{"a":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}").encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_parse_object_refuses_deep_nesting(opening: str, closing: str) -> None:
    assert "a" in parse_object(nested(MAX_DEPTH, opening, closing))
    with pytest.raises(JOSEError, match="nested too deep"):
        parse_object(nested(MAX_DEPTH + 1, opening, closing))
    with pytest.raises(JOSEError):
        parse_object(nested(8000, opening, closing))


def test_parse_object_counts_depth_not_brackets() -> None:
    wide = {"a": [[] for _ in range(100)], "b": "[" * 100}
    assert parse_object(json.dumps(wide).encode()) == wide


def test_numbers_fit_into_a_float() -> None:
    largest = parse_object(b'{"a":' + b"9" * 308 + b',"b":-' + b"9" * 307 + b"}")
    assert all(abs(float(number)) < sys.float_info.max for number in largest.values())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans())
@few
def test_any_object_survives_a_round_trip(value: dict[str, Any], ensure_ascii: bool) -> None:
    assert parse_object(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


FRAGMENTS = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b'"a"', b":", b",", b"1", b"-", b"e400", b"NaN", b"true", b"\\u", b"d800"]
    + [b"\xff", b"\x00", b" ", b"\xef\xbb\xbf", b'{"a":', b'"a":1', b'{"a":1']
)


@given(st.binary(max_size=50) | st.lists(FRAGMENTS, max_size=20).map(b"".join))
@few
def test_parse_object_raises_nothing_else(data: bytes) -> None:
    try:
        value = parse_object(data)
    except JOSEError as error:
        assert error.check is Check.FORMAT
    else:
        assert value == json.loads(data)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


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
