"""The bytes of the commands that a store sends (RESP, the Redis serialization protocol)."""

import math

__all__ = [
    "ASKING",
    "command",
    "entry_name",
    "epoch_name",
    "lifetime",
    "probe_name",
    "set_if_absent",
    "set_once",
]

ASKING = b"*1\r\n$6\r\nASKING\r\n"
SHORTEST_LIFETIME_MS = 1000


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


def entry_name(prefix: bytes, key: str) -> bytes:
    """The name of an entry on the server; never that of `epoch_name`, whatever `key` is."""
    encoded = key.encode("utf-8", "surrogatepass")
    if encoded.startswith(b":"):
        encoded = b":" + encoded
    return b"%b:%b" % (prefix, encoded)


def epoch_name(prefix: bytes, identity: bytes, tag: bytes) -> bytes:
    """The name of the fence's own key; `tag` pins it to a slot of one cluster node, else it is empty."""
    return b"%b::epoch:%b%b" % (prefix, identity, tag)


def probe_name(prefix: bytes, number: bytes, tag: bytes) -> bytes:
    """The name of a key that a health check writes, never that of an entry; `tag` is as in `epoch_name`."""
    return b"%b::health:%b%b" % (prefix, number, tag)


def lifetime(now: float, expires_at: float) -> bytes:
    """Milliseconds to keep an entry, rounded up and at least a second: `PX 0` is an error on the server."""
    return b"%d" % max(SHORTEST_LIFETIME_MS, math.ceil((expires_at - now) * 1000))
