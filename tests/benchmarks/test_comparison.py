"""The contents of table and chart, and that each application verifies signatures: no figure is judged."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import comparison
from tests.benchmarks.chart import Row, markdown, svg
from tests.benchmarks.comparison import PYTHON_PEER, measured, write
from tests.benchmarks.serving_processes import BARE, OURS

ROWS = {
    OURS: Row(cpu=140.4, rate=6000, p50=0.51, p99=1.5, remembers=True),
    "a <peer>": Row(cpu=900, rate=1000, p50=1, p99=20, remembers=False),
}


def test_the_table_has_a_line_for_each_application() -> None:
    lines = markdown(ROWS, caption="today").splitlines()
    assert lines[0] == "today"
    assert lines[-2] == f"| {OURS} | 140 µs | 6,000 | 0.51 ms | 1.50 ms | yes |"
    assert lines[-1] == "| a <peer> | 900 µs | 1,000 | 1.00 ms | 20.00 ms | no |"


def test_the_chart_has_a_bar_for_each_application_as_long_as_its_rate() -> None:
    chart = ET.fromstring(svg(ROWS, caption="today & here"))
    name = "{http://www.w3.org/2000/svg}"
    _, *bars = chart.iter(f"{name}rect")
    ours, theirs = (float(bar.attrib["width"]) for bar in bars)
    assert ours == pytest.approx(6 * theirs, abs=6)
    texts = [element.text for element in chart.iter(f"{name}text")]
    assert "today & here" in texts
    assert "a <peer>" in texts


def test_both_are_written_with_the_day_and_the_machine(tmp_path: Path) -> None:
    write(ROWS, tmp_path / "new")
    for file in ("comparison.md", "comparison.svg"):
        assert "CPython" in (tmp_path / "new" / file).read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_application_is_measured_that_lets_known_clients_in_and_refuses_a_wrong_signature() -> None:
    rows = measured((OURS, PYTHON_PEER), seconds=0.1)
    assert [row.remembers for row in rows.values()] == [True, False]
    assert all(row.rate > 0 and row.p99 >= row.p50 > 0 for row in rows.values())


@pytest.mark.slow
def test_an_application_that_verifies_nothing_is_not_measured() -> None:
    with pytest.raises(AssertionError, match="401"):
        measured((BARE,), seconds=0.1)


def test_a_peer_that_is_missing_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert measured((comparison.NODE_PEER,), seconds=0.1) == {}
    assert "left out: Node.js is not installed" in capsys.readouterr().err
