"""The commands in the chapter on the command line print the output that is shown there."""

import re
import shlex
from pathlib import Path

import pytest

from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.support.command import run
from tests.support.readme import text_of

PROMPT = "$ dpop-middleware "
URL = "https://api.example.com/notes"


def sessions() -> list[tuple[str, list[str]]]:
    """Each command with the lines that are printed under it."""
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(
        r"^```console\n(.*?)^```$", text_of("examples/command_line/README.md"), re.MULTILINE | re.DOTALL
    ):
        for line in block.splitlines():
            if line.startswith(PROMPT):
                commands.append((line.removeprefix(PROMPT), []))
            elif line and line != "…":
                commands[-1][1].append(line)
    return commands


def test_every_command_runs_and_prints_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = DPoPKey.generate()
    token = TestIssuer("https://auth.example.com", audience="https://api.example.com").token(jkt=key.jkt)
    Path("token.txt").write_text(token)
    Path("proof.txt").write_text(key.proof("GET", URL, access_token=token))
    fields = f"Host: api.example.com\nAuthorization: DPoP {token}\nDPoP: {Path('proof.txt').read_text()}\n"
    Path("captured.txt").write_text(f"POST /notes HTTP/1.1\n{fields}\n")
    commands = sessions()
    assert len(commands) >= 5
    for command, shown in commands:
        argv = shlex.split(command.removesuffix(" | sh"))
        if argv[0] == "conformance":
            # The reader has no such server; the unknown case is reported after all other inputs were read.
            ran = run(*argv, "--only", "no-such-case")
            assert "there is no case no-such-case" in ran.err
            continue
        ran = run(*argv)
        assert ran.status == (1 if argv[0] == "explain" else 0), ran.err
        for line in shown:
            assert line in ran.out.splitlines()
