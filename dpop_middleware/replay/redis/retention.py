"""For how long each worker's entries live: published, so that no worker accepts what another has forgotten.

Workers of one service may differ in their policies while a change is rolled out. Each writes for how many
seconds it remembers a proof (its retention) into a sorted set beside the entries, and reads those of the
workers that are alive: a proof that is older than the shortest of them is not judged. So a wider policy takes
effect when the last worker with the narrow one has been gone for ten minutes, a narrower one at once. Servers
that have another namespace share no entries, and don't count.
"""

import math
from collections.abc import Set as AbstractSet

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.resp import FORBIDDEN, ServerError, command

__all__ = ["LivingRetentions", "PublishedRetentions", "judges_from"]

_ALIVE_FOR = 600.0
_LOOK_EVERY = 1.0


class LivingRetentions:
    """What all connections of one store know: the retentions that count, and until when each counts."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, float], float] = {}

    def note(self, namespace: str, retention: float, until: float) -> None:
        """Record that a worker with `retention` is, or was, alive in `namespace`."""
        key = (namespace, retention)
        self._until[key] = max(until, self._until.get(key, -math.inf))

    def shortest(self, namespace: str, now: float) -> float:
        """The shortest retention that counts in `namespace`, infinite where none is known."""
        shortest = math.inf
        for key, end in [*self._until.items()]:
            if end < now:
                del self._until[key]
            elif key[0] == namespace:
                shortest = min(shortest, key[1])
        return shortest


class PublishedRetentions:
    """The retentions beside the entries of one server.

    `at` is a moment of the event loop's clock, `now` one of the entries'.
    """

    def __init__(self, prefix: bytes, living: LivingRetentions) -> None:
        self._prefix = prefix
        self._living = living
        self._name = b""
        self._told: AbstractSet[tuple[str, float]] = frozenset()
        self._looked_at = -math.inf
        self.is_forbidden = False
        self.elsewhere: ServerError | None = None

    def connected(self, tag: bytes) -> None:
        """Record a new connection; `tag` is the hash tag of a slot of its server, empty without a cluster."""
        self._name = b"%b::retentions%b" % (self._prefix, tag)
        self._told, self._looked_at = frozenset(), -math.inf
        self.is_forbidden = False
        self.elsewhere = None

    def exchange(self, own: AbstractSet[tuple[str, float]], *, at: float, now: float) -> tuple[bytes, ...]:
        """Two commands to send before entries with the namespaces and retentions `own`; none if not due."""
        if not own or self.is_forbidden:
            return ()
        if at >= self._looked_at + _LOOK_EVERY:
            # Each of them must be told again before it ends, not only those of the batches that come first.
            self._told, self._looked_at = frozenset(), at
        elif own <= self._told:
            return ()
        self._told |= own
        score = b"%.3f" % (now + _ALIVE_FOR)
        members = [word for name, retention in own for word in (score, f"{retention!r} {name}".encode())]
        # The retention of a worker that has ended counts until its last proofs are too old for this worker.
        since = now - max(0.0, max(retention for _, retention in own) - _ALIVE_FOR)
        return (
            command(b"ZADD", self._name, *members),
            command(b"ZRANGEBYSCORE", self._name, b"%.3f" % since, b"+inf"),
        )

    def read(self, told: object, alive: object, *, now: float) -> None:
        """Record the replies to `exchange`."""
        self.is_forbidden = any(
            isinstance(reply, ServerError) and reply.code == FORBIDDEN for reply in (told, alive)
        )
        if isinstance(told, ServerError) and told.code == "MOVED":
            self.elsewhere = told
        for member in alive if isinstance(alive, list) else ():
            seconds, _, name = member.decode("utf-8", "replace").partition(" ")
            try:
                retention = float(seconds)
            except ValueError:
                continue
            if 0 < retention < math.inf:
                # It is read again long before it ends.
                self._living.note(name, retention, now + _ALIVE_FOR)


def judges_from(shortest: float, now: float) -> float:
    """The earliest moment of which proofs are judged where a worker remembers for only `shortest` seconds."""
    return now - shortest + WORKER_CLOCK_MARGIN
