"""A master and a replica that three Sentinels watch."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from tests.soak.faults import ACL, PASSWORD, USER, Fault, Faults, eventually
from tests.soak.journal import Happening
from tests.support.valkey import Sentinels, Server

__all__ = ["Sentinel"]

# The Sentinels replace a master that was down for so many seconds, or a little less.
_FAILS_AFTER, _REPLACED_AFTER = 0.7, 0.5


class Sentinel(Faults):
    """One service with failovers, as an async context manager."""

    has_pretenders = True
    left_out = ("faults of a proxy (Sentinels name the servers themselves)",)

    def __init__(self, chance: random.Random, implementation: str) -> None:
        super().__init__(chance, implementation)
        self.service = Sentinels(
            implementation=implementation,
            options={"user": ACL},
            with_clocks=self.has_clocks,
            fails_after=_FAILS_AFTER,
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """The store's URL for the workers."""
        return {"url": self.service.url.replace("://", f"://{USER}:{PASSWORD}@", 1)}

    @property
    def servers(self) -> Sequence[Server]:
        """Master and replica, whichever is which."""
        return (self.service.master, *self.service.replicas)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.service.__enter__)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.service.__exit__, None, None, None)

    def masters(self) -> Sequence[Server]:
        """The one that the Sentinels name."""
        port = self._named()
        return tuple(server for server in self.servers if server.port == port)

    async def serving(self) -> None:
        """The server that all Sentinels name is a master."""
        await eventually(self._serves)

    async def settled(self) -> None:
        """And the other server is its replica, and in step."""
        await eventually(self._in_step, within=40)
        # A Sentinel fails over again only after its own pause.
        await asyncio.sleep(0.5)

    async def is_replaced_after(self, seconds: float) -> bool:
        """The Sentinels may have begun to replace it."""
        return seconds > _REPLACED_AFTER

    def faults(self) -> dict[str, Fault]:
        """The faults of any server, and failovers."""
        return {
            **super().faults(),
            "failover on demand": self.failover,
            "master dies and its replica takes over": self.master_dies,
            "master dies and a lagging replica takes over": self.lagging_replica,
            "a Sentinel hangs while the master dies": self.sentinel_hangs,
        }

    async def failover(self, happening: Happening) -> None:
        """As an operator asks for it; the promotion may be asked for too soon after the last one."""
        happening.loses = True
        before = await asyncio.to_thread(self._named)

        def is_another() -> bool:
            if self._named() == before:
                self.service.sentinels[1].run("SENTINEL", "FAILOVER", self.service.service)
            return self._named() != before

        await eventually(is_another)
        await self.serving()

    async def master_dies(self, happening: Happening) -> None:
        """A replica is promoted, which may have lacked entries; the old master comes back."""
        happening.loses = True
        master = await self.victim()
        await asyncio.to_thread(master.kill)
        await eventually(lambda: self._named() != master.port)
        await self.serving()
        happening.is_back()
        await self.pause(0.1, 5)
        await self.start(master)

    async def lagging_replica(self, happening: Happening) -> None:
        """The replica received nothing from the master for some time before the master died."""
        master = await self.victim()
        await self.cut_off_replicas(master)
        await self.pause(0.5, 4)
        happening.began = time.monotonic()
        await self.master_dies(happening)

    async def sentinel_hangs(self, happening: Happening) -> None:
        """The workers may ask exactly that one."""
        sentinel = self.service.sentinels[0]
        sentinel.pause()
        try:
            await self.master_dies(happening)
        finally:
            sentinel.resume()

    def _named(self, sentinel: int = 1) -> int:
        answer = self.service.sentinels[sentinel].raw(
            "SENTINEL GET-MASTER-ADDR-BY-NAME", self.service.service
        )
        return int(answer[1])

    def _serves(self) -> bool:
        named = {self._named(1), self._named(2)}
        masters = [server for server in self.servers if server.port in named]
        return len(masters) == 1 and bool(masters[0].run("ROLE")[0] == "master")

    def _in_step(self) -> bool:
        if len({self._named(number) for number in range(3)}) != 1 or not self._serves():
            return False
        named = self._named()
        roles = [server.run("ROLE") for server in self.servers if server.port != named]
        return all(role[0] == "slave" and role[2] == named and role[3] == "connected" for role in roles)
