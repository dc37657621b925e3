"""What the tests under load call late, and what they don't."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.load import in_time
from tests.support.running import Waits

SPIN = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


async def test_a_request_whose_deadline_comes_too_late_is_late() -> None:
    with pytest.raises(AssertionError, match=r"no answer within 0\.05 seconds"):
        await in_time(asyncio.sleep(60), 0.05)


@pytest.mark.parametrize("soon", [0.0, 0.02], ids=["as it begins", "in between"])
async def test_a_request_is_not_late_because_its_event_loop_is(soon: float) -> None:
    asyncio.get_running_loop().call_later(soon, time.sleep, 0.3)
    assert await in_time(asyncio.sleep(0.05, True), 0.1) is True


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="no such file on this platform")
def test_the_time_that_a_server_waits_for_a_core_is_left_out() -> None:
    waits, core = Waits(), min(os.sched_getaffinity(0))
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(2)]
    try:
        for process in spinning:
            os.sched_setaffinity(process.pid, {core})
        waits.watch(spinning[0].pid)
        begun = waits.total()
        # Two processes that want one core: each waits half of the time.
        time.sleep(1.0)
        waits.leave_out(spinning[0].pid)
        assert waits.total() - begun > 0.2
    finally:
        for process in spinning:
            process.kill()
            process.wait()
