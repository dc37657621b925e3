"""What is to be said about a server before trusting it with entries."""

from dataclasses import dataclass

from redis.exceptions import RedisError

from dpop_middleware.replay.fence import CLOCK_MARGIN
from dpop_middleware.replay.info import ServerInfo
from dpop_middleware.replay.settings import Settings

__all__ = ["NodeHealth", "ServerUnfit", "StoreHealth", "examine", "require_fit"]

OLDEST_WITH_GET = "7.0"


class ServerUnfit(RedisError):
    """The server answers, but may not be used as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """One server as of now.

    `error` is the class name of what kept us from it, None when it answered. `clock_offset` is the server's
    time minus ours in seconds, None where it isn't told. `fenced` says whether lost entries are noticed
    here. `warnings` are sentences for a person.
    """

    address: str
    error: str | None = None
    software: str = ""
    version: str = ""
    role: str = ""
    maxmemory_policy: str = ""
    evicted_keys: int = 0
    clock_offset: float | None = None
    fenced: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """The store as of now: `ok` when every server that takes writes can be used.

    `local_answers` counts the requests that this process judged from its own memory
    (`on_unavailable="local"`), `unavailable_answers` those that it answered 503.
    """

    ok: bool
    nodes: tuple[NodeHealth, ...]
    local_answers: int = 0
    unavailable_answers: int = 0


def examine(address: str, info: ServerInfo | None, now: float) -> NodeHealth:
    """Read a server's own account at `now`; None where it may not be asked."""
    if info is None:
        sentence = (
            f"{address}: the user may not ask INFO, so restarts and failovers that lose entries go "
            "unnoticed; grant +info and +get"
        )
        return NodeHealth(address=address, warnings=(sentence,))
    offset = None if info.time is None else info.time - now
    fenced = bool(info.run_id) and info.uptime is not None
    warnings: list[str] = []
    if info.role not in {"", "master"}:
        warnings.append(f"{address}: this server is a {info.role}, entries can't be written to it")
    if info.maxmemory_policy not in {"", "noeviction"}:
        warnings.append(
            f"{address}: maxmemory-policy is {info.maxmemory_policy}, so a full server forgets entries and "
            "replays pass unnoticed; set it to noeviction"
        )
    if info.evicted_keys:
        warnings.append(f"{address}: the server has evicted keys; entries may be among them")
    if offset is not None and abs(offset) > CLOCK_MARGIN:
        warnings.append(
            f"{address}: the server's clock and ours are more than {CLOCK_MARGIN:g} seconds apart; "
            "entries allow for less"
        )
    if not info.answers_set_with_get:
        warnings.append(
            f"{address}: before version {OLDEST_WITH_GET} a write whose reply is lost can't be recognised "
            "and is answered 503"
        )
    if not fenced:
        warnings.append(f"{address}: the server hides its run_id, so lost entries go unnoticed")
    return NodeHealth(
        address=address,
        software=info.software,
        version=info.version,
        role=info.role,
        maxmemory_policy=info.maxmemory_policy,
        evicted_keys=info.evicted_keys,
        clock_offset=offset,
        fenced=fenced,
        warnings=tuple(warnings),
    )


def require_fit(health: NodeHealth, settings: Settings) -> None:
    """Raise `ServerUnfit` for a server that can't be written to, or must not be with `strict`."""
    if health.role not in {"", "master"}:
        raise ServerUnfit("the server is a replica")
    if settings.strict and health.maxmemory_policy not in {"", "noeviction"}:
        raise ServerUnfit("the server's maxmemory-policy is not noeviction")
