"""The bytes of a store's commands, the names in them, and how replies are read (RESP, Redis's protocol).

redis-py opens the connection (TLS, HELLO, AUTH); after that replies are read here, RESP2 and RESP3, many at a
time: a coroutine for each would cost more than the rest of a request.
"""

import binascii
import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from redis.crc import key_slot
from redis.exceptions import InvalidResponse, RedisError

__all__ = [
    "ASKING",
    "BUCKETS",
    "FASTEST",
    "FORBIDDEN",
    "LARGEST_STEP",
    "NOTHING_USUAL",
    "NOT_ALLOWED",
    "TIME",
    "Buckets",
    "Replies",
    "ServerError",
    "ServerUnfit",
    "Usual",
    "command",
    "compare_and_set",
    "probe_name",
    "set_once",
    "track",
]

BUCKETS: Final = 1024
ASKING = b"*1\r\n$6\r\nASKING\r\n"
TIME = b"*1\r\n$4\r\nTIME\r\n"
SHORTEST_LIFETIME_MS = 1000
# What entries allow for: a step of the server's clock that counts as none, and one that is being corrected
# without a step, and runs faster by up to a twelfth meanwhile (chronyd).
LARGEST_STEP: Final = 1.0
FASTEST: Final = 12 / 11
COMPARE_AND_SET = (
    b"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end "
    b"return redis.call('SET', KEYS[1], ARGV[2])"
)


def command(*parts: bytes) -> bytes:
    """One command as an array of bulk strings."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def set_once(name: bytes, token: bytes, seconds: float, *, with_get: bool) -> bytes:
    """`SET name token NX PX …`: the reply is OK the first time, else nil.

    `with_get` adds `GET`: the reply is nil the first time, else what is stored. It is kept for `seconds`
    at least, by the server's clock too, which may be faster than ours, and never for less than one second:
    `PX 0` is an error.
    """
    milliseconds = b"%d" % max(SHORTEST_LIFETIME_MS, math.ceil((seconds * FASTEST + LARGEST_STEP) * 1000))
    if with_get:
        return command(b"SET", name, token, b"NX", b"GET", b"PX", milliseconds)
    # One template instead of `command`: this runs for every request.
    return b"*6\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nNX\r\n$2\r\nPX\r\n$%d\r\n%b\r\n" % (
        len(name),
        name,
        len(token),
        token,
        len(milliseconds),
        milliseconds,
    )


def compare_and_set(name: bytes, found: bytes, value: bytes, *, with_ifeq: bool) -> bytes:
    """Replace `found` by `value` if it is still stored; by a script where `SET … IFEQ` isn't known."""
    if with_ifeq:
        return command(b"SET", name, value, b"IFEQ", found)
    return command(b"EVAL", COMPARE_AND_SET, b"1", name, found, value)


def track(name: bytes) -> list[bytes]:
    """Have the server push changes to keys that are read; `name` is changed at once, as a test."""
    return [
        command(b"CLIENT", b"TRACKING", b"ON"),
        command(b"GET", name),
        command(b"SET", name, b"1", b"PX", b"1000"),
    ]


def probe_name(prefix: bytes, number: bytes, tag: bytes) -> bytes:
    """The name of a key that a health check writes, never that of an entry; `tag` pins it to a slot."""
    return b"%b::health:%b%b" % (prefix, number, tag)


class Buckets:
    """The names of a store's buckets. `prefix` is the store's, `spread` says whether it is a cluster.

    By number of the bucket: `anchors` holds the anchors' names (`numbers` is the way back), `reads` the
    commands that read them, `slots` a cluster's slots, `touched` the names of keys that are written to give
    replicas something to confirm, or to see whether that is reported.
    """

    def __init__(self, prefix: bytes, *, spread: bool) -> None:
        self.spread = spread
        homes = [b"%b:{%03x}" % (prefix, bucket) for bucket in range(BUCKETS)] if spread else [prefix]
        self._homes = tuple(home + b":" for home in homes)
        self.anchors = tuple(home + b"::anchor" for home in homes)
        self.reads = tuple(command(b"GET", name) for name in self.anchors)
        self.numbers = {name: number for number, name in enumerate(self.anchors)}
        self.touched = tuple(home + b"::wait" for home in homes)
        self.slots = tuple(key_slot(name) for name in self.anchors) if spread else (0,)

    def locate(self, key: str) -> tuple[int, bytes]:
        """The bucket of the entry `key` and its name on the server, never that of an anchor."""
        name = key.encode("utf-8", "surrogatepass")
        if name.startswith(b":"):  # unlike the store's other keys
            name = b":" + name
        bucket = binascii.crc_hqx(name, 0) % BUCKETS if self.spread else 0
        return bucket, self._homes[bucket] + name


# The code of an error reply to what the user may not do.
FORBIDDEN = "NOPERM"
# Those to what the user may not do, or the server doesn't know: both stay so.
NOT_ALLOWED: Final = frozenset({FORBIDDEN, "ERR"})

# The reply to almost every entry.
OK = b"+OK\r\n"


