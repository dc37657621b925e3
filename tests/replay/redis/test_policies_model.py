"""Workers with different policies on one server in virtual time, by a seed.

Judged is what `test_model` judges, and that a proof is refused for its age only where a worker that counts
has a shorter memory. Workers differ in whether nonces count, and proofs may have one: its moment is then that
of its issue, which every worker can read. A worker may be idle for minutes, while the others go on and the
server's clock steps, or is set back and right again later. Before a loss each has spoken since it was idle:
what it published meanwhile can't be read after the loss. So does each that had no request for some minutes,
since what others published then doesn't count for ever. Workers are replaced in runs without a loss only, as
the chapter on the store says; there, and where nonces don't count for all, no proof with a nonce is dated
farther ahead than all policies allow.
"""

import asyncio
import math
import random
from typing import cast

import pytest

from dpop_middleware import DPoPPolicy
from dpop_middleware._proof.freshness import acceptance_window, reach_of, retention
from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import Nonce
from dpop_middleware.replay import ReplayEntry
from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.retention import PublishedRetentions
from dpop_middleware.replay.redis.usual import UsualBatch
from dpop_middleware.replay.redis.vitals import ServerChanged
from dpop_middleware.replay.redis.writes import FORGOTTEN, Outcome, PendingWrite
from tests.support.model import ANCHOR, MARGIN, NOW, Model, lose
from tests.support.seeds import first_seed

SEEDS = 600
STEPS = 120
BUCKETS = Buckets(b"dpop", spread=False)
LOSSES = ("flush", "restart", "old snapshot", "promotion", "other data", "evictions", "step", "step", "back")
NONCE_LIFETIME = 300.0
# Twice that and twice the longest step are below the ten minutes for which a policy counts once published.
LONGEST_SILENCE = 200.0
POLICIES = (
    DPoPPolicy(proof_lifetime=60, clock_skew=15),
    DPoPPolicy(proof_lifetime=60, clock_skew=0, nonce="fallback"),
    DPoPPolicy(proof_lifetime=60, clock_skew=60),
    DPoPPolicy(proof_lifetime=300, clock_skew=10),
    DPoPPolicy(proof_lifetime=20, clock_skew=200, nonce="fallback"),
    DPoPPolicy(proof_lifetime=560, clock_skew=35),
    DPoPPolicy(proof_lifetime=700, clock_skew=30),
    DPoPPolicy(proof_lifetime=60, clock_skew=30, nonce="required"),
)
FARTHEST = max(policy.clock_skew for policy in POLICIES)


def kept_for(policy: DPoPPolicy) -> float:
    return retention([policy], NONCE_LIFETIME, None)


