"""The bytes of the commands that a store sends (RESP, the Redis serialization protocol)."""

import math

__all__ = [
    "ASKING",
    "command",
    "compare_and_set",
    "escaped",
    "lifetime",
    "probe_name",
    "set_if_absent",
    "set_once",
]

ASKING = b"*1\r\n$6\r\nASKING\r\n"
SHORTEST_LIFETIME_MS = 1000
COMPARE_AND_SET = (
    b"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end "
    b"return redis.call('SET', KEYS[1], ARGV[2])"
)


def command(*parts: bytes) -> bytes:
    """One command as an array of bulk strings."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def set_once(name: bytes, token: bytes, milliseconds: bytes) -> bytes:
    """`SET name token NX GET PX milliseconds`: answers nil the first time, else what is stored."""
    # One template instead of `command`: this runs for every request.
    return (
        b"*7\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nNX\r\n$3\r\nGET\r\n$2\r\nPX\r\n$%d\r\n%b\r\n"
        % (len(name), name, len(token), token, len(milliseconds), milliseconds)
    )


def set_if_absent(name: bytes, token: bytes, milliseconds: bytes) -> bytes:
    """`SET name token NX PX milliseconds`, for servers before 7.0: OK the first time, else nil."""
    return command(b"SET", name, token, b"NX", b"PX", milliseconds)


def escaped(key: str) -> bytes:
    """An entry's key as it stands in a name: it begins with no colon, as what is ours beside entries does."""
    encoded = key.encode("utf-8", "surrogatepass")
    return b":" + encoded if encoded.startswith(b":") else encoded


def compare_and_set(name: bytes, found: bytes, value: bytes, *, with_ifeq: bool) -> bytes:
    """Replace `found` by `value` where it still stands; by a script where `SET … IFEQ` isn't known."""
    if with_ifeq:
        return command(b"SET", name, value, b"IFEQ", found)
    return command(b"EVAL", COMPARE_AND_SET, b"1", name, found, value)


def probe_name(prefix: bytes, number: bytes, tag: bytes) -> bytes:
    """The name of a key that a health check writes, never that of an entry; `tag` pins it to a slot."""
    return b"%b::health:%b%b" % (prefix, number, tag)


def lifetime(now: float, expires_at: float) -> bytes:
    """Milliseconds to keep an entry, rounded up and at least a second: `PX 0` is an error on the server."""
    return b"%d" % max(SHORTEST_LIFETIME_MS, math.ceil((expires_at - now) * 1000))
