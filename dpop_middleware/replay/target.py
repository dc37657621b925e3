"""Where a store's server is and how to connect to it, read once from a client or a URL."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import redis
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff

from dpop_middleware.errors import ConfigurationError

__all__ = ["Address", "Target", "target_of_client", "target_of_url"]

Address = tuple[str, int]
Kind = Literal["standalone", "sentinel", "cluster"]

SCHEMES: Mapping[str, tuple[str, Kind]] = {
    "redis": ("redis", "standalone"),
    "rediss": ("rediss", "standalone"),
    "valkey": ("redis", "standalone"),
    "valkeys": ("rediss", "standalone"),
    "unix": ("unix", "standalone"),
    "redis+sentinel": ("redis", "sentinel"),
    "rediss+sentinel": ("rediss", "sentinel"),
    "redis+cluster": ("redis", "cluster"),
    "rediss+cluster": ("rediss", "cluster"),
}
DEFAULT_PORTS: Mapping[Kind, int] = {"standalone": 6379, "sentinel": 26379, "cluster": 6379}
# Of a pool or a cluster client, not of a connection; or tied to the pool, loop or retries of its owner.
FOREIGN_OPTIONS = frozenset(
    {
        "connection_pool",
        "connection_class",
        "max_connections",
        "response_callbacks",
        "retry",
        "retry_on_error",
        "retry_on_timeout",
        "health_check_interval",
        "socket_timeout",
        "socket_connect_timeout",
        "redis_connect_func",
        "event_dispatcher",
        "timeout",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One standalone server, the master behind some Sentinels, or a cluster.

    `options` are those of the redis-py connection class. `addresses` are the Sentinels or the cluster's
    startup nodes; a standalone server's address is among the options. `service` is the Sentinels' name for
    the master, `sentinel_options` how to connect to them. `remap` translates addresses that the cluster
    announces.
    """

    kind: Kind
    connection_class: type[AbstractConnection]
    options: Mapping[str, Any]
    addresses: tuple[Address, ...] = ()
    service: str = ""
    sentinel_class: type[AbstractConnection] = Connection
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)
    remap: Callable[[Address], Address] | None = None

    def connection(self, timeout: float, address: Address | None = None) -> AbstractConnection:
        """A connection, not yet connected, to the server or to `address`; `timeout` in seconds."""
        return _connection(self.connection_class, self.options, timeout, address)

    def sentinel_connection(self, timeout: float, address: Address) -> AbstractConnection:
        """A connection, not yet connected, to one Sentinel; `timeout` in seconds."""
        return _connection(self.sentinel_class, self.sentinel_options, timeout, address)


def _connection(
    kind: type[AbstractConnection], options: Mapping[str, Any], timeout: float, address: Address | None
) -> AbstractConnection:
    arguments: dict[str, Any] = {
        **options,
        "retry": Retry(NoBackoff(), 0),
        # Deadlines are the link's, one for a batch: the connection's own would cost a timer for each reply.
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "health_check_interval": 0,
    }
    if address is not None:
        arguments["host"], arguments["port"] = address
    return kind(**arguments)


