import secrets
from collections import Counter
from collections.abc import Iterable

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import InvalidResponse

from dpop_middleware.replay.redis.resp import (
    BUCKETS,
    Buckets,
    Replies,
    ServerError,
    command,
    compare_and_set,
    set_once,
)
from tests.support.valkey import Server


def read(pieces: Iterable[bytes], count: int) -> list[object] | None:
    replies = Replies()
    replies.expect(count)
    *early, last = pieces
    assert [replies.feed(piece) for piece in early] == [None] * len(early)
    return replies.feed(last)


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+OK\r\n", b"OK"),
        (b"_\r\n", None),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b":-12\r\n", -12),
        (b"(3492890328409238509324850943850943825024385\r\n", 3492890328409238509324850943850943825024385),
        (b",1.5\r\n", 1.5),
        (b"#t\r\n", True),
        (b"#f\r\n", False),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"=8\r\ntxt:text\r\n", b"text"),
        (b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", [1, [b"x"]]),
        (b"~1\r\n+a\r\n", [b"a"]),
        (b"%1\r\n+a\r\n:1\r\n", [b"a", 1]),
    ],
)
def test_each_type_is_read_in_one_piece_and_byte_by_byte(data: bytes, reply: object) -> None:
    assert read([data], 1) == [reply]
    assert read([bytes([byte]) for byte in data], 1) == [reply]


@pytest.mark.parametrize(
    ("data", "code", "rest"),
    [
        (b"-OOM command not allowed\r\n", "OOM", "command not allowed"),
        (b"!8\r\nERR a\r\nb\r\n", "ERR", "a\r\nb"),
        (b"-\xff\r\n", "\ufffd", ""),
        (b"!1\r\n\xff\r\n", "\ufffd", ""),
    ],
)
def test_errors_are_values(data: bytes, code: str, rest: str) -> None:
    answer = read([data + b"+OK\r\n"], 2)
    assert answer is not None
    error, after = answer
    assert isinstance(error, ServerError)
    assert (error.code, error.rest) == (code, rest)
    assert after == b"OK"


PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"
PUSHED = [b"invalidate", [b"a"]]


def test_pushes_are_recognised_at_every_position() -> None:
    value = b"$1\r\nv\r\n"
    for usual in (b"", value):
        for data in (PUSH + b"+OK\r\n" + value, b"+OK\r\n" + PUSH + value, b"+OK\r\n" + value + PUSH):
            replies = Replies()
            replies.expect(2, usual, [b"v"] if usual else [])
            assert replies.feed(data) == [b"OK", b"v"]
            assert replies.pushes == [PUSHED]


def test_a_push_may_come_alone_and_in_pieces() -> None:
    replies = Replies()
    assert replies.feed(PUSH[:5]) == []
    assert replies.pushes == []
    assert replies.feed(PUSH[5:]) == []
    assert replies.pushes == [PUSHED]
    replies.expect(1)
    # An incomplete push doesn't delay the reply before it.
    assert replies.feed(b"+OK\r\n" + PUSH[:5]) == [b"OK"]
    replies.expect(1)
    assert replies.feed(PUSH[5:] + b"+OK\r\n") == [b"OK"]
    assert replies.pushes == [PUSHED, PUSHED]


def test_the_usual_replies_are_an_error_once_the_exchange_has_ended() -> None:
    value = b"$1\r\nv\r\n"
    for stray in (value, PUSH + value):
        replies = Replies()
        replies.expect(2, value, [b"v"])
        assert replies.feed(b"+OK\r\n" + value) == [b"OK", b"v"]
        assert replies.feed(PUSH) == []
        with pytest.raises(InvalidResponse):
            replies.feed(stray)


def test_no_reply_hides_behind_a_push() -> None:
    for data in (PUSH + b"+OK\r\n", PUSH + b"|1\r\n+a\r\n+b\r\n"):
        replies = Replies()
        with pytest.raises(InvalidResponse):
            replies.feed(data)
        replies = Replies()
        replies.expect(1)
        with pytest.raises(InvalidResponse):
            replies.feed(b"+OK\r\n" + data)


