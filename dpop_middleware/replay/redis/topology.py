"""Which node of a cluster owns which slot, and whose data it has."""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import InvalidResponse

from dpop_middleware.replay.redis.anchor import still_has
from dpop_middleware.replay.redis.connection import ask, first_answer
from dpop_middleware.replay.redis.endpoints import Address, Target, connector
from dpop_middleware.replay.redis.server import parse_info

__all__ = ["Topology", "fetch_topology", "identities_among", "tag_of", "with_owner"]

# Enough to find one that answers, without a storm of connections from every worker.
MOST_ASKED = 3


@dataclass(frozen=True, slots=True)
class Topology:
    """`owners` holds the master of each slot, None where there is none; `nodes` every node, masters first."""

    owners: tuple[Address | None, ...]
    nodes: tuple[Address, ...]

    @property
    def masters(self) -> tuple[Address, ...]:
        """The nodes that own slots."""
        return tuple(dict.fromkeys(owner for owner in self.owners if owner is not None))


async def fetch_topology(target: Target, nodes: Iterable[Address], timeout: float) -> Topology:
    """Ask some of `nodes` for the slots and believe the first that answers within `timeout` seconds."""
    known = tuple(dict.fromkeys(nodes))
    # Others each time, so that a few that hang don't stand in the way.
    asked = random.sample(known, min(len(known), MOST_ASKED))
    return await first_answer(_ask(target, node, timeout) for node in asked)


async def _ask(target: Target, node: Address, timeout: float) -> Topology | None:
    reply = await ask(connector(target, node), timeout, b"CLUSTER", b"SLOTS")
    return _parse(reply, node, target) if isinstance(reply, list) and reply else None


async def identities_among(
    target: Target, nodes: Iterable[Address], wanted: frozenset[bytes], timeout: float
) -> frozenset[bytes]:
    """Those of the identities `wanted` whose data masters among `nodes` have now, if they say so in time."""
    found: set[bytes] = set()
    pending = {asyncio.ensure_future(_had(target, node, wanted, timeout)) for node in nodes}
    try:
        while pending and not wanted <= found:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            found.update(*(task.result() for task in done if task.exception() is None))
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return frozenset(found)


async def _had(target: Target, node: Address, wanted: frozenset[bytes], timeout: float) -> set[bytes]:
    reply = await ask(connector(target, node), timeout, b"INFO")
    info = parse_info(reply if isinstance(reply, bytes) else b"")
    return {one for one in wanted if info.role == "master" and still_has(info, one)}


def _parse(reply: list[object], asked: Address, target: Target) -> Topology:
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    masters: list[Address] = []
    replicas: list[Address] = []
    for slots in reply:
        match slots:
            case [int(first), int(last), master, *others] if 0 <= first <= last < len(owners):
                owner = _address(master, asked, target)
                masters.append(owner)
                replicas.extend(_address(other, asked, target) for other in others)
                owners[first : last + 1] = [owner] * (last + 1 - first)
            case _:
                raise InvalidResponse("the server's account of the cluster's slots can't be read")
    return Topology(tuple(owners), tuple(dict.fromkeys((*masters, *replicas))))


def _address(node: object, asked: Address, target: Target) -> Address:
    match node:
        case [bytes() | None as host, int(port), *_]:
            # A node that doesn't know its own address leaves it empty: it is the one that we reached.
            address = (host.decode() if host else asked[0], port)
            return address if target.remap is None else target.remap(address)
        case _:
            raise InvalidResponse("the server's account of a cluster node can't be read")


def with_owner(topology: Topology, slot: int, owner: Address) -> Topology:
    """The same topology but for one slot, as a redirection tells."""
    owners = (*topology.owners[:slot], owner, *topology.owners[slot + 1 :])
    return Topology(owners, tuple(dict.fromkeys((*topology.nodes, owner))))


def tag_of(topology: Topology, owner: Address) -> bytes | None:
    """A hash tag, the same in every process, whose slot `owner` owns; None when it owns none."""
    if owner not in topology.owners:
        return None
    number = 0
    while topology.owners[key_slot(b"%d" % number)] != owner:
        number += 1
    return b"{%d}" % number
