"""A mutant is killed by a test that fails, and by nothing else."""

from pathlib import Path

import pytest

from tests.mutants.__main__ import tried
from tests.mutants.mutations import mutants_of
from tests.mutants.recording import Recording
from tests.mutants.sandbox import COPIED, ROOT
from tests.mutants.trial import Verdict

MODULE = "dpop_middleware/limits.py"
SOURCE = b"LONGEST = 3\n"
TEST = "tests/test_limits.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    checkout = tmp_path / "checkout"
    for name in COPIED:
        path = checkout / name
        if (ROOT / name).is_dir():
            path.mkdir(parents=True)
        else:
            path.touch()
    # A package without it yields to one that is installed.
    (checkout / MODULE).with_name("__init__.py").touch()
    (checkout / MODULE).write_bytes(SOURCE)
    return checkout


def trials(checkout: Path, test: str, *names: str) -> set[tuple[bool, str]]:
    (checkout / TEST).write_text(f"import pytest\n\nfrom dpop_middleware.limits import LONGEST\n\n{test}")
    recording = Recording(lines={}, seconds={f"{TEST}::{name}": 0.1 for name in names})
    mutants = [one for one in mutants_of(MODULE, SOURCE) if one.text == "4"]
    verdicts: list[Verdict] = tried(mutants, recording, workers=1, checkout=checkout, verbose=False)
    return {(verdict.killed, verdict.by) for verdict in verdicts}


def test_a_test_that_fails_kills(checkout: Path) -> None:
    test = "def test_the_limit():\n    assert LONGEST == 3\n"
    assert trials(checkout, test, "test_the_limit") == {(True, f"{TEST}::test_the_limit")}


def test_a_file_that_cannot_be_imported_kills(checkout: Path) -> None:
    test = "assert LONGEST == 3\n\ndef test_nothing():\n    pass\n"
    assert trials(checkout, test, "test_nothing") == {(True, f"the import of {TEST}")}


def test_a_test_that_is_only_renamed_kills_nothing(checkout: Path) -> None:
    test = "@pytest.mark.parametrize('size', [LONGEST])\ndef test_a_size(size):\n    assert size == LONGEST\n"
    assert trials(checkout, test, "test_a_size[3]") == {(False, "")}


def test_a_test_that_is_renamed_and_fails_kills(checkout: Path) -> None:
    test = "@pytest.mark.parametrize('size', [LONGEST])\ndef test_a_size(size):\n    assert size == 3\n"
    assert trials(checkout, test, "test_a_size[3]") == {(True, f"{TEST}::test_a_size[4]")}
