"""A usual batch sends what any batch sends, and its replies mean the same.

Two workers of the same kind get the same entries and replies at the same times, one with `Batch`.
"""

import asyncio
import math
import random
import secrets
from collections.abc import Callable
from dataclasses import replace
from itertools import compress
from typing import Any

import pytest
from redis.exceptions import RedisError

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.redis.anchors import Anchor, Sights
from dpop_middleware.replay.redis.batch import Batch
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import OnEvictions, Settings
from dpop_middleware.replay.redis.resp import Buckets, ServerError
from dpop_middleware.replay.redis.retention import PublishedRetentions
from dpop_middleware.replay.redis.usual import UsualBatch
from dpop_middleware.replay.redis.vitals import ServerInfo, identity_of, watched
from dpop_middleware.replay.redis.writes import OWNER_SIZE, PendingWrite
from dpop_middleware.replay.store import ReplayEntry
from tests.support.replay import entry
from tests.support.seeds import first_seed

NOW = 1_790_000_000.0
INFO = ServerInfo(
    software="valkey",
    version="9.1.0",
    run_id="a",
    replication_id="a",
    role="master",
    uptime=100_000,
    time=NOW,
)
REPORT = (
    b"server_name:valkey\r\nvalkey_version:9.1.0\r\nrun_id:a\r\nmaster_replid:a\r\nrole:master\r\n"
    b"uptime_in_seconds:100000\r\n"
)
EVICTING = REPORT + b"evicted_keys:1\r\n"
REFUSED, FULL = ServerError("NOPERM no"), ServerError("OOM no")
BEGUN = Anchor.new(identity_of(INFO), -math.inf, server_time=NOW - 5000)
KNOWN = BEGUN.value
# The same, from when the server's replication id was another one.
RENAMED = replace(BEGUN, identity=identity_of(replace(INFO, replication_id="b"))).value
LOST = Anchor.new(identity_of(INFO), NOW + 30, server_time=NOW).value


class Worker:
    """What a worker knows of one server."""

    def __init__(
        self, kind: type[Batch], settings: Settings, info: ServerInfo, anchor: bytes, *, watches: bool
    ) -> None:
        self.kind, self.settings = kind, settings
        heeds_evictions = settings.on_evictions == "refuse"
        sights = Sights(Buckets(b"dpop", spread=False))
        self.fence = Fence(sights, "accept", heeds_evictions=heeds_evictions)
        self.fence.sights.offset = 0.0
        self.fence.connected(info, {0: anchor}, lived=0, asked=(NOW, NOW))
        self.fence.standing.watches = watches
        self.retentions = PublishedRetentions(b"dpop", settings.living)
        self.retentions.connected(b"")
        self.took_fewer_steps = 0

    def send(self, writes: list[PendingWrite], at: float, offset: float) -> tuple[Batch, bytes, int]:
        self.fence.sights.offset = offset
        batch = self.kind(writes, self.settings, self.fence, self.retentions, with_get=True)
        data, count = batch.compose(now=at + offset, at=at, timeout=1.0)
        self.took_fewer_steps += isinstance(batch, UsualBatch) and batch.is_usual
        return batch, data, count

    def receive(self, batch: Batch, replies: list[object], at: float, offset: float) -> object:
        try:
            batch.receive(list(replies), now=at + offset, at=at)
        except RedisError as error:
            return type(error)
        again = [] if isinstance(batch.outcome, Exception | None) else batch.outcome
        return [error for _, error in again], list(batch.held), batch.wrong_server, batch.get_is_unknown

    def state(self) -> object:
        fence, vitals, standing = self.fence, self.fence.vitals, self.fence.standing
        parts: list[Any] = [standing, fence.sights, vitals.looks, self.retentions, self.settings.living]
        known = [{name: vars(part)[name] for name in vars(part) if name != "_buckets"} for part in parts]
        for each in known:
            for name in ("buckets", "_living"):
                each.pop(name, None)
        known.append({"warnings": set(vars(self.settings.notices)["_said"])})
        return known, vitals.has_lost, vitals.sent_at, vitals.info, fence.too_far_ahead, fence.has_to_tell


def outcome(write: PendingWrite) -> object:
    """What the request of `write` was told, or that it has gone."""
    if not write.answer.done() or write.answer.cancelled():
        return "gone" if write.answer.done() else None
    told = write.answer.result()
    return (told.description, told.retry_after, told.judges_from) if isinstance(told, Unavailable) else told


