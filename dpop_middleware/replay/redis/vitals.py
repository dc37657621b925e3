"""What a server reports of itself: when a connection opens, once a second, and its clock with every batch.

On a connection that survived, its identity may have changed, its clock may have stepped forward, so that
every entry has expired, or it may have evicted keys.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2s
from typing import Final

from redis.exceptions import InvalidResponse, RedisError

from dpop_middleware.replay.redis.clocks import Looks, is_behind, time_shown
from dpop_middleware.replay.redis.resp import FORBIDDEN, NOT_ALLOWED, TIME, ServerError

__all__ = [
    "ServerChanged",
    "ServerInfo",
    "VitalSigns",
    "identity_of",
    "is_of_data",
    "is_of_process",
    "parse_info",
    "still_has",
    "watched",
]

NO_REPLICATION_ID = "0" * 40
# The first Valkey that knows `SET … IFEQ`, and the first that was seen to report every change of a key.
FIRST_WITH_IFEQ, FIRST_TO_TELL = (8, 1), (9, 1)
# Commands after which earlier entries may be lost although the server did not restart. `RESETSTAT` is one
# because it erases the traces of the others.
REWRITING_COMMANDS = frozenset({
    "cluster|reset", "config", "config|resetstat", "debug", "flushall", "flushdb", "replicaof", "slaveof",
    "swapdb",
})  # fmt: skip
_DIGEST_SIZE: Final = 6
# Of any number that a server reports: longer ones can't be used as a time.
_MOST_DIGITS: Final = 18
_LONGEST_VALUE: Final = 100


class ServerChanged(RedisError):
    """The server at the other end of a connection is not in the state in which the connection was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """One server at one moment. Times are in seconds; what the server does not report is None or empty.

    `is_told` is False where it doesn't report which server it is: then only its anchors can show a loss.
    """

    software: str = ""
    version: str = ""
    run_id: str = ""
    replication_id: str = ""
    role: str = ""
    loading: bool = False
    uptime: int | None = None
    time: float | None = None
    maxmemory_policy: str = ""
    evicted_keys: int = 0
    former_replication_id: str = ""
    rewriting_commands: frozenset[str] = field(default_factory=frozenset)
    is_told: bool = True

    @property
    def was_flushed(self) -> bool:
        """Whether the server was emptied since its start."""
        return not self.rewriting_commands.isdisjoint({"flushall", "flushdb"})

    @property
    def can_be_watched(self) -> bool:
        """Whether the server reports the values that a loss of its data changes."""
        return bool(self.run_id) and self.uptime is not None

    @property
    def was_replica(self) -> bool:
        """Whether its data came from another server, whose replica it was."""
        return self.former_replication_id not in {"", NO_REPLICATION_ID}

    @property
    def answers_ifeq(self) -> bool:
        """Whether `SET … IFEQ` is known here."""
        return self._is_valkey_since(FIRST_WITH_IFEQ)

    @property
    def tells_of_changes(self) -> bool:
        """Whether client tracking reports every loss of a key; Redis 7.0 doesn't where it loses a slot."""
        return self._is_valkey_since(FIRST_TO_TELL)

    @property
    def answers_set_with_get(self) -> bool:
        """Whether `SET … NX GET` is known here: Redis 7.0 and every Valkey. Unknown versions count as new."""
        major = self.version.partition(".")[0]
        return self.software == "valkey" or not major.isdecimal() or int(major) >= 7

    def _is_valkey_since(self, first: tuple[int, int]) -> bool:
        major, minor, *_ = (*self.version.split("."), "", "")
        known = self.software == "valkey" and major.isdecimal() and minor.isdecimal()
        return known and (int(major), int(minor)) >= first


