"""How the flood's figures are judged; the figures themselves are not judged here."""

import pytest

from tests.benchmarks import flood
from tests.benchmarks.flood import BARE, COSTLIEST, OURS, Phase, hostile_requests, show
from tests.benchmarks.workload import Workload

MEGABYTES = 5.0


def phases(
    ratio: float, *, honest: int = 200, flooded: int = 401, answered: float = MEGABYTES
) -> dict[tuple[str, bool], Phase]:
    found: dict[tuple[str, bool], Phase] = {}
    for name, milliseconds in ((BARE, 1.0), (OURS, ratio)):
        for under in (False, True):
            phase = Phase(
                latencies=[milliseconds / 1e3] * 10,
                medians=[milliseconds / 1e3] * 3,
                seconds=1.0,
                sent=int(MEGABYTES * 1e6),
            )
            phase.answered = int(answered * 1e6)
            phase.statuses[honest if name == OURS else 200] = 10
            phase.flood_statuses[flooded if name == OURS else 200] = 10
            found[name, under] = phase
    return found


def test_a_flood_over_its_bar_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(phases(2.9), megabytes=MEGABYTES)
    assert "MISSED" not in capsys.readouterr().out
    assert not show(phases(3.1), megabytes=MEGABYTES)
    assert "3.10   bar 3.0   MISSED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (phases(1.0, honest=503), "honest clients were refused: {503: 10}"),
        (phases(1.0, flooded=400), "the flood was not judged: {400: 10}"),
        (phases(1.0, answered=4.4), "under 90% of the flood was answered"),
    ],
    ids=["honest clients refused", "another refusal", "half a flood"],
)
def test_a_run_that_does_not_count_is_reported(
    found: dict[tuple[str, bool], Phase], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not show(found, megabytes=MEGABYTES)
    assert told in capsys.readouterr().out


def test_each_hostile_request_has_sixteen_kilobytes() -> None:
    requests = hostile_requests(Workload())
    assert len(requests) == len(COSTLIEST)
    assert all(16_000 <= len(request) <= 17_500 for request in requests)
    assert all(request.endswith(b"\r\n\r\n") and request.isascii() for request in requests)


@pytest.mark.parametrize(
    "arguments", [["--seconds=0"], ["--seconds=121"], ["--megabytes=51"], ["--rate=nan"]]
)
def test_everything_is_bounded(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flood.arguments(arguments)
    assert "at most" in capsys.readouterr().err
