"""One server, reached through a proxy, that can also take over other data."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from tests.soak.faults import ACL, PASSWORD, USER, Fault, Faults, eventually
from tests.soak.journal import Happening
from tests.support.proxy import Proxy
from tests.support.valkey import HOST, Server

__all__ = ["Standalone"]

OPTIONS: dict[str, object] = {"repl-diskless-sync-delay": 0, "user": ACL}


class Standalone(Faults):
    """A server and another one that lends it data, as an async context manager."""

    def __init__(self, chance: random.Random, implementation: str) -> None:
        super().__init__(chance, implementation)
        self.server = Server(OPTIONS, implementation=implementation, with_clock=self.has_clocks)
        self.other = Server(OPTIONS, implementation=implementation)
        self._stack = AsyncExitStack()

    @property
    def config(self) -> Mapping[str, Any]:
        """The store's URL for the workers."""
        return {"url": f"redis://{USER}:{PASSWORD}@{HOST}:{self._proxy.port}"}

    async def __aenter__(self) -> Self:
        for server in (self.server, self.other):
            await asyncio.to_thread(self._stack.enter_context, server)
        self._proxy = await self._stack.enter_async_context(Proxy(self.server.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def masters(self) -> Sequence[Server]:
        """The one."""
        return (self.server,)

    def proxies(self) -> Mapping[int, Proxy]:
        """The one before it."""
        return {self.server.port: self._proxy}

    async def serving(self) -> None:
        """It answers."""
        await eventually(lambda: self.server.run("ROLE")[0] == "master")

    def faults(self) -> dict[str, Fault]:
        """The faults of any server, and its own."""
        return {
            **super().faults(),
            "REPLICAOF there and back": self.other_data,
            "lagging replica takes over and back": self.lagging_replica,
            "first replica comes and goes": self.replica_comes_and_goes,
        }

    async def other_data(self, happening: Happening) -> None:
        """The server takes the data of another and is a master again; connections may survive that."""
        await self.run(self.other, "FLUSHALL")
        await self._takes_over(happening)

    async def lagging_replica(self, happening: Happening) -> None:
        """A replica that lagged for some time takes over, then the old master takes over from it."""
        await self._follow(self.other, self.server)
        await self.run(self.other, "REPLICAOF", "NO", "ONE")
        await self.pause(0.5, 5)
        happening.began = time.monotonic()
        await self._takes_over(happening)

    async def replica_comes_and_goes(self, happening: Happening) -> None:
        """The replication id changes, nothing is lost."""
        await self.run(self.server, "CONFIG", "SET", "repl-backlog-ttl", 1)
        await self._follow(self.other, self.server)
        await self.pause(0.2, 1)
        await self.run(self.other, "REPLICAOF", "NO", "ONE")
        await asyncio.sleep(2.5)

    async def _takes_over(self, happening: Happening) -> None:
        happening.loses = True
        begin = time.monotonic()
        await self._follow(self.server, self.other)
        await self.run(self.server, "REPLICAOF", "NO", "ONE")
        happening.hides(begin, time.monotonic())

    async def _follow(self, follower: Server, leader: Server) -> None:
        await self.run(follower, "REPLICAOF", HOST, leader.port)
        await eventually(lambda: follower.run("ROLE")[3] == "connected")
