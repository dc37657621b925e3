"""A cluster: one link for each master, and the way from an entry to its link."""

import asyncio
import contextvars
from functools import partial

from dpop_middleware.replay.breaker import CircuitBreaker
from dpop_middleware.replay.redis.anchor import Buckets
from dpop_middleware.replay.redis.endpoints import Address, Target, connector
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.pending import CROWDED, NO_ANSWER, PendingWrite, unavailable
from dpop_middleware.replay.redis.resp import ServerError
from dpop_middleware.replay.redis.sights import Sights
from dpop_middleware.replay.redis.topology import (
    Topology,
    fetch_topology,
    identities_among,
    tag_of,
    with_owner,
)
from dpop_middleware.replay.redis.writer import Link

__all__ = ["Cluster"]

MOST_REDIRECTS = 5
SHORTEST_REFRESH = 0.1


class Cluster:
    """Writes entries to the masters of a cluster. Belongs to one event loop."""

    def __init__(self, target: Target, settings: Settings, buckets: Buckets) -> None:
        self._sights = Sights(buckets)
        self._buckets = buckets
        self._former: tuple[Address, ...] = ()
        self._target = target
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._links: dict[Address, Link] = {}
        self._topology: Topology | None = None
        self._waiting: list[PendingWrite] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -SHORTEST_REFRESH
        self._later: asyncio.TimerHandle | None = None
        self._breaker = CircuitBreaker(threshold=1)
        self.closed = False

    def open(self) -> None:
        """Connect to every master before the first request; what fails is for requests to meet."""
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
            link = self._link(owner)
            if link.refuses:
                self._refresh()
            link.submit(write)

    def resubmit(self, write: PendingWrite) -> None:
        """Send `write` once more, to whichever master it belongs to now."""
        write.asking = False
        self.submit(write)

    def redirect(self, write: PendingWrite, error: ServerError) -> None:
        """Follow MOVED or ASK; neither counts as a try, the server did nothing."""
        write.tries -= 1
        write.redirects += 1
        if self.closed or write.redirects > MOST_REDIRECTS:
            write.resolve(unavailable(NO_ANSWER, error))
            return
        if write.redirects == 1:
            # Elsewhere it waits behind others, whose time is over later.
            late = partial(write.resolve, unavailable(NO_ANSWER, error))
            self._loop.call_at(write.deadline, late, context=contextvars.Context())
        if error.code == "MOVED":
            self.look_again(error)
            self.resubmit(write)
            return
        _, address = self._place(error)
        write.asking = True
        self._link(address).submit(write)

    def look_again(self, error: Exception) -> None:
        """Look at the topology again: a slot has another owner, or a node can't be used."""
        if isinstance(error, ServerError) and error.code == "MOVED" and self._topology is not None:
            slot, address = self._place(error)
            self._topology = with_owner(self._topology, slot, address)
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
        """Read the anchors on all servers but `changed`, which has other data."""
        for address, link in self._links.items():
            if address != changed:
                link.fence.standing.read_again()
                link.greet()

    async def present(
        self, identities: frozenset[bytes], asker: Address, *, patient: bool
    ) -> frozenset[bytes] | None:
        """Those of `identities` whose data masters other than `asker` have now.

        By then it is known what each of them has lost up to a second ago. Where one doesn't tell that, it is
        None with `patient`, else a loss is taken for granted.
        """
        # Half of a request's time in all, as for one try.
        patience = self._settings.timeout / 4
        links = {address: link for address, link in self._links.items() if address != asker}
        now, found = self._loop.time(), set[bytes]()
        told = await asyncio.gather(
            *(
                link.has_told_since(
                    now if link.fence.vitals.identity in identities else now - 1, patience=patience
                )
                for link in links.values()
            )
        )
        for link, has_told in zip(links.values(), told, strict=True):
            if has_told:
                found.update(one for one in identities if link.fence.vitals.still_has(one))
            elif patient:
                return None
            else:
                self._sights.changed_at = self._loop.time()
        if found == identities:
            return identities
        others = {*self._former, *(() if self._topology is None else self._topology.nodes)}
        return frozenset(found) | await identities_among(
            self._target, others - links.keys() - {asker}, identities - found, patience
        )

    async def topology(self) -> Topology:
        """The cluster as it is now, for the health check."""
        known = () if self._topology is None else self._topology.nodes
        return await fetch_topology(self._target, (*known, *self._target.addresses), self._settings.timeout)

    async def aclose(self) -> None:
        """Close every link and answer what still waits: it can't be known."""
        self.closed = True
        if self._later is not None:
            self._later.cancel()
        task, self._refreshing = self._refreshing, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for write in self._waiting:
            write.resolve(unavailable(NO_ANSWER))
        links, self._links = self._links, {}
        for link in links.values():
            await link.aclose()

    def _place(self, redirection: ServerError) -> tuple[int, Address]:
        """The slot and the address that `MOVED 3999 127.0.0.1:6381` names."""
        slot, _, place = redirection.rest.partition(" ")
        host, _, port = place.rpartition(":")
        address = (host, int(port))
        return int(slot), address if self._target.remap is None else self._target.remap(address)

    def _link(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None or link.closed:
            link = self._links[address] = Link(
                f"{address[0]}:{address[1]}",
                connector(self._target, address),
                self._settings,
                self._sights,
                Place(self, address),
            )
        return link

    def _wait(self, write: PendingWrite) -> None:
        if self._breaker.refuses(self._loop.time()):
            write.resolve(unavailable(NO_ANSWER))
        elif len(self._waiting) >= self._settings.max_waiting:
            write.resolve(unavailable(CROWDED))
        else:
            self._waiting.append(write)
            self._refresh()

    def _refresh(self) -> None:
        if self._refreshing is not None:
            return
        if self._topology is not None and self._loop.time() < self._refreshed_at + SHORTEST_REFRESH:
            self._refresh_later()
            return
        self._refreshing = self._loop.create_task(
            self._look(), name="dpop replay store topology", context=contextvars.Context()
        )

    def _refresh_later(self) -> None:
        """Refresh as soon as may be, once for all who want it."""
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
        except Exception as caught:  # noqa: BLE001 - as in Link: whatever it was, the topology is not known
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
        """Meet every master once: whether the store is new is seen only where all of them were asked."""
        links = [self._link(address) for address in topology.masters]
        openings = [opening for link in links if (opening := link.connect()) is not None]
        await asyncio.wait(openings, timeout=self._settings.timeout / 2)
        for link in links:
            link.greet()

    async def _tidy(self, topology: Topology) -> None:
        """Close the links to nodes that own nothing any more, and watch those that own something now."""
        masters = set(topology.masters)
        for address in masters - self._links.keys():
            # A replica that took over tells that it did, before anything comes from there.
            self._link(address).open()
        for address, link in list(self._links.items()):
            if address in masters:
                link.own(self.buckets(address))
            elif link.is_quiet:
                del self._links[address]
                await link.aclose()


class Place:
    """The cluster as one of its links sees it."""

    def __init__(self, cluster: Cluster, address: Address) -> None:
        self._cluster = cluster
        self._address = address
        self.resubmit, self.redirect, self.look_again = cluster.resubmit, cluster.redirect, cluster.look_again

    def tag(self) -> bytes | None:
        """See `Cluster.tag`."""
        return self._cluster.tag(self._address)

    def buckets(self) -> list[int]:
        """See `Cluster.buckets`."""
        return self._cluster.buckets(self._address)

    def look_around(self) -> None:
        """See `Cluster.look_around`."""
        self._cluster.look_around(self._address)

    async def present(self, identities: frozenset[bytes], *, patient: bool) -> frozenset[bytes] | None:
        """See `Cluster.present`."""
        return await self._cluster.present(identities, self._address, patient=patient)