class Valkey:
    """Obeys a worker's commands; the sorted set is lost with the other keys."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.scores: dict[bytes, float] = {}

    def replies(self, data: bytes) -> list[object]:
        replies = list[object]()
        while data:
            header, _, data = data.partition(b"\r\n")
            words = list[bytes]()
            for _ in range(int(header[1:])):
                size, _, data = data.partition(b"\r\n")
                end = int(size[1:])
                words.append(data[:end])
                data = data[end + 2 :]
            replies.append(self.reply(*words))
        return replies

    def reply(self, name: bytes, *words: bytes) -> object:
        model = self.model
        match name, words:
            case b"INFO", _:
                return self.info()
            case b"TIME", _:
                return model.clock()
            case b"GET", (key,):
                return model.get(key)
            case b"SET", (key, value, b"NX", *more):
                found = model.get(key)
                lifetime = int(more[-1]) / 1000 if more else math.inf
                is_new = model.put(key, value, lifetime=lifetime)
                return found if b"GET" in more else b"OK" if is_new else None
            case b"EVAL", (_, _, key, found, value):
                if model.get(key) != found:
                    return None
                model.put(key, value, only_new=False)
                return b"OK"
            case b"ZADD", (_, *pairs):
                self.scores.update(zip(pairs[1::2], map(float, pairs[::2]), strict=True))
                return len(pairs) // 2
            case _:
                assert name == b"ZRANGEBYSCORE"
                alive = {member: score for member, score in self.scores.items() if score >= float(words[1])}
                return [word for member, score in alive.items() for word in (member, b"%.3f" % score)]

    def info(self) -> bytes:
        told = self.model.info()
        fields = {
            "redis_version": told.version,
            "run_id": told.run_id,
            "master_replid": told.replication_id,
            "master_replid2": told.former_replication_id,
            "role": told.role,
            "uptime_in_seconds": told.uptime,
            "server_time_usec": int((told.time or 0) * 1e6),
            "evicted_keys": told.evicted_keys,
            **{f"cmdstat_{command}": "calls=1" for command in told.rewriting_commands},
        }
        return "".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode()


class Proof:
    """One proof; `issued` is when its nonce was, None without one."""

    def __init__(self, name: str, iat: float, issued: float | None = None) -> None:
        self.name, self.iat, self.issued = name, iat, issued
        self.accepted = self.presented = 0

    def nonce(self, now: float) -> Nonce | None:
        """What a worker knows of its nonce whose clock shows `now`."""
        issued = self.issued
        if issued is None or not issued - MARGIN <= now < issued + NONCE_LIFETIME:
            return None
        return Nonce(issued_at=issued, expires_at=issued + NONCE_LIFETIME, current=False)


class Worker:
    def __init__(self, offset: float, policy: DPoPPolicy, *, retention: float) -> None:
        self.offset, self.policy = offset, policy
        self.fence = Fence(Sights(BUCKETS), "accept")
        self.settings = Settings(retention=retention)
        self.retentions = PublishedRetentions(b"dpop", self.settings.living)
        self.generation = -1
        self.wakes = self.asked = -math.inf

    def has_woken(self, time: float) -> bool:
        """Whether it was idle, or had no request for long."""
        return -math.inf < self.wakes <= time or (
            self.wakes == -math.inf and time - self.asked > LONGEST_SILENCE
        )

    def accepts(self, now: float, proof: Proof) -> bool:
        policy = self.policy
        if policy.nonce != "off" and (proof.issued is not None or policy.nonce == "required"):
            return proof.nonce(now) is not None
        skew = policy.clock_skew
        return proof.iat - skew <= now <= proof.iat + policy.proof_lifetime + skew

    def connect(self, model: Model) -> None:
        at = model.time
        self.retentions.connected(b"")
        self.fence.connected(model.info(), {0: model.get(ANCHOR)}, lived=at + 100, asked=(at, at))
        self.generation = model.generation

    def entry(self, proof: Proof, now: float) -> ReplayEntry:
        """As `ProofVerification.judge` makes it."""
        policy, nonce, reach = self.policy, proof.nonce(now), reach_of([self.policy])
        not_before, expires_at = acceptance_window(cast(DPoPProof, proof), reach, nonce)
        return ReplayEntry(
            proof.name,
            "key",
            now,
            not_before,
            expires_at,
            namespace="n",
            made_at=proof.iat if nonce is None or policy.nonce == "off" else nonce.issued_at,
            retention=kept_for(policy),
            iat=proof.iat,
            ahead=reach.before,
            by_iat=nonce is None,
        )

    def judge(self, valkey: Valkey, proof: Proof) -> Outcome:
        model = valkey.model
        at, now = model.time, NOW + model.time + self.offset
        if self.generation != model.generation:
            self.connect(model)
        entry = self.entry(proof, now)
        write = PendingWrite(entry, BUCKETS, self.settings, asyncio.get_running_loop())
        self.fence.sights.offset = NOW + self.offset
        try:
            self.send(valkey, write, now=now, at=at)
        except ServerChanged:
            self.connect(model)
            write.unknown = True
            self.send(valkey, write, now=now, at=at)
        if self.fence.has_to_write:
            # The writer does that without waiting for the next entry.
            self.survey(valkey)
        return write.answer.result()

    def survey(self, valkey: Valkey) -> None:
        model, fence, at = valkey.model, self.fence, valkey.model.time
        if look := fence.vitals.look(at):
            try:
                fence.vitals.told(valkey.replies(look)[0], at)
            except ServerChanged:
                self.connect(model)
        commands, buckets = fence.survey(at)
        valkey.replies(b"".join(commands))
        fence.surveyed(buckets, [model.get(ANCHOR) for _ in buckets], at)

    def send(self, valkey: Valkey, write: PendingWrite, *, now: float, at: float) -> None:
        batch = UsualBatch([write], self.settings, self.fence, self.retentions, with_get=True)
        data, count = batch.compose(now=now, at=at, timeout=1.0)
        replies = valkey.replies(data)
        assert len(replies) == count
        batch.receive(replies, now=now, at=at)


class Run:
    def __init__(self, seed: int, *, loses: bool) -> None:
        self.random = random.Random(seed)
        self.loses = loses
        self.chosen = self.random.sample(POLICIES, 3)
        # What was accepted by its nonce, the chapter says, may be accepted by its `iat` when its time comes.
        self.is_narrow = not loses or len({policy.nonce == "off" for policy in self.chosen}) > 1
        self.told = f"seed {seed}"
        self.model = Model(self.random)
        self.valkey = Valkey(self.model)
        self.workers = [self.worker() for _ in range(4)]
        self.proofs: list[Proof] = []
        self.policies = {worker.policy for worker in self.workers}
        # When the server's clock, which was set back, is right again, by how much, and who writes meanwhile.
        self.right_again: tuple[float, float, Worker] | None = None
        self.noticed = -math.inf
        self.unaware: set[Worker] = set()
        # After a step.
        self.first: list[Worker] = []

    def worker(self) -> Worker:
        offset = self.random.uniform(-MARGIN / 2, MARGIN / 2)
        return Worker(offset, self.random.choice(self.chosen), retention=self.random.choice((0, 0, 400)))

    def whole(self) -> int:
        """Let everything happen; return how many proofs were presented."""
        self.all_speak(self.workers)
        for step in range(STEPS):
            self.model.time += self.random.choice((0.01, 0.2, 1.5, 8.0, 30.0, 90.0))
            self.happen()
            self.present(f"{self.told}, step {step}")
        return len(self.proofs)

    def all_speak(self, workers: list[Worker]) -> None:
        """Each publishes its policy, and reads the others'."""
        for worker in (*workers, *self.workers):
            self.model.time += 1.01
            self.ask(worker, Proof(self.model.new_name(), NOW + self.model.time))

    def happen(self) -> None:
        dice, time = self.random.random(), self.model.time
        if self.right_again is not None and self.right_again[0] <= time:
            self.set_right(*self.right_again[1:])
        elif woken := [worker for worker in self.workers if worker.has_woken(time)]:
            for worker in woken:
                worker.wakes = -math.inf
            self.all_speak(woken)
        elif dice < 0.03 and self.loses:
            self.lose(self.random.choice(LOSSES))
        elif dice < 0.06:
            self.random.choice(self.workers).wakes = time + self.random.choice((20, 600))
        elif dice < 0.09 and not self.loses:
            number = self.random.randrange(len(self.workers))
            self.workers[number] = self.worker()
            self.policies.add(self.workers[number].policy)

    def lose(self, fault: str) -> None:
        if fault == "back":
            time = self.model.time
            if self.right_again is None:
                seconds = self.random.uniform(20, 300)
                until, writer = time + self.random.choice((1, 20, 200)), self.random.choice(self.workers)
                # A worker that hasn't read this server before can't know that its clock was different.
                self.ask(writer, Proof(self.model.new_name(), NOW + time))
                self.model.offset -= seconds
                self.right_again, writer.wakes = (until, seconds, writer), -math.inf
            return
        if fault == "step":
            # As above, of a server that has restarted since.
            for worker in self.workers:
                if worker.generation != self.model.generation:
                    self.ask(worker, Proof(self.model.new_name(), NOW + self.model.time))
            self.model.offset += self.random.uniform(7, 60)
            self.model.history.clear()
            # Those that were idle come first, and notice it as well.
            self.first = [worker for worker in self.workers if worker.wakes > -math.inf]
            for worker in self.first:
                worker.wakes = -math.inf
        else:
            lose(self.model, fault)
            if fault != "promotion":
                self.valkey.scores = {}
        self.unaware = set(self.workers)

    def set_right(self, seconds: float, writer: Worker) -> None:
        """Who has written since the clock was set back looks at it within a second; then others are asked."""
        self.model.offset += seconds
        self.model.time += 1.01
        self.right_again = None
        self.unaware = set(self.workers)
        for worker in self.workers:
            is_connected = worker.generation == self.model.generation
            looks = worker.fence.vitals.looks
            if is_connected and looks.patience(self.model.time, NOW + worker.offset) is not None:
                worker.survey(self.valkey)
        self.first = [worker for worker in self.workers if worker is not writer and worker.wakes == -math.inf]

    def ask(self, worker: Worker, proof: Proof) -> Outcome:
        if worker in self.unaware:
            self.unaware.remove(worker)
            self.noticed = self.model.time
        worker.asked = self.model.time
        return worker.judge(self.valkey, proof)

    def present(self, told: str) -> None:
        awake = self.first or [worker for worker in self.workers if worker.wakes == -math.inf]
        if self.right_again is not None:
            awake = [self.right_again[2]]
        if not awake:
            return
        if not self.proofs or self.random.random() < 0.5:
            self.proofs.append(self.proof(NOW + self.model.time))
        worker = self.random.choice(awake)
        now = NOW + self.model.time + worker.offset
        fresh = [proof for proof in self.proofs[-40:] if worker.accepts(now, proof)]
        if not fresh:
            return
        # After a step the oldest is the one whose entry may have expired too early.
        proof = min(fresh, key=lambda one: one.iat) if self.first else self.random.choice(fresh)
        self.first = []
        outcome = self.ask(worker, proof)
        assert outcome is not False or proof.presented, f"{told}: a fresh proof was called used"
        proof.presented += 1
        proof.accepted += outcome is True
        assert proof.accepted <= 1, f"{told}: accepted twice"
        if isinstance(outcome, Exception):
            self.check_refusal(str(outcome), worker.entry(proof, now), told)

    def proof(self, now: float) -> Proof:
        chance, name = self.random, self.model.new_name()
        iat = now + chance.uniform(-FARTHEST, FARTHEST)
        if chance.random() < 0.5:
            return Proof(name, iat)
        issued = float(int(now + chance.uniform(-MARGIN / 2, MARGIN / 2) - chance.choice((0, 20, 200))))
        if chance.random() < 0.5:
            # The `iat` alone would give the same moment.
            iat = issued + chance.choice(self.chosen).clock_skew
        if self.is_narrow:
            iat = min(iat, now + min(policy.clock_skew for policy in self.chosen))
        return Proof(name, iat, issued)

    def check_refusal(self, why: str, entry: ReplayEntry, told: str) -> None:
        if why == FORGOTTEN:
            shortest = min(map(kept_for, self.policies))
            assert entry.made_at < entry.now - shortest + MARGIN, f"{told}: refused though all remember it"
            return
        farthest = max(policy.clock_skew for policy in self.policies)
        begin = entry.iat - farthest if entry.by_iat else entry.not_before
        late = begin - NOW - self.noticed
        assert late < 2 * MARGIN, f"{told}: 503 for a proof from {late} s after the loss was noticed"


