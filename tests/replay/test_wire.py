import secrets

import pytest
import redis

from dpop_middleware.replay.redis.resp import (
    command,
    compare_and_set,
    lifetime,
    set_if_absent,
    set_once,
)
from tests.support.valkey import Server


def test_a_command_is_an_array_of_bulk_strings() -> None:
    assert command(b"GET", b"a\r\nb") == b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n"


def test_set_once_is_the_command_it_says() -> None:
    assert set_once(b"n", b"t" * 16, b"80000") == command(
        b"SET", b"n", b"t" * 16, b"NX", b"GET", b"PX", b"80000"
    )
    assert set_if_absent(b"n", b"t", b"1000") == command(b"SET", b"n", b"t", b"NX", b"PX", b"1000")


@pytest.mark.parametrize("with_ifeq", [True, False])
def test_an_anchor_is_replaced_by_the_server_itself(shared_server: Server, with_ifeq: bool) -> None:
    if with_ifeq and shared_server.implementation != "valkey":
        with shared_server.client() as client, pytest.raises(redis.ResponseError):
            client.execute_command("SET", "a", "b", "IFEQ", "c")
        return
    name = secrets.token_hex(8).encode()
    shared_server.run("SET", name, "one")
    for found, value, left in ((b"two", b"three", "one"), (b"one", b"two", "two")):
        _, *words = compare_and_set(name, found, value, with_ifeq=with_ifeq).split(b"\r\n")[:-1]
        shared_server.run(*words[1::2])
        assert shared_server.run("GET", name) == left


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
