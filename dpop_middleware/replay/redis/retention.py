"""For how long each worker's entries live: published, so that no worker accepts what another has forgotten.

Workers of one service may differ in their policies while a change is rolled out. Each writes for how many
seconds it remembers a proof (its retention) into a sorted set beside the entries, and reads those of the
workers that are alive: a proof that is older than the shortest of them is not judged. So a wider policy takes
effect when the last worker with the narrow one has been gone for ten minutes, a narrower one at once. Servers
that have another namespace share no entries, and don't count.

Each also writes how far ahead the `iat` of a proof may be. After a loss of entries, the worker that goes
farthest decides which proofs may have been accepted before it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from redis.exceptions import InvalidResponse

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.resp import FORBIDDEN, ServerError, command

__all__ = ["LivingRetentions", "Own", "PublishedRetentions", "farther", "judges_from", "shorter"]

_ALIVE_FOR = 600.0
_LOOK_EVERY = 1.0
_FARTHEST_AHEAD = 86_400.0
# Before the seconds of what was called a retention first, and is none to a version that knows only those.
_AHEAD = "ahead="
_UNEXPECTED = "the server sent an unexpected reply to ZRANGEBYSCORE"
_APART = "if it judges other requests than this one, give one of them a replay_namespace"

# Namespace, retention, and how far ahead an `iat` may be.
Own = tuple[str, float, float]
# Namespace and seconds, and until when they count.
Key = tuple[str, float]
Ends = dict[Key, float]


class LivingRetentions:
    """What all connections of one store know: the retentions that count, and until when each counts.

    `ahead` is how far ahead any worker accepts an `iat`, by namespace, where workers differ in that. Event
    loops in several threads may note something at once: the last of them sums up what all have found.
    """

    def __init__(self) -> None:
        self._until: Ends = {}
        self._shortest: Mapping[str, float] = {}
        self._first_end = math.inf
        self._ahead: Ends = {}
        self.ahead: Mapping[str, float] = {}

    def note(self, found: Mapping[Key, float], now: float) -> None:
        """Record the retentions of workers that are, or were, alive."""
        _keep(self._until, found, now)
        known: Ends | None = None
        while known != self._until:
            known = self._until.copy()
            self._first_end = min(known.values(), default=math.inf)
            self._shortest = dict(sorted(known, reverse=True))

    def shortest(self, now: float) -> Mapping[str, float]:
        """The shortest retention that counts, of each namespace in which any is known."""
        if self._first_end < now:
            self.note({}, now)
        return self._shortest

    def note_ahead(self, found: Mapping[Key, float], now: float) -> None:
        """Record how far ahead workers go that are, or were, alive."""
        _keep(self._ahead, found, now)
        known: Ends | None = None
        while known != self._ahead:
            known = self._ahead.copy()
            numbers, farthest = Counter(name for name, _ in known), dict(sorted(known))
            self.ahead = {name: farthest[name] for name, number in numbers.items() if number > 1}


def _keep(ends: Ends, found: Mapping[Key, float], now: float) -> None:
    """Keep `found` beside the others, each until the later of its ends, and drop those that have ended."""
    for key, end in found.items():
        ends[key] = max(end, ends.get(key, end))
    for key, end in ends.copy().items():  # copied at once, while other threads add to them
        if end < now:
            # Another thread may have done so.
            ends.pop(key, None)


class PublishedRetentions:
    """The retentions beside the entries of one server.

    `at` is by `moments`, `now` by the entries' clock.
    """

    def __init__(self, prefix: bytes, living: LivingRetentions) -> None:
        self._prefix = prefix
        self._living = living
        self._name = b""
        self._told: AbstractSet[Own] = frozenset()
        self._looked_at, self._counts_for = -math.inf, _ALIVE_FOR
        self.is_forbidden = False
        self.elsewhere: ServerError | None = None

    def connected(self, tag: bytes) -> None:
        """Record a new connection; `tag` is the hash tag of a slot of its server, empty without a cluster."""
        self._name = b"%b::retentions%b" % (self._prefix, tag)
        self._told, self._looked_at = frozenset(), -math.inf
        self.is_forbidden = False
        self.elsewhere = None

    def are_told(self, own: AbstractSet[Own], at: float) -> bool:
        """Whether `exchange` has been sent for all of `own`, and isn't due again yet, or isn't allowed."""
        return not own or self.is_forbidden or (own <= self._told and at < self._looked_at + _LOOK_EVERY)

    def exchange(self, own: AbstractSet[Own], *, at: float, now: float) -> tuple[bytes, ...]:
        """Two commands to send before entries with the namespaces and retentions `own`; none if not due."""
        if not own or self.is_forbidden:
            return ()
        if at >= self._looked_at + _LOOK_EVERY:
            # Each of them must be told again before it ends, not only those of the batches that come first.
            self._told, self._looked_at = frozenset(), at
        elif own <= self._told:
            return ()
        self._told |= own
        members: list[bytes] = []
        for name, retention, ahead in own:
            # The last proofs may be as far ahead.
            score = b"%.3f" % (now + ahead + _ALIVE_FOR)
            members += (score, f"{retention!r} {name}".encode(), score, f"{_AHEAD}{ahead!r} {name}".encode())
        # What a worker wrote that has ended counts until its last proofs are too old for this worker.
        self._counts_for = max(_ALIVE_FOR, *(retention for _, retention, _ in own))
        return (
            command(b"ZADD", self._name, *members),
            command(
                b"ZRANGEBYSCORE",
                self._name,
                b"%.3f" % (now + _ALIVE_FOR - self._counts_for),
                b"+inf",
                b"WITHSCORES",
            ),
        )

    def read(self, told: object, alive: object, *, now: float) -> None:
        """Record the replies to `exchange`."""
        self.is_forbidden = any(
            isinstance(reply, ServerError) and reply.code == FORBIDDEN for reply in (told, alive)
        )
        if isinstance(told, ServerError) and told.code == "MOVED":
            self.elsewhere = told
        retentions, distances = Ends(), Ends()
        for member, score in _scored(alive):
            text, _, name = member.decode("utf-8", "replace").partition(" ")
            try:
                seconds, ends = float(text.removeprefix(_AHEAD)), float(score)
            except (ValueError, OverflowError):
                continue
            # It may not be read again: a loss takes it away here, too.
            until = ends + self._counts_for - _ALIVE_FOR
            if text.startswith(_AHEAD):
                if 0 <= seconds <= _FARTHEST_AHEAD:
                    distances[name, seconds] = until
            elif 0 < seconds < math.inf:
                retentions[name, seconds] = until
        self._living.note(retentions, now)
        self._living.note_ahead(distances, now)


def _scored(reply: object) -> Iterator[tuple[bytes, bytes | float]]:
    """The members of a sorted set and their scores: one after the other with RESP2, pairs with RESP3."""
    words = [] if isinstance(reply, ServerError) else reply
    if isinstance(words, list):
        in_pairs = bool(words) and isinstance(words[0], list)
        for pair in words if in_pairs else (words[at : at + 2] for at in range(0, len(words), 2)):
            match pair:
                case [bytes(member), bytes() | float() | int() as score]:
                    yield member, score
                case _:
                    raise InvalidResponse(_UNEXPECTED)
    else:
        raise InvalidResponse(_UNEXPECTED)


def judges_from(shortest: float, now: float) -> float:
    """The earliest moment of which proofs are judged where a worker remembers for only `shortest` seconds."""
    return now - shortest + WORKER_CLOCK_MARGIN


def shorter(shortest: float, own: float) -> str:
    """The warning where old proofs are refused because of another server's retention."""
    return (
        f"another server on this replay store remembers proofs for {shortest:g} s, this one's policy needs "
        f"{own:g}: older proofs are refused until that server has been gone for ten minutes; {_APART}"
    )


def farther(farthest: float, own: float) -> str:
    """The warning where proofs are refused after a loss because of another server's `clock_skew`."""
    return (
        f"the replay store lost entries, and another server on it accepts proofs that are {farthest:g} s "
        f"ahead (clock_skew), this one {own:g}: proofs are refused for {farthest - own:g} s longer; {_APART}"
    )