def parse_info(text: bytes) -> ServerInfo:
    """Read the reply to `INFO all`; fields that are missing or odd are left empty."""
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        # Some of the values are logged.
        is_usual = value.isascii() and value.isprintable() and len(value) <= _LONGEST_VALUE
        fields[name] = value if is_usual else ""
    seconds = _integer(fields, "server_time_usec")
    software = fields.get("server_name") or "redis"
    return ServerInfo(
        software=software,
        version=fields.get(f"{software}_version") or fields.get("redis_version", ""),
        run_id=fields.get("run_id", ""),
        replication_id=fields.get("master_replid", ""),
        role=fields.get("role", ""),
        loading=fields.get("loading") == "1",
        uptime=_uptime(fields),
        time=None if seconds is None else seconds / 1e6,
        maxmemory_policy=fields.get("maxmemory_policy", ""),
        evicted_keys=_integer(fields, "evicted_keys") or 0,
        former_replication_id=fields.get("master_replid2", ""),
        rewriting_commands=REWRITING_COMMANDS.intersection(
            key.removeprefix("cmdstat_") for key in fields if key.startswith("cmdstat_")
        ),
    )


def _uptime(fields: Mapping[str, str]) -> int | None:
    """Whole seconds since the start, by the server's clock; none have passed if that was set back since."""
    told = fields.get("uptime_in_seconds", "")
    return 0 if told.startswith("-") else _integer(fields, "uptime_in_seconds")


def _integer(fields: Mapping[str, str], name: str) -> int | None:
    value = fields.get(name, "")
    return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else None


def _digest(text: str) -> bytes:
    return blake2s(text.encode(), digest_size=_DIGEST_SIZE).hexdigest().encode()


def identity_of(info: ServerInfo) -> bytes:
    """What distinguishes this server's data from another's, and from its own before it lost them."""
    return b"%b.%b" % (_digest(info.run_id), _digest(info.replication_id))


def is_of_process(identity: bytes, run_id: str) -> bool:
    """Whether `identity` is of the server process `run_id`, whatever data it had."""
    return identity.partition(b".")[0] == _digest(run_id)


def is_of_data(identity: bytes, replication_id: str) -> bool:
    """Whether `identity` is of data with this `replication_id`, whichever server had them."""
    return identity.partition(b".")[2] == _digest(replication_id)


def watched(info: ServerInfo | None) -> ServerInfo:
    """Return `info`, or what takes its place where the server doesn't report which server it is."""
    if info is not None and info.can_be_watched:
        return info
    return replace(info or ServerInfo(role="master"), run_id="?", uptime=0, is_told=False)


def still_has(info: ServerInfo, identity: bytes) -> bool:
    """Whether the server has the data of `identity`, as far as it reports that.

    A server that was no replica since its start has its own data, whatever their id is now.
    """
    if not info.is_told:
        return True
    is_renamed = not info.was_replica and is_of_process(identity, info.run_id)
    return is_renamed or identity == identity_of(info)


