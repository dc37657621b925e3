"""Only a copy is mutated, and edits of the checkout during a run don't affect it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.sandbox import copy_to, environment


def test_a_copy_of_a_copy_is_the_checkout_as_it_was(tmp_path: Path) -> None:
    first = copy_to(tmp_path / "checkout")
    (first / "dpop_middleware" / "policy.py").write_text("CHANGED = True\n", encoding="utf-8")
    second = copy_to(tmp_path / "copy", of=first)
    assert (second / "dpop_middleware" / "policy.py").read_text(encoding="utf-8") == "CHANGED = True\n"
    assert (second / "tests" / "conftest.py").is_file()


def test_a_process_there_imports_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOX_ENV_NAME", "mutants")
    copy = copy_to(tmp_path / "copy")
    program = "import os, dpop_middleware; print(dpop_middleware.__file__, 'TOX_ENV_NAME' in os.environ)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(copy),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(copy / "dpop_middleware" / "__init__.py"), "False"]
