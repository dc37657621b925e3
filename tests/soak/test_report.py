from pathlib import Path

import pytest

from tests.soak.clients import Probe
from tests.soak.journal import LOOK, RECOVERY, SLACK, Happening, Journal, until_judged
from tests.soak.oracle import Kind, Oracle, Proof, Verdict
from tests.soak.report import Report, excess_of, recoveries, unexplained
from tests.soak.workers import SPARE_BYTES, SPARE_DESCRIPTORS, Measured, has_grown

BEGAN, ENDED = 10.0, 12.0
MEGABYTE = 1024 * 1024


def probe(at: float, kind: Kind = Kind.ACCEPTED, *, by_nonce: bool = False, worker: int = 0) -> Probe:
    return Probe(worker, at, at + 0.1, kind, by_nonce)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "log")
    journal.happenings.append(Happening("hang", BEGAN, ENDED))
    return journal


def test_a_503_during_a_fault_and_for_a_second_after_it_is_allowed(journal: Journal) -> None:
    last = ENDED + RECOVERY + SLACK
    times = [BEGAN - 0.05, BEGAN, ENDED, last - 0.05]
    assert excess_of([probe(at, Kind.UNAVAILABLE) for at in times], journal).times == 0
    excess = excess_of([probe(at, Kind.UNAVAILABLE) for at in (5.0, 5.5, last + 0.5)], journal)
    assert (excess.times, excess.since, excess.worker) == (3, 5.0, 0)
    assert excess.kinds == {Kind.UNAVAILABLE: 3}
    assert excess.longest == pytest.approx(0.6)


def test_a_503_for_lost_entries_is_allowed_after_a_loss_only(journal: Journal) -> None:
    lost = [probe(ENDED + 3, Kind.LOST)]
    assert excess_of(lost, journal).times == 1
    journal.happenings[0].loses = True
    assert excess_of(lost, journal).times == 0


@pytest.mark.parametrize("by_nonce", [True, False])
def test_lost_entries_excuse_a_503_for_as_long_as_the_design_says(journal: Journal, by_nonce: bool) -> None:
    journal.happenings[0].loses = True
    last = ENDED + until_judged(by_nonce=by_nonce) + SLACK
    assert excess_of([probe(last - 0.01, Kind.LOST, by_nonce=by_nonce)], journal).times == 0
    assert excess_of([probe(last + 0.01, Kind.LOST, by_nonce=by_nonce)], journal).times == 1
    # A change behind a surviving connection is detected, and dated, by the next check.
    journal.happenings[0].hides(BEGAN, ENDED)
    assert excess_of([probe(last + LOOK - 0.01, Kind.LOST, by_nonce=by_nonce)], journal).times == 0
    assert excess_of([probe(last + LOOK + 0.01, Kind.LOST, by_nonce=by_nonce)], journal).times == 1
    journal.happenings[0].lost_until = ENDED + 3
    assert excess_of([probe(last + 2.9, Kind.LOST, by_nonce=by_nonce)], journal).times == 0


def test_a_503_while_an_event_loop_was_held_up_is_allowed(journal: Journal) -> None:
    refused = [probe(30.0, Kind.UNAVAILABLE)]
    assert excess_of(refused, journal).times == 1
    journal.stalled(30.2, 0.5)
    assert excess_of(refused, journal).times == 0


def test_recovery_is_measured_from_the_servers_return(journal: Journal) -> None:
    journal.happenings[0].loses = True
    probes = [
        probe(11.0, Kind.UNAVAILABLE),
        probe(12.1, Kind.UNAVAILABLE),
        probe(12.5, Kind.LOST, by_nonce=True),
        probe(13.9, Kind.LOST, by_nonce=True),
        probe(13.0, Kind.LOST),
        probe(14.8, Kind.LOST),
        probe(20.0, Kind.UNAVAILABLE),
    ]
    ((judged, by_nonce, by_iat),) = recoveries(probes, journal, 60.0)["hang"]
    assert [judged, by_nonce, by_iat] == pytest.approx([0.2, 2.0, 2.9])
    # The next fault came before that: the time is unknown.
    journal.happenings.append(Happening("kill", 15.0, 16.0))
    ((judged, by_nonce, by_iat),) = recoveries(probes, journal, 60.0)["hang"]
    assert [judged, by_nonce] == pytest.approx([0.2, 2.0])
    assert by_iat is None
    # A busy machine is not a server's fault.
    journal.stalled(12.3, 0.5)
    assert recoveries(probes, journal, 60.0)["hang"][0].judged == 0.0


