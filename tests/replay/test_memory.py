import asyncio
import math
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dpop_middleware
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, Unavailable
from dpop_middleware.replay import MemoryReplayStore, ReplayEntry, ReplayStore, memory
from dpop_middleware.replay.memory import MemoryStoreHealth
from dpop_middleware.testing.store_contract import ReplayStoreContract
from tests.support.replay import answer, entry

NOW = 1_800_000_000.0


class Clock:
    """The monotonic clock of the store; a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(memory, "time", clock)
    return clock


class TestContract(ReplayStoreContract):
    @pytest.fixture
    def store(self) -> ReplayStore:
        return MemoryReplayStore()


async def test_an_entry_is_remembered_to_its_last_moment_and_not_beyond(clock: Clock) -> None:
    store = MemoryReplayStore()
    assert await store.add(entry("a", now=NOW, lifetime=80)) is True
    clock.now += 80
    assert await store.add(entry("a", now=NOW + 80)) is False
    clock.now += 0.001
    assert await store.add(entry("a", now=NOW + 80.001)) is True
    clock.now += 80
    assert await store.add(entry("a", now=NOW + 160.001)) is False


async def test_an_entry_without_an_end_is_an_error_of_its_caller_alone(clock: Clock) -> None:
    """One that an application makes by hand."""
    store = MemoryReplayStore(max_entries=2, max_share=1.0)
    odds: tuple[dict[str, Any], ...] = (
        {"expires_at": math.nan},
        {"now": math.nan},
        {"expires_at": math.inf, "now": math.inf},
        {"expires_at": math.inf},
        {"now": -math.inf},
    )
    for odd in odds:
        with pytest.raises(ValueError, match="^an entry takes a finite end, after which it is forgotten$"):
            await store.add(entry("a")._replace(**odd))
    assert await store.add(entry("a", lifetime=80)) is True
    assert await store.add(entry("b", lifetime=80)) is True
    clock.now += 81
    assert await store.add(entry("c")) is True
    assert len(store) == 1


async def test_a_wall_clock_that_jumps_makes_the_store_forget_nothing(clock: Clock) -> None:
    store = MemoryReplayStore()
    names = [str(number) for number in range(10)]
    for name in names:
        assert await store.add(entry(name, now=NOW)) is True
    # Far ahead, back again, and behind.
    for jump in (10_000, 0, -1000):
        assert await store.add(entry(f"at {jump}", now=NOW + jump)) is True
        clock.now += 1
        assert [await store.add(entry(name, now=NOW + jump)) for name in names] == [False] * 10


async def test_a_full_store_refuses_rather_than_forgets(clock: Clock) -> None:
    store = MemoryReplayStore(max_entries=3, max_share=1.0)
    for number in range(3):
        assert await store.add(entry(str(number))) is True
        clock.now += 1
    with pytest.raises(Unavailable) as refused:
        await store.add(entry("x"))
    assert refused.value.check is Check.JTI
    assert refused.value.retry_after == 60
    assert [await store.add(entry(str(number))) for number in range(3)] == [False] * 3
    clock.now += 77.5
    assert await store.add(entry("x")) is True
    assert len(store) == 3


async def test_retry_after_is_when_the_next_entry_expires(clock: Clock) -> None:
    store = MemoryReplayStore(max_entries=1, max_share=1.0)
    await store.add(entry("a", lifetime=30))
    clock.now += 20.5
    refused = await answer(store, entry("b"))
    assert isinstance(refused, Unavailable)
    assert refused.retry_after == 10
    clock.now += 9.5
    refused = await answer(store, entry("b"))
    assert isinstance(refused, Unavailable)
    assert refused.retry_after == 1


async def test_one_key_can_not_take_more_than_its_share(clock: Clock) -> None:
    store = MemoryReplayStore(max_entries=100, max_share=0.1)
    greedy = [await answer(store, entry(jkt="greedy")) for _ in range(30)]
    assert greedy.count(True) == 10
    assert all(isinstance(outcome, Unavailable) for outcome in greedy[10:])
    assert await store.add(entry(jkt="modest")) is True
    clock.now += 81
    assert await store.add(entry(jkt="greedy")) is True


async def test_a_client_with_many_keys_has_one_share() -> None:
    store = MemoryReplayStore(max_entries=100, max_share=0.1)
    greedy = [
        await answer(store, entry(jkt=f"key {number % 10}", speaks_for="issuer greedy"))
        for number in range(30)
    ]
    assert greedy.count(True) == 10
    assert await store.add(entry(jkt="key 1", speaks_for="issuer modest")) is True


async def test_two_clients_of_one_key_have_a_share_each() -> None:
    store = MemoryReplayStore(max_entries=100, max_share=0.01)
    assert await store.add(entry(jkt="shared", speaks_for="issuer a")) is True
    assert await store.add(entry(jkt="shared", speaks_for="issuer b")) is True


async def test_expired_entries_free_the_share(clock: Clock) -> None:
    store = MemoryReplayStore(max_entries=100, max_share=0.01)
    for _ in range(5):
        assert await store.add(entry("same")) is True
        clock.now += 81
    assert len(store) == 1


async def test_expired_entries_are_removed_before_a_request_is_refused(clock: Clock) -> None:
    store = MemoryReplayStore(max_entries=20, max_share=0.1)
    for jkt in ("a", "a", "b", "b", "c", "c"):
        await store.add(entry(jkt=jkt))
        clock.now += 0.1
    clock.now += 81
    assert await store.add(entry(jkt="c")) is True
    assert len(store) == 1


async def test_an_expired_entry_that_was_not_yet_removed_is_replaced(clock: Clock) -> None:
    store = MemoryReplayStore()
    for number in range(4):
        await store.add(entry(str(number)))
        clock.now += 0.1
    clock.now += 80
    assert await store.add(entry("3")) is True
    for _ in range(2):
        clock.now += 1
        assert await store.add(entry("3")) is False
    assert len(store) == 1


async def test_the_store_holds_no_more_than_the_living_entries(clock: Clock) -> None:
    store = MemoryReplayStore(max_entries=10_000)
    for number in range(5_000):
        await store.add(entry(jkt=str(number % 7), lifetime=50))
        clock.now += 1
    assert len(store) <= 52


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(-50, 50), st.integers(1, 60)),
        min_size=1,
        max_size=60,
    )
)
def test_the_store_agrees_with_a_model_whatever_the_wall_clock_shows(
    steps: list[tuple[str, int, int]],
) -> None:
    async def run() -> None:
        store, clock = MemoryReplayStore(max_entries=1000, max_share=1.0), Clock()
        remembered_until: dict[str, float] = {}
        now = NOW
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "time", clock)
            for key, step, lifetime in steps:
                now += step
                clock.now += abs(step)
                first = await store.add(entry(key, now=now, lifetime=lifetime))
                assert first is (clock.now > remembered_until.get(key, 0.0))
                if first:
                    remembered_until[key] = clock.now + lifetime

    asyncio.run(run())


def test_threads_with_event_loops_of_their_own_share_the_store() -> None:
    store = MemoryReplayStore()
    items = [entry(str(number)) for number in range(300)]
    wins: list[int] = []

    async def race() -> int:
        return [await store.add(item) for item in items].count(True)

    threads = [threading.Thread(target=lambda: wins.append(asyncio.run(race()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins) == 300


@pytest.mark.parametrize("max_entries", [0, -1, "5", 5.0, True, None, float("nan")])
def test_max_entries_is_a_whole_number_above_0(max_entries: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_entries takes a whole number of at least 1, not "):
        MemoryReplayStore(max_entries=max_entries)


@pytest.mark.parametrize("max_share", [0, 0.0, -1, 1.5, float("nan"), "a", True, None])
def test_max_share_is_a_part_of_the_whole(max_share: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_share takes a number above 0 and at most 1, not "):
        MemoryReplayStore(max_share=max_share)


async def test_max_share_may_be_all() -> None:
    store = MemoryReplayStore(max_entries=3, max_share=1)
    assert [await store.add(entry(str(number), now=NOW)) for number in range(3)] == [True] * 3


async def test_refusals_of_the_store_are_worded_like_all_others() -> None:
    store = MemoryReplayStore(max_entries=2, max_share=0.5)
    await store.add(entry(jkt="a", now=NOW))
    greedy = await answer(store, entry(jkt="a", now=NOW))
    assert isinstance(greedy, Unavailable)
    assert greedy.description == "too many proofs of this client are in use"
    await store.add(entry(jkt="b", now=NOW))
    full = await answer(store, entry(jkt="c", now=NOW))
    assert isinstance(full, Unavailable)
    assert full.description == "the replay store is full"


def test_the_memory_store_needs_no_redis_client() -> None:
    # Without the top package, which offers every store.
    code = f"""
