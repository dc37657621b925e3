import asyncio
from collections import deque

import pytest

from dpop_middleware.replay.redis.alarm import Alarm
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import Buckets
from dpop_middleware.replay.redis.writes import PendingWrite, refuse
from tests.support.loop_clock import LoopClock
from tests.support.replay import entry

BUCKETS = Buckets(b"dpop", spread=False)


async def test_each_write_of_a_queue_is_refused_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = deque[PendingWrite]()
    with monkeypatch.context() as patch:
        clock, alarm = LoopClock(patch), Alarm(queue, refuse)

        def put(timeout: float) -> PendingWrite:
            write = PendingWrite(entry(), BUCKETS, Settings(timeout=timeout), asyncio.get_running_loop())
            queue.append(write)
            alarm.set()
            return write

        writes = [put(timeout) for timeout in (1.0, 2.0, 3.0)]
        await clock.until_after(1.0, writes[0].answer.done)
        assert list(queue) == writes[1:]
        # Taken off the queue: what happens to it is the taker's business.
        assert queue.popleft() is writes[1]
        await clock.until_after(1.9, writes[2].answer.done)
        assert not queue
        assert not writes[1].answer.done()
        await clock.until_after(1.0, put(1.0).answer.done)
