from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from dpop_middleware.replay.redis.anchor import BUCKETS, Buckets

ONE, MANY = Buckets(b"dpop", spread=False), Buckets(b"dpop", spread=True)


@given(st.text(), st.text())
def test_entries_have_names_of_their_own(one: str, other: str) -> None:
    for buckets in (ONE, MANY):
        assert (buckets.place(one) == buckets.place(other)) == (one == other)


@pytest.mark.parametrize("buckets", [ONE, MANY])
@given(key=st.text())
def test_no_entry_has_the_name_of_an_anchor(buckets: Buckets, key: str) -> None:
    for odd in (key, f":anchor{key}", ":anchor", ":health:1"):
        assert buckets.place(odd)[1] not in buckets.anchors


@given(st.text())
def test_an_entry_lies_in_the_slot_of_its_anchor(key: str) -> None:
    bucket, name = MANY.place(key)
    assert key_slot(name) == key_slot(MANY.anchors[bucket]) == MANY.slots[bucket]


def test_a_single_server_has_one_bucket_and_keys_without_a_tag() -> None:
    assert ONE.place("key") == (0, b"dpop:key")
    assert ONE.anchors == (b"dpop::anchor",)


@pytest.mark.parametrize("masters", [2, 3, 6, 16])
def test_buckets_spread_evenly_over_masters(masters: int) -> None:
    shares = Counter(slot * masters // 16384 for slot in MANY.slots)
    assert len(set(MANY.slots)) == BUCKETS
    assert max(shares.values()) - min(shares.values()) < 0.1 * BUCKETS / masters
