"""A cluster as a whole: which node owns which slot, and whose data each master has.

The interface of the cluster for its writers is here too. Writes that can't be judged before the other masters
have answered wait for them.
"""

import asyncio
import contextvars
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeGuard

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import InvalidResponse

from dpop_middleware._runtime import begin
from dpop_middleware.replay.redis.anchors import Anchor
from dpop_middleware.replay.redis.clocks import Moments, is_behind
from dpop_middleware.replay.redis.connection import ask, first_answer
from dpop_middleware.replay.redis.endpoints import Address, ClusterNodes
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.resp import ServerError
from dpop_middleware.replay.redis.vitals import parse_info, still_has
from dpop_middleware.replay.redis.writes import PendingWrite, refuse

__all__ = [
    "Inquiry",
    "Surroundings",
    "Topology",
    "fetch_topology",
    "identities_among",
    "tag_of",
    "with_owner",
]

# Enough to find one that answers, without too many connections from every worker.
MOST_ASKED = 3
MOST_HELD = 5
# Seconds that a master has to report its data: long for a request, which is answered 503 by its deadline.
PATIENCE = 2.0
_HOST: Final = re.compile(rb"[!-~]*")
# The host of a node whose name isn't known (yet), where a cluster prefers host names.
_UNKNOWN_HOST: Final = b"?"


@dataclass(frozen=True, slots=True)
class Topology:
    """`owners` holds the master of each slot, None where there is none; `nodes` every node, masters first."""

    owners: tuple[Address | None, ...]
    nodes: tuple[Address, ...]

    @property
    def masters(self) -> tuple[Address, ...]:
        """The nodes that own slots."""
        return tuple(dict.fromkeys(owner for owner in self.owners if owner is not None))


async def fetch_topology(cluster: ClusterNodes, nodes: Iterable[Address], timeout: float) -> Topology:
    """Ask some of `nodes` for the slots and use the first answer within `timeout` seconds."""
    known = tuple(dict.fromkeys(nodes))
    # Others each time, so that a few that hang can't prevent an answer for long.
    asked = random.sample(known, min(len(known), MOST_ASKED))
    return await first_answer(_ask(cluster, node, timeout) for node in asked)


async def _ask(cluster: ClusterNodes, node: Address, timeout: float) -> Topology | None:
    reply = await ask(cluster.at(node), timeout, b"CLUSTER", b"SLOTS")
    return _parse(reply, node, cluster) if isinstance(reply, list) and reply else None


async def identities_among(
    cluster: ClusterNodes, nodes: Iterable[Address], wanted: frozenset[bytes], timeout: float, *, ahead: float
) -> frozenset[bytes]:
    """The identities in `wanted` whose data masters among `nodes` have now, if they report that in time.

    `ahead` is as in `Present`, but of the event loop's clock.
    """
    found: set[bytes] = set()
    pending = {
        begin(_had(cluster, node, wanted, timeout, ahead), name="dpop replay store question")
        for node in nodes
    }
    try:
        while pending and not wanted <= found:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            found.update(*(task.result() for task in done if task.exception() is None))
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return frozenset(found)


async def _had(
    cluster: ClusterNodes, node: Address, wanted: frozenset[bytes], timeout: float, ahead: float
) -> set[bytes]:
    sent = asyncio.get_running_loop().time()
    reply = await ask(cluster.at(node), timeout, b"INFO")
    info = parse_info(reply if isinstance(reply, bytes) else b"")
    if info.role != "master" or (info.time is not None and is_behind(info.time - sent, ahead)):
        return set()
    return {one for one in wanted if still_has(info, one)}


def _parse(reply: list[object], asked: Address, cluster: ClusterNodes) -> Topology:
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    masters: list[Address] = []
    replicas: list[Address] = []
    for slots in reply:
        match slots:
            case [int(first), int(last), master, *others] if 0 <= first <= last < len(owners):
                owner = _address(master, asked, cluster)
                masters.append(owner)
                replicas.extend(_address(other, asked, cluster) for other in others)
                owners[first : last + 1] = [owner] * (last + 1 - first)
            case _:
                raise InvalidResponse("the server's account of the cluster's slots can't be read")
    return Topology(tuple(owners), tuple(dict.fromkeys((*masters, *replicas))))


