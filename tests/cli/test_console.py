"""The output: colours on terminals that want them, marks that the encoding has, nothing unescaped."""

import io

import pytest

from dpop_middleware.cli.console import Console, FindingState, printable
from tests.support.command import Terminal, process, run


def console(out: io.TextIOBase, **environ: str) -> Console:
    return Console(out, io.StringIO(), environ=environ)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terminal", "environ", "colourful"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colours_are_for_terminals_only(terminal: bool, environ: dict[str, str], colourful: bool) -> None:
    out = Terminal(is_terminal=terminal)
    console(out, **environ).line("words", style="red")
    assert out.getvalue() == ("\x1b[31mwords\x1b[0m\n" if colourful else "words\n")


def test_the_whole_command_obeys_the_colour_settings() -> None:
    assert "\x1b[32m✓ \x1b[0m" in run("demo", terminal=True, environ={"TERM": "xterm", "NO_COLOR": ""}).out
    assert "\x1b" not in run("demo", terminal=True, environ={"NO_COLOR": "1"}).out
    assert "\x1b" not in run("demo").out


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "✓ "), ("ascii", "ok"), ("cp1252", "ok")])
def test_marks_are_ascii_where_the_encoding_needs_it(encoding: str, mark: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert console(out).mark(FindingState.PASSED) == mark


def test_a_stream_without_an_encoding_gets_the_default_marks() -> None:
    assert console(io.StringIO()).mark(FindingState.FAILED) == "✗ "


def test_the_command_prints_ascii_where_the_encoding_needs_it() -> None:
    ran = process("demo", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ran.status == 0
    assert ran.out.isascii()
    assert ran.out.count("\nok ") == 12


def test_a_printable_text_has_no_control_and_no_non_ascii_characters() -> None:
    assert printable("a\x1b[2J\r\nb\u202e\U0001f600é\\") == "a\\x1b[2J\\r\\nb\\u202e\\U0001f600\\xe9\\"


def test_json_is_ascii() -> None:
    out = io.StringIO()
    console(out).json({"a": "é\u202e", "b": frozenset({"x"})})
    assert out.getvalue() == '{\n  "a": "\\u00e9\\u202e",\n  "b": "frozenset({\'x\'})"\n}\n'