class Pair:
    """Two workers to which the same happens; `choose` decides what."""

    anchor: bytes | None

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        settings = [
            Settings(
                timeout=5.0,
                wait_replicas=replicas,
                retention=retention,
                on_evictions=on_evictions,
            )
            for replicas, retention, on_evictions in [self._options()] * 2
        ]
        watches, self.anchor = self.choose.random() < 0.1, self.choose.choice((KNOWN, KNOWN, RENAMED))
        info = self.choose.choice((INFO, INFO, INFO, watched(None)))
        self.workers = [
            Worker(kind, each, info, self.anchor, watches=watches)
            for kind, each in zip((Batch, UsualBatch), settings, strict=True)
        ]
        # What the server's clock shows more than `moments`, and the entries' clock.
        self.at, self.clock, self.offset = NOW, 0.0, 0.0

    def _options(self) -> tuple[int, float, OnEvictions]:
        choice = self.choose.choice
        return choice((0, 0, 0, 0, 1)), choice((0.0, 0.0, 300.0)), choice(("refuse", "refuse", "accept"))

    def _entry(self) -> ReplayEntry:
        choose, now = self.choose, self.at + self.offset
        iat = now - choose.uniform(-30, 95)
        return entry(f"{choose.getrandbits(64):x}", now=now)._replace(
            namespace=choose.choice("aaaaaaab"),
            iat=iat,
            made_at=choose.choice((iat, now)),
            not_before=choose.choice((iat - 30, now + 40)),
            retention=choose.choice((95.0,) * 20 + (0.0,)),
            ahead=choose.choice((30.0,) * 12 + (60.0,)),
            by_iat=choose.random() < 0.5,
        )

    def batch(self) -> None:
        """One batch of each worker, and the same replies."""
        choose = self.choose
        self.at += choose.choice((0.001,) * 12 + (0.1, 0.3, 5.0, 20.0))
        # A survey has shown a loss.
        self._happen(0.02, lambda fence: setattr(fence.vitals, "has_lost", True))
        self._survey()
        if choose.random() < 0.02:
            self.offset += choose.choice((-700.0, -3.0, 3.0, 700.0))
        entries = [self._entry() for _ in range(choose.choice((1, 1, 2, 5)))]
        owners = [b"%016x" % choose.getrandbits(64) for _ in entries]
        are_unknown = [choose.random() < 0.05 for _ in entries]
        sent = [
            worker.send(self._writes(worker, entries, owners, are_unknown), self.at, self.offset)
            for worker in self.workers
        ]
        batches, data, counts = zip(*sent, strict=True)
        assert data[0] == data[1]
        assert counts[0] == counts[1]
        if self.choose.random() < 0.01:
            self.anchor = self.choose.choice((self.anchor, None))
            self._happen(1, lambda fence: fence.standing.drop(0))
        gone = [choose.random() < 0.05 for _ in entries]
        for batch in batches:
            for write in compress(batch._writes, gone):
                write.answer.cancel()
        replies = self._replies(data[0])
        assert len(replies) == counts[0]
        self.at += choose.choice((0.001,) * 12 + (0.05, 1.0))
        results = [
            worker.receive(batch, replies, self.at, self.offset)
            for worker, batch in zip(self.workers, batches, strict=True)
        ]
        assert results[0] == results[1]
        told = [[outcome(write) for write in batch._writes] for batch in batches]
        assert told[0] == told[1]
        assert self.workers[0].state() == self.workers[1].state()

    def _survey(self) -> None:
        """Anchors that are due are written and read before the next batch, half of the time."""
        first, other = (worker.fence for worker in self.workers)
        if not first.has_to_write or self.choose.random() < 0.5:
            return
        writes, buckets = first.survey(self.at)
        assert (writes, buckets) == other.survey(self.at)
        reads = [first.sights.buckets.reads[bucket] for bucket in buckets]
        values = self._replies(b"".join([*writes, *reads]))[len(writes) :]
        for fence in (first, other):
            fence.surveyed(buckets, values, self.at)

    def _happen(self, probability: float, what: Callable[[Fence], None]) -> None:
        if self.choose.random() < probability:
            for worker in self.workers:
                what(worker.fence)

    def _writes(
        self, worker: Worker, entries: list[ReplayEntry], owners: list[bytes], are_unknown: list[bool]
    ) -> list[PendingWrite]:
        buckets, loop = worker.fence.sights.buckets, asyncio.get_running_loop()
        writes = [PendingWrite(each, buckets, worker.settings, loop) for each in entries]
        for write, owner, is_unknown in zip(writes, owners, are_unknown, strict=True):
            write.owner, write.unknown = owner, is_unknown
        return writes

    def _replies(self, data: bytes) -> list[object]:
        words = data.split(b"\r\n")
        replies: list[object] = []
        while words != [b""]:
            size = int(words.pop(0)[1:])
            command, words = words[1 : 2 * size : 2], words[2 * size :]
            replies.append(self._reply(command))
        return replies

    def _reply(self, command: list[bytes]) -> object:
        choose, is_odd = self.choose, self.choose.random() < 0.02
        match command:
            case [b"INFO", *_]:
                return (
                    REPORT
                    if not is_odd
                    else choose.choice((REFUSED, REPORT.replace(b"run_id:a", b"run_id:b"), EVICTING))
                )
            case [b"TIME"]:
                self.clock += choose.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 100.0, -100.0)) if is_odd else 0.0
                shown = self.at + self.clock
                usual = [b"%d" % shown, b"%d" % (shown % 1 * 1e6)]
                return choose.choice((REFUSED, usual, FULL)) if is_odd else usual
            case [b"GET", _]:
                if is_odd:
                    self.anchor = choose.choice((None, LOST, RENAMED, b"odd"))
                return choose.choice((self.anchor, FULL, REFUSED, 7)) if is_odd else self.anchor
            case [b"SET", name, value, b"NX" | b"IFEQ" as how, *found] if b"::" in name:
                if self.anchor == (None if how == b"NX" else found[0]):
                    self.anchor = value
                return None
            case [b"SET", name, *_] if b"::" not in name:
                is_repeat = b"GET" in command
                # Of a first try nil says that the proof was used.
                stored = choose.choice((None, b"o" * OWNER_SIZE if is_repeat else b"OK", b"OK", b"OK"))
                odd: tuple[object, ...] = (FULL, ServerError("READONLY no"), b"stray", 7)
                return choose.choice(odd) if is_odd else stored
            case [b"ZRANGEBYSCORE", *_]:
                alive: tuple[object, ...] = ([], [b"60.0 a", b"%.3f" % (self.at + self.offset + 600)])
                return choose.choice((REFUSED, FULL, [b"odd"]) if is_odd else alive)
            case _:
                return 1 if command[0] in {b"ZADD", b"WAIT"} else b"OK"