def test_without_faults_there_is_nothing_to_recover_from(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    assert recoveries([probe(1.0)], journal, 60.0) == {}
    table = Report("a run", journal, Oracle(), ()).table((), [probe(1.0)], 60.0)
    assert "503 that no fault allows        0" in table


def measured(*values: tuple[int, int]) -> list[Measured]:
    return [Measured(float(at), rss, fds) for at, (rss, fds) in enumerate(values)]


def test_memory_that_a_worker_gains_while_it_warms_up_is_no_growth() -> None:
    start, warm = (50 * MEGABYTE, 8), (60 * MEGABYTE, 10)
    assert not has_grown([])
    assert not has_grown(measured(start, warm, warm, warm))
    bound = int(warm[0] * 1.25) + SPARE_BYTES
    assert not has_grown(measured(start, warm, warm, (bound, warm[1] + SPARE_DESCRIPTORS)))
    assert has_grown(measured(start, warm, warm, (bound + 1, warm[1])))
    assert has_grown(measured(start, warm, warm, (warm[0], warm[1] + SPARE_DESCRIPTORS + 1)))


def accepted_twice(oracle: Oracle, at: float) -> None:
    proof = Proof("jkt", "jti", "plain", "token", "proof", 0.0, by_nonce=False)
    for sent in (5.0, at):
        oracle.answered(proof, oracle.presents(proof, 1, sent), Verdict(200), sent + 0.01)


def test_losses_that_the_design_cannot_detect_are_counted_separately(journal: Journal) -> None:
    journal.happenings[0].blind.append((BEGAN, ENDED + LOOK))
    named, found = Oracle(), Oracle()
    accepted_twice(named, ENDED + 1)
    accepted_twice(found, ENDED + 2)
    good, bad = (Report("a run", journal, oracle, ["what isn't there"]) for oracle in (named, found))
    assert good.is_good(())
    assert not bad.is_good(())
    assert "twice 0" in good.progress(75, 15)
    assert "01:15 / 15:00  2 requests" in bad.progress(75, 15)
    table = bad.table((), [probe(12.1, Kind.UNAVAILABLE)], 60.0)
    assert "1 x accepted twice, after: hang" in table
    assert "left out: what isn't there" in table
    assert any("worker 1: accepted" in line for line in bad.explain())
    assert any("can't be told: hang" in line for line in good.explain())


def test_the_journal_is_a_file_with_times(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "log") as journal:
        with journal.happening("hang") as happening:
            happening.detail, happening.loses = "server 1", True
        assert happening.began <= happening.ended
        with pytest.raises(ZeroDivisionError), journal.happening("kill"):
            raise ZeroDivisionError
    text = (tmp_path / "new" / "log").read_text()
    assert "hang: begins" in text
    assert "hang (server 1): the servers are back, entries may be lost" in text
    assert "kill: the servers are back" in text


def test_each_503_that_no_fault_allows_is_told_with_the_faults_before_it(journal: Journal) -> None:
    probes = [probe(11.0, Kind.UNAVAILABLE), probe(20.0, Kind.LOST, by_nonce=True, worker=2), probe(21.0)]
    (line,) = unexplained(probes, journal)
    assert line.endswith("worker 2: 503 entries may be lost, with nonce, after: hang")
    (early,) = unexplained([probe(1.0, Kind.LOST)], journal)
    assert early.endswith("worker 0: 503 entries may be lost, without nonce, after: nothing")
