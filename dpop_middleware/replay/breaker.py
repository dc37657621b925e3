"""A circuit breaker for a server that doesn't answer: a replay store's, or an introspection endpoint."""

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Refuses at once after repeated failures, and lets one request through from time to time.

    It opens after `threshold` failures in a row, for `shortest` seconds, then twice as long after each failed
    probe, up to `longest`. The default of `longest` plus the timeout of one request to a replay store is well
    below a second, so that the store is back within a second of the server. Times are monotonic, in seconds,
    and given by the caller.
    """

    def __init__(self, *, threshold: int = 2, shortest: float = 0.1, longest: float = 0.4) -> None:
        self._threshold = threshold
        self._shortest = shortest
        self._longest = longest
        self._failures = 0
        self._pause = shortest
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether it is open and no probe is under way."""
        return self._open_until is not None and not self._probing

    def would_refuse(self, now: float) -> bool:
        """Whether a request at `now` would be refused; nothing changes."""
        return self._open_until is not None and (self._probing or now < self._open_until)

    def refuses(self, now: float) -> bool:
        """Whether a request at `now` is refused; when the pause is over, one is let through as the probe."""
        if self.would_refuse(now):
            return True
        self.let_through()
        return False

    def let_through(self) -> None:
        """Note that a request that wouldn't be refused begins: after a pause it is the probe."""
        self._probing = self._open_until is not None

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
        self._probing = False

    def failed(self, now: float) -> None:
        """Note that the server could not be reached or did not answer in time."""
        self._failures += 1
        if self._failures < self._threshold:
            return
        self._open_until = now + self._pause
        self._pause = min(self._pause * 2, self._longest)
        self._probing = False

    def abandoned(self) -> None:
        """Note that the probe was never sent; the next request is the probe instead."""
        self._probing = False
