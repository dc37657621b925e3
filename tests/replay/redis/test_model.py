"""Workers with clocks of their own and a server that loses what it can, in virtual time, by a seed.

Judged is that a proof is accepted at most once; that it is called used only where it was presented before;
that it is answered 503 only where it could have been used before a loss was noticed. Workers end, and others
start in their place. A master that was replaced goes on answering the workers that are connected to it, for
up to ten seconds. Faults that the fence can't see don't happen here (data that are lost and presented again
within a second of the last look on a connection that survives, a newcomer on a server whose loss no worker
has noticed, a clock that steps before a worker's first look, what is presented to workers of two masters).
"""

import math
import random
from dataclasses import replace
from typing import get_args

import pytest

from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.fence import Fence, NewServer
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.vitals import ServerChanged
from tests.support.model import ANCHOR, LIFETIME, MARGIN, NOW, SKEW, Model, Proof, Proofs, lose
from tests.support.seeds import first_seed

SEEDS = 1500
STEPS = 120


class Worker:
    def __init__(self, offset: float, new_server: NewServer, *, begun: float, with_script: bool) -> None:
        self.offset, self.begun = offset, begun
        self.fence = Fence(Sights(Buckets(b"dpop", spread=False)), new_server)
        self.fence.with_script = with_script
        self.generation = -1

    def connect(self, model: Model) -> None:
        anchors = {0: model.get(ANCHOR)}
        at = model.time
        self.fence.connected(model.info(), anchors, lived=at - self.begun, asked=(at, at))
        self.generation = model.generation

    def wake(self, model: Model) -> None:
        """Do what a worker does without any entry: connect, and survey the server."""
        if self.generation != model.generation:
            self.connect(model)
        self.survey(model)
        if self.fence.standing.due or self.fence.vitals.has_lost:
            self.survey(model)

    def survey(self, model: Model) -> None:
        """One exchange without any entry."""
        fence, info = self.fence, model.info()
        writes, buckets = fence.survey(model.time)
        look = fence.vitals.look(model.time)
        model.obey(*writes)
        try:
            if look:
                fence.vitals.looked(info, model.time)
            fence.surveyed(buckets, [model.get(ANCHOR) for _ in buckets], model.time)
        except ServerChanged:
            self.generation = -1

    def judge(self, model: Model, proof: Proof) -> bool | None:
        """The outcome of one entry, None for 503."""
        now = NOW + model.time + self.offset
        if self.generation != model.generation:
            self.connect(model)
        fence = self.fence
        fence.sights.offset = NOW + self.offset
        opening, look = fence.opening(now, [0]), fence.vitals.look(model.time)
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
            self.survey(model)
        if not first:
            return False
        return None if proof.iat - SKEW < fence.sights.since[0] else True


LOSSES = ("flush", "restart", "old snapshot", "promotion", "other data", "step", "evictions")
HARMLESS = ("new id", "broken connections", "step back")
# One that is noticed without a look at the clock before.
OF_TWO_MASTERS = tuple(fault for fault in LOSSES if fault != "step")
# More connections than a run breaks.
MANY = 1000


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
        self.new_server = self.random.choice(get_args(NewServer))
        self.with_script = self.random.random() < 0.7
        self.workers = [self.worker(begun=-100.0) for _ in range(3)]
        self.proofs = Proofs(self.random, lambda iat: Proof(self.model.new_name().encode(), iat))
        self.unaware: set[Worker] = set()
        # With "wait" a new server counts as one that has lost its data.
        self.noticed = -math.inf if self.new_server == "accept" else 0.0
        # The master that was replaced, until when it answers, and whom.
        self.former: Model | None = None
        self.former_ends = -math.inf
        self.stay: list[Worker] = []
        self.judged = 0

    def worker(self, *, begun: float) -> Worker:
        offset = self.random.uniform(-MARGIN / 2, MARGIN / 2)
        return Worker(offset, self.new_server, begun=begun, with_script=self.with_script)

    def proof_of_now(self) -> Proof:
        """One that nobody else presents, and that no loss until now makes doubtful."""
        return Proof(self.model.new_name().encode(), NOW + self.model.time + SKEW + 2 * MARGIN)

    def whole(self) -> int:
        """Let everything happen; return how many proofs were judged."""
        for worker in self.workers:
            assert worker.judge(self.model, self.proof_of_now()) is True
        for step in range(STEPS):
            self.model.time += self.random.choice((0.01, 0.2, 1.5, 8.0))
            self.happen()
            self.present(f"seed {self.seed}, step {step}")
        return self.judged

    def happen(self) -> None:
        dice = self.random.random()
        if self.former is not None:
            self.happen_to_two(self.former, dice)
        elif dice < 0.03:
            fault = self.random.choice(LOSSES)
            if fault == "step":
                # A worker that hasn't read this server before can't know that its clock was different.
                for worker in self.workers:
                    self.ask(worker, self.proof_of_now())
            lose(self.model, fault)
            self.unaware = set(self.workers)
        elif dice < 0.05:
            harmless(self.model, self.random.choice(HARMLESS))
        elif dice < 0.07:
            self.promote_beside_the_master()
        elif dice < 0.15 and not self.unaware:
            newcomer = self.workers[self.random.randrange(3)] = self.worker(begun=self.model.time)
            if self.random.random() < 0.5:
                self.ask(newcomer, self.proof_of_now())
            else:
                newcomer.wake(self.model)
        elif dice < 0.25:
            self.wake(self.random.choice(self.workers))

    def promote_beside_the_master(self) -> None:
        """The master may have restarted meanwhile."""
        self.former = replace(self.model, history=[*self.model.history])
        lose(self.model, "promotion")
        self.model.generation += MANY
        if self.random.random() < 0.5:
            lose(self.former, self.random.choice(("restart", "old snapshot")))
        self.stay = [worker for worker in self.workers if self.random.random() < 0.6]
        self.unaware = set(self.workers)
        self.former_ends = self.model.time + 10

    def happen_to_two(self, former: Model, dice: float) -> None:
        """Either loses data, and workers leave the master that was replaced."""
        if dice < 0.03:
            former.time = self.model.time
            loses = self.random.choice((self.model, former))
            lose(loses, self.random.choice(OF_TWO_MASTERS))
            self.model.time = loses.time
            self.unaware = set(self.workers)
        is_over = self.model.time > self.former_ends
        for worker in [one for one in self.stay if is_over or self.random.random() < 0.15]:
            self.stay.remove(worker)
            self.ask(worker, self.proof_of_now())
        if not self.stay:
            self.former = None

    def wake(self, worker: Worker) -> None:
        worker.wake(self.model)
        if worker in self.unaware:
            # What it learns at its next look counts too.
            self.noticed = self.model.time

    def ask(self, worker: Worker, proof: Proof) -> bool | None:
        if worker in self.stay and self.former is not None:
            self.former.time = self.model.time
            return worker.judge(self.former, proof)
        if worker in self.unaware:
            self.unaware.remove(worker)
            self.noticed = self.model.time
        return worker.judge(self.model, proof)

    def present(self, told: str) -> None:
        time, worker = self.model.time, self.random.choice(self.workers)
        proof = self.proofs.some(time) if self.former is None else self.proofs.new(time)
        if proof.is_acceptable(NOW + time + worker.offset):
            outcome = self.ask(worker, proof)
            noticed = self.noticed if self.former is None else math.inf
            proof.judge(outcome, noticed=noticed, told=told)
            self.judged += 1


