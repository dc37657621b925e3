"""A cluster: one writer for each master, and the choice of an entry's writer."""

import asyncio
import contextvars
import re
from functools import partial
from typing import Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from dpop_middleware._runtime import begin
from dpop_middleware.replay.breaker import CircuitBreaker
from dpop_middleware.replay.redis.anchors import Sights
from dpop_middleware.replay.redis.endpoints import Address, ClusterNodes
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import Buckets, ServerError, ServerUnfit
from dpop_middleware.replay.redis.topology import (
    Surroundings,
    Topology,
    fetch_topology,
    identities_among,
    tag_of,
    with_owner,
)
from dpop_middleware.replay.redis.writer import Writer
from dpop_middleware.replay.redis.writes import CROWDED, NO_ANSWER, PendingWrite, unavailable

__all__ = ["Cluster"]

MOST_REDIRECTS = 5
SHORTEST_REFRESH = 0.1
# The text after MOVED or ASK.
_SLOT_AND_ADDRESS: Final = re.compile(r"([0-9]{1,5}) (?!\?:)([!-~]*):([0-9]{1,5})")


class Cluster:
    """Writes entries to the masters of a cluster. Belongs to one event loop."""

    def __init__(self, nodes: ClusterNodes, settings: Settings, buckets: Buckets) -> None:
        self.sights = Sights(buckets)
        self._buckets = buckets
        self._former: tuple[Address, ...] = ()
        self._nodes = nodes
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._writers: dict[Address, Writer] = {}
        self._topology: Topology | None = None
        self._waiting: list[PendingWrite] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -SHORTEST_REFRESH
        self._later: asyncio.TimerHandle | None = None
        self._breaker = CircuitBreaker(threshold=1)
        self.closed = False

    def open(self) -> None:
        """Connect to every master before the first request; failures are left to the requests."""
        self._refresh()

    def submit(self, write: PendingWrite) -> None:
        """Queue `write` at the master of its slot; it is answered by its deadline."""
        if self.closed:
            write.resolve(unavailable(NO_ANSWER))
        elif self._topology is None:
            self._wait(write)
        else:
            owner = self._topology.owners[self._buckets.slots[write.bucket]]
            if owner is None:
                self._refresh()
                write.resolve(unavailable(NO_ANSWER))
                return
            writer = self._writer(owner)
            if writer.state == "pausing":
                self._refresh()
            writer.submit(write)

    def resubmit(self, write: PendingWrite) -> None:
        """Send `write` again, to the master that owns its slot now."""
        write.asking = False
        self.submit(write)

    def redirect(self, write: PendingWrite, error: ServerError, *, by: Address) -> None:
        """Follow MOVED or ASK of the server `by`; neither counts as a try, since the server wrote nothing."""
        write.tries -= 1
        write.redirects += 1
        destination = self._destination(error, by)
        if destination is None:
            self._refresh()
        if destination is None or self.closed or write.redirects > MOST_REDIRECTS:
            write.resolve(unavailable(NO_ANSWER, error))
            return
        if write.redirects == 1:
            # There it waits behind other writes, whose deadlines are later.
            late = partial(write.resolve, unavailable(NO_ANSWER, error))
            self._loop.call_at(write.deadline, late, context=contextvars.Context())
        if error.code == "MOVED":
            self.look_again(error, by=by)
            self.resubmit(write)
            return
        write.asking = True
        self._writer(destination[1]).submit(write)

    def look_again(self, error: Exception, *, by: Address) -> None:
        """Fetch the topology again: a slot has another owner, or the node `by` can't be used."""
        if isinstance(error, ServerError) and error.code == "MOVED" and self._topology is not None:
            destination = self._destination(error, by)
            if destination is not None:
                self._topology = with_owner(self._topology, *destination)
        self._refresh()

    def tag(self, address: Address) -> bytes | None:
        """A hash tag of a slot that `address` owns, None when it owns none."""
        return None if self._topology is None else tag_of(self._topology, address)

    def buckets(self, address: Address) -> list[int]:
        """The buckets in slots that `address` owns."""
        if self._topology is None:
            return []
        owners = self._topology.owners
        return [bucket for bucket, slot in enumerate(self._buckets.slots) if owners[slot] == address]

    def look_around(self, changed: Address) -> None:
        """Read the anchors on all servers except `changed`, which has other data."""
        for address, writer in self._writers.items():
            if address != changed:
                writer.fence.standing.read_again()
                writer.survey()

    async def present(
        self, identities: frozenset[bytes], *, asker: Address, patient: bool, ahead: float
    ) -> frozenset[bytes] | None:
        """The `identities` whose data masters other than `asker` have now, as `Present` says.

        Each of them has then reported its losses up to a second ago. Where one doesn't report, the result is
        None with `patient`; otherwise a loss is assumed.
        """
        # Half of a request's time in total, as for one try.
        patience = self._settings.timeout / 4
        writers = {address: writer for address, writer in self._writers.items() if address != asker}
        moments, found = self._settings.moments, set[bytes]()
        now = moments.at(self._loop.time())
        told = await asyncio.gather(
            *(
                writer.server.has_told_since(
                    now if writer.fence.vitals.identity in identities else now - 1,
                    survey=writer.survey,
                    patience=patience,
                )
                for writer in writers.values()
            )
        )
        for writer, has_told in zip(writers.values(), told, strict=True):
            if has_told:
                found.update(one for one in identities if writer.fence.vitals.still_has(one, ahead=ahead))
            elif patient:
                return None
            else:
                self.sights.changed_at = moments.at(self._loop.time())
        if found == identities:
            return identities
        others = {*self._former, *(() if self._topology is None else self._topology.nodes)}
        others, left, of_loop = others - writers.keys() - {asker}, identities - found, ahead + moments.slept()
        return frozenset(found) | await identities_among(self._nodes, others, left, patience, ahead=of_loop)

    async def topology(self) -> Topology:
        """The cluster as it is now, for the health check."""
        known = () if self._topology is None else self._topology.nodes
        return await fetch_topology(self._nodes, (*known, *self._nodes.addresses), self._settings.timeout)

    async def aclose(self) -> None:
        """Close every writer and answer the waiting requests: their outcome can't be known."""
        self.closed = True
        if self._later is not None:
            self._later.cancel()
        task, self._refreshing = self._refreshing, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for write in self._waiting:
            write.resolve(unavailable(NO_ANSWER))
        writers, self._writers = self._writers, {}
        for writer in writers.values():
            await writer.aclose()

    def _destination(self, redirection: ServerError, by: Address) -> tuple[int, Address] | None:
        """The slot and the address that `MOVED 3999 127.0.0.1:6381` names; without a host, that of `by`.

        None where it names none, or one whose name isn't known (`?`): a malformed redirection must not raise
        here.
        """
        found = _SLOT_AND_ADDRESS.fullmatch(redirection.rest)
        if found is None or int(found[1]) >= REDIS_CLUSTER_HASH_SLOTS:
            return None
        try:
            return int(found[1]), self._nodes.announced((found[2] or by[0], int(found[3])))
        except ServerUnfit:
            return None

    def _writer(self, address: Address) -> Writer:
        writer = self._writers.get(address)
        if writer is None or writer.closed:
            writer = self._writers[address] = Writer(
                f"{address[0]}:{address[1]}",
                self._nodes.at(address),
                self._settings,
                self.sights,
                self._around(address),
            )
        return writer

    def _around(self, address: Address) -> Surroundings:
        """The cluster as the writer to `address` sees it."""
        return Surroundings(
            resubmit=self.resubmit,
            redirect=partial(self.redirect, by=address),
            look_again=partial(self.look_again, by=address),
            tag=partial(self.tag, address),
            buckets=partial(self.buckets, address),
            look_around=partial(self.look_around, address),
            present=partial(self.present, asker=address),
        )

    def _wait(self, write: PendingWrite) -> None:
        if self._breaker.refuses(self._loop.time()):
            write.resolve(unavailable(NO_ANSWER))
        elif len(self._waiting) >= self._settings.max_waiting:
            write.resolve(unavailable(CROWDED))
        else:
            self._waiting.append(write)
            self._refresh()

    def _refresh(self) -> None:
        if self._refreshing is not None or self.closed:
            return
        if self._topology is not None and self._loop.time() < self._refreshed_at + SHORTEST_REFRESH:
            self._refresh_later()
            return
        self._refreshing = begin(
            self._look(), name="dpop replay store topology", context=contextvars.Context()
        )

    def _refresh_later(self) -> None:
        """Refresh as soon as possible, once for all requests that need it."""
        if self._later is None:
            self._later = self._loop.call_at(
                self._refreshed_at + SHORTEST_REFRESH, self._refresh_now, context=contextvars.Context()
            )

    def _refresh_now(self) -> None:
        self._later = None
        self._refresh()

    async def _look(self) -> None:
        error: Exception | None = None
        try:
            topology = await self.topology()
            if self._topology is None:
                self._topology = topology
                await self._survey(topology)
            else:
                self._former, self._topology = self._topology.nodes, topology
        except Exception as caught:  # noqa: BLE001 - as in Writer: whatever it was, the topology is not known
            error = caught
            self._breaker.failed(self._loop.time())
        else:
            self._breaker.succeeded()
        finally:
            self._refreshing = None
            self._refreshed_at = self._loop.time()
            waiting, self._waiting = self._waiting, []
            for write in waiting:
                if error is not None or self._topology is None:
                    write.resolve(unavailable(NO_ANSWER, error))
                else:
                    self.submit(write)
        if self._topology is not None:
            await self._tidy(self._topology)

    async def _survey(self, topology: Topology) -> None:
        """Ask every master once: only when all of them were asked is it clear whether the store is new."""
        writers = [self._writer(address) for address in topology.masters]
        openings = [opening for writer in writers if (opening := writer.connect()) is not None]
        await asyncio.wait(openings, timeout=self._settings.timeout / 2)
        for writer in writers:
            writer.survey()

    async def _tidy(self, topology: Topology) -> None:
        """Close the writers to nodes that no longer own slots, and open those to nodes that do now."""
        masters = set(topology.masters)
        for address in masters - self._writers.keys():
            # A replica that took over reports that before any entry is sent to it.
            self._writer(address).open()
        idle: list[Writer] = []
        for address, writer in list(self._writers.items()):
            if address in masters:
                writer.own(self.buckets(address))
            elif writer.is_quiet:
                idle.append(self._writers.pop(address))
        for writer in idle:
            await writer.aclose()
