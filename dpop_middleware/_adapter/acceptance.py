"""When an acceptance is told: as the response begins, unless an adapter further inside refuses the request.

A middleware accepts what a route may refuse for a scope. That is one decision, and one event. It is told in
the context in which it was made: the response may begin in another span of a trace.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context

from starlette.types import Message, Send

from dpop_middleware._adapter.connection import Connection
from dpop_middleware._judge.verdicts import Authentication
from dpop_middleware.events import Reporter

__all__ = ["holding"]


class _Held:
    """What was accepted on one connection and isn't told yet, once for each server and its siblings."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Reporter, tuple[Context, Authentication, float]] = {}

    def keep(self, reporter: Reporter, authentication: Authentication) -> None:
        if reporter.wants_acceptance:
            duration = time.perf_counter() - authentication.started
            self._waiting[reporter] = copy_context(), authentication, duration

    def drop(self, reporter: Reporter) -> None:
        self._waiting.pop(reporter, None)

    def tell(self) -> None:
        while self._waiting:
            reporter, (context, authentication, duration) = self._waiting.popitem()
            context.run(reporter.accepted, authentication, duration=duration)

    def telling(self, send: Send) -> Send:
        async def send_after_telling(message: Message) -> None:
            self.tell()
            await send(message)

        return send_after_telling


def _as_it_is(send: Send) -> Send:
    return send


@contextmanager
def holding(connection: Connection) -> Generator[Callable[[Send], Send]]:
    """Hold back what is accepted in the block until the first message, or the block's end.

    Yields what makes a `send` that tells. Where somebody outside holds already, nothing is different.
    """
    if connection.held is not None:
        yield _as_it_is
        return
    connection.held = held = _Held()
    try:
        yield held.telling
    finally:
        connection.held = None
        held.tell()
