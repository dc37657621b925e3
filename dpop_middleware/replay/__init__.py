"""Replay stores: what remembers that a proof was used (RFC 9449 section 11.1).

`RedisReplayStore` is imported at first use, so that `MemoryReplayStore` needs no Redis client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayEntry, ReplayStore

if TYPE_CHECKING:
    from dpop_middleware.replay.redis import RedisReplayStore

__all__ = ["MemoryReplayStore", "RedisReplayStore", "ReplayEntry", "ReplayStore"]


def __getattr__(name: str) -> Any:
    if name != "RedisReplayStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.redis").RedisReplayStore
