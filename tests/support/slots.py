"""Entries in slots that a test chooses, and slots that move."""

import binascii
import contextlib
import functools
import itertools
import random
import secrets
import string
from collections.abc import Iterable

import redis

from dpop_middleware.replay import ReplayEntry
from dpop_middleware.replay.redis.resp import BUCKETS, Buckets
from tests.support.replay import entry
from tests.support.valkey import HOST, Server, until

__all__ = ["entry_in", "give_away_without_data", "in_slots", "migrate", "slots_between"]

_BUCKETS = Buckets(b"dpop", spread=True)


def slots_between(first: int, last: int) -> list[int]:
    """The slots in this range that a store uses: each bucket has one."""
    return sorted(slot for slot in _BUCKETS.slots if first <= slot <= last)


@functools.cache
def _endings() -> dict[int, str]:
    """For each checksum, cut to a bucket's number, three characters that have it."""
    found: dict[int, str] = {}
    letters = string.ascii_letters + string.digits
    for ending in map("".join, itertools.product(letters, repeat=3)):
        found.setdefault(binascii.crc_hqx(ending.encode(), 0) % BUCKETS, ending)
    return found


def entry_in(slot: int) -> ReplayEntry:
    """An entry that is kept in `slot`."""
    begin = secrets.token_urlsafe(16)
    # A checksum is linear: the text before the ending adds the same to all of them.
    added = binascii.crc_hqx(b"\0\0\0", binascii.crc_hqx(begin.encode(), 0))
    return entry(begin + _endings()[(_BUCKETS.slots.index(slot) ^ added) % BUCKETS])


def in_slots(first: int, last: int, count: int) -> list[ReplayEntry]:
    """Entries that are kept in these slots."""
    return [entry_in(slot) for slot in random.choices(slots_between(first, last), k=count)]


def migrate(
    slot: int, source: Server, target: Server, servers: Iterable[Server] = (), *, finish: bool = True
) -> None:
    """Move a slot the way the cluster tools do."""
    source_id, target_id = source.run("CLUSTER", "MYID"), target.run("CLUSTER", "MYID")
    target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    if not finish:
        return
    while keys := source.raw("CLUSTER GETKEYSINSLOT", slot, 100):
        source.raw("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
    for server in (target, source, *servers):
        with contextlib.suppress(redis.ResponseError):
            server.run("CLUSTER", "SETSLOT", slot, "NODE", target_id)


def give_away_without_data(first: int, last: int, heir: Server, others: Iterable[Server]) -> None:
    """Give the slots of a dead master to `heir`, as `redis-cli --cluster fix` does."""
    for server in (heir, *others):
        with contextlib.suppress(redis.ResponseError):
            server.run("CLUSTER", "DELSLOTSRANGE", first, last)
    heir.run("CLUSTER", "ADDSLOTSRANGE", first, last)
    heir.run("CLUSTER", "BUMPEPOCH")
    port = heir.port

    def agreed(server: Server) -> bool:
        owners = [row[2][1] for row in server.raw("CLUSTER SLOTS") if row[0] <= first and last <= row[1]]
        return owners == [port] and "cluster_state:ok" in server.raw("CLUSTER INFO").decode()

    for server in (heir, *others):
        until(lambda server=server: agreed(server))  # type: ignore[misc]
