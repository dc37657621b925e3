"""How a Redis replay store behaves: checked once, shared by all of its parts."""

import logging
import math
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay.fence import NewServer

__all__ = ["Notices", "OnUnavailable", "Settings"]

OnUnavailable = Literal["refuse", "local"]

logger = logging.getLogger("dpop_middleware.replay")


class Notices:
    """Warnings that are worth one line each in a process, not one a request."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def warn(self, sentence: str) -> None:
        """Log `sentence` as a warning unless that was done before."""
        with self._lock:
            if sentence in self._said:
                return
            self._said.add(sentence)
        logger.warning(sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See `RedisReplayStore` for what each means; raises `ConfigurationError` for what can't work.

    `made` is when the store was made, by the monotonic clock: it tells a server that started later.
    """

    prefix: str = "dpop"
    timeout: float = 0.25
    max_waiting: int = 10_000
    wait_replicas: int = 0
    strict: bool = False
    new_server: NewServer = "accept"
    on_unavailable: OnUnavailable = "refuse"
    notices: Notices = field(default_factory=Notices)
    made: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if not self.prefix or not self.prefix.isprintable() or any(mark in self.prefix for mark in "{} "):
            raise ConfigurationError(
                "prefix must be a name without braces and spaces: a hash tag would put every entry on one "
                "node of a cluster"
            )
        if isinstance(self.timeout, bool) or not math.isfinite(self.timeout) or self.timeout <= 0:
            raise ConfigurationError("timeout must be a number of seconds above 0, such as 0.25")
        if self.max_waiting < 1:
            raise ConfigurationError("max_waiting must be at least 1")
        if self.wait_replicas < 0:
            raise ConfigurationError("wait_replicas must be 0 or the number of replicas to wait for")
        if self.new_server not in {"wait", "accept"}:
            raise ConfigurationError('new_server must be "wait" or "accept"')
        if self.on_unavailable not in {"refuse", "local"}:
            raise ConfigurationError('on_unavailable must be "refuse" or "local"')
