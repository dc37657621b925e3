"""A contract suite, run on an implementation: by hand, to see which tests notice what, and by pytest."""

import asyncio
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import dpop_middleware

__all__ = ["contract_of", "noticed_by", "recipe_passes"]


def contract_of(suite: type) -> set[str]:
    """Return the names of the tests of a suite."""
    return {name for name in vars(suite) if name.startswith("test_")}


async def noticed_by(suite: type, fixtures: Callable[[], Mapping[str, object]]) -> set[str]:
    """Return the names of the tests that fail; each case has `fixtures` of its own, as under pytest."""
    noticed: set[str] = set()
    for name in contract_of(suite):
        for case in _cases(getattr(suite, name)):
            test = getattr(suite(), name)
            given = {**fixtures(), **case}
            arguments = {argument: given[argument] for argument in inspect.signature(test).parameters}
            (outcome,) = await asyncio.gather(_run(test, arguments), return_exceptions=True)
            if outcome is not None:
                noticed.add(name)
    return noticed


async def _run(test: Callable[..., object], arguments: Mapping[str, object]) -> None:
    outcome = test(**arguments)
    if inspect.isawaitable(outcome):
        await outcome


def _cases(test: Callable[..., object]) -> Iterator[Mapping[str, object]]:
    """The arguments of each case of a test that has one parameter, or of its only case."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    if not marks:
        yield {}
    for mark in marks:
        name, values = mark.args
        yield from ({name: value} for value in values)


def recipe_passes(module: ModuleType, folder: Path, *, imports: str) -> tuple[bool, str]:
    """Run the recipe in a module's docstring as its reader would; return whether it passes, and what it says.

    `imports` are the lines that the reader adds before it: what the recipe calls its own must be there.
    """
    _, _, recipe = (module.__doc__ or "").partition("\n    from ")
    text = textwrap.dedent("    from " + recipe)
    (folder / "test_it.py").write_text(f"{imports}\n{text}", encoding="utf-8")
    house = Path(dpop_middleware.__path__[0]).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode == 0, done.stdout + done.stderr
