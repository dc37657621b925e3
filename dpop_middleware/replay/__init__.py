"""Replay stores: what remembers that a proof was used (RFC 9449 section 11.1).

`RedisReplayStore` is imported at first use, so that `MemoryReplayStore` needs no Redis client.
"""

from typing import TYPE_CHECKING, Any

from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayEntry, ReplayStore

if TYPE_CHECKING:
    from dpop_middleware.replay.redis import RedisReplayStore

__all__ = ["MemoryReplayStore", "RedisReplayStore", "ReplayEntry", "ReplayStore"]


def __getattr__(name: str) -> Any:
    if name != "RedisReplayStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Here and not above: whoever uses another store needs no Redis client.
    from dpop_middleware.replay.redis import RedisReplayStore  # noqa: PLC0415

    return RedisReplayStore
