"""How the table of verdicts is judged, and that its rows are as described; no figure is judged here."""

import pytest

from tests.benchmarks.judge import ACCEPTANCE, Measured, Row, rows, show, table
from tests.benchmarks.rounds import Samples


def measured(row: Row, factor: float) -> Measured:
    """Figures that are `factor` times the bars of the row."""
    bar = 1.0 if row.bar is None else row.bar
    bar_to_other = 1.0 if row.bar_to_other is None else row.bar_to_other
    ours = Samples([bar_to_other * factor] * 3, [bar * factor] * 3)
    return Measured(ours, Samples([1.0] * 3, [1.0] * 3))


def test_figures_below_their_bars_miss_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([(row, measured(row, 0.99)) for row in rows()])
    assert "MISSED" not in capsys.readouterr().out


@pytest.mark.parametrize("missed", [row.name for row in rows() if row.bar or row.bar_to_other])
def test_a_figure_over_its_bar_is_missed(missed: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = [(row, measured(row, 1.01 if row.name == missed else 0.99)) for row in rows()]
    assert not show(figures)
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "MISSED" in line]
    assert told.startswith(missed)
    (row,) = [row for row, _ in figures if row.name == missed]
    assert told.count("MISSED") == (row.bar is not None) + (row.bar_to_other is not None)


async def test_each_row_lets_in_or_refuses_what_it_says() -> None:
    results = await table(rounds=2, size=3)
    assert [row.name for row, _ in results] == [row.name for row in rows()]
    for _, figures in results:
        assert len(figures.ours.ratios) == len(figures.other.ratios) == 2
        assert figures.to_other > 0


def test_only_what_is_let_in_is_compared_with_the_floor() -> None:
    assert {row.other for row in rows() if not row.lets_in} == {ACCEPTANCE}
