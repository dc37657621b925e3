"""How the requests a second are judged, and that every application is safe; no figure is judged here."""

import pytest

from tests.benchmarks import serving
from tests.benchmarks.serving import BARS, measured, show
from tests.benchmarks.serving_processes import APPLICATIONS, BARE, OURS


@pytest.mark.parametrize("missed", [None, *BARS])
def test_a_quotient_under_its_bar_is_missed(missed: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    rates = {OURS: [1000.0] * 3}
    for name, bar in BARS.items():
        rates[name] = [1000.0 / (bar * (0.99 if name == missed else 1.01))] * 3
    assert show(rates) is (missed is None)
    told = [line for line in capsys.readouterr().out.splitlines() if "MISSED" in line]
    assert [line.startswith(str(missed)) for line in told] == [True] * (missed is not None)


def test_the_median_of_the_slices_counts() -> None:
    others = {name: [100.0] * 3 for name in BARS if name != BARE}
    assert show({OURS: [800.0, 10.0, 800.0], BARE: [1000.0] * 3, **others})
    assert not show({OURS: [800.0, 600.0, 600.0], BARE: [1000.0] * 3, **others})


@pytest.mark.slow
def test_every_application_lets_known_clients_in_and_refuses_a_replay_and_a_wrong_signature() -> None:
    rates = measured(seconds=0.1)
    assert set(rates) == set(APPLICATIONS)
    assert all(rate > 0 for slices in rates.values() for rate in slices)


@pytest.mark.parametrize("argument", ["--seconds=0", "--seconds=121", "--seconds=nan"])
def test_the_time_is_bounded(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serving.arguments([argument])
    assert "at most 120" in capsys.readouterr().err
