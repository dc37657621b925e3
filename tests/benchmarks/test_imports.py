"""How the time of the import is judged; the time itself is not judged here."""

import subprocess
import sys

import pytest

from tests.benchmarks.imports import BAR, DEPENDENCIES, OURS, measured, show


@pytest.mark.parametrize(("quotient", "met"), [(BAR - 0.01, True), (BAR + 0.01, False)])
def test_an_import_over_its_bar_is_missed(
    quotient: float, met: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show([(0.1, 0.1 * quotient), (0.2, 0.2 * quotient), (0.1, 9.0)]) is met
    assert ("MISSED" in capsys.readouterr().out) is not met


def test_both_imports_work_and_are_timed() -> None:
    ((dependencies, ours),) = measured(1)
    assert dependencies > 0
    assert ours > 0


@pytest.mark.parametrize(
    "module", ["redis", "multiprocessing", "httpx2", "uvicorn", "starlette.middleware.cors"]
)
def test_the_import_loads_no_module_that_only_some_users_need(module: str) -> None:
    script = f"import sys; {DEPENDENCIES}; before = {module!r} in sys.modules; {OURS}; "
    script += f"print(before or {module!r} not in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"
