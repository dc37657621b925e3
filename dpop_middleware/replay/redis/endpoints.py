"""Where a store's servers are and how to connect to them, read once from a client or a URL."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as PlainConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff

from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay.redis.connection import Connect, Connection, ask, first_answer, opened
from dpop_middleware.replay.redis.resp import ServerUnfit
from dpop_middleware.replay.redis.url import OF_SENTINELS, Address, parse_store_url, shown

__all__ = [
    "Address",
    "AnyEndpoint",
    "ClusterNodes",
    "SentinelMaster",
    "Standalone",
    "endpoint_of_client",
    "endpoint_of_url",
]

# Options of a pool or a cluster client, not of a connection; or tied to the pool, loop or retries of its
# owner.
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
# Options of pools and retries in a URL: the store's single connection has neither.
OF_POOLS = frozenset({"max_connections", "health_check_interval", "retry_on_timeout"})
CONNECTION_CLASSES: Mapping[str, type[AbstractConnection]] = {
    "redis": PlainConnection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}
# The errors of redis-py for options that it doesn't know, and for files that it can't read.
UNUSABLE = (ValueError, TypeError, AttributeError, OSError, redis.RedisError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How to connect: `options` are for the redis-py class."""

    connection_class: type[AbstractConnection]
    options: Mapping[str, Any] = field(repr=False)

    def connection(self, timeout: float, address: Address | None = None) -> AbstractConnection:
        """A connection, not yet connected, to the server or to `address`; `timeout` in seconds."""
        return _connection(self.connection_class, self.options, timeout, address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone(Endpoint):
    """One server, whose address is among the options."""

    @property
    def name(self) -> str:
        """For the log."""
        options = self.options
        return options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"

    async def connect(self, timeout: float) -> Connection:
        """An open connection, within `timeout` seconds."""
        return await opened(self.connection(timeout))


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelMaster(Endpoint):
    """The master that the Sentinels at `addresses` name: they are asked at each new connection.

    `service` is their name for it, `sentinel_options` say how to connect to them.
    """

    addresses: tuple[Address, ...]
    service: str
    sentinel_class: type[AbstractConnection] = PlainConnection
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """For the log."""
        return f"sentinel {self.service}"

    def sentinel_connection(self, timeout: float, address: Address) -> AbstractConnection:
        """A connection, not yet connected, to one Sentinel; `timeout` in seconds."""
        return _connection(self.sentinel_class, self.sentinel_options, timeout, address)

    async def connect(self, timeout: float) -> Connection:
        """An open connection to the current master, within `timeout` seconds for each step."""
        # The nearest may hang, or have missed a failover.
        address = await first_answer((self._master(one, timeout) for one in self.addresses), of_most=True)
        return await opened(self.connection(timeout, address))

    async def _master(self, sentinel: Address, timeout: float) -> Address | None:
        async def connect(timeout: float) -> Connection:
            return await opened(self.sentinel_connection(timeout, sentinel))

        reply = await ask(connect, timeout, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.service.encode())
        match reply:
            case [bytes(host), bytes(port)] if port.isdigit():
                return host.decode(), int(port)
            case _:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNodes(Endpoint):
    """A cluster, of which nodes at `addresses` are known; `remap` translates what the cluster announces."""

    addresses: tuple[Address, ...]
    remap: Callable[[Address], Address] | None = None

    @property
    def name(self) -> str:
        """For the log."""
        return "cluster"

    def at(self, address: Address) -> Connect:
        """A function that connects to the node at `address` within the given seconds."""

        async def connect(timeout: float) -> Connection:
            return await opened(self.connection(timeout, address))

        return connect

    def announced(self, address: Address) -> Address:
        """The address of the node that the cluster calls `address`; raises `ServerUnfit` if `remap` fails."""
        try:
            host, port = address if self.remap is None else self.remap(address)
            return str(host), int(port)
        except Exception as error:
            # The user's function may raise anything.
            raise ServerUnfit("address_remap names no address for a node of the cluster") from error


AnyEndpoint = Standalone | SentinelMaster | ClusterNodes


def _connection(
    made: type[AbstractConnection], options: Mapping[str, Any], timeout: float, address: Address | None
) -> AbstractConnection:
    arguments: dict[str, Any] = {
        **options,
        "retry": Retry(NoBackoff(), 0),
        # The writer has one deadline for each batch: the connection's own would cost a timer for each reply.
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "health_check_interval": 0,
    }
    if address is not None:
        arguments["host"], arguments["port"] = address
    return made(**arguments)


def endpoint_of_client(client: object) -> AnyEndpoint:
    """The endpoint of a `redis.asyncio` client; raises `ConfigurationError` for anything else.

    Only the client's settings are used, never its connections: those belong to one event loop.
    """
    if isinstance(client, RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        return ClusterNodes(
            connection_class=client.connection_kwargs["connection_class"],
            options=_own(client.connection_kwargs),
            addresses=tuple((node.host, int(node.port)) for node in nodes),
            remap=client.nodes_manager.address_remap,
        )
    if isinstance(client, Redis):
        return _endpoint_of_pool(client.connection_pool)
    if isinstance(client, redis.Redis | redis.RedisCluster):
        raise ConfigurationError(
            "RedisReplayStore needs an asynchronous client: use redis.asyncio.Redis or "
            "redis.asyncio.RedisCluster, or RedisReplayStore.from_url"
        )
    if isinstance(client, Sentinel):
        raise ConfigurationError("pass the client of the master: sentinel.master_for('service-name')")
    if isinstance(client, str):
        raise ConfigurationError("a URL belongs in RedisReplayStore.from_url")
    takes = "a client of redis.asyncio: Redis, Sentinel.master_for() or RedisCluster"
    raise ConfigurationError(f"RedisReplayStore takes {takes}, not a {type(client).__name__}")


def _endpoint_of_pool(pool: Any) -> AnyEndpoint:
    if not isinstance(pool, SentinelConnectionPool):
        return Standalone(connection_class=pool.connection_class, options=_own(pool.connection_kwargs))
    if not pool.is_master:
        raise ConfigurationError("a replica can't be written to: use sentinel.master_for('service-name')")
    sentinels = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    options = _own(pool.connection_kwargs)
    return SentinelMaster(
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
    """The class without the part that asks the Sentinels through the pool: the store itself asks them."""
    if not issubclass(managed, SentinelManagedConnection):
        return managed
    return SSLConnection if issubclass(managed, SSLConnection) else PlainConnection


def _own(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that describe a connection, without what belongs to the pool that made it."""
    return {
        name: value
        for name, value in options.items()
        # Maintenance notifications work through the pool, and cost a round trip for each connection.
        if name not in FOREIGN_OPTIONS and "maint" not in name and not name.startswith("orig_")
    }


def endpoint_of_url(url: object) -> AnyEndpoint:
    """The endpoint that a URL names; raises `ConfigurationError` when it can't be used.

    `redis://` and `rediss://` (TLS), also spelled `valkey://` and `valkeys://`, `unix://`,
    `redis+sentinel://host:port,host:port/service/db` and `redis+cluster://host:port,host:port`, the last two
    with `rediss` too; user, password and redis-py's query options as in redis-py, except its timeouts.
    Options of pools and retries have no effect here. `sentinel_username` and `sentinel_password` are for the
    Sentinels.
    """
    parsed = parse_store_url(url)
    options = {name: value for name, value in parsed.options.items() if name not in OF_POOLS}
    connection_class = CONNECTION_CLASSES[parsed.scheme]
    if connection_class is SSLConnection:
        # As in newer versions of redis-py: where no certificate is required, no host name is checked.
        options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs") != "none")
    if parsed.sentinel_options and parsed.deployment != "sentinel":
        raise ConfigurationError("options that begin with sentinel_ belong in a redis+sentinel:// URL")
    for name, value in options.items():
        _check(connection_class, name, value, shown(name, parsed.query))
    for name, value in parsed.sentinel_options.items():
        _check(connection_class, name, value, shown(OF_SENTINELS + name, parsed.query))
    try:
        connection = _connection(connection_class, options, math.inf, None)
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
    except UNUSABLE as error:
        raise ConfigurationError(
            "the URL of the replay store has options that don't go together, or names a file that holds no "
            "certificate or key in PEM form"
        ) from error
    secure = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if parsed.deployment == "standalone":
        return Standalone(connection_class=connection_class, options=options)
    if parsed.deployment == "cluster":
        return ClusterNodes(connection_class=connection_class, options=options, addresses=parsed.addresses)
    return SentinelMaster(
        connection_class=connection_class,
        options=options,
        addresses=parsed.addresses,
        service=parsed.service,
        sentinel_class=connection_class,
        sentinel_options=_of_sentinels(secure, parsed.sentinel_options),
    )


def _of_sentinels(secure: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The Sentinels' options: TLS as for the servers, except for options of their own."""
    unverified = {"ssl_check_hostname": False} if own.get("ssl_cert_reqs") == "none" else {}
    return {**secure, **unverified, **own}


def _check(checked: type[AbstractConnection], name: str, value: Any, called: str) -> None:
    try:
        checked(**{name: value})
    except UNUSABLE:
        # The cause could quote what `called` leaves out.
        raise ConfigurationError(
            f"the URL of the replay store has an option that can't be used: {called}"
        ) from None
