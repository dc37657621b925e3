"""Requests driven through the judge alone, or through a protected application that does nothing."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import ASGIApp, Message

from dpop_middleware import DPoPMiddleware, ResourceRequest, ResourceServer
from dpop_middleware.errors import DPoPError
from tests.benchmarks.workload import Scope

__all__ = [
    "Protection",
    "Running",
    "accepted",
    "reached",
    "refused",
    "stopped_by_middleware",
    "through_middleware",
]

Running = Callable[[ResourceServer, list[Scope]], Coroutine[Any, Any, None]]
Protection = Callable[[ASGIApp, ResourceServer], ASGIApp]


async def accepted(api: ResourceServer, scopes: list[Scope]) -> None:
    """Every request is accepted."""
    for scope in scopes:
        await api.authenticate(ResourceRequest.from_scope(scope))


async def refused(api: ResourceServer, scopes: list[Scope]) -> None:
    """No request is accepted."""
    for scope in scopes:
        try:
            await api.authenticate(ResourceRequest.from_scope(scope))
        except DPoPError:
            continue
        raise AssertionError("a wrong request was let in")


def _protected(app: ASGIApp, api: ResourceServer) -> ASGIApp:
    """What an attacker may have compared with the path, too."""
    return DPoPMiddleware(app, api, public_paths=["/static/*"])


async def through_middleware(api: ResourceServer, scopes: list[Scope]) -> None:
    """Every request reaches the application, which does nothing."""
    assert await reached(_protected, api, scopes) == len(scopes)


async def stopped_by_middleware(api: ResourceServer, scopes: list[Scope]) -> None:
    """Every request is answered by the middleware."""
    assert await reached(_protected, api, scopes) == 0


async def reached(
    protection: Protection, api: ResourceServer, scopes: list[Scope], *, in_flight: int = 1
) -> int:
    """Return how many requests reach the application; `in_flight` of them are under way at a time."""
    count = 0

    async def application(scope: object, receive: object, send: object) -> None:
        nonlocal count
        count += 1

    async def receive() -> Message:
        raise AssertionError("nothing reads a body here")

    async def send(message: Message) -> None:
        pass

    protected = protection(application, api)
    waiting = iter(scopes)

    async def client() -> None:
        for scope in waiting:
            # A connection remembers its verdict in its scope, and is forgotten with it, as under a server.
            await protected(dict(scope), receive, send)

    if in_flight == 1:
        await client()
    else:
        await asyncio.gather(*[client() for _ in range(in_flight)])
    return count