def test_bytes_that_only_look_usual_are_read_in_full() -> None:
    """The value at the end is the second half of one that was cut differently."""
    usual = b"$1\r\nv\r\n"
    for data, found in (
        (b"$8\r\n+$1\r\nv\r\n\r\n+OK\r\n", [b"+$1\r\nv\r\n", b"OK"]),
        (b"+OK\r\n$8\r\n+$1\r\nv\r\n\r\n", [b"OK", b"+$1\r\nv\r\n"]),
        (b"+OK\r\n>2\r\n+a\r\n" + usual + usual, [b"OK", b"v"]),
    ):
        replies = Replies()
        replies.expect(2, usual, [b"v"])
        assert replies.feed(data) == found


def test_pushes_and_attributes_are_not_replies() -> None:
    push = b">2\r\n+message\r\n$5\r\nhello\r\n"
    attribute = b"|1\r\n+ttl\r\n:3600\r\n"
    data = push + b"+one\r\n" + attribute + b"+two\r\n" + push + b"_\r\n"
    assert read([data], 3) == [b"one", b"two", None]
    assert read([bytes([byte]) for byte in data], 3) == [b"one", b"two", None]


@given(
    st.lists(st.one_of(st.none(), st.binary(max_size=40)), min_size=1, max_size=20),
    st.lists(st.integers(1, 30), min_size=1, max_size=10),
)
def test_replies_are_read_however_the_bytes_are_cut(values: list[bytes | None], sizes: list[int]) -> None:
    data = b"".join(b"_\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value) for value in values)
    pieces, position, turn = [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[position : position + size])
        position, turn = position + size, turn + 1
    assert read(pieces, len(values)) == values


@pytest.mark.parametrize("data", [b"", b"+OK\r", b"$5\r\nab", b"*2\r\n+a\r\n"])
def test_an_incomplete_reply_is_awaited(data: bytes) -> None:
    assert read([data], 1) is None


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"$x\r\n", b":\r\n", b"*1\r\n" * 5000 + b"_\r\n"]
)
def test_bytes_that_are_no_reply_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidResponse):
        read([data], 1)


@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_bytes_are_read_or_refused(data: bytes, count: int) -> None:
    try:
        replies = read([data], count)
    except InvalidResponse:
        return
    assert replies is None or len(replies) == count


def test_surplus_replies_make_all_replies_unusable() -> None:
    with pytest.raises(InvalidResponse):
        read([b"+OK\r\n+more\r\n"], 1)


def test_a_reply_without_a_request_is_refused() -> None:
    replies = Replies()
    with pytest.raises(InvalidResponse):
        replies.feed(b"+OK\r\n")
    replies = Replies()
    replies.expect(1)
    assert replies.feed(b"+OK\r\n") == [b"OK"]
    with pytest.raises(InvalidResponse):
        replies.feed(b"+OK\r\n")


LONE = b"_\r\n$4\r\n-inf\r\n"


def test_a_time_without_a_request_is_refused() -> None:
    replies = Replies()
    with pytest.raises(InvalidResponse):
        replies.feed(b"*2\r\n$1\r\n5\r\n$1\r\n7\r\n")


def test_the_same_bytes_have_the_same_meaning_again() -> None:
    replies = Replies()
    for _ in range(3):
        replies.expect(2)
        answer = replies.feed(LONE)
        assert answer is not None
        assert answer == [None, b"-inf"]
        # The caller may change the list.
        answer.clear()


def test_the_same_bytes_are_refused_where_fewer_or_no_replies_are_expected() -> None:
    for count in (0, 1):
        replies = Replies()
        replies.expect(2)
        assert replies.feed(LONE) == [None, b"-inf"]
        replies.expect(count)
        with pytest.raises(InvalidResponse):
            replies.feed(LONE)


def test_the_same_bytes_as_before_may_be_a_part_of_more() -> None:
    replies = Replies()
    replies.expect(2)
    assert replies.feed(LONE) == [None, b"-inf"]
    replies.expect(4)
    assert replies.feed(LONE) is None
    assert replies.feed(LONE) == [None, b"-inf"] * 2
    replies.expect(2)
    assert replies.feed(b"+a") is None
    with pytest.raises(InvalidResponse):
        replies.feed(b"\r\n" + LONE)