def _address(node: object, asked: Address, cluster: ClusterNodes) -> Address:
    match node:
        case [bytes() | None as host, int(port), *more] if _HOST.fullmatch(host or b""):
            if host == _UNKNOWN_HOST:
                host = _ip_in(more) or host
            # A node that doesn't know its own address leaves it empty: it is the node that was asked.
            address = (host.decode() if host else asked[0], port)
            return cluster.announced(address)
        case _:
            raise InvalidResponse("the server's account of a cluster node can't be read")


def _ip_in(more: list[object]) -> bytes | None:
    """The IP address that follows a node's preferred endpoint and its identifier."""
    match more:
        case [_, [*names_and_values]]:
            told = zip(names_and_values[::2], names_and_values[1::2], strict=False)
            return next((ip for name, ip in told if name == b"ip" and _is_host(ip)), None)
        case _:
            return None


def _is_host(value: object) -> TypeGuard[bytes]:
    return isinstance(value, bytes) and _HOST.fullmatch(value) is not None


def with_owner(topology: Topology, slot: int, owner: Address) -> Topology:
    """The same topology except for one slot, as a redirection says."""
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


class Present(Protocol):
    """Returns the identities whose data other masters have now.

    None where one of them doesn't report: without `patient` that counts as a loss of its data. Those of
    masters whose clock is behind one that is `ahead` of `moments` are not among them.
    """

    def __call__(
        self, identities: frozenset[bytes], *, patient: bool, ahead: float
    ) -> Awaitable[frozenset[bytes] | None]:
        """See the class."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """A writer's access to its cluster, for writes that belong elsewhere.

    - `resubmit`: sends a write again, to the server that owns its slot now. `redirect` follows MOVED and ASK.
    - `look_again`: fetches the topology again, since a server could not be used or has lost a slot.
    - `tag`: the hash tag of a slot that the writer's server owns, None when it owns none; `buckets`: those in
      its slots.
    - `look_around`: reads the anchors on the other servers, since the writer's server has other data.
    - `present`: finds whose data other masters have now.
    """

    resubmit: Callable[[PendingWrite], None]
    redirect: Callable[[PendingWrite, ServerError], None]
    look_again: Callable[[Exception], None]
    tag: Callable[[], bytes | None]
    buckets: Callable[[], Sequence[int]]
    look_around: Callable[[], None]
    present: Present


class Inquiry:
    """Asks other masters about anchors that the `fence` of one server can't judge. Belongs to one event loop.

    `then` is called after each answer: there may be anchors to write. `patience` is for how many seconds a
    master that doesn't report is asked again.
    """

    def __init__(
        self,
        fence: Fence,
        around: Surroundings | None,
        then: Callable[[], None],
        moments: Moments,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._patience = patience
        self._fence = fence
        self._around = around
        self._then = then
        self._moments = moments
        self._loop = asyncio.get_running_loop()
        self._held: list[PendingWrite] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether an answer is awaited."""
        return self._task is not None

    def hold(self, writes: Iterable[PendingWrite]) -> None:
        """Try `writes`, which are stored, again after the answer: then they are recognised."""
        for write in writes:
            write.tries -= 1
            write.held += 1
            if write.held > MOST_HELD:
                refuse((write,))
                continue
            self._loop.call_at(write.deadline, refuse, (write,), context=contextvars.Context())
            self._held.append(write)

    def look(self) -> None:
        """Ask, if there is something to ask and no inquiry is running."""
        if self._task is None and self._around is not None and self._fence.standing.foreign:
            self._task = begin(
                self._ask(self._around), name="dpop replay store inquiry", context=contextvars.Context()
            )

    async def aclose(self) -> None:
        """Cancel the inquiry, and answer the waiting writes: their outcome can't be known."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        refuse(self._held)

    async def _ask(self, around: Surroundings) -> None:
        asked = dict(self._fence.standing.foreign)
        anchors = map(Anchor.parse, asked.values())
        identities = frozenset(anchor.identity for anchor in anchors if anchor is not None)
        until = self._loop.time() + self._patience
        present = None
        while present is None:
            # A master that moves slots, or its machine, may be busy.
            present = await around.present(
                identities, patient=self._loop.time() < until, ahead=self._fence.vitals.looks.ahead[0]
            )
        self._fence.settle(asked, present, self._moments.at(self._loop.time()))
        self._task = None
        held, self._held = self._held, []
        for write in held:
            if write.bucket in self._fence.standing.foreign:
                self._held.append(write)
            else:
                around.resubmit(write)
        self._then()
        self.look()