def target_of_client(client: object) -> Target:
    """The target of a `redis.asyncio` client; raises `ConfigurationError` for anything else.

    Only the client's settings are used, never its connections: those belong to one event loop.
    """
    if isinstance(client, RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        return Target(
            kind="cluster",
            connection_class=client.connection_kwargs["connection_class"],
            options=_own(client.connection_kwargs),
            addresses=tuple((node.host, int(node.port)) for node in nodes),
            remap=client.nodes_manager.address_remap,
        )
    if isinstance(client, Redis):
        return _target_of_pool(client.connection_pool)
    if isinstance(client, redis.Redis | redis.RedisCluster):
        raise ConfigurationError(
            "RedisReplayStore needs an asynchronous client: use redis.asyncio.Redis or "
            "redis.asyncio.RedisCluster, or RedisReplayStore.from_url"
        )
    if isinstance(client, Sentinel):
        raise ConfigurationError("pass the client of the master: sentinel.master_for('service-name')")
    if isinstance(client, str):
        raise ConfigurationError("a URL belongs in RedisReplayStore.from_url")
    raise ConfigurationError(
        "RedisReplayStore needs a client of redis.asyncio: Redis, Sentinel.master_for() or RedisCluster"
    )


def _target_of_pool(pool: Any) -> Target:
    if not isinstance(pool, SentinelConnectionPool):
        return Target(
            kind="standalone", connection_class=pool.connection_class, options=_own(pool.connection_kwargs)
        )
    if not pool.is_master:
        raise ConfigurationError("a replica can't be written to: use sentinel.master_for('service-name')")
    sentinels = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    options = _own(pool.connection_kwargs)
    return Target(
        kind="sentinel",
        connection_class=_plain_class(pool.connection_class),
        options=options,
        addresses=tuple(
            (sentinel.connection_kwargs["host"], int(sentinel.connection_kwargs["port"]))
            for sentinel in sentinels
        ),
        service=pool.service_name,
        sentinel_class=sentinels[0].connection_class,
        sentinel_options=_own(sentinels[0].connection_kwargs),
    )


def _plain_class(managed: type[AbstractConnection]) -> type[AbstractConnection]:
    """The class without the part that asks the Sentinels through the pool: we ask them ourselves."""
    if not issubclass(managed, SentinelManagedConnection):
        return managed
    return SSLConnection if issubclass(managed, SSLConnection) else Connection


def _own(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that describe a connection, without what belongs to the pool that made it."""
    return {
        name: value
        for name, value in options.items()
        # Maintenance notifications act through the pool, and cost a round trip at each connection.
        if name not in FOREIGN_OPTIONS and "maint" not in name and not name.startswith("orig_")
    }


def target_of_url(url: str) -> Target:
    """The target that a URL names; raises `ConfigurationError` when it can't be read.

    `redis://` and `rediss://` (TLS), `unix://`, `redis+sentinel://host:port,host:port/service/db` and
    `redis+cluster://host:port,host:port`, the last two with `rediss` too; user, password and redis-py's
    query options as in redis-py. For Sentinels, `sentinel_username` and `sentinel_password` are theirs.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError("the URL of the replay store can't be read") from error
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(f"the scheme of the replay store's URL must be one of {', '.join(SCHEMES)}")
    scheme, kind = SCHEMES[parts.scheme]
    if kind == "standalone":
        return _parsed(kind, scheme + url[len(parts.scheme) :])
    userinfo, _, hosts = parts.netloc.rpartition("@")
    addresses = tuple(_address(host, DEFAULT_PORTS[kind]) for host in hosts.split(","))
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "cluster":
        if service not in {"", "0"}:
            raise ConfigurationError("a cluster has database 0 only: leave the path of its URL empty")
        service = ""
    elif not service:
        raise ConfigurationError("a Sentinel URL names the master: redis+sentinel://host:26379/service-name")
    sentinel_options = {
        name: query.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in query
    }
    netloc = f"{userinfo}@{_host(hosts)}" if userinfo else _host(hosts)
    target = _parsed(kind, urlunsplit((scheme, netloc, f"/{database}", urlencode(query), "")))
    secure = {name: value for name, value in target.options.items() if name.startswith("ssl_")}
    return Target(
        kind=kind,
        connection_class=target.connection_class,
        options=target.options,
        addresses=addresses,
        service=service,
        sentinel_class=target.connection_class,
        sentinel_options={**secure, **sentinel_options},
    )


def _parsed(kind: Kind, url: str) -> Target:
    try:
        options: dict[str, Any] = dict(parse_url(url))
        connection_class = options.get("connection_class", Connection)
        if connection_class is SSLConnection:
            # The default of newer versions of redis-py, and ours with any.
            options.setdefault("ssl_check_hostname", True)
        target = Target(kind=kind, connection_class=connection_class, options=_own(options))
        target.connection(math.inf)
    except (ValueError, TypeError, redis.RedisError) as error:
        raise ConfigurationError("the URL of the replay store has a part that can't be used") from error
    return target


def _host(hosts: str) -> str:
    return hosts.partition(",")[0]


def _address(text: str, default_port: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError("a host in the replay store's URL has a port that can't be read") from error
    if not host:
        raise ConfigurationError("the replay store's URL lacks a host")
    return host, default_port if port is None else port
