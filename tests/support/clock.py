"""The clock of all tests: it stands still until a test moves it."""

__all__ = ["NOW", "Clock"]

NOW = 1_800_000_000.0


class Clock:
    """Seconds since the epoch; a test sets `now`."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
