"""Copies of the checkout as it was when the run began: they alone are mutated."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("dpop_middleware", "examples", "tests", "pyproject.toml", "README.md", ".github", ".ci", "tox.ini")


def copy_to(directory: Path, *, of: Path = ROOT) -> Path:
    """Copy what the tests read, of the checkout or of a copy."""
    directory.mkdir(parents=True)
    for name in COPIED:
        source, target = of / name, directory / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
        else:
            shutil.copy2(source, target)
    return directory


def environment(directory: Path) -> dict[str, str]:
    """The environment in which the package and the tests are the copy's, in a test's processes too."""
    mine = {
        name: value
        for name, value in os.environ.items()
        if name not in {"TOX_ENV_NAME", "COVERAGE_FILE", "CI"}
    }
    return mine | {"PYTHONPATH": str(directory)}


def import_from(directory: Path) -> None:
    """Have this process import the package and the tests from the copy."""
    for name in [
        name for name in sys.modules if name.partition(".")[0] in {"dpop_middleware", "examples", "tests"}
    ]:
        del sys.modules[name]
    elsewhere = {"", str(ROOT), str(Path.cwd())}
    sys.path[:] = [str(directory), *(entry for entry in sys.path if entry not in elsewhere)]
    os.chdir(directory)
    replaced = environment(directory)
    os.environ.clear()
    os.environ.update(replaced)
