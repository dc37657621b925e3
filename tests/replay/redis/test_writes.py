"""The reads of anchors at the end of a batch, and their effect on its writes."""

import asyncio
import logging
import math
from typing import Any

import pytest
from redis.exceptions import InvalidResponse

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.redis.anchors import Anchor, Sights
from dpop_middleware.replay.redis.batch import Batch
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import ASKING, TIME, Buckets, ServerError, command
from dpop_middleware.replay.redis.retention import LivingRetentions, PublishedRetentions
from dpop_middleware.replay.redis.topology import MOST_HELD, Inquiry
from dpop_middleware.replay.redis.vitals import ServerInfo, identity_of
from dpop_middleware.replay.redis.writes import CHANGED, AnchorReading, PendingWrite
from tests.support.replay import entry
from tests.support.slots import entry_in, slots_between

BUCKETS = Buckets(b"dpop", spread=True)
SLOTS = slots_between(0, 16383)
INFO = ServerInfo(run_id="a", replication_id="a", role="master", uptime=100_000)
SAID = b"run_id:a\r\nmaster_replid:a\r\nrole:master\r\nuptime_in_seconds:100000\r\n"
OTHER = ServerInfo(run_id="b", replication_id="b", role="master", uptime=100_000)
NOW = entry().now
ASK, MOVED = ServerError("ASK 1 h:1"), ServerError("MOVED 1 h:1")


def anchor(info: ServerInfo = INFO) -> bytes:
    return Anchor.new(identity_of(info), -math.inf, server_time=NOW - 5000).value


def fence() -> Fence:
    made = Fence(Sights(BUCKETS), "accept")
    made.sights.offset = 0.0
    made.connected(INFO, {BUCKETS.slots.index(SLOTS[9]): anchor()}, lived=0, asked=(NOW, NOW))
    return made


def write(number: int, *, asking: bool = False) -> PendingWrite:
    made = PendingWrite(entry_in(SLOTS[number]), BUCKETS, Settings(timeout=5.0), asyncio.get_running_loop())
    made.asking, made.not_before = asking, NOW
    return made


KNOWN = anchor()
# What a server's clock shows.
SHOWN = [b"%d" % NOW, b"0"]


class Received:
    """A batch whose replies have arrived: first those to its writes, then those to the reads."""

    def __init__(
        self,
        fence: Fence,
        writes: list[PendingWrite],
        *replies: object,
        at: float = NOW,
        settings: Settings | None = None,
    ) -> None:
        settings = settings or Settings()
        retentions = PublishedRetentions(b"dpop", LivingRetentions())
        self.batch = Batch(writes, settings, fence, retentions, with_get=True)
        data, self.count = self.batch.compose(now=NOW, at=at, timeout=1.0)
        told = list(replies)
        if fence.vitals.time():
            # Behind the writes, before the reads of the anchors.
            _, _, reads = data.rpartition(TIME)
            told.insert(len(told) - reads.count(b"*"), SHOWN)
        assert self.count == len(told)
        self.batch.receive(told, now=NOW, at=at)


@pytest.fixture
def quiet() -> Fence:
    """A fence that has just looked at its server."""
    return fence()


async def test_only_a_write_that_may_have_been_applied_asks_what_is_stored() -> None:
    for unknown, with_get, asks in ((False, True, False), (True, True, True), (True, False, False)):
        made = write(0)
        made.unknown = unknown
        assert (b"GET" in made.command(with_get=with_get)) is asks


async def test_each_try_is_judged_by_its_own_command() -> None:
    """A nil reply means that a first try came too late, but that a repeat was the first."""
    first, repeat, blind = write(0), write(0), write(0)
    repeat.unknown = blind.unknown = True
    for made, with_get in ((first, True), (repeat, True), (blind, False)):
        made.command(with_get=with_get)
    assert [first.judge(reply) for reply in (b"OK", None)] == [True, False]
    assert [repeat.judge(reply) for reply in (None, repeat.owner, first.owner)] == [True, True, False]
    assert blind.judge(b"OK") is True
    assert isinstance(blind.judge(None), Unavailable)
    for made, stray in ((first, first.owner), (first, 1), (repeat, b"OK"), (repeat, 1), (blind, b"OK?")):
        with pytest.raises(InvalidResponse):
            made.judge(stray)


async def test_each_bucket_is_read_once(quiet: Fence) -> None:
    writes = [write(0), write(0), write(1), write(2, asking=True), write(2, asking=True)]
    reading = AnchorReading(writes, quiet)
    commands = reading.commands()
    buckets = [BUCKETS.slots.index(SLOTS[number]) for number in (0, 1, 2)]
    assert commands[:2] == [BUCKETS.reads[bucket] for bucket in buckets[:2]]
    assert b"ASKING" in commands[2]
    assert commands[3:] == [BUCKETS.reads[buckets[2]]]
    reading.take([anchor(), anchor(), b"OK", anchor()])
    assert all(reading.vouches(write) for write in writes)


