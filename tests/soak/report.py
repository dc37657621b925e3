"""The report of a run: progress lines, and a table at the end."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from tests.soak.clients import Probe
from tests.soak.journal import Happening, Journal
from tests.soak.oracle import Finding, Kind, Oracle
from tests.soak.workers import Worker, has_grown

__all__ = ["Excess", "Recovery", "Report", "excess_of", "recoveries", "unexplained"]

# Refusals at most this many seconds apart belong together.
_TOGETHER = 1.0
# Refusals after a longer pause have another cause: a machine too busy, for instance.
_PAUSE = 2.0
_UNJUDGED = {Kind.UNAVAILABLE, Kind.EVICTS}
_SHOWN = 10
# How many of the faults before a finding are reported.
_TOLD = 6


class Excess(NamedTuple):
    """503s that no fault explains: how many, for how long at most, since when, and at which worker."""

    times: int
    longest: float
    since: float
    worker: int
    kinds: Mapping[Kind, int]


class Recovery(NamedTuple):
    """Seconds from the server's return until every new proof of an honest client had a verdict again.

    `by_nonce` and `by_iat` are until none was answered any more that entries may be lost; None where the next
    fault came first.
    """

    judged: float | None
    by_nonce: float | None
    by_iat: float | None


def excess_of(probes: Iterable[Probe], journal: Journal) -> Excess:
    """The 503s to honest new proofs that the design doesn't allow."""
    last: dict[int, tuple[float, float]] = {}
    kinds: Counter[Kind] = Counter()
    longest, since, worker = 0.0, 0.0, 0
    for probe in sorted(probes, key=lambda probe: probe.answered):
        if is_allowed(probe, journal):
            continue
        kinds[probe.kind] += 1
        begin, end = last.get(probe.worker, (probe.sent, probe.sent))
        if probe.sent - end > _TOGETHER:
            begin = probe.sent
        last[probe.worker] = (begin, probe.answered)
        if probe.answered - begin > longest:
            longest, since, worker = probe.answered - begin, begin, probe.worker
    return Excess(kinds.total(), longest, since, worker, kinds)


def unexplained(probes: Iterable[Probe], journal: Journal) -> Iterable[str]:
    """Each 503 that the design doesn't allow, for the journal, with the faults before it."""
    for probe in probes:
        if not is_allowed(probe, journal):
            faults = [one.name for one in journal.happenings if one.began <= probe.answered][-_TOLD:]
            times = f"{probe.sent - journal.began:9.3f} to {probe.answered - journal.began:9.3f}"
            yield (
                f"no fault allows: {times}  "
                f"worker {probe.worker}: {probe.kind}, {'with' if probe.by_nonce else 'without'} nonce, "
                f"after: {', '.join(reversed(faults)) or 'nothing'}"
            )


def is_allowed(probe: Probe, journal: Journal) -> bool:
    """Whether an honest client's answer isn't a 503, or is one that the design allows."""
    if probe.kind in _UNJUDGED:
        return journal.allows_no_answer(probe.sent, probe.answered)
    if probe.kind is Kind.LOST:
        return journal.allows_lost(probe.sent, probe.answered, by_nonce=probe.by_nonce)
    # A new proof is never too old.
    return probe.kind is not Kind.FORGOTTEN


def recoveries(probes: Sequence[Probe], journal: Journal, end: float) -> dict[str, list[Recovery]]:
    """For each kind of fault how long it took to recover, each time that it happened.

    Refusals while an event loop was blocked don't count: a busy machine is not a server's fault.
    """
    found: dict[str, list[Recovery]] = defaultdict(list)
    happenings = journal.happenings
    begins = [*(happening.began for happening in happenings), end][1:]
    for happening, until in zip(happenings, begins, strict=True):
        after = [probe for probe in probes if happening.ended <= probe.sent < until]

        unjudged = [
            one for one in after if one.kind in _UNJUDGED and not journal.was_stalled(one.sent, one.answered)
        ]
        lost = [one for one in after if one.kind is Kind.LOST]
        found[happening.name].append(
            Recovery(
                _last(unjudged, happening.ended, until),
                _last([one for one in lost if one.by_nonce], happening.ended, until),
                _last([one for one in lost if not one.by_nonce], happening.ended, until),
            )
        )
    return dict(found)


def _last(refused: Sequence[Probe], since: float, until: float) -> float | None:
    """Seconds after `since` until refusals ended that begin with it and don't pause; None when cut short."""
    latest = since
    for probe in refused:
        if probe.sent > latest + _PAUSE:
            break
        latest = max(latest, probe.answered)
    return latest - since if latest < until - 0.5 else None


def _range(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.median(known):.2f} / {max(known):.2f}"


