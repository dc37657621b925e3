"""Replay stores: what remembers that a proof was used (RFC 9449 section 11.1).

`RedisReplayStore` is imported at first use, so that `MemoryReplayStore` needs no Redis client.

The words in here:

- **entry**: one remembered proof. **owner**: the random value by which a repeated write recognises itself.
- **bucket**: the entries in one slot of a cluster; a single server has one bucket.
- **anchor**: the key beside a bucket's entries that vouches for them. **identity**: whose data they are.
  **since**: the moment before which entries may be missing. **mark** and **moves**: what an anchor keeps, and
  counts, while its bucket moves from one server to another.
- **sight**: what a worker saw of a bucket last. **standing**: the anchors of one server. **fence**: what both
  of them and the vital signs say together.
- **vital signs**: what a server says of itself once a second. **retention**: for how long a worker keeps
  entries.
- **batch**: writes that travel together. **channel**: one open connection. **line**: what opens it anew.
  **link**: the queue before it. **router**: what a link asks of its cluster. **target**: where servers are.
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
