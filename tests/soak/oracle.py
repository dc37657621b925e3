"""The rules for the verdicts, judged without the package: each proof by its key and its jti.

Every proof is kept with all its presentations. It may be accepted once, and called used only if it was
presented before to a worker that may have written it down.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

__all__ = ["Finding", "Kind", "Oracle", "Presentation", "Proof", "Verdict"]


class Kind(StrEnum):
    """The meaning of an answer."""

    ACCEPTED = "accepted"
    USED = "401 used before"
    LOST = "503 entries may be lost"
    LOST_NONCE = "401 new nonce, entries may be lost"
    FORGOTTEN = "503 other workers may have forgotten it"
    EVICTS = "503 entries are evicted"
    UNAVAILABLE = "503 no answer from the store"
    NONCE = "401 new nonce"
    REFUSED = "401 another fault of the proof"
    OTHER = "anything else"


class Verdict(NamedTuple):
    """A client's answer; `nonce` is for its next proof."""

    status: int
    error: str = ""
    description: str = ""
    nonce: str | None = None

    @property
    def kind(self) -> Kind:
        """Its meaning, by status and description."""
        lost = "lost entries" in self.description
        if self.status == 200:
            return Kind.ACCEPTED
        if self.status == 503:
            return Kind.LOST if lost else self._unavailable()
        if self.status != 401:
            return Kind.OTHER
        if self.error == "use_dpop_nonce":
            return Kind.LOST_NONCE if lost else Kind.NONCE
        return Kind.USED if "used before" in self.description else Kind.REFUSED

    def _unavailable(self) -> Kind:
        if "no longer remember" in self.description:
            return Kind.FORGOTTEN
        return Kind.EVICTS if "evicts entries" in self.description else Kind.UNAVAILABLE


# Answers that come before the store is asked.
UNWRITTEN = {Kind.NONCE, Kind.REFUSED}


@dataclass(slots=True, eq=False)
class Presentation:
    """One presentation of a proof to a worker, and the answer; times are monotonic."""

    worker: int
    sent: float
    answered: float = float("inf")
    kind: Kind | None = None


@dataclass(slots=True, eq=False)
class Proof:
    """A proof by its thumbprint and jti; `text` is the proof itself, emptied when it isn't sent any more.

    `offset` is how far the client's clock was ahead; `by_nonce` says whether the proof has a nonce.
    """

    jkt: str
    jti: str
    api: str
    token: str
    text: str
    offset: float
    by_nonce: bool
    presentations: list[Presentation] = field(default_factory=list)

    @property
    def acceptances(self) -> list[Presentation]:
        """The presentations that were accepted, in the order of their answers."""
        accepted = [one for one in self.presentations if one.kind is Kind.ACCEPTED]
        return sorted(accepted, key=lambda one: one.answered)


class Finding(NamedTuple):
    """A broken rule."""

    what: str
    proof: Proof
    presentation: Presentation


class Oracle:
    """Keeps every proof that was presented, and finds broken rules."""

    def __init__(self) -> None:
        self._proofs: dict[tuple[str, str], Proof] = {}
        self.kinds: Counter[Kind] = Counter()
        self.descriptions: Counter[str] = Counter()
        self.twice: list[Finding] = []
        self.false_replays: list[Finding] = []
        self.used_unaccepted = 0

    @property
    def proofs(self) -> int:
        """How many proofs there were."""
        return len(self._proofs)

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return self.kinds.total()

    def presents(self, proof: Proof, worker: int, now: float) -> Presentation:
        """`proof` is sent to `worker` now."""
        known = self._proofs.setdefault((proof.jkt, proof.jti), proof)
        presentation = Presentation(worker, now)
        known.presentations.append(presentation)
        return presentation

    def answered(self, proof: Proof, presentation: Presentation, verdict: Verdict, now: float) -> None:
        """The answer to `presentation` is `verdict`."""
        presentation.answered, presentation.kind = now, verdict.kind
        self.kinds[verdict.kind] += 1
        if verdict.status != 200:
            self.descriptions[f"{verdict.status} {verdict.description or verdict.error}"] += 1
        if verdict.kind is Kind.ACCEPTED and len(proof.acceptances) > 1:
            self.twice.append(Finding("accepted twice", proof, presentation))
        if verdict.kind is Kind.USED:
            self._judge_used(proof, presentation)

    def _judge_used(self, proof: Proof, presentation: Presentation) -> None:
        others = [one for one in proof.presentations if one is not presentation]
        if all(one.kind in UNWRITTEN for one in others):
            self.false_replays.append(Finding("false replay", proof, presentation))
        elif not any(one.kind in {Kind.ACCEPTED, None} for one in others):
            # A proof that got 503 may be remembered: its client knows that it must make another.
            self.used_unaccepted += 1
