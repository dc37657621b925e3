"""What happened when: counts for each second and for each event, and whether all went as it must."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

ACCEPTED = "accepted"
UNAVAILABLE = "503"
REFUSED = "replays refused"
SENT_AGAIN = "sent again"
LOST = "LOST"
REPLAY_ACCEPTED = "REPLAYS ACCEPTED"
COLUMNS = (
    f"{'seconds':>7}  {'requests':>8}  {'accepted':>8}  {'503':>5}  {'lost':>4}  {'replays refused':>15}  "
)
HEAD = COLUMNS + "ready"


@dataclass
class Phase:
    """One event and what was seen from it on; `outage` says that 503s belong to it."""

    name: str
    begin: float
    outage: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)

    def faults(self) -> Iterator[str]:
        """Say what must not be, in sentences."""
        for outcome in (LOST, REPLAY_ACCEPTED):
            if self.counts[outcome]:
                yield f"{self.name}: {outcome} {self.counts[outcome]}"
        if self.counts[UNAVAILABLE] and not self.outage:
            yield f"{self.name}: {self.counts[UNAVAILABLE]} answers 503 without an outage"
        for outcome in (ACCEPTED, REFUSED):
            if not self.counts[outcome]:
                yield f"{self.name}: no {outcome}"


class Timeline:
    """Counts outcomes, and prints them while they come."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.phases: list[Phase] = []
        self._shown: Counter[str] = Counter()
        self.last_503 = 0.0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin

    def begin(self, name: str, *, outage: bool = False) -> None:
        """Count for the event `name` from now on."""
        self.phases.append(Phase(name, self.now, outage))
        print(f"{self.now:7.1f}  == {name}", flush=True)

    def tell(self, what: str) -> None:
        """Print a moment of the present event."""
        print(f"{self.now:7.1f}  -- {what}", flush=True)

    def note(self, outcome: str, name: str = "") -> None:
        """Count `outcome`, and its name: why an answer was 503, or what came of a request that was lost."""
        phase = self.phases[-1]
        phase.counts[outcome] += 1
        if name:
            phase.names[f"{outcome}: {name}"] += 1
        if outcome == UNAVAILABLE:
            self.last_503 = self.now

    def total(self, outcome: str) -> int:
        """Return how often `outcome` came in all."""
        return sum(phase.counts[outcome] for phase in self.phases)

    def show(self, ready: tuple[int, int]) -> None:
        """Print a row of what came since the last one."""
        counts = Counter[str]()
        for phase in self.phases:
            counts += phase.counts
        new, self._shown = counts - self._shown, counts
        requests = new[ACCEPTED] + new[UNAVAILABLE] + new[LOST]
        print(
            f"{self.now:7.1f}  {requests:8}  {new[ACCEPTED]:8}  {new[UNAVAILABLE]:5}  {new[LOST]:4}"
            f"  {new[REFUSED]:15}  {ready[0]}/{ready[1]}",
            flush=True,
        )

    def summary(self) -> list[str]:
        """Print a line for each event, with the 503s by name; return the faults."""
        print(f"\n{COLUMNS}event")
        for phase, end in zip(self.phases, [*(one.begin for one in self.phases[1:]), self.now], strict=True):
            counts = phase.counts
            requests = counts[ACCEPTED] + counts[UNAVAILABLE] + counts[LOST]
            print(
                f"{end - phase.begin:7.1f}  {requests:8}  {counts[ACCEPTED]:8}  {counts[UNAVAILABLE]:5}"
                f"  {counts[LOST]:4}  {counts[REFUSED]:15}  {phase.name}"
            )
            for name, count in sorted(phase.names.items()):
                print(f"{count:>17}  {name}")
        for outcome in (LOST, REPLAY_ACCEPTED):
            print(f"\n{self.total(outcome):5}  {outcome}", end="")
        print()
        return [fault for phase in self.phases for fault in phase.faults()]
