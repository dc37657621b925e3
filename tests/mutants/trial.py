"""One mutant's trial: its file is changed in this process's copy, and a child of it runs the tests.

What all tests import from others is imported before, once: a trial then begins within tenths of a second.
"""

import contextlib
import importlib
import multiprocessing.process
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutants.choosing import file_of
from tests.mutants.mutations import Mutant
from tests.mutants.sandbox import copy_to, import_from

# Seconds that a trial may take beyond three times what its tests took when nothing was changed.
PATIENCE = 20.0
PER_TEST = 15
OF_OTHERS = (
    "anyio._backends._asyncio", "cryptography.hazmat.primitives.asymmetric.ec", "cryptography.x509",
    "fastapi", "httpx2", "hypothesis", "jwt", "pytest_asyncio", "pytest_timeout", "redis.asyncio",
    "starlette.applications", "starlette.testclient", "trustme", "uvicorn", "xdist",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the tests noticed the mutant, and which did."""

    mutant: Mutant
    killed: bool
    by: str
    tests: int
    seconds: float


class _Chosen:
    """Has the chosen tests run, in their order, and writes which failed.

    Where a mutant changes a test's parameters, and so its name, all of its function's tests stand for it: a
    name that is no longer there shows nothing.
    """

    def __init__(self, tests: Sequence[str], failed: Path) -> None:
        self._places = {test: place for place, test in enumerate(tests)}
        self._failed = failed

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        renamed = {_function_of(test) for test in self._places.keys() - {item.nodeid for item in items}}
        last = len(self._places)
        placed = [
            (self._places.get(item.nodeid, last), item)
            for item in items
            if item.nodeid in self._places or _function_of(item.nodeid) in renamed
        ]
        items[:] = [item for _, item in sorted(placed, key=lambda one: one[0])]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failed.write_text(f"the import of {report.nodeid}", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.write_text(report.nodeid, encoding="utf-8")


def _function_of(test: str) -> str:
    return test.partition("[")[0]


_copy: list[Path] = []


def prepare(checkout: Path) -> None:
    """Make this process's copy, and import what others wrote."""
    _copy[:] = [copy_to(checkout.with_name(f"copy-{os.getpid()}"), of=checkout)]
    for name in OF_OTHERS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def trial(mutant: Mutant, stages: Sequence[Sequence[str]], seconds: Sequence[float]) -> Verdict:
    """Try a mutant in this process's copy."""
    (copy,) = _copy
    path = copy / mutant.path
    source, begun, tried = path.read_bytes(), time.monotonic(), 0
    kept = path.stat()
    try:
        path.write_bytes(mutant.applied_to(source))
        # Its own time each, or the compiled mutant of a moment ago would be taken for this one.
        os.utime(path, ns=(time.time_ns(), kept.st_mtime_ns + time.monotonic_ns()))
        for tests, took in zip(stages, seconds, strict=True):
            tried += len(tests)
            by = _killer(copy, tests, limit=PATIENCE + 3 * took) if tests else None
            if by is not None:
                break
        else:
            by = None
    finally:
        path.write_bytes(source)
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    spent = time.monotonic() - begun
    return Verdict(mutant=mutant, killed=by is not None, by=by or "", tests=tried, seconds=spent)


def control(tests: Sequence[str]) -> str | None:
    """Run tests in the copy as it is: what fails, None if all pass."""
    (copy,) = _copy
    return _killer(copy, tests, limit=PATIENCE + PER_TEST * len(tests))


def _killer(copy: Path, tests: Sequence[str], *, limit: float) -> str | None:
    """The test that failed, or what else ended the run; None where all passed."""
    with tempfile.TemporaryDirectory() as directory:
        failed = Path(directory, "failed")
        child = os.fork()
        if child == 0:
            _run(copy, tests, failed)
        status = _waited_for(child, limit)
        if status in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            return None
        if failed.is_file():
            return failed.read_text(encoding="utf-8")
    return "the time limit" if status is None else f"the exit status {status}, before a test"


def _run(copy: Path, tests: Sequence[str], failed: Path) -> None:
    status = 1
    try:
        os.setsid()
        # A test's process is nobody's worker: the package warns where a memory store is one of several.
        multiprocessing.process._parent_process = None  # type: ignore[attr-defined] # private
        output = os.open(failed.with_name("output"), os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        import_from(copy)
        files = dict.fromkeys(file_of(test) for test in tests)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", f"--timeout={PER_TEST}"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "--hypothesis-seed=0"]
        status = int(pytest.main([*options, *files], plugins=[_Chosen(tests, failed)]))
    finally:
        os._exit(status)


def _waited_for(child: int, limit: float) -> int | None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # processes that its tests started and left running
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
