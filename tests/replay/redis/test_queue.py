"""The queue of a writer: batches that are taken off it, and the deadlines of what waits in it."""

import asyncio

import pytest

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.queue import Queue
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.writes import PendingWrite, refuse
from tests.support.loop_clock import LoopClock
from tests.support.replay import entry

BUCKETS = Buckets(b"dpop", spread=False)


def put(queue: Queue, *, timeout: float = 1.0) -> PendingWrite:
    write = PendingWrite(entry(), BUCKETS, Settings(timeout=timeout), asyncio.get_running_loop())
    queue.append(write)
    return write


async def test_each_write_is_refused_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        clock, queue = LoopClock(patch), Queue(refuse)
        first, taken, last = (put(queue, timeout=seconds) for seconds in (1.0, 2.0, 3.0))
        await clock.until_after(1.0, first.answer.done)
        assert len(queue.writes) == 2
        assert queue.take() == [taken, last]
        queue.put_back(last)
        await clock.until_after(1.9, last.answer.done)
        assert not queue.writes
        # What happens to it is the taker's business.
        assert not taken.answer.done()
        await clock.until_after(1.0, put(queue).answer.done)


async def test_a_write_that_is_late_or_left_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        clock, queue = LoopClock(patch), Queue(refuse)
        late, left, waiting = put(queue), put(queue, timeout=2.0), put(queue, timeout=2.0)
        left.answer.cancel()
        clock.now += 1.0
        assert queue.take() == [waiting]
        assert isinstance(late.answer.result(), Unavailable)
        assert not queue.writes


async def test_all_that_wait_are_refused_together() -> None:
    queue = Queue(refuse)
    writes = [put(queue) for _ in range(3)]
    queue.refuse_all()
    assert all(isinstance(write.answer.result(), Unavailable) for write in writes)
    assert not queue.writes


@pytest.mark.parametrize(
    ("waiting", "answered", "by_halves", "sizes"),
    [
        (64, 0, False, [64]),
        (64, 0, True, [32, 16, 16]),
        # Those that were answered are likely to come again.
        (32, 32, True, [32]),
        (63, 1, True, [32, 16, 15]),
        (16, 0, True, [16]),
        (17, 0, True, [16, 1]),
        (33, 0, True, [17, 16]),
        (1, 400, True, [1]),
        (1500, 0, True, [512, 494, 247, 124, 62, 31, 16, 14]),
        (600, 0, False, [512, 88]),
    ],
)
async def test_half_of_many_is_taken_at_a_time(
    waiting: int, answered: int, by_halves: bool, sizes: list[int]
) -> None:
    queue = Queue(refuse)
    queue.by_halves = by_halves
    writes = [put(queue) for _ in range(waiting)]
    batches = [queue.take(answered=answered)]
    while queue.writes:
        batches.append(queue.take())
    assert [len(batch) for batch in batches] == sizes
    assert [write for batch in batches for write in batch] == writes


async def test_writes_that_are_put_back_are_taken_together() -> None:
    queue = Queue(refuse)
    writes = [put(queue) for _ in range(40)]
    assert queue.take() == writes
    queue.by_halves = True
    for write in reversed(writes):
        queue.put_back(write)
    assert queue.take() == writes
