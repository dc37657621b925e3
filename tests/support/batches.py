"""Batches without a server: a fence of a cluster's master, writes, and replies that a test chooses."""

import asyncio
import math

from dpop_middleware.replay.redis.anchors import Anchor, Sights
from dpop_middleware.replay.redis.batch import Batch
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import TIME, Buckets, ServerError
from dpop_middleware.replay.redis.retention import LivingRetentions, PublishedRetentions
from dpop_middleware.replay.redis.vitals import ServerInfo, identity_of
from dpop_middleware.replay.redis.writes import PendingWrite
from tests.support.replay import entry
from tests.support.slots import entry_in, slots_between

__all__ = [
    "ASK",
    "BUCKETS",
    "INFO",
    "KNOWN",
    "MOVED",
    "NOW",
    "OTHER",
    "SAID",
    "SHOWN",
    "SLOTS",
    "Received",
    "anchor",
    "fence",
    "write",
]

BUCKETS = Buckets(b"dpop", spread=True)
SLOTS = slots_between(0, 16383)
INFO = ServerInfo(run_id="a", replication_id="a", role="master", uptime=100_000)
SAID = b"run_id:a\r\nmaster_replid:a\r\nrole:master\r\nuptime_in_seconds:100000\r\n"
OTHER = ServerInfo(run_id="b", replication_id="b", role="master", uptime=100_000)
NOW = entry().now
ASK, MOVED = ServerError("ASK 1 h:1"), ServerError("MOVED 1 h:1")


def anchor(info: ServerInfo = INFO) -> bytes:
    return Anchor.new(identity_of(info), -math.inf, server_time=NOW - 5000).value


def fence() -> Fence:
    made = Fence(Sights(BUCKETS), "accept")
    made.sights.offset = 0.0
    made.connected(INFO, {BUCKETS.slots.index(SLOTS[9]): anchor()}, lived=0, asked=(NOW, NOW))
    return made


def write(
    number: int,
    *,
    asking: bool = False,
    not_before: float = NOW,
    namespace: str = "",
    retention: float = 0.0,
    made_at: float = math.inf,
) -> PendingWrite:
    entry = entry_in(SLOTS[number])._replace(
        not_before=not_before, namespace=namespace, retention=retention, made_at=made_at
    )
    made = PendingWrite(entry, BUCKETS, Settings(timeout=5.0), asyncio.get_running_loop())
    made.asking = asking
    return made


KNOWN = anchor()
# What a server's clock shows.
SHOWN = [b"%d" % NOW, b"0"]


class Received:
    """A batch whose replies have arrived: first those to its writes, then those to the reads."""

    def __init__(
        self,
        fence: Fence,
        writes: list[PendingWrite],
        *replies: object,
        at: float = NOW,
        settings: Settings | None = None,
    ) -> None:
        settings = settings or Settings()
        retentions = PublishedRetentions(b"dpop", LivingRetentions())
        self.batch = Batch(writes, settings, fence, retentions, with_get=True)
        data, self.count = self.batch.compose(now=NOW, at=at, timeout=1.0)
        told = list(replies)
        if fence.vitals.time():
            # Behind the writes, before the reads of the anchors.
            _, _, reads = data.rpartition(TIME)
            told.insert(len(told) - reads.count(b"*"), SHOWN)
        assert self.count == len(told)
        self.batch.receive(told, now=NOW, at=at)