async def test_a_proof_from_after_since_is_vouched_for(quiet: Fence) -> None:
    since = NOW - 10
    vouching = Anchor.new(identity_of(INFO), since, server_time=NOW - 5000).value
    for not_before, judged in ((since, True), (since + 0.5, True), (since - 0.001, False)):
        item = write(0)
        item.not_before = not_before
        Received(quiet, [item], b"OK", vouching)
        outcome = item.answer.result()
        assert outcome is True if judged else isinstance(outcome, Unavailable)


async def test_a_proof_that_another_worker_may_have_forgotten_is_not_judged(quiet: Fence) -> None:
    settings = Settings()
    settings.living.note("n", 100.0, until=NOW + 600)
    for retention, age, judged in ((300.0, 95.0, True), (300.0, 95.001, False), (100.0, 1000.0, True)):
        items = [write(0), write(0)]
        for item in items:
            item.namespace, item.retention, item.made_at = "n", retention, NOW - age
        Received(quiet, items, 1, [], b"OK", b"OK", KNOWN, settings=settings)
        for item in items:
            outcome = item.answer.result()
            assert outcome is True if judged else isinstance(outcome, Unavailable)


async def test_an_entry_whose_anchor_has_moved_is_sent_there(quiet: Fence) -> None:
    moved = write(0)
    received = Received(quiet, [moved], b"OK", MOVED)
    assert received.batch.outcome == [(moved, MOVED)]
    assert moved.unknown
    assert not moved.answer.done()


async def test_an_entry_whose_anchor_is_moving_can_not_be_judged(quiet: Fence) -> None:
    own = write(0)
    Received(quiet, [own], b"OK", ASK)
    assert isinstance(own.answer.result(), Unavailable)


async def test_a_redirected_write_knows_whether_the_anchor_was_there(quiet: Fence) -> None:
    for value, vouched in ((anchor(), True), (None, False), (ASK, False), (anchor(OTHER), False)):
        sent_on = write(0)
        received = Received(quiet, [sent_on], ASK, value)
        assert received.batch.outcome == [(sent_on, ASK)]
        assert sent_on.vouched is vouched
        # The next write is as if for another bucket.
        quiet.standing.drop(sent_on.bucket)


async def test_while_a_slot_moves_the_node_that_it_leaves_vouches(quiet: Fence) -> None:
    for vouched in (True, False):
        asking = write(0, asking=True)
        asking.vouched = vouched
        Received(quiet, [asking], b"OK", b"OK", b"OK", None)
        outcome = asking.answer.result()
        assert outcome is True if vouched else isinstance(outcome, Unavailable)
        # No anchor must be written where the anchor will arrive with the slot.
        assert asking.bucket not in quiet.standing.due


async def test_a_write_that_only_others_can_judge_is_held(quiet: Fence) -> None:
    new, used = write(0), write(0)
    received = Received(quiet, [new, used], b"OK", None, anchor(OTHER))
    assert received.batch.held == [new]
    assert new.unknown
    assert used.answer.result() is False


async def test_the_wrong_server_has_no_anchors(quiet: Fence) -> None:
    down = ServerError("CLUSTERDOWN no")
    lost = write(0)
    received = Received(quiet, [lost], b"OK", down)
    assert received.batch.outcome == [(lost, down)]
    assert received.batch.wrong_server


@pytest.mark.parametrize("reply", [b"OK?", 5])
async def test_unexpected_replies_put_the_connection_in_doubt(quiet: Fence, reply: object) -> None:
    if isinstance(reply, int):
        with pytest.raises(InvalidResponse):
            Received(quiet, [write(0)], b"OK", reply)
    else:
        with pytest.raises(ServerError):
            Received(quiet, [write(0)], b"OK", ServerError("WRONGTYPE no"))


@pytest.fixture
async def watched() -> Fence:
    """The same; its server reports changes, and the first two buckets were read."""
    made = fence()
    made.standing.watches = True
    Received(made, [write(0), write(1)], b"OK", b"OK", KNOWN, KNOWN)
    return made


def told(fence: Fence, item: PendingWrite) -> None:
    fence.standing.heed([b"invalidate", [BUCKETS.anchors[item.bucket]]])


async def test_an_anchor_whose_changes_are_reported_is_not_read_again(watched: Fence) -> None:
    one, new, used = write(0), write(2), write(0)
    Received(watched, [one, new, used], b"OK", b"OK", None, KNOWN, at=NOW + 0.5)
    assert [item.answer.result() for item in (one, new, used)] == [True, True, False]
    assert watched.sights.of(one.bucket).at == NOW + 0.5
    told(watched, one)
    Received(watched, [write(0)], b"OK", KNOWN)


