"""The replay store that several workers and machines share, on Redis or Valkey (RFC 9449 section 11.1)."""

import asyncio
import math
import os
from typing import Any, Self

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.replay.store import ReplayEntry

__all__ = ["RedisReplayStore"]


class RedisReplayStore:
    """First version: one `SET NX GET PX` per request."""

    def __init__(self, client: Any, *, prefix: str = "dpop", timeout: float = 0.25) -> None:
        self._client = client
        self._prefix = prefix
        self._timeout = timeout

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "dpop", timeout: float = 0.25) -> Self:
        kind = RedisCluster if "+cluster" in url else Redis
        return cls(kind.from_url(url.replace("+cluster", "")), prefix=prefix, timeout=timeout)

    async def add(self, entry: ReplayEntry) -> bool:
        token = os.urandom(16).hex()
        milliseconds = max(1000, math.ceil((entry.expires_at - entry.now) * 1000))
        name = f"{self._prefix}:{entry.key}"
        command = ("SET", name, token, "NX", "GET", "PX", milliseconds)
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    old = await self._client.execute_command(*command)
                except RedisError:
                    old = await self._client.execute_command(*command)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(
                "The replay store did not answer.", check=Check.JTI, actual=type(error).__name__
            ) from error
        return old is None or old in (token, token.encode())

    async def health(self) -> object:
        return await self._client.ping()

    async def aclose(self) -> None:
        await self._client.aclose()
