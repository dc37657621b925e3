import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from dpop_middleware.replay.wire import (
    command,
    entry_name,
    epoch_name,
    lifetime,
    set_if_absent,
    set_once,
)


def test_a_command_is_an_array_of_bulk_strings() -> None:
    assert command(b"GET", b"a\r\nb") == b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n"


def test_set_once_is_the_command_it_says() -> None:
    assert set_once(b"n", b"t" * 16, b"80000") == command(
        b"SET", b"n", b"t" * 16, b"NX", b"GET", b"PX", b"80000"
    )
    assert set_if_absent(b"n", b"t", b"1000") == command(b"SET", b"n", b"t", b"NX", b"PX", b"1000")


@given(st.text(), st.text())
def test_entries_have_names_of_their_own(one: str, other: str) -> None:
    assert (entry_name(b"dpop", one) == entry_name(b"dpop", other)) == (one == other)


@given(st.text(), st.binary(max_size=8))
def test_no_entry_has_the_name_of_an_epoch(key: str, identity: bytes) -> None:
    assert entry_name(b"dpop", key) != epoch_name(b"dpop", identity, b"")
    assert entry_name(b"dpop", ":epoch:" + key) != epoch_name(b"dpop", key.encode("utf-8", "ignore"), b"")


def test_the_tag_decides_the_slot_of_an_epoch() -> None:
    assert key_slot(epoch_name(b"dpop", b"1234", b"{7}")) == key_slot(b"7")


@pytest.mark.parametrize(
    ("now", "expires_at", "milliseconds"),
    [
        (100.0, 180.0, b"80000"),
        (100.0, 180.0001, b"80001"),
        (100.0, 100.0, b"1000"),
        (100.0, 5.0, b"1000"),
        (1e9, 1e9 + 0.5, b"1000"),
    ],
)
def test_a_lifetime_is_rounded_up_and_never_below_a_second(
    now: float, expires_at: float, milliseconds: bytes
) -> None:
    assert lifetime(now, expires_at) == milliseconds
