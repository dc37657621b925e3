"""What a store is asked, and by which name a proof is looked for."""

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpop_middleware import ResourceServer, events, replay
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidDPoPProof
from dpop_middleware.replay.store import (
    ReplayEntry,
    ReplayKeyspace,
    ReplayStore,
    StoreExchange,
    check_entry,
)
from tests.support.api import RESOURCE, Api
from tests.support.replay import entry

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
TRIPLES = st.tuples(NAMES, NAMES, NAMES)


def name_of(namespace: str, jkt: str, jti: str) -> str:
    return ReplayKeyspace(namespace).key(jkt=jkt, jti=jti)


def test_a_proof_has_one_name_wherever_it_is_presented() -> None:
    assert name_of("gateway", "thumb", "jti") == name_of("gateway", "thumb", "jti")
    keyspace = ReplayKeyspace("gateway")
    assert [keyspace.key(jkt="thumb", jti="jti") for _ in range(2)] == [
        name_of("gateway", "thumb", "jti")
    ] * 2


def test_the_names_of_proofs_stay_as_they_are() -> None:
    # A change of these names lets each proof pass once more while workers of two versions run.
    assert name_of("", "thumb", "jti") == "FXoYsIXVli8KMzcM6bzpdw"
    assert name_of("gäteway", "thumb", "jti") == "xMuKWESiAzMV9HQC8saXsg"
    assert ReplayKeyspace("").apart("tickets").key(jkt="thumb", jti="jti") == "1sejamXTA3o75yL1isUc-Q"
    assert (ReplayKeyspace("").name, ReplayKeyspace("gateway").name) == ("3z9hmASp", "S6RIKfs0")