@pytest.mark.parametrize("loses", [True, False], ids=["losses", "replaced workers"])
async def test_nothing_is_accepted_twice_whatever_the_policies_of_the_workers(loses: bool) -> None:
    start = first_seed()
    presented = [Run(seed, loses=loses).whole() for seed in range(start, start + SEEDS // 2)]
    assert sum(presented) > STEPS * len(presented) / 4


async def test_a_server_whose_clock_is_behind_its_predecessors_is_watched_by_those_that_write() -> None:
    """It is set right while nobody writes, and the entries that were written before expire at once."""
    model = Model(random.Random(1))
    valkey, policy = Valkey(model), POLICIES[0]
    writer, other = (Worker(0.0, policy, retention=0) for _ in "ab")
    for worker in (writer, other):
        assert worker.judge(valkey, Proof(model.new_name(), NOW)) is True
    model.offset -= 200
    lose(model, "restart")
    writer.judge(valkey, Proof(model.new_name(), NOW))
    model.time += 60
    proof = Proof("proof", NOW + model.time)
    assert writer.judge(valkey, proof) is True
    model.offset += 200
    model.time += 1.01
    looks = writer.fence.vitals.looks
    assert looks.patience(model.time, None) == 1.0
    writer.survey(valkey)
    assert isinstance(other.judge(valkey, proof), Unavailable)
