"""What a server's account of itself says about an anchor that isn't its own: was anything lost, and when."""

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.anchor import Anchor, identity_of, is_of_data, is_of_process
from dpop_middleware.replay.info import ServerInfo

__all__ = ["is_moved", "lost_by", "still_has"]


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
