"""The clock of this machine, as it is at each call."""

import time

__all__ = ["system_time"]


def system_time() -> float:
    """Return seconds since the epoch by `time.time`, looked up now, so that a test may replace it."""
    return time.time()
