"""Workers with clocks of their own and a server that loses what it can, in virtual time, by a seed.

Judged is that a proof is accepted at most once; that it is called used only where it was presented before;
that it is answered 503 only where it could have been used before a loss was noticed. Faults that the fence
can't see don't happen here (data that are lost and presented again within a second of the last look on a
connection that survives, a newcomer on a server that lost its entries, a clock that steps before a worker's
first look).
"""

import math
import random

import pytest

from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.vitals import ServerChanged
from tests.support.model import ANCHOR, LIFETIME, MARGIN, NOW, SKEW, Model, Proof, Proofs, lose
from tests.support.seeds import first_seed

SEEDS = 1500
STEPS = 120


class Worker:
    def __init__(self, offset: float) -> None:
        self.offset = offset
        self.fence = Fence(Sights(Buckets(b"dpop", spread=False)), "accept")
        self.generation = -1

    def connect(self, model: Model) -> None:
        anchors = {0: model.get(ANCHOR)}
        at = model.time
        self.fence.connected(model.info(), anchors, lived=at + 100, asked=(at, at))
        self.generation = model.generation

    def judge(self, model: Model, proof: Proof) -> bool | None:
        """The outcome of one entry, None for 503."""
        now = NOW + model.time + self.offset
        if self.generation != model.generation:
            self.connect(model)
        fence = self.fence
        fence.sights.offset = NOW + self.offset
        look, opening = fence.vitals.look(model.time), fence.opening(now, [0])
        if look:
            try:
                fence.vitals.looked(model.info(), model.time)
                fence.heed(at=model.time, now=now)
            except ServerChanged:
                self.connect(model)
                opening = fence.opening(now, [0])
        model.obey(*opening)
        end = proof.iat + LIFETIME + SKEW + MARGIN
        first = model.put(proof.name, b"1", lifetime=max(1.0, end - now))
        fence.vitals.timed(model.clock(), sent=model.time, at=model.time)
        fence.heed(at=model.time, now=now)
        fence.observe(0, model.get(ANCHOR), now, model.time)
        if fence.has_to_write:
            # The writer does that without waiting for the next entry.
            writes, buckets = fence.survey(model.time)
            model.obey(*writes)
            fence.surveyed(buckets, [model.get(ANCHOR) for _ in buckets], model.time)
        if not first:
            return False
        return None if proof.iat - SKEW < fence.sights.since[0] else True


LOSSES = ("flush", "restart", "old snapshot", "promotion", "other data", "step", "evictions")
HARMLESS = ("new id", "broken connections", "step back")


def harmless(model: Model, event: str) -> None:
    if event == "new id":
        # A first replica connected. After a promotion that changes nothing, nor does freeing the backlog
        # within an hour, the time for which a server keeps it.
        if not model.was_replica:
            model.replication_id = model.new_name()
    elif event == "step back":
        model.offset -= model.random.uniform(1, 50)
    if model.random.random() < 0.5 or event == "broken connections":
        model.generation += 1


class Run:
    """One seed: what was lost, which workers haven't looked since, and when the last of the others did."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.model = Model(self.random)
        self.workers = [Worker(self.random.uniform(-MARGIN / 2, MARGIN / 2)) for _ in range(3)]
        self.proofs = Proofs(self.random, lambda iat: Proof(self.model.new_name().encode(), iat))
        self.unaware: set[Worker] = set()
        self.noticed = -math.inf
        self.judged = 0

    def whole(self) -> int:
        """Let everything happen; return how many proofs were judged."""
        for worker in self.workers:
            assert worker.judge(self.model, Proof(self.model.new_name().encode(), NOW)) is True
        for step in range(STEPS):
            self.model.time += self.random.choice((0.01, 0.2, 1.5, 8.0))
            self.happen()
            self.present(f"seed {self.seed}, step {step}")
        return self.judged

    def happen(self) -> None:
        dice = self.random.random()
        if dice < 0.03:
            fault = self.random.choice(LOSSES)
            if fault == "step":
                # A worker that hasn't read this server before can't know that its clock was different.
                for worker in self.workers:
                    self.ask(worker, Proof(self.model.new_name().encode(), NOW + self.model.time))
            lose(self.model, fault)
            self.unaware = set(self.workers)
        elif dice < 0.05:
            harmless(self.model, self.random.choice(HARMLESS))

    def ask(self, worker: Worker, proof: Proof) -> bool | None:
        if worker in self.unaware:
            self.unaware.remove(worker)
            self.noticed = self.model.time
        return worker.judge(self.model, proof)

    def present(self, told: str) -> None:
        proof, worker = self.proofs.some(self.model.time), self.random.choice(self.workers)
        if proof.is_acceptable(NOW + self.model.time + worker.offset):
            outcome = self.ask(worker, proof)
            proof.judge(outcome, noticed=self.noticed, told=told)
            self.judged += 1


@pytest.mark.parametrize("part", range(5))
def test_nothing_is_accepted_twice_whatever_is_lost(part: int) -> None:
    start = first_seed() + part * SEEDS // 5
    judged = [Run(seed).whole() for seed in range(start, start + SEEDS // 5)]
    assert sum(judged) > STEPS * len(judged) / 4
