"""The faults of the servers with their times, and the answers that the design allows because of them.

Times are seconds of the monotonic clock, which all processes of one machine share.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TextIO

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN

__all__ = ["CLOCK_SKEW", "RECOVERY", "SLACK", "Happening", "Journal", "until_judged"]

CLOCK_SKEW = 30.0
# A store is back within this number of seconds after its server.
RECOVERY = 1.0
# The time that a request may take, and the time that a busy machine may add.
SLACK = 0.75
# How often a store checks for changes behind a surviving connection, plus the time of one request.
LOOK = 1.3


@dataclass(slots=True, eq=False)
class Happening:
    """One fault: from when to when it kept servers from answering as they should.

    `loses` says whether entries may be lost, and `lost_until` until when, if that is later. `blind` are the
    times in which the design can't detect a loss yet: entries that are lost, and whose proofs are presented
    again, within a second after the last check, on a connection that survives.
    """

    name: str
    began: float
    ended: float = float("inf")
    detail: str = ""
    loses: bool = False
    lost_until: float = 0.0
    blind: list[tuple[float, float]] = field(default_factory=list)

    def is_back(self) -> None:
        """From now on the servers answer as they should."""
        self.ended = time.monotonic()

    @property
    def noticed(self) -> float:
        """When every worker has noticed the loss, at the latest."""
        return max(self.ended, self.lost_until, *(last for _, last in self.blind))

    def hides(self, begin: float, end: float) -> None:
        """A loss between `begin` and `end` can't be detected for one more second."""
        self.blind.append((begin, end + LOOK))


def until_judged(*, by_nonce: bool) -> float:
    """Seconds after a loss, at most, until an honest client's new proof is judged again."""
    since = 2 * WORKER_CLOCK_MARGIN
    # A nonce and an `iat` have whole seconds.
    return since + 1 + (0.0 if by_nonce else CLOCK_SKEW)


class Journal:
    """All that happened, also as lines of a file; `with Journal(path) as journal:` closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = time.monotonic()
        self.happenings: list[Happening] = []
        self.stalls: list[tuple[float, float]] = []
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def note(self, text: str, *, at: float | None = None) -> None:
        """Write a line: seconds since the beginning, the time of the day, and `text`."""
        if self._file is not None:
            ago = 0.0 if at is None else time.monotonic() - at
            wall = datetime.fromtimestamp(time.time() - ago, UTC).strftime("%H:%M:%S.%f")[:-3]
            self._file.write(f"{time.monotonic() - ago - self.began:9.3f}  {wall}  {text}\n")
            self._file.flush()

    @contextmanager
    def happening(self, name: str) -> Generator[Happening]:
        """A fault that begins now, and ends at the end of the block unless it ended before."""
        happening = Happening(name, time.monotonic())
        self.happenings.append(happening)
        self.note(f"{name}: begins")
        try:
            yield happening
        finally:
            if happening.ended == float("inf"):
                happening.is_back()
            lost = ", entries may be lost" if happening.loses else ""
            detail = f" ({happening.detail})" if happening.detail else ""
            self.note(f"{name}{detail}: the servers are back{lost}", at=happening.ended)

    def stalled(self, end: float, seconds: float) -> None:
        """An event loop, a worker's or the test's own, was blocked for `seconds` until `end`."""
        self.stalls.append((end - seconds, end))

    def was_stalled(self, begin: float, end: float) -> bool:
        """Whether an event loop was blocked while a request was running."""
        return any(begin <= last + SLACK and first <= end for first, last in self.stalls)

    def is_blind(self, begin: float, end: float) -> Happening | None:
        """The fault by which something between `begin` and `end` may have been lost without a sign."""
        for happening in self.happenings:
            if any(begin <= last and first <= end for first, last in happening.blind):
                return happening
        return None

    def allows_no_answer(self, begin: float, end: float) -> bool:
        """Whether a request between `begin` and `end` may have gone without any verdict."""
        spans = [(happening.began, happening.ended) for happening in self.happenings] + self.stalls
        return any(begin <= last + RECOVERY + SLACK and first <= end for first, last in spans)

    def allows_lost(self, begin: float, end: float, *, by_nonce: bool) -> bool:
        """Whether a new proof of an honest client may have got the answer that entries are lost."""
        return any(
            happening.loses
            and happening.began <= end
            and begin <= happening.noticed + until_judged(by_nonce=by_nonce) + SLACK
            for happening in self.happenings
        )
