"""Where the entries of a store lie: one bucket on a single server, 1,024 of them in a cluster.

A cluster moves slots, so what vouches for entries must lie in their slot. Each bucket has a hash tag of its
own, that all of its entries and its anchor share.
"""

import binascii
from typing import Final

from redis.crc import key_slot

from dpop_middleware.replay.wire import command, escaped

__all__ = ["BUCKETS", "Buckets"]

BUCKETS: Final = 1024


class Buckets:
    """The names of a store's buckets. `prefix` is the store's, `spread` says whether it is a cluster.

    By number of the bucket: `anchors` holds the anchors' names, `reads` the commands that read them, `slots`
    a cluster's slots, `touched` the names of keys that are written to give replicas something to confirm.
    """

    def __init__(self, prefix: bytes, *, spread: bool) -> None:
        self.spread = spread
        homes = [b"%b:{%03x}" % (prefix, bucket) for bucket in range(BUCKETS)] if spread else [prefix]
        self._homes = tuple(home + b":" for home in homes)
        self.anchors = tuple(home + b"::anchor" for home in homes)
        self.reads = tuple(command(b"GET", name) for name in self.anchors)
        self.touched = tuple(home + b"::wait" for home in homes)
        self.slots = tuple(key_slot(name) for name in self.anchors) if spread else (0,)

    def place(self, key: str) -> tuple[int, bytes]:
        """The bucket of the entry `key` and its name on the server, never that of an anchor."""
        name = escaped(key)
        bucket = binascii.crc_hqx(name, 0) % BUCKETS if self.spread else 0
        return bucket, self._homes[bucket] + name
