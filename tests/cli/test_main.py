"""The command as a whole: help, usage errors, pipes, and secrets that must never be shown."""

import errno
import importlib
import io
import os
import re
import runpy
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from dpop_middleware.cli import demo, main
from dpop_middleware.cli.console import Command
from tests.support.command import process, run

A_REQUEST = ("--method", "GET", "--url", "https://api.example.com/notes", "--proof", "x")
COMMANDS = ("keygen", "proof", "thumbprint", "explain", "conformance", "demo")


def test_help_names_every_command() -> None:
    ran = process("--help")
    assert ran.status == 0
    for command in COMMANDS:
        assert re.search(rf"^    {command}\b", ran.out, re.MULTILINE)


def test_help_has_an_example_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 110
    examples = re.findall(r"^  dpop-middleware (\w+)(.*)$", out, re.MULTILINE)
    assert [command for command, _ in examples] == ["demo", "keygen", "proof", "explain"]
    assert run("demo").status == 0


def _nowhere(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("installed", "version"),
    [(lambda _: "1.2.3", "1.2.3"), (_nowhere, "(not installed)")],
    ids=["wheel", "checkout"],
)
def test_version_is_printed(
    installed: Callable[[str], str],
    version: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dpop_middleware.cli.metadata.version", installed)
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"dpop-middleware {version}"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0
    out = capsys.readouterr().out
    assert f"examples:\n  dpop-middleware {command}" in out
    # Where it can't be encoded there is no help.
    assert out.isascii()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "COMMAND: see dpop-middleware --help"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["explain"], "--method, --url, --proof: see dpop-middleware explain --help"),
        (["proof", "GET", "https://a.example/"], "--key: see dpop-middleware proof --help"),
        (["proof", "GET", "https://a.example/", "--ke", "x"], "required: --key"),
        (["keygen", "f", "--rsa-bits", "many"], "invalid int value: 'many'"),
        (["keygen", "f", "--algorithm", "HS256"], "invalid choice: 'HS256'"),
        (["demo", "\x1b[31mred\x07"], "unrecognized arguments: \\x1b[31mred\\x07"),
        (["demo", "\udcff\u202e"], "unrecognized arguments: \\udcff\\u202e"),
    ],
)
def test_a_usage_error_is_one_line_and_status_2(argv: list[str], words: str) -> None:
    ran = run(*argv)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("dpop-middleware: ")
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert ran.err.isascii()


def test_python_dash_m_is_the_command(tmp_path: Path) -> None:
    assert process("keygen", str(tmp_path / "k.jwk")).status == 0
    ran = process("keygen", str(tmp_path / "k.jwk"))
    assert (ran.status, ran.out) == (2, "")
    assert "exists: choose another name, or add --overwrite" in ran.err


def test_a_reader_that_leaves_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["demo"]) == 1
        stream.flush()


@pytest.mark.parametrize(("out", "err"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize(("argv", "status"), [(("demo",), 0), (("nothing",), 2)])
def test_a_stream_that_was_closed_is_not_written_to(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], status: int, out: bool, err: bool
) -> None:
    for name, is_open in (("stdout", out), ("stderr", err)):
        monkeypatch.setattr(sys, name, io.StringIO() if is_open else None)
    assert main(argv) == status


class Full(io.StringIO):
    """A file on a disk that has no space left."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("argv", [["demo"], ["explain", "--json", *A_REQUEST]])
def test_an_output_that_takes_nothing_more_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", told)
    assert main(argv) == 2
    assert told.getvalue() == "dpop-middleware: standard output can't be written: No space left on device\n"


def test_an_unwritable_standard_error_causes_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    assert main(["nothing"]) == 2


def test_an_interrupt_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    replace_demo(monkeypatch, interrupted)
    ran = run("demo")
    assert (ran.status, ran.out, ran.err) == (130, "", "")


def test_a_fault_of_the_command_shows_no_traceback_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise ValueError("the-secret")

    replace_demo(monkeypatch, broken)
    ran = run("demo")
    assert ran.status == 70
    assert ran.err.startswith(
        "dpop-middleware: internal error, please report it: ValueError at test_main.py:"
    )
    assert "the-secret" not in ran.err


def replace_demo(monkeypatch: pytest.MonkeyPatch, run_it: object) -> None:
    replacement = Command(
        name="demo",
        summary="x",
        examples="",
        add_arguments=demo.COMMAND.add_arguments,
        run=run_it,  # type: ignore[arg-type]
    )
    monkeypatch.setattr("dpop_middleware.cli._COMMANDS", (replacement,))


def test_the_module_leaves_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dpop_middleware.__main__", raising=False)
    monkeypatch.setattr(sys, "argv", ["dpop-middleware"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_module("dpop_middleware", run_name="__main__")
    assert leaving.value.code == 2
    assert importlib.import_module("dpop_middleware.__main__").main is main
