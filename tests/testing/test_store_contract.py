"""The contract of replay stores: a right store passes it, and each wrong one fails where it is wrong."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dpop_middleware import MemoryReplayStore
from dpop_middleware.replay.store import ReplayEntry, ReplayStore
from dpop_middleware.testing import store_contract
from dpop_middleware.testing.store_contract import ReplayStoreContract, entry
from tests.support.contracts import contract_of, noticed_by, recipe_passes

FIRST = "test_the_first_presentation_is_first_and_no_other"
ANOTHER_KEY = "test_another_key_is_another_proof"
ONLY_THE_KEY = "test_only_the_key_names_the_proof"
HUNDRED = "test_of_a_hundred_at_once_one_is_first"
MANY = "test_many_keys_at_once_keep_their_own_answers"
ANY_STRING = "test_any_string_is_a_key"
ALIKE = "test_keys_that_look_alike_are_apart"
OVER = "test_a_lifetime_that_is_over_is_still_remembered_for_a_moment"
FUTURE = "test_a_proof_from_the_future_is_remembered_as_long"
CANCELLED = "test_a_cancelled_request_leaves_the_others_their_answers"


class Right:
    """A store that does what it must, by the least that it takes."""

    def __init__(self) -> None:
        self.known: dict[object, float] = {}

    async def add(self, entry: ReplayEntry) -> bool:
        return self.first(self.name(entry), entry)

    def name(self, entry: ReplayEntry) -> object:
        return entry.key

    def first(self, name: object, entry: ReplayEntry) -> bool:
        now = time.monotonic()
        if self.known.get(name, now) > now:
            return False
        self.known[name] = now + self.lifetime(entry)
        return True

    def lifetime(self, entry: ReplayEntry) -> float:
        return max(1.0, entry.expires_at - entry.now)


class Forgetful(Right):
    """Remembers nothing."""

    async def add(self, entry: ReplayEntry) -> bool:
        return True


class Refusing(Right):
    """Lets nobody in."""

    async def add(self, entry: ReplayEntry) -> bool:
        return False


class LooksBeforeItWrites(Right):
    """Asks, and writes afterwards: in between others ask too."""

    async def add(self, entry: ReplayEntry) -> bool:
        first = self.name(entry) not in self.known
        await asyncio.sleep(0)
        self.known[self.name(entry)] = time.monotonic() + self.lifetime(entry)
        return first


class AnswersNothing(Right):
    """Writes, and forgets to say what came of it."""

    async def add(self, entry: ReplayEntry) -> bool:
        self.first(self.name(entry), entry)
        return None  # type: ignore[return-value] # pyright: ignore[reportReturnType]


class AnswersWithNumbers(Right):
    """Says 1 and 0, as a server does; `1 is True` is not so."""

    async def add(self, entry: ReplayEntry) -> bool:
        return int(await super().add(entry))  # type: ignore[return-value]


class NamesTheClientToo(Right):
    """Takes a proof for another when the entry says something else of its client."""

    def name(self, entry: ReplayEntry) -> object:
        return entry.key, entry.jkt


class NamesNothing(Right):
    """One place for all proofs."""

    def name(self, entry: ReplayEntry) -> object:
        return "the proof"


class TidiesKeys(Right):
    """Takes keys for the same that aren't."""

    def name(self, entry: ReplayEntry) -> object:
        return entry.key.strip(" :").lower()


class WritesUTF8(Right):
    """Can't write each key."""

    def name(self, entry: ReplayEntry) -> object:
        return entry.key.encode()


class ForgetsAtOnce(Right):
    """Forgets in no time what has no time left."""

    def lifetime(self, entry: ReplayEntry) -> float:
        return entry.expires_at - entry.now


class CountsFromTheProof(Right):
    """Remembers a proof only once it may be used."""

    def first(self, name: object, entry: ReplayEntry) -> bool:
        return entry.not_before > entry.now or super().first(name, entry)