class ServerError(RedisError):
    """An error reply; `code` is its first word, such as `OOM`, `rest` what follows."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code, _, self.rest = text.partition(" ")


class ServerUnfit(RedisError):
    """The server answers, but must not be used in its present state."""


class Incomplete(Exception):
    """The reply is incomplete: more of its bytes must arrive."""


# Bytes that nearly always come last, and the replies in them.
Usual = tuple[bytes, Sequence[object]]
NOTHING_USUAL: Final[Usual] = (b"", ())

# Replies, the position after the last one, and pushes.
Parsed = tuple[list[object], int, list[object]]


class Replies:
    """The replies on one connection, in order.

    The server's pushes may come between them, or alone: `pushes` collects them. Any other reply that wasn't
    requested is an error.
    """

    def __init__(self) -> None:
        self._unread = b""
        self._wanted = 0
        self._usual = b""
        self._usual_replies: Sequence[object] = ()
        self.pushes: list[object] = []

    def expect(self, count: int, usual: bytes = b"", usual_replies: Sequence[object] = ()) -> None:
        """Expect `count` replies; 0 expects none any more.

        The last of them are nearly always the bytes `usual`, which are then read as `usual_replies`.
        """
        self._wanted = count
        self._usual, self._usual_replies = usual, usual_replies

    def feed(self, data: bytes) -> list[object] | None:
        """Take what arrived; return the expected replies once all are there, errors as `ServerError`.

        Raises redis-py's `InvalidResponse` when it is not RESP, or when there are more replies than expected.
        """
        data = self._unread + data
        try:
            replies, end, pushes = self._parse(data)
        except Incomplete:
            self._unread = data
            return None
        except (ValueError, RecursionError) as error:
            raise InvalidResponse("the server's reply can't be read") from error
        self._unread = data[end:]
        self._wanted = 0
        self.pushes += pushes
        return replies

    def _parse(self, data: bytes) -> Parsed:
        if not self._wanted or not data.endswith(self._usual):
            return _parse_all(data, self._wanted)
        before = self._wanted - len(self._usual_replies)
        rest = data[: len(data) - len(self._usual)]
        stored = OK * (before - 1)
        if rest.startswith(stored) and (last := _time_in(rest[len(stored) :])) is not None:
            return [*[b"OK"] * (before - 1), last, *self._usual_replies], len(data), []
        with contextlib.suppress(Incomplete, InvalidResponse, ValueError):
            replies, end, pushes = _parse_all(rest, before)
            if end == len(rest):
                return [*replies, *self._usual_replies], len(data), pushes
        # The end only looks like `usual`.
        return _parse_all(data, self._wanted)


def _time_in(reply: bytes) -> list[bytes] | None:
    """What `TIME` answers, if `reply` is that and nothing else; it comes after nearly every batch."""
    words = reply.split(b"\r\n")
    if len(words) != 6 or words[0] != b"*2" or words[5]:
        return None
    _, size, seconds, other, microseconds, _ = words
    is_right = size == b"$%d" % len(seconds) and other == b"$%d" % len(microseconds)
    return [seconds, microseconds] if is_right else None


def _parse_all(data: bytes, count: int) -> Parsed:
    """The `count` replies at the beginning of `data`, and the pushes between and after them."""
    replies: list[object] = []
    pushes: list[object] = []
    position = 0
    while len(replies) < count:
        if data.startswith(OK, position):
            replies.append(b"OK")
            position += len(OK)
            continue
        marker, reply, position = _parse(data, position)
        if marker == b">":
            pushes.append(reply)
        elif marker != b"|":
            replies.append(reply)
    while position < len(data):
        if data[position : position + 1] != b">":
            # The surplus reply may have come first: none of them can be relied on.
            raise InvalidResponse("the server sent more replies than there were questions")
        try:
            _, push, position = _parse(data, position)
        except Incomplete:
            # Its other bytes come with the next read.
            break
        pushes.append(push)
    return replies, position, pushes


def _parse(data: bytes, position: int) -> tuple[bytes, object, int]:
    """One value at `position`: its type, the value, and where the next one begins."""
    end = data.find(b"\r\n", position)
    if end < 0:
        raise Incomplete
    marker, header, after = data[position : position + 1], data[position + 1 : end], end + 2
    if marker in b"$=!":
        return _parse_bulk(marker, int(header), data, after)
    simple = SIMPLE.get(marker)
    if simple is not None:
        return marker, simple(header), after
    if marker not in b"*~>%|":
        raise InvalidResponse("the server's reply is not RESP")
    length = int(header)
    if length < 0:
        return marker, None, after
    items: list[object] = []
    for _ in range(length * 2 if marker in b"%|" else length):
        _, item, after = _parse(data, after)
        items.append(item)
    return marker, items, after


def _parse_bulk(marker: bytes, length: int, data: bytes, start: int) -> tuple[bytes, object, int]:
    if length < 0:
        return marker, None, start
    end = start + length
    if len(data) < end + 2:
        raise Incomplete
    text = data[start:end]
    if marker == b"!":
        return marker, ServerError(text.decode("utf-8", "replace")), end + 2
    # A verbatim string begins with its format, such as `txt:`.
    return marker, text[4:] if marker == b"=" else text, end + 2


SIMPLE: Mapping[bytes, Callable[[bytes], object]] = {
    b"_": lambda _: None,
    b"+": bytes,
    b"-": lambda header: ServerError(header.decode("utf-8", "replace")),
    b":": int,
    b"(": int,
    b",": float,
    b"#": lambda header: header == b"t",
}
