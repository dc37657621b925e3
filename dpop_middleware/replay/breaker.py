"""A circuit breaker for a server that doesn't answer: a replay store's, or an introspection endpoint."""

import math

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Refuses at once after repeated failures, and lets one request through from time to time.

    It opens after `threshold` failures in a row, for `shortest` seconds, then twice as long after each failed
    probe, up to `longest`. The default of `longest` plus the timeout of one request to a replay store is well
    below a second, so that the store is back within a second of the server. A probe without a result for
    `longest_probe` counts as lost. Times are monotonic, in seconds, and given by the caller.
    """

    def __init__(
        self,
        *,
        threshold: int = 2,
        shortest: float = 0.1,
        longest: float = 0.4,
        longest_probe: float = math.inf,
    ) -> None:
        self._threshold = threshold
        self._shortest = shortest
        self._longest = longest
        self._longest_probe = longest_probe
        self._failures = 0
        self._pause = shortest
        self._open_until: float | None = None
        self._probe_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is open and no probe is under way."""
        return self._open_until is not None and self._probe_until is None

    def would_refuse(self, now: float) -> bool:
        """Whether a request at `now` would be refused; nothing changes."""
        if self._open_until is None:
            return False
        return now < (self._open_until if self._probe_until is None else self._probe_until)

    def refuses(self, now: float) -> bool:
        """Whether a request at `now` is refused; when the pause is over, one is let through as the probe."""
        if self.would_refuse(now):
            return True
        self.let_through(now)
        return False

    def let_through(self, now: float) -> None:
        """Note that a request that wouldn't be refused begins at `now`: after a pause it is the probe."""
        self._probe_until = None if self._open_until is None else now + self._longest_probe

    def pause_left(self, now: float) -> float:
        """Seconds from `now` to the next probe."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def trip(self, now: float) -> None:
        """Open at once: connecting failed while no request waited for it."""
        self._failures = self._threshold
        self.failed(now)

    def succeeded(self) -> None:
        """Note that the server answered."""
        self._failures = 0
        self._pause = self._shortest
        self._open_until = None
        self._probe_until = None

    def failed(self, now: float) -> None:
        """Note that the server could not be reached or did not answer in time."""
        self._failures += 1
        if self._failures < self._threshold:
            return
        self._open_until = now + self._pause
        self._pause = min(self._pause * 2, self._longest)
        self._probe_until = None

    def abandoned(self) -> None:
        """Note that the probe was never sent; the next request is the probe instead."""
        self._probe_until = None