class OneAnswerForAll(Right):
    """Gives all who ask at once the answer of the last one."""

    answer = False

    async def add(self, entry: ReplayEntry) -> bool:
        self.answer = await super().add(entry)
        await asyncio.sleep(0)
        return self.answer


class OneCallForAll(Right):
    """Sends what comes at once together: who gives up takes the others with them."""

    def __init__(self) -> None:
        super().__init__()
        self.batch: asyncio.Task[None] | None = None

    async def add(self, entry: ReplayEntry) -> bool:
        if self.batch is None or self.batch.done():
            self.batch = asyncio.ensure_future(self.sent())
        await self.batch
        return await super().add(entry)

    async def sent(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


EVERY = contract_of(ReplayStoreContract)
WRONG: list[tuple[type[Right], set[str]]] = [
    (Forgetful, EVERY - {ANOTHER_KEY, ALIKE}),
    (Refusing, EVERY),
    (LooksBeforeItWrites, {HUNDRED}),
    (AnswersNothing, EVERY),
    (AnswersWithNumbers, EVERY - {HUNDRED, MANY, CANCELLED}),
    (NamesTheClientToo, {ONLY_THE_KEY}),
    (NamesNothing, {ANOTHER_KEY, ALIKE, MANY, CANCELLED}),
    (TidiesKeys, {ALIKE}),
    (WritesUTF8, {ANY_STRING}),
    (ForgetsAtOnce, {OVER}),
    (CountsFromTheProof, {FUTURE}),
    (OneAnswerForAll, {HUNDRED, MANY}),
    (OneCallForAll, {CANCELLED}),
]


@pytest.mark.parametrize("store", [Right, MemoryReplayStore])
async def test_a_right_store_passes(store: Callable[[], ReplayStore]) -> None:
    assert await noticed_by(ReplayStoreContract, lambda: {"store": store()}) == set()


@pytest.mark.parametrize(("store", "noticing"), WRONG, ids=[store.__name__ for store, _ in WRONG])
async def test_a_wrong_store_fails_where_it_is_wrong(store: type[Right], noticing: set[str]) -> None:
    assert await noticed_by(ReplayStoreContract, lambda: {"store": store()}) == noticing


def test_each_test_of_the_contract_notices_something() -> None:
    assert set[str]().union(*(noticing for _, noticing in WRONG)) == EVERY
    assert {
        FIRST,
        ANOTHER_KEY,
        ONLY_THE_KEY,
        HUNDRED,
        MANY,
        ANY_STRING,
        ALIKE,
        OVER,
        FUTURE,
        CANCELLED,
    } == EVERY


IMPORTS = """
from collections.abc import AsyncIterator
import pytest
from dpop_middleware import MemoryReplayStore, ReplayStore
"""


@pytest.mark.parametrize(
    ("mine", "passes"),
    [
        ("MyStore = MemoryReplayStore", True),
        ("class MyStore(MemoryReplayStore):\n    async def add(self, entry):\n        return True", False),
    ],
    ids=["right", "forgetful"],
)
def test_the_recipe_of_the_contract_runs_as_it_stands(tmp_path: Path, mine: str, passes: bool) -> None:
    passed, said = recipe_passes(store_contract, tmp_path, imports=f"{IMPORTS}\n{mine}\n")
    assert passed is passes, said
    assert passes or f"TestMyStore::{FIRST}" in said


def test_an_entry_is_as_of_now_and_lives_as_long_as_it_is_told() -> None:
    before = time.time()
    usual = entry()
    assert before <= usual.now <= time.time()
    assert usual.not_before == usual.now
    assert usual.expires_at == usual.now + 80
    made = entry("a", jkt="thumb", speaks_for="ann", now=1000.0, age=5.0, lifetime=-1.0)
    assert made == ReplayEntry("a", "thumb", 1000.0, 995.0, 999.0, "ann")


def test_each_entry_is_of_another_proof_unless_it_is_named() -> None:
    assert len({entry().key for _ in range(100)}) == 100
    assert entry("").key == ""
