"""The log stays readable and harmless."""

import logging

import pytest

from dpop_middleware._log import LOG, RateLimit, escaped, info_is_seen, named, plain, shown


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("a\r\nb", "'a\\r\\nb'"),
        ("\x1b[2J\u202e", "'\\x1b[2J\\u202e'"),
        ("x" * 198, f"'{'x' * 198}'"),
        ("x" * 199, f"'{'x' * 199}...(cut)"),
        ("x" * 10**6, f"'{'x' * 199}...(cut)"),
        (("é", 1), "('\\xe9', 1)"),
        (None, "None"),
    ],
)
def test_a_value_is_printable_ascii_of_a_bounded_length(value: object, line: str) -> None:
    assert escaped(value) == line


def test_a_value_in_an_error_is_short() -> None:
    assert shown("x") == "'x'"
    assert len(shown("x" * 1000)) == 103


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, None),
        ("it's", "it's"),
        ("a\nb", "a\\nb"),
        (2**53, 2**53),
        (-(2**53) - 1, "-9007199254740993"),
        (float("inf"), "inf"),
        (("a", 1), "('a', 1)"),
    ],
)
def test_a_field_of_a_record_has_no_quotes_and_only_exact_numbers(value: object, field: object) -> None:
    assert plain(value) == field


def test_a_cause_is_named_by_its_class_and_its_code_and_never_by_its_words() -> None:
    cause = ConnectionError("password=secret")
    assert named(cause) == "ConnectionError"
    assert named(None) == "NoneType"
    coded = ConnectionError("password=secret")
    coded.code = "OOM\n"  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    assert named(coded) == "ConnectionError('OOM\\n')"


@pytest.mark.parametrize(
    ("handler", "level", "seen"),
    [
        (logging.Handler(), logging.INFO, True),
        (logging.Handler(logging.WARNING), logging.INFO, False),
        (logging.NullHandler(), logging.INFO, False),
        (logging.Handler(), logging.WARNING, False),
    ],
)
def test_info_is_seen_where_a_handler_shows_it(
    monkeypatch: pytest.MonkeyPatch, handler: logging.Handler, level: int, seen: bool
) -> None:
    for name, value in {"handlers": [handler], "propagate": False}.items():
        monkeypatch.setattr(LOG, name, value)
    before = LOG.level
    LOG.setLevel(level)
    try:
        assert info_is_seen() is seen
    finally:
        LOG.setLevel(before)


def test_ten_lines_a_second_of_each_kind_and_the_next_one_tells_how_many_were_left_out() -> None:
    limit = RateLimit()
    assert [limit.admit("a", 1.0) for _ in range(12)] == [*[0] * 10, None, None]
    assert limit.admit("b", 1.0) == 0
    assert [limit.admit("a", 2.0) for _ in range(2)] == [2, 0]


def test_each_kind_and_class_may_log_one_traceback_a_minute() -> None:
    limit, cause = RateLimit(), ConnectionError()
    assert limit.traceback("a", cause, 0.0) is cause
    assert limit.traceback("a", ConnectionError(), 59.9) is None
    assert limit.traceback("b", cause, 59.9) is cause
    assert limit.traceback("a", another := TimeoutError(), 59.9) is another
    assert limit.traceback("a", cause, 60.0) is cause
