"""The commands in the README's section on debugging do what is printed there."""

import re
import shlex
from pathlib import Path

import pytest

from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.support.command import ROOT, run

PROMPT = "$ dpop-middleware "
URL = "https://api.example.com/notes"


def section() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## Debugging\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        pytest.skip("the README has no section on debugging")
    return found[1]


def sessions() -> list[tuple[str, list[str]]]:
    """Each command with the lines that are printed under it."""
    told: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", section(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith(PROMPT):
                told.append((line.removeprefix(PROMPT), []))
            elif line and line != "…":
                told[-1][1].append(line)
    return told


def test_every_command_runs_and_prints_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = DPoPKey.generate()
    token = TestIssuer("https://auth.example.com", audience="https://api.example.com").token(jkt=key.jkt)
    Path("token.txt").write_text(token)
    Path("proof.txt").write_text(key.proof("GET", URL, access_token=token))
    commands = sessions()
    assert len(commands) >= 5
    for command, shown in commands:
        argv = shlex.split(command.removesuffix(" | sh"))
        if argv[0] == "conformance":
            # Its server is the reader's; that there is no such case is said after everything else was read.
            ran = run(*argv, "--only", "no-such-case")
            assert "there is no case no-such-case" in ran.err
            continue
        ran = run(*argv)
        assert ran.status == (1 if argv[0] == "explain" else 0), ran.err
        for line in shown:
            assert line in ran.out.splitlines()
