"""An anchor: the key beside a bucket's entries that says whose data they are, and since when none is missing.

On a single server there is one bucket, in a cluster 1,024 of them. A cluster moves slots, so what vouches for
entries must lie in their slot: each bucket has a hash tag of its own, that all of its entries and its anchor
share.
"""

import binascii
import math
import secrets
from dataclasses import dataclass, replace
from hashlib import blake2s
from typing import Final, Self

from redis.crc import key_slot

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.resp import command, escaped
from dpop_middleware.replay.redis.server import ServerInfo

__all__ = [
    "BUCKETS",
    "Anchor",
    "Buckets",
    "identity_of",
    "is_moved",
    "is_of_data",
    "is_of_process",
    "lost_by",
    "still_has",
]

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


_DIGEST_SIZE = 6


def _digest(text: str) -> bytes:
    return blake2s(text.encode(), digest_size=_DIGEST_SIZE).hexdigest().encode()


def identity_of(info: ServerInfo) -> bytes:
    """What tells this server's data from another's, and from its own before it lost them."""
    return b"%b.%b" % (_digest(info.run_id), _digest(info.replication_id))


def is_of_process(identity: bytes, run_id: str) -> bool:
    """Whether `identity` is that of the server process `run_id`, whatever data it had."""
    return identity.partition(b".")[0] == _digest(run_id)


def is_of_data(identity: bytes, replication_id: str) -> bool:
    """Whether `identity` is that of data under `replication_id`, whichever server had them."""
    return identity.partition(b".")[2] == _digest(replication_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One anchor's value, `identity|since|mark`, with `|moves` where there were any.

    `since` is the moment before which entries may be missing, by the entries' clock, with the margin. `mark`
    is the same as long as the anchor itself was not lost, whoever has the data: the second of the server's
    clock at which that began, and some random bits. `moves` counts the identities that it had before.
    """

    identity: bytes
    since: float
    mark: bytes
    moves: int = 0

    @classmethod
    def new(cls, identity: bytes, since: float, *, server_time: float | None) -> Self:
        """An anchor of a server that now shows `server_time`, in seconds since the epoch."""
        mark = b"%08x%b" % (int(server_time or 0), secrets.token_hex(4).encode())
        return cls(identity=identity, since=since, mark=mark)

    @classmethod
    def parse(cls, value: bytes | None) -> Self | None:
        """The anchor that `value` is; None where there is none, or nobody of us wrote that."""
        if value is None:
            return None
        identity, _, rest = value.partition(b"|")
        since, _, rest = rest.partition(b"|")
        mark, _, moves = rest.partition(b"|")
        try:
            moment, count = float(since), int(moves or b"0")
            int(mark[:8], 16)
        except ValueError:
            return None
        return None if math.isnan(moment) else cls(identity=identity, since=moment, mark=mark, moves=count)

    @property
    def value(self) -> bytes:
        """What is stored."""
        value = b"%b|%b|%b" % (self.identity, repr(self.since).encode(), self.mark)
        return value + b"|%d" % self.moves if self.moves else value

    @property
    def begun(self) -> int:
        """The second of its server's clock at which it was first written."""
        return int(self.mark[:8], 16)

    def under(self, identity: bytes, *, since: float | None = None) -> Self:
        """The same with another's identity: nothing was lost on the way, but what `since` tells."""
        moves = self.moves + (identity != self.identity)
        return replace(self, identity=identity, since=self.since if since is None else since, moves=moves)

    def follows(self, earlier: Self) -> bool:
        """Whether the same anchor can have become this after it was `earlier`: no move of it is missing."""
        return self.moves > earlier.moves or (self.moves, self.identity) == (earlier.moves, earlier.identity)


def still_has(info: ServerInfo, identity: bytes) -> bool:
    """Whether the server has the data of `identity`.

    One that was never another's replica since its start has its own data, whatever their id is now.
    """
    is_renamed = not info.was_replica and is_of_process(identity, info.run_id)
    return is_renamed or identity == identity_of(info)


def is_moved(anchor: Anchor, info: ServerInfo, present: frozenset[bytes]) -> bool:
    """Whether `anchor` came from a master that still has its data, by migration and not to its replica.

    `present` are the identities whose data other masters have, asked for after the anchor was read here.
    """
    return anchor.identity in present and not is_of_data(anchor.identity, info.former_replication_id)


def lost_by(info: ServerInfo, known: Anchor | None, *, started: float, seen: float, now: float) -> float:
    """The moment by which a single server had lost what the anchor `known`, last seen at `seen`, vouched for.

    All by the entries' clock. That is when it `started`, by its account, if nothing can have happened since.
    """
    if info.was_replica or info.rewriting_commands:
        started = now
    elif known is not None and (is_of_process(known.identity, info.run_id) or started <= seen):
        # Gone from the very same server, or from one beside which this one already ran: a replica took over.
        started = now
    return started + WORKER_CLOCK_MARGIN