async def test_with_each_report_the_anchors_are_read_again(watched: Fence) -> None:
    Received(watched, [write(0)], SAID, b"OK", KNOWN, at=NOW + 2)


async def test_a_write_beside_which_the_anchor_changed_is_tried_again(watched: Fence) -> None:
    new, used = write(0), write(0)
    batch = Batch([new, used], Settings(), watched, PublishedRetentions(b"dpop", LivingRetentions()), True)
    assert batch.compose(now=NOW, at=NOW, timeout=1.0)[1] == 3
    told(watched, new)
    batch.receive([b"OK", None, SHOWN], now=NOW, at=NOW)
    assert batch.outcome == [(new, CHANGED)]
    assert new.unknown
    assert new.tries == -1
    assert not new.answer.done()
    assert used.answer.result() is False
    # This time the anchor is read.
    lost = Anchor.new(identity_of(INFO), NOW + 5, server_time=NOW).value
    Received(watched, [new], None, lost)
    assert isinstance(new.answer.result(), Unavailable)


async def test_a_server_that_does_not_answer_a_write_has_not_shown_its_anchor(watched: Fence) -> None:
    item, sent_on, unknown = write(0), write(1), write(2)
    replies = MOVED, ServerError("OOM no"), MOVED
    received = Received(watched, [item, sent_on, unknown], *replies, MOVED, at=NOW + 0.5)
    assert received.batch.outcome == [(item, MOVED), (unknown, MOVED)]
    assert not item.vouched
    assert watched.sights.of(item.bucket).at == NOW
    assert watched.sights.of(sent_on.bucket).at == NOW
    # A bucket that has moved may come back with other data.
    assert not watched.standing.stands(item.bucket)
    assert watched.standing.stands(sent_on.bucket)


async def test_a_bucket_that_moves_between_two_writes_is_followed(watched: Fence) -> None:
    before, after = write(0), write(0)
    received = Received(watched, [before, after], b"OK", MOVED)
    assert received.batch.outcome == [(before, MOVED), (after, MOVED)]
    assert before.unknown
    assert not after.unknown


async def test_a_write_redirected_while_the_slot_moves_knows_that_the_anchor_stands(watched: Fence) -> None:
    sent_on = write(0)
    received = Received(watched, [sent_on], ASK)
    assert received.batch.outcome == [(sent_on, ASK)]
    assert sent_on.vouched


async def test_an_anchor_that_is_to_be_written_is_read_afterwards(watched: Fence) -> None:
    item = write(0)
    watched.standing.owe(item.bucket, KNOWN, KNOWN)
    Received(watched, [item], b"OK", b"OK", KNOWN)
    assert item.answer.result() is True


async def test_a_repeat_that_gave_the_replicas_nothing_to_confirm_is_not_confirmed(quiet: Fence) -> None:
    """Where its slot has moved, the write beside it is refused: `WAIT` counts from an earlier write."""
    settings = Settings(wait_replicas=1)
    for beside, confirmed in ((b"OK", True), (MOVED, False)):
        sent_on, stored = write(0), write(1)
        sent_on.unknown = stored.unknown = True
        replies = MOVED, stored.owner, beside, 1, MOVED, KNOWN
        received = Received(quiet, [sent_on, stored], *replies, settings=settings)
        assert received.batch.outcome == [(sent_on, MOVED)]
        outcome = stored.answer.result()
        assert outcome is True if confirmed else isinstance(outcome, Unavailable)


async def test_a_repeat_where_its_slot_goes_is_confirmed_by_what_was_written_there(quiet: Fence) -> None:
    for beside, confirmed in ((b"OK", True), (MOVED, False)):
        repeat = write(0, asking=True)
        repeat.unknown = True
        replies = b"OK", None, b"OK", beside, 1, b"OK", KNOWN
        Received(quiet, [repeat], *replies, settings=Settings(wait_replicas=1))
        outcome = repeat.answer.result()
        assert outcome is True if confirmed else isinstance(outcome, Unavailable)


async def test_the_write_for_replicas_to_confirm_is_sent_with_the_repeat(quiet: Fence) -> None:
    settings, retentions = Settings(wait_replicas=1), PublishedRetentions(b"dpop", LivingRetentions())
    for asking in (False, True):
        new, repeat = write(0), write(1, asking=asking)
        repeat.unknown = True
        data, _ = Batch([new, repeat], settings, quiet, retentions, True).compose(now=NOW, at=NOW, timeout=1)
        before, touched, _ = data.partition(
            command(b"SET", BUCKETS.touched[repeat.bucket], b"1", b"PX", b"1000")
        )
        assert touched
        assert before.endswith(ASKING) is asking


