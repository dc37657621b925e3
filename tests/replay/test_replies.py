import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from dpop_middleware.replay.replies import ReplyReader, ServerError


async def read(pieces: Iterable[bytes], count: int) -> list[object]:
    stream = asyncio.StreamReader()
    reader = ReplyReader(stream)

    async def feed() -> None:
        for piece in pieces:
            stream.feed_data(piece)
            await asyncio.sleep(0)
        stream.feed_eof()

    feeding = asyncio.ensure_future(feed())
    try:
        return await reader.read(count)
    finally:
        await feeding


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
async def test_each_type_in_one_piece_and_byte_by_byte(data: bytes, reply: object) -> None:
    assert await read([data], 1) == [reply]
    assert await read([bytes([byte]) for byte in data], 1) == [reply]


@pytest.mark.parametrize(
    ("data", "code", "rest"),
    [
        (b"-OOM command not allowed\r\n", "OOM", "command not allowed"),
        (b"!8\r\nERR a\r\nb\r\n", "ERR", "a\r\nb"),
        (b"-\xff\r\n", "\ufffd", ""),
    ],
)
async def test_errors_are_values(data: bytes, code: str, rest: str) -> None:
    error, after = await read([data + b"+OK\r\n"], 2)
    assert isinstance(error, ServerError)
    assert (error.code, error.rest) == (code, rest)
    assert after == b"OK"


async def test_pushes_and_attributes_are_left_out() -> None:
    push = b">2\r\n+message\r\n$5\r\nhello\r\n"
    attribute = b"|1\r\n+ttl\r\n:3600\r\n"
    data = push + b"+one\r\n" + attribute + b"+two\r\n" + push + b"_\r\n"
    assert await read([data], 3) == [b"one", b"two", None]
    assert await read([bytes([byte]) for byte in data], 3) == [b"one", b"two", None]


@given(
    st.lists(st.one_of(st.none(), st.binary(max_size=40)), min_size=1, max_size=20),
    st.lists(st.integers(1, 30), min_size=1, max_size=10),
)
def test_however_the_bytes_are_cut(values: list[bytes | None], sizes: list[int]) -> None:
    data = b"".join(b"_\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value) for value in values)
    pieces, position, turn = [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[position : position + size])
        position, turn = position + size, turn + 1
    assert asyncio.run(read(pieces, len(values))) == values


@pytest.mark.parametrize("data", [b"", b"+OK\r", b"$5\r\nab", b"*2\r\n+a\r\n"])
async def test_a_stream_that_ends_too_soon_is_a_lost_connection(data: bytes) -> None:
    with pytest.raises(RedisConnectionError):
        await read([data], 1)


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"$x\r\n", b":\r\n"])
async def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises((InvalidResponse, ValueError)):
        await read([data], 1)


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_else(data: bytes) -> None:
    async def attempt() -> Any:
        try:
            return await read([data], 1)
        except (InvalidResponse, ValueError, RedisConnectionError, AssertionError, RecursionError) as error:
            return error

    asyncio.run(attempt())


async def test_more_than_was_asked_for_makes_all_of_it_doubtful() -> None:
    stream = asyncio.StreamReader()
    reader = ReplyReader(stream)
    stream.feed_data(b"+OK\r\n+more\r\n")
    with pytest.raises(InvalidResponse):
        await reader.read(1)
    assert not reader.is_clean


async def test_what_came_unasked_and_the_end_are_seen_before_the_next_question() -> None:
    stream = asyncio.StreamReader()
    reader = ReplyReader(stream)
    assert reader.is_clean
    stream.feed_data(b"+OK\r\n")
    assert not reader.is_clean
    assert await reader.read(1) == [b"OK"]
    assert reader.is_clean
    stream.feed_eof()
    assert not reader.is_clean
