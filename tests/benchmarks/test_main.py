"""The benchmarks' exit statuses, which report a missed bar; no figure is judged here."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.benchmarks.__main__ import BENCHMARKS, main
from tests.benchmarks.replay_store import BARS, judge


@pytest.mark.parametrize(
    "statuses",
    [(0,) * 7, *(tuple(int(one == other) for one in range(7)) for other in range(7)), (-9, 0, 0, 0, 0, 0, 0)],
    ids=str,
)
def test_a_missed_bar_of_any_benchmark_is_the_exit_status(
    statuses: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        ran.append(command[2])
        return subprocess.CompletedProcess(command, statuses[len(ran) - 1])

    monkeypatch.setattr("tests.benchmarks.__main__.subprocess.run", run)
    assert main([]) == (1 if any(statuses) else 0)
    assert ran == [
        "tests.benchmarks.judge",
        "tests.benchmarks.serving",
        "tests.benchmarks.imports",
        "tests.benchmarks.hostile",
        "tests.benchmarks.flood",
        "tests.benchmarks.comparison",
        "tests.benchmarks.replay_store",
    ]


@pytest.mark.parametrize("missed", [None, *BARS])
def test_a_replay_store_over_a_bar_is_missed(missed: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {name: bar * 1.01 if name == missed else bar for name, bar in BARS.items()}
    assert judge(figures) is (missed is None)
    told = capsys.readouterr().out
    assert told.count("MISSED") == (missed is not None)
    assert told.count("ok") == len(BARS) - (missed is not None)


@pytest.mark.parametrize("module", BENCHMARKS)
def test_each_is_a_command(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert "usage:" in done.stdout
