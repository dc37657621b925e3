"""JSON that can be read in one way only."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpop_middleware.checks import Check
from dpop_middleware.jose import JOSEError
from dpop_middleware.jose.strict_json import MAX_DEPTH, parse_document, parse_object

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