@given(TRIPLES, TRIPLES)
def test_two_proofs_have_two_names(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (name_of(*one) == name_of(*other)) is (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc", "d"), ("a", "b", "cd")),
        (("a", "b", "cd"), ("ab", "", "cd")),
        (("", "1:a", "b"), ("", "1", ":ab")),
        (("", "", "1:ab"), ("", "a", "b")),
        (("", "1", "1:a"), ("", "11", ":a")),
        (("é", "a", "b"), ("e\u0301", "a", "b")),
    ],
)
def test_what_belongs_to_one_part_of_a_name_is_no_part_of_the_next(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert name_of(*one) != name_of(*other)


@given(TRIPLES)
def test_a_name_is_a_digest_in_ascii_of_a_fixed_length(of: tuple[str, str, str]) -> None:
    name = name_of(*of)
    assert len(name) == 22
    assert name.isascii()
    assert name.replace("-", "").replace("_", "").isalnum()


def test_nothing_of_a_request_or_a_namespace_stands_in_a_name_in_clear() -> None:
    keyspace = ReplayKeyspace("orders")
    name = keyspace.key(jkt="thumb", jti="unique")
    assert not any(text in name + keyspace.name for text in ("thumb", "unique", "orders"))
    assert len(keyspace.name) == 8


@given(NAMES, NAMES)
def test_namespaces_are_told_apart_by_their_own_names(one: str, other: str) -> None:
    assert (ReplayKeyspace(one).name == ReplayKeyspace(other).name) is (one == other)


@given(NAMES, NAMES, NAMES)
def test_what_is_set_apart_is_in_no_namespace_of_a_user(namespace: str, label: str, users: str) -> None:
    apart = ReplayKeyspace(namespace).apart(label)
    for other in (users, namespace, label, namespace + label, f"{namespace}\0{label}"):
        assert apart.key(jkt="a", jti="b") != name_of(other, "a", "b")
        assert apart.name != ReplayKeyspace(other).name


def test_what_is_set_apart_is_so_by_its_label_and_by_its_namespace() -> None:
    tickets = ReplayKeyspace("a").apart("tickets")
    others = [
        ReplayKeyspace("a").apart("gateway"),
        ReplayKeyspace("b").apart("tickets"),
        ReplayKeyspace("a").apart("tickets").apart("tickets"),
    ]
    assert tickets.name == ReplayKeyspace("a").apart("tickets").name
    assert tickets.name not in {other.name for other in others}


async def test_an_entry_has_the_name_of_its_namespace_and_of_its_proof() -> None:
    api = Api()
    verified = await api.server.authenticate(api.request())
    assert verified.proof is not None
    (entry,) = api.store.entries
    keyspace = ReplayKeyspace("")
    assert entry.key == keyspace.key(jkt=api.key.jkt, jti=verified.proof.jti)
    assert (entry.namespace, entry.jkt) == (keyspace.name, api.key.jkt)
    assert entry.not_before <= entry.now < entry.expires_at


def test_an_entry_tells_what_a_store_of_ones_own_may_leave_out_as_not_told() -> None:
    entry = ReplayEntry("key", "jkt", 10.0, 5.0, 90.0)
    assert (entry.speaks_for, entry.namespace, entry.retention) == ("", "", 0.0)
    assert (entry.made_at, entry.iat) == (math.inf, -math.inf)
    assert entry == ReplayEntry(key="key", jkt="jkt", now=10.0, not_before=5.0, expires_at=90.0)


def test_an_entry_does_not_change() -> None:
    entry: Any = ReplayEntry("key", "jkt", 10.0, 5.0, 90.0)
    with pytest.raises(AttributeError):
        entry.key = "another"
    assert entry._replace(key="another").key == "another"
    assert entry.key == "key"


async def test_a_store_is_one_class_with_one_method() -> None:
    class Mine:
        def __init__(self) -> None:
            self.known: set[str] = set()

        async def add(self, entry: ReplayEntry) -> bool:
            before = len(self.known)
            self.known.add(entry.key)
            return len(self.known) > before

    store: ReplayStore = Mine()
    api = Api()
    server = ResourceServer(verifier=api.tokens, resource=RESOURCE, replay_store=store, clock=api.clock)
    proof = api.proof()
    await server.authenticate(api.request(proof))
    with pytest.raises(InvalidDPoPProof) as caught:
        await server.authenticate(api.request(proof))
    assert caught.value.check is Check.JTI
    await server.authenticate(api.request())


def test_an_exchange_is_told_by_names_and_does_not_change() -> None:
    exchange: Any = StoreExchange(entries=3, seconds=0.002, answered=True)
    with pytest.raises(FrozenInstanceError):
        exchange.answered = False
    positional: Any = StoreExchange
    with pytest.raises(TypeError):
        positional(3, 0.002, True)


def test_the_public_packages_offer_these_very_names() -> None:
    assert (replay.ReplayEntry, replay.ReplayStore) == (ReplayEntry, ReplayStore)
    assert events.StoreExchange is StoreExchange


@pytest.mark.parametrize(
    ("member", "bound"),
    [
        ("now", -1e15),
        ("not_before", -1e15),
        ("made_at", -1e15),
        ("iat", -1e15),
        ("ahead", 1e15),
        ("ahead", -1e15),
    ],
)
def test_the_moments_of_an_entry_are_less_than_thirty_million_years_away(member: str, bound: float) -> None:
    moments: dict[str, Any] = {"now": 0.0, "not_before": 0.0, "made_at": 0.0, "iat": 0.0, "ahead": 0.0}
    item = entry()._replace(expires_at=0.0, by_iat=True)
    within = item._replace(**moments | {member: bound * 0.999})
    check_entry(within, within.expires_at)
    beyond = item._replace(**moments | {member: bound})
    with pytest.raises(ValueError, match="^an entry takes finite moments, an end, and an ASCII namespace$"):
        check_entry(beyond, beyond.expires_at)


@pytest.mark.parametrize(
    "changes",
    [
        {"retention": -1.0},
        {"retention": 1e15},
        *({member: math.nan} for member in ("now", "not_before", "made_at", "retention", "iat", "ahead")),
    ],
)
def test_a_number_that_would_switch_a_check_off_is_no_entry(changes: dict[str, Any]) -> None:
    """A store that compares with it would leave out a check."""
    good = entry()._replace(retention=95.0)
    check_entry(good, good.expires_at)
    wrong = good._replace(**changes)
    with pytest.raises(ValueError, match="^an entry takes finite moments, an end, and an ASCII namespace$"):
        check_entry(wrong, wrong.expires_at)