class Report:
    """One topology's run, for people."""

    def __init__(self, title: str, journal: Journal, oracle: Oracle, left_out: Sequence[str]) -> None:
        self._title = title
        self._journal = journal
        self._oracle = oracle
        self._left_out = left_out

    def named(self) -> list[tuple[Finding, Happening]]:
        """Proofs that were accepted twice while the design can't detect a loss yet."""
        return [(finding, cause) for finding, cause in self._twice() if cause is not None]

    def accepted_twice(self) -> list[Finding]:
        """Proofs that were accepted twice against the rules."""
        return [finding for finding, cause in self._twice() if cause is None]

    def progress(self, passed: float, minutes: float) -> str:
        """One line."""
        kinds = self._oracle.kinds
        unavailable = sum(kinds[kind] for kind in (Kind.UNAVAILABLE, Kind.LOST, Kind.FORGOTTEN, Kind.EVICTS))
        last = self._journal.happenings[-1].name if self._journal.happenings else "none yet"
        return (
            f"{clock(passed)} / {clock(minutes * 60)}  {self._oracle.requests:,} requests, "
            f"{kinds[Kind.ACCEPTED]:,} accepted, {kinds[Kind.USED]:,} replays, {unavailable:,} x 503, "
            f"twice {len(self.accepted_twice())}, false {len(self._oracle.false_replays)}; "
            f"fault {len(self._journal.happenings)}: {last}"
        )

    def is_good(self, workers: Sequence[Worker]) -> bool:
        """Whether no rule was broken."""
        grown = any(has_grown(worker.measured) for worker in workers)
        return not (self.accepted_twice() or self._oracle.false_replays or grown)

    def table(self, workers: Sequence[Worker], probes: Sequence[Probe], end: float) -> str:
        """The whole table."""
        journal, oracle = self._journal, self._oracle
        excess = excess_of(probes, journal)
        stalled = max((last - first for first, last in journal.stalls), default=0.0)
        at = f", at {excess.since - journal.began:.1f} s and worker {excess.worker}" if excess.times else ""
        lines = [
            "",
            f"== {self._title}",
            "",
            f"  requests                {oracle.requests:>9,}",
            f"  proofs                  {oracle.proofs:>9,}",
            *(f"    {kind.value:<38}{oracle.kinds[kind]:>9,}" for kind in Kind if oracle.kinds[kind]),
            f"  accepted twice          {len(self.accepted_twice()):>9,}",
            f"    within a second of a loss that can't be told yet {len(self.named()):>6,}",
            f"  false replays           {len(oracle.false_replays):>9,}",
            f"    called used after a 503 only      {oracle.used_unaccepted:>9,}",
            f"  503 that no fault allows {excess.times:>8,}, the longest {excess.longest:.2f} s{at}",
            *(f"    {kind.value:<38}{times:>9,}" for kind, times in excess.kinds.items()),
            f"  event loops held up     {len(journal.stalls):>9,} times, the longest {stalled:.2f} s",
            "",
            "  seconds after the servers' return, median / longest",
            f"  {'fault':<46}{'times':>5}  {'judged again':>14}  {'with nonces':>14}  {'without':>14}",
        ]
        measured = recoveries(probes, journal, end)
        for name, times in sorted(measured.items()):
            columns = (_range(one[column] for one in times) for column in range(3))
            lines.append(f"  {name:<46}{len(times):>5}  " + "  ".join(f"{text:>14}" for text in columns))
        lines += [
            "",
            "  worker    clock  MB at start    warm     end  descriptors at start   end",
            *map(self._memory, workers),
            *(f"  left out: {what}" for what in self._left_out),
            *self._findings(),
            "",
            f"  journal: {journal.path}",
        ]
        return "\n".join(lines)

    def _twice(self) -> Iterable[tuple[Finding, Happening | None]]:
        for finding in self._oracle.twice:
            again = finding.presentation
            yield finding, self._journal.is_blind(again.sent, again.answered)

    def _memory(self, worker: Worker) -> str:
        measured = worker.measured
        if not measured:
            return f"  {worker.number:<8}not measured"
        warm = measured[len(measured) // 3]
        megabytes = [f"{one.rss / 2**20:.1f}" for one in (measured[0], warm, measured[-1])]
        grown = "  GROWS" if has_grown(measured) else ""
        return (
            f"  {worker.number:<8}{worker.offset:>+7.2f}  {megabytes[0]:>11}  {megabytes[1]:>6}  "
            f"{megabytes[2]:>6}  {measured[0].fds:>20}  {measured[-1].fds:>4}{grown}"
        )

    def _findings(self) -> Iterable[str]:
        findings = [*self.accepted_twice(), *self._oracle.false_replays]
        causes: dict[str, int] = defaultdict(int)
        for finding in findings:
            causes[f"{finding.what}, after: {self._before(finding)}"] += 1
        for cause, count in sorted(causes.items(), key=lambda pair: -pair[1])[:_SHOWN]:
            yield f"  {count} x {cause}"

    def _before(self, finding: Finding) -> str:
        """The faults between the first acceptance and the broken rule, the latest first."""
        accepted = finding.proof.acceptances
        first = accepted[0].sent if finding.what == "accepted twice" else finding.presentation.sent - 60
        names = [
            happening.name
            for happening in self._journal.happenings
            if happening.began <= finding.presentation.answered and happening.ended >= first
        ]
        return ", ".join(reversed(names[-_TOLD:])) or "nothing"

    def explain(self) -> Iterable[str]:
        """Each finding for the journal: the proof and all its presentations."""
        for finding in [*self._oracle.twice, *self._oracle.false_replays]:
            again, proof = finding.presentation, finding.proof
            cause = self._journal.is_blind(again.sent, again.answered)
            named = f" (can't be told: {cause.name})" if cause and finding.what == "accepted twice" else ""
            yield (
                f"{finding.what}{named}: jti {proof.jti} of {proof.jkt}, {proof.api}, clock "
                f"{proof.offset:+.1f} s, {'with' if proof.by_nonce else 'without'} nonce, "
                f"after: {self._before(finding)}"
            )
            begin = self._journal.began
            for one in proof.presentations:
                times = f"{one.sent - begin:9.3f} to {one.answered - begin:9.3f}"
                yield f"    {times}  worker {one.worker}: {one.kind}"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return str(timedelta(seconds=int(seconds))).removeprefix("0:")