async def test_a_user_without_scripts_replaces_anchors_without_a_comparison(
    quiet: Fence, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = BUCKETS.slots.index(SLOTS[0])
    quiet.standing.owe(bucket, b"old", b"new")
    refused = write(0)
    Received(quiet, [refused], ServerError("NOPERM no eval"), b"OK", anchor())
    assert not quiet.with_script
    assert refused.answer.result() is True
    assert "grant +eval" in caplog.text


async def test_the_slot_of_the_retentions_may_move() -> None:
    retentions = PublishedRetentions(b"dpop", LivingRetentions())
    retentions.connected(b"{1}")
    assert retentions.exchange({"n": 10.0}, at=0.0, now=0.0)
    retentions.read(MOVED, MOVED, now=0.0)
    assert retentions.elsewhere is MOVED
    retentions.connected(b"{2}")
    assert retentions.elsewhere is None


class Silent:
    """A cluster that doesn't answer until the test allows it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[frozenset[bytes]] = asyncio.get_running_loop().create_future()
        self.resubmitted: list[PendingWrite] = []
        self.asked = 0

    def resubmit(self, write: PendingWrite) -> None:
        self.resubmitted.append(write)

    async def present(self, identities: frozenset[bytes], *, patient: bool) -> frozenset[bytes] | None:
        self.asked += 1
        return await self.answer


class Busy(Silent):
    """A cluster with a master that doesn't report for a time."""

    def __init__(self) -> None:
        super().__init__()
        self.patient: list[bool] = []

    async def present(self, identities: frozenset[bytes], *, patient: bool) -> frozenset[bytes] | None:
        self.patient.append(patient)
        await asyncio.sleep(0.01)
        return None if patient else frozenset()


async def test_a_master_that_does_not_report_is_asked_again_and_then_assumed_lost(quiet: Fence) -> None:
    around: Any = Busy()
    inquiry = Inquiry(quiet, around, lambda: None, patience=0.05)
    item = write(0)
    quiet.observe(item.bucket, anchor(OTHER), NOW, NOW)
    inquiry.hold([item])
    inquiry.look()
    async with asyncio.timeout(10):
        while inquiry.is_running:
            await asyncio.sleep(0.005)
    assert around.patient == [True] * (len(around.patient) - 1) + [False]
    assert len(around.patient) > 1
    assert quiet.sights.since[item.bucket] > -math.inf
    assert around.resubmitted == [item]
    await inquiry.aclose()


async def test_a_write_waits_for_the_answer_and_is_tried_again(quiet: Fence) -> None:
    around: Any = Silent()
    inquiry = Inquiry(quiet, around, lambda: None)
    one, other = write(0), write(1)
    quiet.observe(one.bucket, anchor(OTHER), NOW, NOW)
    inquiry.hold([one])
    inquiry.look()
    inquiry.look()
    await asyncio.sleep(0)
    assert inquiry.is_running
    # A write that came while others were asked waits for the next answer.
    quiet.observe(other.bucket, anchor(OTHER), NOW, NOW)
    inquiry.hold([other])
    around.answer.set_result(frozenset({identity_of(OTHER)}))
    await asyncio.sleep(0.01)
    assert around.resubmitted == [one, other]
    assert around.asked == 2
    assert not inquiry.is_running
    await inquiry.aclose()


async def test_a_write_is_not_held_for_ever(quiet: Fence) -> None:
    around: Any = Silent()
    inquiry = Inquiry(quiet, around, lambda: None)
    late, restless, waiting = write(0), write(0), write(0)
    late.deadline = asyncio.get_running_loop().time()
    inquiry.hold([late])
    for _ in range(MOST_HELD + 1):
        inquiry.hold([restless])
    await asyncio.sleep(0.01)
    for one in (late, restless):
        assert isinstance(one.answer.result(), Unavailable)
    quiet.observe(waiting.bucket, anchor(OTHER), NOW, NOW)
    inquiry.hold([waiting])
    inquiry.look()
    await asyncio.sleep(0)
    await inquiry.aclose()
    assert isinstance(waiting.answer.result(), Unavailable)


async def test_a_report_that_the_server_refused_is_ignored() -> None:
    for reply, told in ((ServerError("NOPERM no"), False), (SAID, True)):
        made, item = fence(), write(0)
        Received(made, [item], reply, b"OK", anchor(), at=NOW + 2)
        assert item.answer.result() is True
        assert made.vitals.has_told_since(NOW + 1) is told


async def test_a_loss_that_was_dated_far_ahead_is_an_error_that_names_both_clocks(
    quiet: Fence, caplog: pytest.LogCaptureFixture
) -> None:
    dated = Anchor.new(identity_of(INFO), NOW + 3600, server_time=NOW - 5000).value
    Received(quiet, [write(0)], b"OK", dated)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "3600 s ahead" in record.getMessage()
    assert f"shows {NOW:.0f}:" in record.getMessage()
