"""Replay stores: they remember which proofs were used (RFC 9449 section 11.1).

    store.py    the protocol and the entries
    memory.py   MemoryReplayStore, for a single process
    redis/      RedisReplayStore, imported at its first use, so that other stores don't import the client
    breaker.py  a circuit breaker for a server that doesn't answer

Terms:

- **entry**: one remembered proof. **owner**: the random value by which a repeated write recognises itself.
- **bucket**: the entries in one slot of a cluster; a single server has one bucket.
- **anchor**: the key beside a bucket's entries that vouches for them. Its parts: **identity**, whose data
  they are; **since**, the moment before which entries may be missing; **mark**, which stays the same while
  its bucket moves from one server to another; **moves**, which counts that.
- **sight**: what a worker last saw of a bucket. **standing**: the anchors of one server, which reports
  changes to those that are **watched**. **fence**: the conclusion from both of them and the vital signs.
- **moment**: a time of the event loop's clock, as if that went on while the machine sleeps.
- **vital signs**: what a server reports of itself once a second. **retention**: for how long a worker keeps
  entries.
- **batch**: writes that are sent together. **connection**: one open socket. **survey**: a request to a server
  without any entry, for its vital signs and anchors. **writer**: a queue of writes to one server.
- **endpoint**: where servers are, and how to connect: a single server, the master of Sentinels, a cluster.
"""

from typing import TYPE_CHECKING

from dpop_middleware._runtime import importing
from dpop_middleware.replay.memory import MemoryReplayStore
from dpop_middleware.replay.store import ReplayEntry, ReplayStore

if TYPE_CHECKING:
    from dpop_middleware.replay.redis import RedisReplayStore

__all__ = ["MemoryReplayStore", "RedisReplayStore", "ReplayEntry", "ReplayStore"]


__getattr__ = importing(__name__, {"RedisReplayStore": "redis"})
