"""Replay stores: what remembers that a proof was used (RFC 9449 section 11.1).

`RedisReplayStore` is imported at first use, so that `MemoryReplayStore` needs no Redis client.

The words in here:

- **entry**: one remembered proof. **owner**: the random value by which a repeated write recognises itself.
- **bucket**: the entries in one slot of a cluster; a single server has one bucket.
- **anchor**: the key beside a bucket's entries that vouches for them. **identity**: whose data they are.
  **since**: the moment before which entries may be missing. **mark** and **moves**: what an anchor keeps, and
  counts, while its bucket moves from one server to another.
- **sight**: what a worker saw of a bucket last. **standing**: the anchors of one server, which tells of
  changes to those that are **watched**. **fence**: what both of them and the vital signs say together.
- **vital signs**: what a server says of itself once a second. **retention**: for how long a worker keeps
  entries.
- **batch**: writes that travel together. **connection**: one open socket. **survey**: what is asked of a
  server without any entry: its vital signs and anchors. **writer**: a queue of writes to one server.
- **endpoint**: where servers are, and how to connect: one alone, a Sentinels' master, a cluster's nodes.
"""

from typing import TYPE_CHECKING

from dpop_middleware._runtime import importing
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayEntry, ReplayStore

if TYPE_CHECKING:
    from dpop_middleware.replay.redis import RedisReplayStore

__all__ = ["MemoryReplayStore", "RedisReplayStore", "ReplayEntry", "ReplayStore"]


__getattr__ = importing(__name__, {"RedisReplayStore": "redis"})
