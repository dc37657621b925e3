"""The reads of anchors at the end of a batch, and their effect on its writes."""

import pytest
from redis.exceptions import InvalidResponse

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.redis.anchors import Anchor
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import NOTHING_USUAL, ServerError
from dpop_middleware.replay.redis.vitals import identity_of
from dpop_middleware.replay.redis.writes import OWNER_SIZE, AnchorReading, commands
from tests.support.batches import (
    ASK,
    BUCKETS,
    INFO,
    KNOWN,
    MOVED,
    NOW,
    OTHER,
    SLOTS,
    Received,
    anchor,
    fence,
    write,
)


@pytest.fixture
def quiet() -> Fence:
    """A fence that has just looked at its server."""
    return fence()


async def test_only_a_write_that_may_have_been_applied_asks_what_is_stored() -> None:
    for unknown, with_get, asks in ((False, True, False), (True, True, True), (True, False, False)):
        made = write(0)
        made.unknown = unknown
        assert (b"GET" in commands([made], with_get=with_get)[0]) is asks


async def test_each_write_keeps_the_owner_of_its_first_try() -> None:
    first, second = write(0), write(1)
    commands([first], with_get=True)
    owner = first.owner
    commands([second, first], with_get=True)
    assert first.owner == owner != second.owner
    assert len(owner) == len(second.owner) == OWNER_SIZE


async def test_each_try_is_judged_by_its_own_command() -> None:
    """A nil reply means that a first try came too late, but that a repeat was the first."""
    first, repeat, blind = write(0), write(0), write(0)
    repeat.unknown = blind.unknown = True
    for made, with_get in ((first, True), (repeat, True), (blind, False)):
        commands([made], with_get=with_get)
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
    reads, usual = reading.commands()
    buckets = [BUCKETS.slots.index(SLOTS[number]) for number in (0, 1, 2)]
    assert reads[:2] == [BUCKETS.reads[bucket] for bucket in buckets[:2]]
    assert b"ASKING" in reads[2]
    assert reads[3:] == [BUCKETS.reads[buckets[2]]]
    # The anchor of a slot that moves may come later.
    assert usual == NOTHING_USUAL
    reading.take([anchor(), anchor(), b"OK", anchor()])
    assert all(reading.vouches(write) for write in writes)


async def test_a_proof_from_after_since_is_vouched_for(quiet: Fence) -> None:
    since = NOW - 10
    vouching = Anchor.new(identity_of(INFO), since, server_time=NOW - 5000).value
    for not_before, judged in ((since, True), (since + 0.5, True), (since - 0.001, False)):
        item = write(0, not_before=not_before)
        Received(quiet, [item], b"OK", vouching)
        outcome = item.answer.result()
        assert outcome is True if judged else isinstance(outcome, Unavailable)


async def test_a_proof_that_another_worker_may_have_forgotten_is_not_judged(quiet: Fence) -> None:
    settings = Settings()
    settings.living.note({("n", 100.0): NOW + 600}, NOW)
    for retention, age, judged in ((300.0, 95.0, True), (300.0, 95.001, False), (100.0, 1000.0, True)):
        items = [write(0, namespace="n", retention=retention, made_at=NOW - age) for _ in range(2)]
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
