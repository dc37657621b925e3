"""A moment by which several steps must be over, and what is raised when something can't be fetched."""

import time

__all__ = ["Deadline", "FetchError"]


class FetchError(Exception):
    """A document could not be fetched; the message is for logs."""


class Deadline:
    """A moment by which several steps must be over, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left; raises FetchError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchError("no complete answer within the time limit")
        return left
