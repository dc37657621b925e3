"""The contract of every replay store, wherever it keeps its entries (RFC 9449 section 11.1).

To test your own store, make a subclass with the fixture `store`; the tests are async, for
pytest-asyncio's mode `auto`:

    from dpop_middleware.testing.store_contract import ReplayStoreContract

    class TestMyStore(ReplayStoreContract):
        @pytest.fixture
        async def store(self) -> AsyncIterator[ReplayStore]:
            yield MyStore()
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterable

import pytest

from dpop_middleware.replay.store import ReplayEntry, ReplayStore

__all__ = ["ReplayStoreContract", "answers", "entry"]


def entry(
    key: str | None = None,
    *,
    jkt: str = "jkt",
    speaks_for: str = "",
    now: float | None = None,
    age: float = 0.0,
    lifetime: float = 80.0,
) -> ReplayEntry:
    """Return an entry as of `now`, for a proof that became acceptable `age` seconds ago."""
    now = time.time() if now is None else now
    return ReplayEntry(
        key=secrets.token_urlsafe(16) if key is None else key,
        jkt=jkt,
        now=now,
        not_before=now - age,
        expires_at=now + lifetime,
        speaks_for=speaks_for,
    )


async def answers(store: ReplayStore, items: Iterable[ReplayEntry]) -> Counter[bool]:
    """Return how often `store` answered True and False to `items`, all added at once."""
    return Counter(await asyncio.gather(*(store.add(item) for item in items)))


class ReplayStoreContract:
    """The contract; a subclass defines the fixture `store`, a new and empty store for each test."""

    async def test_the_first_presentation_is_first_and_no_other(self, store: ReplayStore) -> None:
        item = entry()
        assert await store.add(item) is True
        assert await store.add(item) is False
        assert await store.add(item) is False

    async def test_another_key_is_another_proof(self, store: ReplayStore) -> None:
        assert await store.add(entry("a")) is True
        assert await store.add(entry("b")) is True

    async def test_only_the_key_names_the_proof(self, store: ReplayStore) -> None:
        item = entry()
        later = item._replace(jkt="other", now=item.now + 1, not_before=item.now, expires_at=item.now + 9)
        assert await store.add(item) is True
        assert await store.add(later) is False

    async def test_of_a_hundred_at_once_one_is_first(self, store: ReplayStore) -> None:
        assert await answers(store, [entry("raced")] * 100) == {True: 1, False: 99}

    async def test_many_keys_at_once_keep_their_own_answers(self, store: ReplayStore) -> None:
        known, fresh = [entry() for _ in range(50)], [entry() for _ in range(50)]
        assert await answers(store, known) == {True: 50}
        outcomes = await asyncio.gather(
            *(store.add(item) for pair in zip(known, fresh, strict=True) for item in pair)
        )
        assert outcomes == [False, True] * 50

    @pytest.mark.parametrize(
        "key",
        ["", " ", ":", ":epoch", "a b", "{tag}", "\r\n", "*1\r\n$4\r\nPING\r\n", "ü", "\ud800", "k" * 10_000],
    )
    async def test_any_string_is_a_key(self, store: ReplayStore, key: str) -> None:
        assert await store.add(entry(key)) is True
        assert await store.add(entry(key)) is False

    async def test_keys_that_look_alike_are_apart(self, store: ReplayStore) -> None:
        for key in ("a", "A", "a ", ":a", "::a", ":::a"):
            assert await store.add(entry(key)) is True

    @pytest.mark.parametrize("lifetime", [0.0, -1.0, -1e9])
    async def test_a_lifetime_that_is_over_is_still_remembered_for_a_moment(
        self, store: ReplayStore, lifetime: float
    ) -> None:
        item = entry(lifetime=lifetime)
        assert await store.add(item) is True
        assert await store.add(item) is False

    async def test_a_proof_from_the_future_is_remembered_as_long(self, store: ReplayStore) -> None:
        item = entry(age=-14.0, lifetime=200.0)
        assert await store.add(item) is True
        assert await store.add(item) is False

    async def test_a_cancelled_request_leaves_the_others_their_answers(self, store: ReplayStore) -> None:
        items = [entry() for _ in range(40)]
        tasks = [asyncio.ensure_future(store.add(item)) for item in items]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[1::2] == [True] * 20
        assert await answers(store, items[1::2]) == {False: 20}
        assert await answers(store, [entry() for _ in range(20)]) == {True: 20}
