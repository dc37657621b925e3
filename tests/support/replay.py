"""Entries for replay stores, and asking for many of them at once."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterable

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import ReplayEntry, ReplayStore

__all__ = ["answer", "answers", "entry"]


def entry(
    key: str | None = None,
    *,
    jkt: str = "jkt",
    now: float | None = None,
    age: float = 0.0,
    lifetime: float = 80.0,
) -> ReplayEntry:
    """An entry as of `now`, for a proof that became acceptable `age` seconds ago."""
    now = time.time() if now is None else now
    return ReplayEntry(
        key=secrets.token_urlsafe(16) if key is None else key,
        jkt=jkt,
        now=now,
        not_before=now - age,
        expires_at=now + lifetime,
    )


async def answer(store: ReplayStore, item: ReplayEntry) -> bool | Unavailable:
    """What `store` says, an `Unavailable` as a value."""
    try:
        return await store.add(item)
    except Unavailable as error:
        return error


async def answers(store: ReplayStore, items: Iterable[ReplayEntry]) -> Counter[object]:
    """How often `store` said True, False, or 503 to `items`, all asked at once."""
    outcomes = await asyncio.gather(*(answer(store, item) for item in items))
    return Counter(503 if isinstance(outcome, Unavailable) else outcome for outcome in outcomes)
