"""Three masters with a replica each, every node behind a proxy, whose slots move."""

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import redis

from tests.soak.faults import ACL, PASSWORD, USER, Fault, Faults, eventually
from tests.soak.journal import Happening
from tests.support.proxy import Proxy
from tests.support.valkey import HOST, Server, until
from tests.support.valkey import Cluster as Nodes

__all__ = ["Cluster"]

NODE_TIMEOUT = 1.0
SLOTS = 16_384
# A node that was down for this long may have been replaced.
_REPLACED_AFTER = 0.7
_MOST_MOVED = 300


class Cluster(Faults):
    """A cluster with failovers and migrations, as an async context manager."""

    has_pretenders = True

    def __init__(self, chance: random.Random, implementation: str) -> None:
        super().__init__(chance, implementation)
        options: dict[str, object] = {"user": ACL, "cluster-allow-replica-migration": "no"}
        self.nodes = Nodes(
            implementation=implementation,
            node_timeout=NODE_TIMEOUT,
            options=options,
            with_clocks=self.has_clocks,
        )
        self._moves_at_once = implementation == "valkey"
        self._proxies: dict[int, Proxy] = {}
        self._stack = AsyncExitStack()

    @property
    def config(self) -> Mapping[str, Any]:
        """The store's URL for the workers."""
        ports = {port: proxy.port for port, proxy in self._proxies.items()}
        return {"ports": ports, "username": USER, "password": PASSWORD}

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._stack.enter_context, self.nodes)
        for server in self.nodes.servers:
            proxy = await self._stack.enter_async_context(Proxy(server.port))
            self._proxies[server.port] = proxy
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def masters(self) -> Sequence[Server]:
        """The servers that own slots."""
        owners = {master[1] for _, _, master, *_ in self._slots()}
        return [server for server in self.nodes.servers if server.port in owners]

    def proxies(self) -> Mapping[int, Proxy]:
        """One before each node."""
        return self._proxies

    async def serving(self) -> None:
        """Every master knows of an owner for each slot, and they agree."""
        await eventually(self._serves)

    async def settled(self) -> None:
        """And every replica is in step; a returned node without slots becomes a replica."""
        await eventually(self._has_replicas)
        await asyncio.to_thread(self.nodes.until_agreed, within=40)

    def state(self) -> Sequence[str]:
        """Each node's role and view of the slots."""
        lines = []
        for server in self.nodes.servers:
            with contextlib.suppress(redis.RedisError, OSError):
                if self._moves_at_once:
                    lines.append(f"{server.port} {server.raw('CLUSTER GETSLOTMIGRATIONS')}")
                slots = self._view(server)
                info = server.raw("CLUSTER INFO").decode().split()
                lines.append(f"{server.port} {server.run('ROLE')[0]} {info[0]} {slots}")
                lines += [f"    {line}" for line in server.raw("CLUSTER NODES").decode().splitlines()]
        return lines

    async def is_replaced_after(self, seconds: float) -> bool:
        """By the node timeout."""
        return seconds > _REPLACED_AFTER

    def faults(self) -> dict[str, Fault]:
        """The faults of any server, failovers, and moves of slots."""
        moving: dict[str, Fault] = {"slots migrated at once": self.slots_migrated_at_once}
        return {
            **super().faults(),
            "failover on demand": self.failover,
            "master dies and its replica takes over": self.master_dies,
            "master dies and a lagging replica takes over": self.lagging_replica,
            "slots migrated": self.slots_migrated,
            **(moving if self._moves_at_once else {}),
            "slots without data": self.slots_without_data,
            "flush and slots migrated": self.flush_and_migrate,
        }

    async def failover(self, happening: Happening) -> None:
        """As an operator asks the replica for it."""
        happening.loses = True
        master = await self.victim()
        replica = await asyncio.to_thread(self.nodes.replica_of, master)
        await self.run(replica, "CLUSTER", "FAILOVER")
        await eventually(lambda: replica.run("ROLE")[0] == "master")
        await self.serving()

    async def master_dies(self, happening: Happening) -> None:
        """Its replica is promoted, and it comes back as a replica."""
        master = await self.victim()
        await self._dies(happening, master, await asyncio.to_thread(self.nodes.replica_of, master))

    async def lagging_replica(self, happening: Happening) -> None:
        """The replica received nothing from its master for some time before the master died."""
        master = await self.victim()
        replica = await asyncio.to_thread(self.nodes.replica_of, master)
        await self.cut_off_replicas(master)
        await self.pause(0.5, 4)
        happening.began = time.monotonic()
        await self._dies(happening, master, replica)

    async def _dies(self, happening: Happening, master: Server, replica: Server) -> None:
        happening.loses = True
        await asyncio.to_thread(master.kill)
        await eventually(lambda: replica.run("ROLE")[0] == "master")
        await self.serving()
        happening.is_back()
        await self.pause(0.1, 5)
        await self.start(master)

    async def slots_migrated(self, happening: Happening) -> None:
        """Slot by slot with MIGRATE, as the cluster tools do it."""
        source, target, first, last = await self._move()
        last = min(last, first + _MOST_MOVED // 4)
        happening.detail = f"{first} to {last}"
        await asyncio.to_thread(self._migrate, source, target, range(first, last + 1))
        await self.serving()

    async def slots_migrated_at_once(self, happening: Happening) -> None:
        """A range at once, by the servers themselves."""
        source, target, first, last = await self._move()
        happening.detail = f"{first} to {last}"
        await asyncio.to_thread(self._migrate_at_once, source, target, first, last)
        await self.serving()

    async def slots_without_data(self, happening: Happening) -> None:
        """A running master gets slots without their data, mostly because their owner died."""
        source, target, first, last = await self._move()
        replica = await asyncio.to_thread(self.nodes.replica_of, source)
        dies = self.chance.random() < 0.6
        happening.detail = f"{first} to {last}, {'their owner died' if dies else 'of a living owner'}"
        happening.loses = True
        if dies:
            await asyncio.to_thread(source.kill)
            await eventually(lambda: replica.run("ROLE")[0] == "master")
        await asyncio.to_thread(self._give_away, target, first, last)
        await self.serving()
        happening.is_back()
        if dies:
            await self.start(source)

    async def flush_and_migrate(self, happening: Happening) -> None:
        """A master loses its data, and slots go to one that kept its own."""
        happening.loses = True
        source, target, first, last = await self._move()
        last = min(last, first + _MOST_MOVED // 4)
        happening.detail = f"{first} to {last}"
        await self.run(source, "FLUSHALL")
        if self._moves_at_once and self.chance.random() < 0.5:
            await asyncio.to_thread(self._migrate_at_once, source, target, first, last)
        else:
            await asyncio.to_thread(self._migrate, source, target, range(first, last + 1))
        await self.serving()

    async def _move(self) -> tuple[Server, Server, int, int]:
        """A range of slots with its owner, and another master."""
        begin = self.chance.randrange(SLOTS)
        slots = await asyncio.to_thread(self._slots)
        last, owner = next((last, owner[1]) for first, last, owner, *_ in slots if first <= begin <= last)
        others = [server for server in await asyncio.to_thread(self.masters) if server.port != owner]
        source = next(server for server in self.nodes.servers if server.port == owner)
        return source, self.chance.choice(others), begin, min(last, begin + _MOST_MOVED)

    def _migrate(self, source: Server, target: Server, slots: Sequence[int]) -> None:
        from_id, to_id = source.run("CLUSTER", "MYID"), target.run("CLUSTER", "MYID")
        for slot in slots:
            target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", from_id)
            source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", to_id)
            while keys := source.raw("CLUSTER GETKEYSINSLOT", slot, 100):
                source.raw("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
            for server in (target, source):
                server.run("CLUSTER", "SETSLOT", slot, "NODE", to_id)

    def _migrate_at_once(self, source: Server, target: Server, first: int, last: int) -> None:
        to_id = target.run("CLUSTER", "MYID")
        source.run("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", to_id)
        until(lambda: set(range(first, last + 1)) <= self._owned(target, source))

    def _give_away(self, target: Server, first: int, last: int) -> None:
        """Take slots from their owners, as the tools fix a cluster: the newest claim wins everywhere."""
        wanted = set(range(first, last + 1))
        with target.client() as client:
            # At once: between the two the nodes' gossip would bring the old owner back.
            transaction = client.pipeline()
            for slot in wanted - self._owned(target, target):
                transaction.execute_command("CLUSTER", "DELSLOTS", slot)
                transaction.execute_command("CLUSTER", "ADDSLOTS", slot)
            transaction.execute_command("CLUSTER", "BUMPEPOCH")
            # Slots without an owner can't be taken from one.
            transaction.execute(raise_on_error=False)
        until(lambda: wanted <= set.intersection(*(self._owned(target, node) for node in self._living())))

    def _living(self) -> Sequence[Server]:
        living = []
        for server in self.nodes.servers:
            with contextlib.suppress(redis.RedisError, OSError):
                server.run("PING")
                living.append(server)
        return living

    def _slots(self) -> list[Any]:
        for server in self.nodes.servers:
            with contextlib.suppress(redis.RedisError, OSError):
                slots = list(server.raw("CLUSTER SLOTS"))
                if slots:
                    return slots
        raise LookupError("no node answers")

    def _view(self, server: Server) -> tuple[tuple[int, int, int], ...]:
        """Who owns which slots according to `server`."""
        slots = server.raw("CLUSTER SLOTS")
        return tuple(sorted((first, last, master[1]) for first, last, master, *_ in slots))

    def _owned(self, owner: Server, server: Server) -> set[int]:
        """The slots of `owner` according to `server`."""
        view = self._view(server)
        return {slot for first, last, port in view if port == owner.port for slot in range(first, last + 1)}

    def _has_replicas(self) -> bool:
        followed = {(role := server.run("ROLE"))[0] == "slave" and role[2] for server in self.nodes.servers}
        masters = self.masters()
        alone = [server for server in masters if server.port not in followed]
        spare = [server for server in self.nodes.servers if server.run("ROLE")[0] == "master"]
        spare = [server for server in spare if server.port not in {master.port for master in masters}]
        for server, master in zip(spare, alone, strict=False):
            # Whatever it still has: only an empty node may follow another.
            server.run("FLUSHALL")
            server.run("CLUSTER", "REPLICATE", master.run("CLUSTER", "MYID"))
        return not alone

    def _serves(self) -> bool:
        views = set()
        for server in self.masters():
            if "cluster_state:ok" not in server.raw("CLUSTER INFO").decode():
                return False
            if server.run("ROLE")[0] != "master":
                return False
            views.add(self._view(server))
        covered = sum(last - first + 1 for first, last, _ in next(iter(views)))
        return len(views) == 1 and covered == SLOTS
