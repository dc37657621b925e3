"""What the fence keeps on a server: the epoch, a moment by which entries before it may be missing."""

import math
import secrets
from dataclasses import dataclass
from hashlib import blake2s

from dpop_middleware.replay.info import ServerInfo

__all__ = ["Known", "epoch_of", "identity_of", "moment_of"]


@dataclass(slots=True)
class Known:
    """The last epoch that we read, on which server and under which name, and when it last stood there."""

    run_id: str
    name: bytes
    epoch: bytes
    at: float


def identity_of(info: ServerInfo) -> bytes:
    """What tells this server's data from another's, and from its own before it lost them."""
    return blake2s(f"{info.run_id} {info.replication_id}".encode(), digest_size=8).hexdigest().encode()


def epoch_of(moment: float) -> bytes:
    """A new epoch for `moment`; its random part tells it from another one of that moment."""
    return f"{moment!r} {secrets.token_hex(4)}".encode()


def moment_of(epoch: bytes, otherwise: float) -> float:
    """The moment that `epoch` tells, `otherwise` where it tells none."""
    try:
        moment = float(epoch.partition(b" ")[0])
    except ValueError:
        return otherwise
    return otherwise if math.isnan(moment) else moment
