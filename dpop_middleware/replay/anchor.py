"""An anchor: the key beside entries that says whose data they are, and since when none is missing."""

import math
import secrets
from dataclasses import dataclass, replace
from hashlib import blake2s
from typing import Self

from dpop_middleware.replay.info import ServerInfo

__all__ = ["Anchor", "identity_of", "is_of_data", "is_of_process"]

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
