"""The faults that any server can have, in every deployment.

A fault is a method that causes it, records its meaning in its `Happening`, and returns when the servers
should answer again.
"""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import redis

from tests.soak.journal import Happening
from tests.support.proxy import Proxy
from tests.support.server_clock import can_have_clock
from tests.support.valkey import HOST, Server, implementations, until

__all__ = ["ACL", "PASSWORD", "USER", "Fault", "Faults", "eventually"]

USER, PASSWORD = "soak", "secret"
# The workers' user; its password can be changed while the test's own stays.
ACL = (USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
FILLERS = 900
FILLER_BYTES = 1000

Fault = Callable[[Happening], Awaitable[None]]


async def eventually(condition: Callable[[], object], *, within: float = 40.0) -> None:
    """Wait until `condition` is true, without holding up the event loop."""
    await asyncio.to_thread(until, condition, within=within)


def _accepts(server: Server) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, server.port), timeout=1):
        return True
    return False


class Faults:
    """The faults of one of `masters()`; `serving()` returns when the workers can get answers again."""

    # Whether a master that was replaced may continue for some time.
    has_pretenders = False
    # The faults that can't be done here, with the reason.
    left_out: Sequence[str] = ()

    def __init__(self, chance: random.Random, implementation: str) -> None:
        self.chance = chance
        self.has_clocks = can_have_clock(implementations()[implementation])
        if not self.has_clocks:
            self.left_out = (*self.left_out, "server clock steps (no libfaketime that serves here)")

    def masters(self) -> Sequence[Server]:
        """The servers that take writes now."""
        raise NotImplementedError

    def proxies(self) -> Mapping[int, Proxy]:
        """The proxies before the servers, by the servers' ports; none where workers connect directly."""
        return {}

    async def serving(self) -> None:
        """Wait until there is a server for every entry again."""
        raise NotImplementedError

    async def settled(self) -> None:
        """Wait until the next fault may come: replicas are in step."""
        await self.serving()

    def state(self) -> Sequence[str]:
        """The servers' own state, for a run that failed."""
        return ()

    def faults(self) -> dict[str, Fault]:
        """All faults by name."""
        return {
            "hang": self.hang,
            "killed and restarted empty": self.restart_empty,
            "killed and restarted with old data": self.restart_with_old_data,
            "restarted with all data": self.restart_with_all_data,
            "FLUSHALL": self.flush_all,
            "FLUSHDB": self.flush_db,
            "memory limit": self.memory_limit,
            "evictions": self.evictions,
            "connections killed": self.connections_killed,
            "slow server": self.slow_server,
            "changed password": self.changed_password,
            **(self._of_clocks() if self.has_clocks else {}),
            **(self._of_proxies() if self.proxies() else {}),
        }

    def _of_clocks(self) -> dict[str, Fault]:
        return {"server clock forward": self.clock_forward, "server clock back": self.clock_back}

    def _of_proxies(self) -> dict[str, Fault]:
        return {
            "connections reset": self.connections_reset,
            "silent cut": self.silent_cut,
            "lost replies": self.lost_replies,
            "slow network": self.slow_network,
        }

    async def victim(self) -> Server:
        """One of the servers that take writes."""
        return self.chance.choice(await asyncio.to_thread(self.masters))

    async def run(self, server: Server, *words: object) -> Any:
        """One command, off the event loop."""
        return await asyncio.to_thread(server.run, *words)

    async def start(self, server: Server) -> None:
        """Start a server that was killed, and wait until it answers commands."""
        await asyncio.to_thread(server.start)
        await eventually(lambda: server.run("PING"))

    async def pause(self, shortest: float, longest: float) -> None:
        """Some time, short ones more often."""
        await asyncio.sleep(shortest * (longest / shortest) ** self.chance.random())

    async def cut_off_replicas(self, master: Server) -> None:
        """New connections need the default user's password, which the workers don't have."""
        await asyncio.to_thread(self._cut_off_replicas, master)

    def _cut_off_replicas(self, master: Server) -> None:
        with master.client() as client:
            client.config_set("requirepass", "unknown to replicas")
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")

    async def hang(self, happening: Happening) -> None:
        """SIGSTOP and SIGCONT; if a master is stopped for too long, another one is promoted."""
        server = await self.victim()
        server.pause()
        try:
            await self.pause(0.1, 6)
        finally:
            server.resume()
        happening.loses = await self.is_replaced_after(time.monotonic() - happening.began)
        await self.serving()

    async def is_replaced_after(self, seconds: float) -> bool:
        """Whether a server that was down for this long may have been replaced by another one."""
        del seconds
        return False

    async def restart_empty(self, happening: Happening) -> None:
        """Everything is lost."""
        happening.loses = True
        server = await self.victim()
        await asyncio.to_thread(server.kill)
        (server.directory / "dump.rdb").unlink(missing_ok=True)
        await self.pause(0.05, 3)
        await self.start(server)
        await self.serving()

    async def restart_with_old_data(self, happening: Happening) -> None:
        """What was written since the snapshot is lost."""
        server = await self.victim()
        await self.run(server, "SAVE")
        await self.pause(0.5, 5)
        happening.began, happening.loses = time.monotonic(), True
        await asyncio.to_thread(server.kill)
        await self.pause(0.05, 3)
        await self.start(server)
        await self.serving()

    async def restart_with_all_data(self, happening: Happening) -> None:
        """Nothing is lost, but a store can't know that."""
        happening.loses = True
        server = await self.victim()
        await asyncio.to_thread(self._shut_down, server)
        await self.start(server)
        await self.serving()

    def _shut_down(self, server: Server) -> None:
        with contextlib.suppress(redis.RedisError):
            server.run("SHUTDOWN", "SAVE", "NOW")
        until(lambda: not _accepts(server))
        server.kill()

    async def flush_all(self, happening: Happening) -> None:
        """All keys of all databases of one server."""
        happening.loses = True
        await self.run(await self.victim(), "FLUSHALL")

    async def flush_db(self, happening: Happening) -> None:
        """All keys of the database."""
        happening.loses = True
        await self.run(await self.victim(), "FLUSHDB", self.chance.choice(["SYNC", "ASYNC"]))

    async def memory_limit(self, happening: Happening) -> None:
        """A full server that evicts nothing refuses writes."""
        server = await self.victim()
        await self.run(server, "CONFIG", "SET", "maxmemory", 1)
        await self.pause(0.2, 4)
        await self.run(server, "CONFIG", "SET", "maxmemory", 0)

    async def evictions(self, happening: Happening) -> None:
        """A full server that evicts; the first second of evictions can't be detected, later ones can."""
        happening.loses = True
        server = await self.victim()
        policy = self.chance.choice(["volatile-ttl", "allkeys-random", "allkeys-lru", "volatile-lru"])
        happening.detail = policy
        begin = time.monotonic()
        await asyncio.to_thread(self._fill, server, policy)
        happening.hides(begin, time.monotonic())
        await self.pause(0.5, 4)
        await self.run(server, "CONFIG", "SET", "maxmemory", 0)
        await self.run(server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        # One check that sees the last eviction, and one that sees no more.
        happening.ended = time.monotonic() + 2.5

    def _fill(self, server: Server, policy: str) -> None:
        with server.client() as client:
            client.config_set("maxmemory-policy", policy)
            used = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory", used + 100_000)
            pipeline = client.pipeline(transaction=False)
            for number in range(FILLERS):
                pipeline.set(f"filler:{self.chance.random()}:{number}", "x" * FILLER_BYTES, px=20_000)
            # In another slot of a cluster, or no room: then it evicts more of the store's entries.
            pipeline.execute(raise_on_error=False)

    async def connections_killed(self, happening: Happening) -> None:
        """The server closes them."""
        await self.run(await self.victim(), "CLIENT", "KILL", "USER", USER)

    async def slow_server(self, happening: Happening) -> None:
        """It answers no request for some time, and then all of them; that may be taken for its death."""
        server = await self.victim()
        milliseconds = int(1000 * 0.05 * 40 ** self.chance.random())
        happening.detail = f"{milliseconds} ms"
        await self.run(server, "CLIENT", "PAUSE", milliseconds, self.chance.choice(["ALL", "WRITE"]))
        await asyncio.sleep(milliseconds / 1000)
        happening.loses = await self.is_replaced_after(milliseconds / 1000)
        await self.serving()

    async def changed_password(self, happening: Happening) -> None:
        """New connections are refused until it is the old one again."""
        server = await self.victim()
        await self.run(server, "ACL", "SETUSER", USER, "resetpass", ">another")
        await self.run(server, "CLIENT", "KILL", "USER", USER)
        await self.pause(0.3, 4)
        await self.run(server, "ACL", "SETUSER", USER, "resetpass", f">{PASSWORD}")

    async def clock_forward(self, happening: Happening) -> None:
        """Every entry that is younger than the step expires."""
        await self._step(happening, self.chance.randint(20, 200))

    async def clock_back(self, happening: Happening) -> None:
        """Entries live longer, and those written meanwhile expire too early when the clock is set right."""
        await self._step(happening, -self.chance.randint(5, 100))

    async def _step(self, happening: Happening, seconds: int) -> None:
        happening.detail, happening.loses = f"{seconds:+d} s", True
        server = await self.victim()
        await asyncio.to_thread(server.set_clock, seconds)
        await self.pause(0.3, 6)
        await asyncio.to_thread(server.set_clock, 0)
        await self.serving()

    async def proxy(self) -> Proxy:
        """The one before some server."""
        return self.proxies()[(await self.victim()).port]

    async def connections_reset(self, happening: Happening) -> None:
        """By RST, as a firewall does."""
        (await self.proxy()).reset()

    async def silent_cut(self, happening: Happening) -> None:
        """Nothing passes, then the connections break, or the held data passes after all."""
        proxy = await self.proxy()
        proxy.hold()
        await self.pause(0.1, 5)
        proxy.release()
        if self.chance.random() < 0.7:
            proxy.cut()

    async def lost_replies(self, happening: Happening) -> None:
        """Some batches are written, but their replies are lost."""
        proxy = await self.proxy()
        for _ in range(self.chance.randint(1, 5)):
            proxy.lose_next_reply = True
            await self.pause(0.05, 0.5)
        proxy.lose_next_reply = False

    async def slow_network(self, happening: Happening) -> None:
        """Every piece of a reply comes late."""
        proxy = await self.proxy()
        proxy.reply_delay = 0.02 * 50 ** self.chance.random()
        happening.detail = f"{proxy.reply_delay * 1000:.0f} ms"
        await self.pause(0.5, 5)
        proxy.reply_delay = 0.0
