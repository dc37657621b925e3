"""The state of a server, and warnings about it: before entries are written to it, and after each batch."""

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError

from dpop_middleware._log import plain
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.connection import Connection
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import Notices, Settings
from dpop_middleware.replay.redis.resp import FORBIDDEN, TIME, ServerError, ServerUnfit, command, probe_name
from dpop_middleware.replay.redis.vitals import ServerInfo

__all__ = [
    "NodeHealth",
    "StoreHealth",
    "cause",
    "examine",
    "heed_refusals",
    "likely_cause",
    "require_fit",
    "try_out",
    "warn_of_findings",
    "warn_of_loss",
    "warn_of_refused",
]

OLDEST_WITH_GET = "7.0"
# What follows where the user may not send a command.
_WITHOUT: Final = {
    "EVAL": "lost entries are recorded without a comparison with what another worker recorded at the same "
    "moment; grant +eval",
    "GET": "restarts, flushes and failovers that lose entries go unnoticed until +get is granted and the "
    "connection is opened again",
    "TIME": "if the server's clock is set forward, so that entries expire early, that is noticed up to a "
    "second late; grant +time",
    "WAIT": "no replica can confirm an entry (wait_replicas), so every request is refused; grant +wait",
    "ZADD or ZRANGEBYSCORE": "while servers with different policies share the replay store, a proof may pass "
    "twice; grant +zadd and +zrangebyscore",
}
_NOT_PERMITTED = ": its user may not run a command that is needed: ACL LOG there names it"
_NO_PASSWORD = ": its user or password is missing or wrong, or couldn't be fetched"
_LIKELY_CAUSES: Final = {
    "AuthenticationError": _NO_PASSWORD,
    "NOAUTH": _NO_PASSWORD,
    "NOPERM": _NOT_PERMITTED,
    "NoPermissionError": _NOT_PERMITTED,
    "TimeoutError": ": the server or a firewall is silent, or the server has no TLS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """The current state of one server.

    `error` is what prevented a write there (the server's error code, a sentence of this package, or the name
    of an exception's class, with the operating system's reason), None when nothing did. `clock_offset` is the
    server's time minus this machine's in seconds, None where it is unknown. `fenced` says whether lost
    entries are noticed here. `warnings` are sentences for a person.
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
    """The current state of the store: `ok` when every server that takes writes can be used.

    `local_answers` counts the requests that this process judged from its own memory
    (`on_unavailable="local"`), `unavailable_answers` those that it answered 503.
    """

    ok: bool
    nodes: tuple[NodeHealth, ...]
    local_answers: int = 0
    unavailable_answers: int = 0


def examine(address: str, info: ServerInfo | None, now: float | None) -> NodeHealth:
    """Judge a server's report, None where INFO isn't allowed; `now` is the present time, if it is known."""
    if info is None:
        sentence = (
            f"{address}: the user may not ask INFO, so a restart with older data and a failover that lose "
            "entries go unnoticed; grant +info"
        )
        return NodeHealth(address=address, warnings=(sentence,))
    offset = None if info.time is None or now is None else info.time - now
    fenced = info.can_be_watched
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
    if offset is not None and abs(offset) > WORKER_CLOCK_MARGIN:
        warnings.append(
            f"{address}: the server's clock and ours are more than {WORKER_CLOCK_MARGIN:g} seconds apart; "
            "entries allow for less"
        )
    if not info.answers_set_with_get:
        warnings.append(
            f"{address}: before version {OLDEST_WITH_GET} a write whose reply is lost can't be recognised "
            "and is answered 503"
        )
    if not fenced:
        warnings.append(
            f"{address}: the server hides its run_id, so a restart with older data and a failover that lose "
            "entries go unnoticed"
        )
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


def warn_of_findings(fence: Fence, notices: Notices, now: float) -> None:
    """Warn if a batch has shown that the server evicts entries, or that a worker's clock is wrong."""
    if fence.vitals.is_evicting:
        notices.warn(
            "the replay store's server evicts keys, and with them used proofs: requests are refused "
            "until it stops; give it more memory and maxmemory-policy noeviction (on_evictions='accept' "
            "lets used proofs pass again instead)",
            again_after=60,
        )
    if fence.too_far_ahead is not None:
        notices.warn(
            f"another worker dated a loss of entries {fence.too_far_ahead:.0f} s ahead of this "
            f"worker's clock, which shows {now:.0f}: one of the two clocks is wrong; correct it",
            again_after=60,
            level=logging.ERROR,
            topic="a wrong clock",
        )


def warn_of_loss(notices: Notices) -> None:
    """Say, when a proof is refused for it, what may have made the server lose entries."""
    notices.warn(
        "the replay store's server may have lost entries: it restarted, was flushed or replaced, evicted "
        "keys, took slots over without their data, its clock was set forward, or it was started after this "
        "worker (or is new to it, with new_server='wait'): older proofs are refused for as long as "
        "Retry-After says",
        again_after=60,
    )


def heed_refusals(replies: Iterable[object], fence: Fence, notices: Notices) -> None:
    """Do without scripts from now on, if the `replies` to writes of anchors say that they aren't allowed."""
    if any(isinstance(reply, ServerError) and reply.code == FORBIDDEN for reply in replies):
        fence.with_script = False
        warn_of_refused("EVAL", notices)


def warn_of_refused(name: str, notices: Notices) -> None:
    """Warn that the user may not send the command `name`."""
    notices.warn(f"the user may not {name}: {_WITHOUT[name]}")


def cause(error: BaseException) -> str:
    """What prevented the use of a server, in a few words; of the server's own words only the error code."""
    if isinstance(error, ServerUnfit):
        return str(error)
    if isinstance(error, ServerError) and error.code.isidentifier():
        return error.code
    reason = _reason(error)
    if reason is None:
        return type(error).__name__
    return f"{type(error).__name__}: {type(reason).__name__}: {plain(str(reason))}"


def likely_cause(error: str) -> str:
    """What the name of an `error` of `NodeHealth` may mean; empty where it says enough."""
    return _LIKELY_CAUSES.get(error, "")


def _reason(error: BaseException) -> OSError | None:
    """Return the operating system's or TLS's error that redis-py turned into `error`, and quotes there.

    Any other may be a credential provider's, with a secret in its words, or the application's.
    """
    reason = error.__cause__ if error.__suppress_context__ else error.__context__
    if type(error) is not RedisConnectionError or not isinstance(reason, OSError):
        return None
    words = str(reason.args[-1]) if reason.args else ""
    return reason if words and words in str(error) else None


def require_fit(health: NodeHealth, settings: Settings) -> None:
    """Raise `ServerUnfit` for a server that can't be written to, or must not be with `strict`."""
    if health.role not in {"", "master"}:
        raise ServerUnfit("the server is a replica")
    if settings.strict and health.maxmemory_policy != "noeviction":
        raise ServerUnfit("the server's maxmemory-policy is not known to be noeviction")


async def try_out(connection: Connection, health: NodeHealth, settings: Settings, tag: bytes) -> NodeHealth:
    """Write a key for one second, as entries are written; return the health with the result.

    `tag` is as in `probe_name`. Raises the server's error, and `ServerUnfit` if too few replicas confirm.
    """
    name = probe_name(settings.prefix.encode(), secrets.token_hex(4).encode(), tag)
    await connection.ask(command(b"SET", name, b"1", b"NX", b"PX", b"1000"))
    if settings.wait_replicas:
        milliseconds = int(settings.timeout / 2 * 1000) or 1
        confirmed = await connection.ask(
            command(b"WAIT", b"%d" % settings.wait_replicas, b"%d" % milliseconds)
        )
        if not isinstance(confirmed, int) or confirmed < settings.wait_replicas:
            raise ServerUnfit("too few replicas confirm what is written")
    for word, question in (("GET", command(b"GET", name)), ("TIME", TIME)):
        if health.fenced and await _may_not_ask(connection, question):
            health = _without(word, health)
    return health


async def _may_not_ask(connection: Connection, question: bytes) -> bool:
    try:
        await connection.ask(question)
    except ServerError as error:
        if error.code != FORBIDDEN:
            raise
        return True
    return False


def _without(name: str, health: NodeHealth) -> NodeHealth:
    sentence = f"{health.address}: the user may not {name}: {_WITHOUT[name]}"
    return replace(health, fenced=name != "GET", warnings=(*health.warnings, sentence))