class VitalSigns:
    """The vital signs of one server; `info` is None where it can't be watched.

    `identity` is of its data, `is_older` says whether it started before the store. `changed_at` is when it
    first reported other data than before, by `moments`, and `lost_at` when it reported a loss that leaves the
    anchors; `sent_at` is when anything was last sent to it. `has_lost` becomes True at such a loss; the code
    that handles it sets it back. `may_ask_time` is False once it has refused that on this connection.
    """

    def __init__(self, *, heeds_evictions: bool) -> None:
        self._heeds_evictions = heeds_evictions
        self.looks, self.may_ask_time = Looks(), True
        self.info: ServerInfo | None = None
        self.identity = b""
        self.changed_at = self.lost_at = self.sent_at = -math.inf
        self.is_older = self.is_evicting = self.has_lost = False
        self._first_read: dict[bytes, float] = {}
        self._relied_on: frozenset[str] | None = None

    def connected(self, info: ServerInfo | None, *, lived: float, asked: tuple[float, float]) -> bool:
        """Record a new connection; return whether the server may have other data than those known here.

        It had others at the end of the former connection, or took over those of a server that this worker may
        have known. `lived` is the store's age in seconds. `asked` is when `info` was asked for and received.
        """
        self.info, self.may_ask_time, self.looks.can_ask = None, True, info is not None and info.is_told
        if info is None or not info.run_id or info.uptime is None:
            return False
        former, self.identity = self.identity, identity_of(info)
        self.looks.connected(*asked)
        self._note(info, asked[1])
        if info.was_replica and not is_of_process(former, info.run_id):
            self.is_evicting = False  # perhaps long ago, and entries are lost anyway
        self.info, self.sent_at = info, asked[1]
        # Uptime counts whole seconds, up to one too many: it says nothing about a store younger than two.
        self.is_older = not info.is_told or info.uptime + 1 > lived
        if still_has(info, former) if former else not info.was_replica:
            return False
        self.changed_at = asked[1]
        return True

    def has_told_since(self, at: float) -> bool:
        """Whether the server reported to a question after `at`, by the loop's clock, or never does."""
        return self.info is None or not self.info.is_told or self.looks.asked >= at

    def may_be_behind(self, identity: bytes, at: float) -> bool:
        """Whether the worker that wrote `identity`, read at `at`, may have asked after this one last did."""
        info, looks = self.info, self.looks
        is_later = info is not None and is_of_process(identity, info.run_id) and looks.answered_at < at
        return is_later and looks.asked <= self._first_read.setdefault(identity, at)

    def rely_on(self, info: ServerInfo) -> None:
        """Ask again with what is sent next: that shows whether the server was emptied since `info`."""
        self._relied_on = info.rewriting_commands
        self.looks.hurry()

    def still_has(self, identity: bytes, *, ahead: float) -> bool:
        """Whether it is a master that has the data of `identity`; `ahead` is as in `topology.Present`."""
        info = self.info
        has_it = info is not None and info.is_told and info.role == "master" and still_has(info, identity)
        return has_it and not is_behind(self.looks.ahead[1], ahead)

    def look(self, at: float) -> bytes:
        """The command to put first in a batch that is sent at `at` by the loop's clock."""
        self.sent_at = at
        if self.info is None or not self.info.is_told or at < self.looks.due:
            return b""
        # Before version 7.0 a server takes one section only.
        return self.looks.question(at, by_sections=self.info.answers_set_with_get)

    def time(self) -> bytes:
        """The command to put after the entries of a batch; empty if the server doesn't report its time."""
        return TIME if self.info is not None and self.may_ask_time else b""

    def told(self, reply: object, at: float) -> None:
        """Record the `reply` to `look`; raises as `looked`, or the refusal of who may no longer ask."""
        if isinstance(reply, bytes):
            self.looked(parse_info(reply), at)
        elif not isinstance(reply, ServerError):
            raise InvalidResponse("the server sent an unexpected reply to INFO")
        elif reply.code == FORBIDDEN:
            raise reply

    def looked(self, info: ServerInfo, at: float) -> None:
        """Record what the server reported of itself before a batch.

        Raises `ServerChanged` where it is no longer the server to which the connection was opened.
        """
        if self.info is None:
            return
        if identity_of(info) != self.identity or info.role != self.info.role:
            raise ServerChanged("the server took over other data, or another role")
        self.looks.answered(at)
        self._note(info, at)
        # Not every server lists its commands where it is asked for several sections.
        self.info = replace(info, rewriting_commands=info.rewriting_commands | self.info.rewriting_commands)

    def timed(self, reply: object, *, sent: float, at: float) -> None:
        """Record the `reply` to `time`, which was sent at `sent` and received at `at`.

        Raises the refusal of a server that doesn't allow it; it is no longer asked on this connection then.
        """
        if isinstance(reply, ServerError):
            if reply.code in NOT_ALLOWED:
                self.may_ask_time = False
                raise reply
            return
        shown = time_shown(reply)
        if self.info is not None and self.looks.steps(self.info.run_id, shown, sent=sent, received=at):
            self.has_lost, self.lost_at = True, at

    def _note(self, info: ServerInfo, at: float) -> None:
        evicts, steps = self.looks.note(info.run_id, evicted=info.evicted_keys, shown=info.time)
        self.is_evicting = evicts and self._heeds_evictions
        relied_on, self._relied_on = self._relied_on, None
        was_emptied = relied_on is not None and not info.rewriting_commands <= relied_on
        if steps or self.is_evicting or was_emptied:
            self.has_lost, self.lost_at = True, at