async def test_two_workers_to_which_the_same_happens_know_and_answer_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The marks of new anchors.
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    first, took_fewer_steps, number = first_seed(), 0, 300
    for seed in range(first, first + number):
        pair = Pair(seed)
        try:
            for _ in range(30):
                pair.batch()
        except Exception as error:  # raised again, whatever it is, with its seed
            error.add_note(f"seed {seed}")
            raise
        took_fewer_steps += pair.workers[1].took_fewer_steps
    # Some of each seed's thirty.
    assert took_fewer_steps > 5 * number


@pytest.mark.parametrize(
    ("info", "first", "second"),
    [(watched(None), [1, []], [1, []]), (INFO, [REFUSED, REFUSED], [REPORT])],
    ids=["its state", "the retentions"],
)
async def test_batches_are_usual_also_where_a_server_refuses_a_question_for_good(
    info: ServerInfo, first: list[object], second: list[object]
) -> None:
    settings = Settings(timeout=5.0)
    worker = Worker(UsualBatch, settings, info, KNOWN, watches=False)
    for seconds, before in ((0.1, first), (5.0, second), (5.1, [])):
        at = NOW + seconds
        item = entry(now=at)._replace(retention=95.0)
        write = PendingWrite(item, worker.fence.sights.buckets, settings, asyncio.get_running_loop())
        batch, _, count = worker.send([write], at, 0.0)
        replies = [*before, b"OK", [b"%d" % at, b"0"], KNOWN]
        assert count == len(replies)
        worker.receive(batch, replies, at, 0.0)
        assert write.answer.result() is True
    assert worker.took_fewer_steps == 1


async def test_a_used_proof_makes_no_batch_unusual() -> None:
    settings = Settings(timeout=5.0)
    worker = Worker(UsualBatch, settings, INFO, KNOWN, watches=False)
    buckets, loop = worker.fence.sights.buckets, asyncio.get_running_loop()
    # As tickets: no policy may ask for them later.
    writes = [PendingWrite(entry(now=NOW), buckets, settings, loop) for _ in range(3)]
    batch, _, _ = worker.send(writes, NOW, 0.0)
    composed = vars(batch).keys()
    worker.receive(batch, [b"OK", None, b"OK", [b"%d" % NOW, b"0"], KNOWN], NOW, 0.0)
    assert [write.answer.result() for write in writes] == [True, False, True]
    assert worker.took_fewer_steps == 1
    assert "_reading" not in composed, "the general batch would read the anchors"
