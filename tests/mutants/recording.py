"""Which tests run which line, measured once: what a mutant's trial chooses from.

Left out are tests that start servers of their own kind or are slow: a mutant is worth some seconds.
"""

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import coverage

from tests.mutants import recorder
from tests.mutants.sandbox import ROOT, environment

# No benchmark, browser, gateway, npm package or framework's server: they find at length what these find at
# once.
LEFT_OUT = {
    "benchmarks", "cli", "examples", "frameworks", "interoperability", "mutants", "servers", "soak",
    "testing", "test_house.py", "test_oracle.py", "test_readme.py", "test_trust.py",
}  # fmt: skip
# They need npm's packages, attack at random, or need every kind of server.
NEVER = (
    "tests/client/test_against_oidc_provider.py",
    "tests/introspection/test_against_oidc_provider.py",
    "tests/attacks/test_mutations.py",
    "tests/attacks/test_wire.py",
)

_SETTINGS = """\
[run]
parallel = true
patch = subprocess
source_pkgs = dpop_middleware
core = ctrace
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Of each file's lines the tests that ran them, and how many seconds each test took."""

    lines: Mapping[str, Mapping[int, frozenset[str]]]
    seconds: Mapping[str, float]


class RecordingError(Exception):
    """The tests fail without any mutant."""


def tests_to_record() -> list[str]:
    """The files and folders whose tests try the mutants."""
    tests = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    return [f"tests/{name}" for name in sorted(tests - LEFT_OUT)]


def record(checkout: Path, *, kept: Path, workers: int) -> Recording:
    """Run the tests of a copy of the checkout with coverage; use what was kept of the same files.

    The directory `kept` is made if it isn't there. Raises RecordingError if a test fails.
    """
    kept.mkdir(parents=True, exist_ok=True)
    file = kept / f"recording-{_digest(checkout)}.json"
    if not file.is_file():
        file.write_text(json.dumps(_recorded(checkout, workers=workers)), encoding="utf-8")
    found = json.loads(file.read_text(encoding="utf-8"))
    tests = found["tests"]
    return Recording(
        lines={
            path: {
                int(line): frozenset(tests[number] for number in numbers) for line, numbers in lines.items()
            }
            for path, lines in found["lines"].items()
        },
        seconds=found["seconds"],
    )


def _digest(checkout: Path) -> str:
    digest = hashlib.sha256("\0".join(tests_to_record()).encode())
    files = (*checkout.glob("dpop_middleware/**/*.py"), *checkout.glob("tests/**/*.py"))
    for path in sorted(path for path in files if checkout / "tests" / "mutants" not in path.parents):
        digest.update(path.relative_to(checkout).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _recorded(copy: Path, *, workers: int) -> dict[str, object]:
    settings, durations = copy / ".coveragerc", copy / "durations.json"
    settings.write_text(_SETTINGS, encoding="utf-8")
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q"]
    command += ["-p", recorder.__name__, "-p", "no:cacheprovider", "-n", str(workers), "--dist", "worksteal"]
    command += ["-m", "not slow", *(f"--ignore={path}" for path in NEVER), *tests_to_record()]
    environ = environment(copy) | {
        recorder.DURATIONS: str(durations),
        "COVERAGE_FILE": str(copy / ".coverage"),
    }
    if subprocess.run(command, cwd=copy, env=environ, check=False).returncode != 0:
        raise RecordingError("the tests fail without any mutant")
    combined = [sys.executable, "-m", "coverage", "combine", "-q", f"--rcfile={settings}"]
    subprocess.run(combined, cwd=copy, env=environ, check=True)
    data = coverage.CoverageData(str(copy / ".coverage"))
    data.read()
    numbers: dict[str, int] = {}
    lines: dict[str, dict[int, list[int]]] = {}
    for file in data.measured_files():
        found: dict[int, list[int]] = defaultdict(list)
        for line, tests in data.contexts_by_lineno(file).items():
            found[line] = [numbers.setdefault(test, len(numbers)) for test in tests if test]
        lines[Path(file).relative_to(copy).as_posix()] = found
    return {
        "tests": list(numbers),
        "lines": lines,
        "seconds": json.loads(durations.read_text(encoding="utf-8")),
    }
