"""What a writer asks of the cluster around it: above all whose data came here.

Writes that can't be judged before the other masters have answered wait for that.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from dpop_middleware.replay.redis.anchor import Anchor
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.pending import PendingWrite, refuse
from dpop_middleware.replay.redis.resp import ServerError

__all__ = ["Inquiry", "Router"]


class Router(Protocol):
    """Where a cluster's link turns to when a write belongs elsewhere or its server can't be used."""

    def resubmit(self, write: PendingWrite) -> None:
        """Send `write` once more, to whichever server it belongs to now."""
        ...

    def redirect(self, write: PendingWrite, error: ServerError) -> None:
        """Follow a redirection, MOVED or ASK."""
        ...

    def look_again(self, error: Exception) -> None:
        """Look at the topology again: a server could not be used or has lost a slot."""
        ...

    def tag(self) -> bytes | None:
        """The hash tag of a slot that the link's server owns, None when it owns none."""
        ...

    def buckets(self) -> Sequence[int]:
        """The buckets in slots that the link's server owns."""
        ...

    def look_around(self) -> None:
        """The link's server has other data: see what lies on the others, and can't be lost with them."""
        ...

    async def present(self, identities: frozenset[bytes], *, patient: bool) -> frozenset[bytes] | None:
        """Those of `identities` whose data other masters have now.

        None where one of them says nothing: without `patient` that is taken for a loss of its data.
        """
        ...


MOST_HELD = 5
# Seconds that a master gets to say what it has: long for a request, which is answered 503 by its deadline.
PATIENCE = 2.0


class Inquiry:
    """What the `fence` of one server can't judge by itself. Belongs to one event loop.

    `then` is called after each answer: there may be anchors to write.
    """

    def __init__(self, fence: Fence, router: Router | None, then: Callable[[], None]) -> None:
        self._fence = fence
        self._router = router
        self._then = then
        self._loop = asyncio.get_running_loop()
        self._held: list[PendingWrite] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether an answer is awaited."""
        return self._task is not None

    def hold(self, writes: Iterable[PendingWrite]) -> None:
        """Let `writes`, which are stored, be tried again after the answer: then they are recognised."""
        for write in writes:
            write.tries -= 1
            write.held += 1
            if write.held > MOST_HELD:
                refuse((write,))
                continue
            self._loop.call_at(write.deadline, refuse, (write,), context=contextvars.Context())
            self._held.append(write)

    def look(self) -> None:
        """Ask, if there is something to ask and nobody does."""
        if self._task is None and self._router is not None and self._fence.standing.foreign:
            self._task = self._loop.create_task(
                self._ask(self._router), name="dpop replay store inquiry", context=contextvars.Context()
            )

    async def aclose(self) -> None:
        """Give up asking, and answer what waits: it can't be known."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        refuse(self._held)

    async def _ask(self, router: Router) -> None:
        asked = dict(self._fence.standing.foreign)
        anchors = map(Anchor.parse, asked.values())
        identities = frozenset(anchor.identity for anchor in anchors if anchor is not None)
        until = self._loop.time() + PATIENCE
        present = None
        while present is None:
            # A master that moves slots, or its machine, may be busy.
            present = await router.present(identities, patient=self._loop.time() < until)
        self._fence.settle(asked, present, self._loop.time())
        self._task = None
        held, self._held = self._held, []
        for write in held:
            if write.bucket in self._fence.standing.foreign:
                self._held.append(write)
            else:
                router.resubmit(write)
        self._then()
        self.look()
