"""Starts an ASGI application and stops it again, as a server does: for tests only."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

__all__ = ["ASGIApp", "lifespan"]

Message: TypeAlias = MutableMapping[str, Any]
ASGIApp: TypeAlias = Callable[..., Awaitable[None]]


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncGenerator[ASGIApp]:
    """Run the application's lifespan around the block; yield the application, with the lifespan's state.

    An application that doesn't support the lifespan protocol is served without it. Raises RuntimeError when
    its startup or shutdown fails.
    """
    state: dict[str, Any] = {}
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    task = asyncio.ensure_future(app(scope, to_app.get, from_app.put))

    async def with_state(scope: Message, receive: object, send: object) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    supported = await _phase("startup", task, to_app, from_app)
    try:
        yield with_state if supported else app
    finally:
        if supported:
            await _phase("shutdown", task, to_app, from_app)
            await asyncio.gather(task, return_exceptions=True)


async def _phase(
    name: str,
    task: "asyncio.Future[None]",
    to_app: "asyncio.Queue[Message]",
    from_app: "asyncio.Queue[Message]",
) -> bool:
    await to_app.put({"type": f"lifespan.{name}"})
    answer = asyncio.ensure_future(from_app.get())
    await asyncio.wait((task, answer), return_when=asyncio.FIRST_COMPLETED)
    message = answer.result() if answer.done() else {"type": "nothing"}
    if message["type"] == f"lifespan.{name}.complete":
        return True
    # An application that returns, raises or sends another message has no lifespan, as servers see it.
    answer.cancel()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if message["type"] == f"lifespan.{name}.failed":
        raise RuntimeError(f"the application's {name} failed: {message.get('message', '')}")
    return False
