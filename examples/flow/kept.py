"""Values that the authorization server keeps for a limited time, under random names."""

import secrets
import time
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values that can be taken once and that expire; when there are too many, the oldest are removed.

    `lifetime` is in seconds. A real server shares them among all its workers.
    """

    def __init__(self, *, lifetime: float, at_most: int = 1000) -> None:
        self._lifetime = lifetime
        self._at_most = at_most
        self._values: dict[str, tuple[float, Value]] = {}

    def put(self, value: Value) -> str:
        """Keep `value` and return its name: 256 random bits."""
        while len(self._values) >= self._at_most:
            del self._values[next(iter(self._values))]
        name = secrets.token_urlsafe(32)
        self._values[name] = (time.monotonic() + self._lifetime, value)
        return name

    def get(self, name: str) -> Value | None:
        """Return the value of that name, None where there is none."""
        expires_at, value = self._values.get(name, (0.0, None))
        return value if time.monotonic() < expires_at else None

    def take(self, name: str) -> Value | None:
        """Return the value of that name and forget it, None where there is none."""
        value = self.get(name)
        self._values.pop(name, None)
        return value