@pytest.mark.parametrize("part", range(5))
def test_nothing_is_accepted_twice_whatever_is_lost(part: int) -> None:
    start = first_seed() + part * SEEDS // 5
    judged = [Run(seed).whole() for seed in range(start, start + SEEDS // 5)]
    assert sum(judged) > STEPS * len(judged) / 4


class Restarted:
    """A server that restarts without its data, 100 s after `away` met it."""

    def __init__(self, *, had_an_entry: bool) -> None:
        self.model = Model(random.Random(1))
        self.away = self.worker()
        self.away.wake(self.model)
        if had_an_entry:
            assert self.away.judge(self.model, self.proof()) is True
        self.model.time = 100.0
        lose(self.model, "restart")

    def worker(self) -> Worker:
        return Worker(0.0, "accept", begun=self.model.time - 1, with_script=True)

    def proof(self) -> Proof:
        """One of a client whose clock is ahead by as much as a policy allows."""
        return Proof(self.model.new_name().encode(), NOW + self.model.time + SKEW)

    def accepted(self) -> Proof:
        """A proof that another worker accepts 15 s after the restart."""
        self.model.time = 115.0
        proof = self.proof()
        assert self.worker().judge(self.model, proof) is True
        return proof


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 30.0])
def test_a_worker_without_an_entry_does_not_take_a_flush_for_an_earlier_restart(seconds: float) -> None:
    world = Restarted(had_an_entry=False)
    world.away.wake(world.model)
    proof = world.accepted()
    world.model.time += 1
    lose(world.model, "flush")
    world.model.time += seconds
    assert world.away.judge(world.model, proof) is None


@pytest.mark.parametrize("had_an_entry", [False, True])
@pytest.mark.parametrize("surveys", [False, True])
def test_a_flush_after_the_report_on_a_new_connection_is_no_restart(
    had_an_entry: bool, surveys: bool
) -> None:
    world = Restarted(had_an_entry=had_an_entry)
    proof, model, away = world.accepted(), world.model, world.away
    told = model.info()
    lose(model, "flush")
    away.fence.connected(told, {0: model.get(ANCHOR)}, lived=115.0, asked=(model.time, model.time))
    away.generation = model.generation
    if surveys:
        away.wake(model)
    model.time += 0.01
    assert away.judge(model, proof) is None


def test_a_flush_after_the_report_of_a_new_server_is_not_the_beginning() -> None:
    model = Model(random.Random(1))
    first, second = (Worker(0.0, "accept", begun=0.0, with_script=True) for _ in range(2))
    told, proof = model.info(), Proof(b"p", NOW + SKEW)
    assert second.judge(model, proof) is True
    lose(model, "flush")
    first.fence.connected(told, {0: model.get(ANCHOR)}, lived=0.0, asked=(0.0, 0.0))
    first.generation = model.generation
    first.wake(model)
    assert first.judge(model, proof) is None


@pytest.mark.parametrize("wakes", [0.0, 19.5])
def test_a_restart_is_dated_by_the_start_where_nothing_else_can_have_happened(wakes: float) -> None:
    world = Restarted(had_an_entry=False)
    world.model.time += wakes
    world.away.wake(world.model)
    world.model.time += 20 - wakes
    assert world.away.judge(world.model, world.proof()) is True
    assert world.away.fence.sights.since[0] <= NOW + 101 + MARGIN
