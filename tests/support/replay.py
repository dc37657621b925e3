"""Entries for replay stores, and asking for many of them at once."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay import ReplayEntry, ReplayStore
from dpop_middleware.replay.redis.endpoints import ClusterNodes, Standalone, endpoint_of_url
from dpop_middleware.testing.store_contract import entry

__all__ = ["ENDLESS", "after_a_loss", "answer", "answers", "cluster_nodes", "entry", "standalone"]

# Seconds: no machine stands still for half of that. A 503 of a store with this timeout is its own doing.
ENDLESS = 30.0


def after_a_loss(key: str | None = None) -> ReplayEntry:
    """Return an entry that a store which has just lost others can judge: later than any clock showed then."""
    return entry(key, age=-WORKER_CLOCK_MARGIN - 10.0)


async def answer(store: ReplayStore, item: ReplayEntry) -> bool | Unavailable:
    """The answer of `store`, an `Unavailable` as a value."""
    try:
        return await store.add(item)
    except Unavailable as error:
        return error


async def answers(store: ReplayStore, items: Iterable[ReplayEntry]) -> Counter[object]:
    """How often `store` answered True, False, or 503 to `items`, all asked at once."""
    outcomes = await asyncio.gather(*(answer(store, item) for item in items))
    return Counter(503 if isinstance(outcome, Unavailable) else outcome for outcome in outcomes)


def standalone(url: str) -> Standalone:
    """The one server at `url`."""
    endpoint = endpoint_of_url(url)
    assert isinstance(endpoint, Standalone)
    return endpoint


def cluster_nodes(url: str) -> ClusterNodes:
    """The cluster at `url`."""
    endpoint = endpoint_of_url(url)
    assert isinstance(endpoint, ClusterNodes)
    return endpoint