def test_errors_are_not_remembered() -> None:
    replies = Replies()
    found: list[object] = []
    for _ in range(2):
        replies.expect(2)
        answer = replies.feed(b"-OOM\r\n_\r\n")
        assert answer is not None
        found.append(answer[0])
    first, second = found
    assert isinstance(first, ServerError)
    assert isinstance(second, ServerError)
    assert first is not second


def test_a_command_is_an_array_of_bulk_strings() -> None:
    assert command(b"GET", b"a\r\nb") == b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n"


def test_set_once_is_the_command_of_its_docstring() -> None:
    for with_get, get in ((False, ()), (True, (b"GET",))):
        words = (b"SET", b"n", b"t" * 16, b"NX", *get, b"PX", b"121000")
        assert set_once(b"n", b"t" * 16, 110.0, with_get=with_get) == command(*words)


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
    ("seconds", "milliseconds"),
    [
        (110.0, b"121000"),
        (110.0001, b"121001"),
        (0.0, b"1000"),
        (-95.0, b"1000"),
        (0.5, b"1546"),
    ],
)
def test_a_lifetime_is_rounded_up_and_never_below_a_second(seconds: float, milliseconds: bytes) -> None:
    """By a clock that runs faster by a twelfth, and then steps by a second, it has not ended early."""
    for with_get in (False, True):
        assert set_once(b"n", b"t", seconds, with_get=with_get).split(b"\r\n")[-2] == milliseconds


ONE, MANY = Buckets(b"dpop", spread=False), Buckets(b"dpop", spread=True)


@given(st.text(), st.text())
def test_different_entries_have_different_names(one: str, other: str) -> None:
    for buckets in (ONE, MANY):
        assert (buckets.locate(one) == buckets.locate(other)) == (one == other)


@pytest.mark.parametrize("buckets", [ONE, MANY])
@given(key=st.text())
def test_no_entry_has_the_name_of_an_anchor(buckets: Buckets, key: str) -> None:
    for odd in (key, f":anchor{key}", ":anchor", ":health:1"):
        assert buckets.locate(odd)[1] not in buckets.anchors


@given(st.text())
def test_an_entry_is_in_the_slot_of_its_anchor(key: str) -> None:
    bucket, name = MANY.locate(key)
    assert key_slot(name) == key_slot(MANY.anchors[bucket]) == MANY.slots[bucket]


def test_a_single_server_has_one_bucket_and_keys_without_a_tag() -> None:
    assert ONE.locate("key") == (0, b"dpop:key")
    assert ONE.anchors == (b"dpop::anchor",)


@pytest.mark.parametrize("masters", [2, 3, 6, 16])
def test_buckets_spread_evenly_over_masters(masters: int) -> None:
    shares = Counter(slot * masters // 16384 for slot in MANY.slots)
    assert len(set(MANY.slots)) == BUCKETS
    assert max(shares.values()) - min(shares.values()) < 0.1 * BUCKETS / masters


@pytest.mark.parametrize(
    ("told", "reply"),
    [
        (b"*2\r\n$10\r\n1800000000\r\n$3\r\n123\r\n", [b"1800000000", b"123"]),
        (b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n", [b"1", b"2"]),
        (b"*2\r\n:1\r\n:2\r\n", [1, 2]),
        (b"*2\r\n$2\r\n\r\n\r\n$1\r\n2\r\n", [b"\r\n", b"2"]),
        (b"+OK\r\n", b"OK"),
        (b"$-1\r\n", None),
    ],
)
def test_what_comes_before_the_usual_replies_is_read_as_it_stands(told: bytes, reply: object) -> None:
    replies = Replies()
    replies.expect(4, b"$1\r\na\r\n", [b"a"])
    assert replies.feed(b"+OK\r\n+OK\r\n" + told + b"$1\r\na\r\n") == [b"OK", b"OK", reply, b"a"]


def test_a_time_whose_length_is_not_what_it_says_is_read_no_quicker() -> None:
    replies = Replies()
    replies.expect(2, b"$1\r\na\r\n", [b"a"])
    assert replies.feed(b"*2\r\n$1\r\n12\r\n$1\r\n2\r\n$1\r\na\r\n"[:10]) is None
    with pytest.raises(InvalidResponse):
        replies.feed(b"*2\r\n$1\r\n12\r\n$1\r\n2\r\n$1\r\na\r\n"[10:])