import sys, types
house = types.ModuleType("dpop_middleware")
house.__path__ = {list(dpop_middleware.__path__)!r}
sys.modules["dpop_middleware"] = house
import dpop_middleware.replay.memory
from dpop_middleware.replay import MemoryReplayStore
assert "redis" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_has_no_other_names() -> None:
    import dpop_middleware.replay

    with pytest.raises(AttributeError, match="SQLReplayStore"):
        dpop_middleware.replay.SQLReplayStore  # noqa: B018
    assert ReplayEntry.__name__ == "ReplayEntry"


async def test_health_says_whether_there_is_room() -> None:
    store = MemoryReplayStore(max_entries=2, max_share=1)
    assert await store.health() == MemoryStoreHealth(ok=True, entries=0, max_entries=2)
    for name in ("a", "b"):
        await store.add(entry(name))
    assert await store.health() == MemoryStoreHealth(ok=False, entries=2, max_entries=2)


async def test_a_store_full_of_expired_entries_has_room(clock: Clock) -> None:
    # Otherwise a worker that is not ready, and so is sent nothing, would never be ready again.
    store = MemoryReplayStore(max_entries=1, max_share=1)
    await store.add(entry("old"))
    assert not (await store.health()).ok
    clock.now += 81
    assert await store.health() == MemoryStoreHealth(ok=True, entries=1, max_entries=1)
