"""The common part of the replay store's model tests: proofs and each answer, and a server that loses data."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.vitals import ServerInfo

__all__ = ["ANCHOR", "LIFETIME", "MARGIN", "NOW", "SKEW", "Model", "Proof", "Proofs", "lose", "told_time"]

SKEW, LIFETIME = 15.0, 60.0
MARGIN = WORKER_CLOCK_MARGIN
NOW = 1_800_000_000.0
ANCHOR = b"dpop::anchor"


def told_time(moment: float) -> list[bytes]:
    """What a server answers to TIME whose clock shows `moment`."""
    seconds, microseconds = divmod(int(moment * 1e6), 1_000_000)
    return [b"%d" % seconds, b"%d" % microseconds]


@dataclass(slots=True, eq=False)
class Proof:
    """One proof by the name of its entry; `bucket` and `owner` count on a cluster only."""

    name: bytes
    iat: float
    bucket: int = 0
    owner: bytes = b""
    accepted: int = 0
    presented: int = 0

    def is_acceptable(self, now: float) -> bool:
        """Whether a worker whose clock shows `now` would ask the store about it."""
        return self.iat - SKEW <= now <= self.iat + LIFETIME + SKEW

    def judge(self, outcome: bool | None, *, noticed: float, told: str) -> None:
        """The store's answer: first use, used, or None for unknown.

        `noticed` is when the last loss was noticed, by the model's time, `told` says which run this is.
        """
        assert outcome is not False or self.presented, f"{told}: a fresh proof was called used"
        self.presented += 1
        self.accepted += outcome is True
        assert self.accepted <= 1, f"{told}: accepted twice"
        if outcome is None:
            late = self.iat - SKEW - NOW - noticed
            assert late < 2 * MARGIN, f"{told}: 503 for a proof from {late} s after the loss was noticed"


class Proofs(list[Proof]):
    """All proofs of a run; `new` makes one with an `iat`."""

    def __init__(self, chance: random.Random, new: Callable[[float], Proof]) -> None:
        super().__init__()
        self._chance = chance
        self._new = new

    def some(self, time: float) -> Proof:
        """A new proof of a client whose clock is right within the skew, or one that was made before."""
        if self and self._chance.random() >= 0.5:
            return self._chance.choice(self[-40:])
        return self.new(time)

    def new(self, time: float) -> Proof:
        """A new one."""
        self.append(self._new(NOW + time + self._chance.uniform(-SKEW, SKEW)))
        return self[-1]


@dataclass(slots=True)
class Model:
    """One server that can be replaced, and its clock."""

    random: random.Random
    time: float = 0.0
    offset: float = 0.0
    keys: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    history: list[tuple[float, dict[bytes, tuple[bytes, float]]]] = field(default_factory=list)
    run_id: str = "r0"
    replication_id: str = "i0"
    was_replica: bool = False
    started: float = -10_000.0
    evicted: int = 0
    rewriting: frozenset[str] = frozenset()
    generation: int = 0

    def new_name(self) -> str:
        return f"{self.random.getrandbits(64):016x}"

    def info(self) -> ServerInfo:
        return ServerInfo(
            version="7.2",
            run_id=self.run_id,
            replication_id=self.replication_id,
            role="master",
            uptime=int(self.time - self.started),
            time=NOW + self.time + self.offset,
            evicted_keys=self.evicted,
            former_replication_id="f" if self.was_replica else "",
            rewriting_commands=self.rewriting,
        )

    def clock(self) -> list[bytes]:
        """What the server answers to TIME."""
        return told_time(NOW + self.time + self.offset)

    def get(self, name: bytes) -> bytes | None:
        value, end = self.keys.get(name, (b"", -math.inf))
        return value if end > self.time + self.offset else None

    def put(self, name: bytes, value: bytes, *, lifetime: float = math.inf, only_new: bool = True) -> bool:
        if only_new and self.get(name) is not None:
            return False
        self.history.append((self.time, dict(self.keys)))
        self.keys[name] = (value, self.time + self.offset + lifetime)
        return True

    def obey(self, *commands: bytes) -> None:
        """`SET name value NX` or `XX`, and the script that compares before it sets."""
        for command in commands:
            _, *words = command.split(b"\r\n")[2::2]
            if words[-1] == b"NX":
                self.put(words[0], words[1])
            elif words[-1] == b"XX":
                if self.get(words[0]) is not None:
                    self.put(words[0], words[1], only_new=False)
            elif self.get(words[2]) == words[3]:
                self.put(words[2], words[4], only_new=False)

    def older(self) -> dict[bytes, tuple[bytes, float]]:
        """What a replica has that lags by up to two seconds."""
        lag = self.random.uniform(0, 2)
        for at, keys in self.history:
            if at >= self.time - lag:
                return dict(keys)
        return dict(self.keys)


def lose(model: Model, fault: str) -> None:
    """Let `fault` happen; a loss that a surviving connection doesn't show at once gets a second."""
    if fault == "flush":
        model.keys = {}
        model.rewriting |= {"flushall"}
    elif fault == "step":
        model.offset += model.random.uniform(30, 200)
    elif fault in {"restart", "old snapshot"}:
        model.keys = {} if fault == "restart" else model.older()
        model.run_id, model.replication_id = model.new_name(), model.new_name()
        model.was_replica, model.started, model.rewriting = False, model.time, frozenset()
        model.evicted = 0
        model.generation += 1
    elif fault == "promotion":
        model.keys = model.older()
        model.run_id, model.replication_id = model.new_name(), model.new_name()
        model.was_replica, model.started = True, model.time - 5_000
        model.evicted = 0
        model.generation += 1
    else:
        if fault == "other data":
            model.keys = model.older() if model.random.random() < 0.5 else {}
            model.replication_id, model.was_replica = model.new_name(), True
            model.rewriting |= {"replicaof"}
        elif fault == "evictions":
            for name in list(model.keys):
                if b"::" not in name and model.random.random() < 0.6:
                    del model.keys[name]
                    model.evicted += 1
        model.time += 1.01
    model.history.clear()
