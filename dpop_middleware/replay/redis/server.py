"""What a server says about itself in reply to `INFO all`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from redis.exceptions import RedisError

__all__ = ["ServerChanged", "ServerInfo", "ServerUnfit", "parse_info"]

NO_REPLICATION_ID = "0" * 40
# The first Valkey that knows `SET … IFEQ`.
FIRST_WITH_IFEQ = (8, 1)
# Commands after which earlier entries may be gone although the server did not restart. `RESETSTAT` is one
# because it erases the traces of the others.
REWRITING_COMMANDS = frozenset(
    {
        "cluster|reset",
        "config",
        "config|resetstat",
        "debug",
        "flushall",
        "flushdb",
        "replicaof",
        "slaveof",
        "swapdb",
    }
)


class ServerUnfit(RedisError):
    """The server answers, but may not be used as it is."""


class ServerChanged(RedisError):
    """What is at the other end of a connection isn't any more what it was when the connection was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """One server, as of one moment. Times are in seconds; what the server does not tell is None or empty."""

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

    @property
    def was_flushed(self) -> bool:
        """Whether somebody emptied the server since its start."""
        return not self.rewriting_commands.isdisjoint({"flushall", "flushdb"})

    @property
    def can_be_watched(self) -> bool:
        """Whether the server tells what a loss of its data changes."""
        return bool(self.run_id) and self.uptime is not None

    @property
    def was_replica(self) -> bool:
        """Whether its data were another server's, whose replica it was."""
        return self.former_replication_id not in {"", NO_REPLICATION_ID}

    @property
    def answers_ifeq(self) -> bool:
        """Whether `SET … IFEQ` is known here."""
        major, minor, *_ = (*self.version.split("."), "", "")
        if self.software != "valkey" or not major.isdecimal() or not minor.isdecimal():
            return False
        return (int(major), int(minor)) >= FIRST_WITH_IFEQ

    @property
    def answers_set_with_get(self) -> bool:
        """Whether `SET … NX GET` is known here: Redis 7.0 and every Valkey. Unknown versions count as new."""
        major = self.version.partition(".")[0]
        return self.software == "valkey" or not major.isdecimal() or int(major) >= 7


def parse_info(text: bytes) -> ServerInfo:
    """Read the reply to `INFO all`; fields that are missing or odd are left empty."""
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        fields[name] = value
    seconds = _integer(fields, "server_time_usec")
    software = fields.get("server_name") or "redis"
    return ServerInfo(
        software=software,
        version=fields.get(f"{software}_version") or fields.get("redis_version", ""),
        run_id=fields.get("run_id", ""),
        replication_id=fields.get("master_replid", ""),
        role=fields.get("role", ""),
        loading=fields.get("loading") == "1",
        uptime=_integer(fields, "uptime_in_seconds"),
        time=None if seconds is None else seconds / 1e6,
        maxmemory_policy=fields.get("maxmemory_policy", ""),
        evicted_keys=_integer(fields, "evicted_keys") or 0,
        former_replication_id=fields.get("master_replid2", ""),
        rewriting_commands=frozenset(
            name
            for name in (key.removeprefix("cmdstat_") for key in fields if key.startswith("cmdstat_"))
            if name in REWRITING_COMMANDS
        ),
    )


def _integer(fields: Mapping[str, str], name: str) -> int | None:
    value = fields.get(name, "")
    return int(value) if value.isdecimal() else None
