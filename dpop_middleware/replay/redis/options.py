"""The options of a Redis replay store: checked once, shared by all of its parts.

The security of the connection is checked here too: an attacker who answers instead of the server decides
which proofs count as used.
"""

import logging
import math
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict, get_args

from redis.asyncio.connection import AbstractConnection, SSLConnection

from dpop_middleware._options import choice, flag, listener, refused, seconds, whole_number
from dpop_middleware._request.secure_url import is_loopback
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay.redis.clocks import Moments
from dpop_middleware.replay.redis.endpoints import Address, AnyEndpoint, SentinelMaster, Standalone
from dpop_middleware.replay.redis.fence import NewServer
from dpop_middleware.replay.redis.retention import LivingRetentions
from dpop_middleware.replay.store import ExchangeSink, StoreExchange

__all__ = ["Notices", "OnEvictions", "OnUnavailable", "Options", "Settings", "check_transport"]

OnUnavailable = Literal["refuse", "local"]
OnEvictions = Literal["refuse", "accept"]

_LOG = logging.getLogger("dpop_middleware.replay")


class Notices:
    """Warnings that are logged from time to time, not for each request."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def warn(
        self,
        sentence: str,
        *,
        again_after: float = math.inf,
        level: int = logging.WARNING,
        topic: str | None = None,
    ) -> None:
        """Log `sentence` as a warning, unless it was logged in the last `again_after` seconds.

        By default it is logged once, which fits a state that lasts until somebody changes it. For a state
        that comes and goes, such as an outage, give the seconds after which to log it again. Sentences that
        differ each time, and say the same, have a `topic`, which counts in their place.
        """
        now, said = self._clock(), topic or sentence
        with self._lock:
            if now - self._said.get(said, -math.inf) < again_after:
                return
            self._said[said] = now
        _LOG.log(level, sentence)


class Options(TypedDict, total=False):
    """The options of `RedisReplayStore`, which describes each of them; `Settings` has the defaults."""

    prefix: str
    timeout: float
    max_waiting: int
    wait_replicas: int
    strict: bool
    new_server: NewServer
    on_unavailable: OnUnavailable
    unverified_tls: bool
    on_evictions: OnEvictions
    on_exchange: ExchangeSink | None
    retention: float


_LONGEST_RETENTION = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a store, and what its parts share; raises `ConfigurationError` for unusable ones.

    `moments` tell how long ago the store was created: a server that started later is recognised by that.
    """

    prefix: str = "dpop"
    timeout: float = 0.25
    max_waiting: int = 10_000
    wait_replicas: int = 0
    strict: bool = False
    new_server: NewServer = "accept"
    on_unavailable: OnUnavailable = "refuse"
    unverified_tls: bool = False
    on_evictions: OnEvictions = "refuse"
    on_exchange: ExchangeSink | None = None
    retention: float = 0.0
    notices: Notices = field(init=False, default_factory=Notices)
    living: LivingRetentions = field(init=False, default_factory=LivingRetentions)
    moments: Moments = field(init=False, default_factory=Moments)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The settings that `options` name; raises `ConfigurationError` for an unknown option too."""
        for name in options:
            if name not in Options.__annotations__:
                known = ", ".join(Options.__annotations__)
                raise ConfigurationError(f"RedisReplayStore takes the options {known}, not {name}")
        return cls(**options)

    def __post_init__(self) -> None:
        _check_prefix(self.prefix)
        _check_timeout(self.timeout)
        whole_number("max_waiting", self.max_waiting, minimum=1, of=" of requests")
        whole_number("wait_replicas", self.wait_replicas, of=" of replicas")
        flag("strict", self.strict)
        flag("unverified_tls", self.unverified_tls)
        choice("new_server", self.new_server, get_args(NewServer))
        choice("on_unavailable", self.on_unavailable, get_args(OnUnavailable))
        choice("on_evictions", self.on_evictions, get_args(OnEvictions))
        listener("on_exchange", self.on_exchange)
        seconds("retention", self.retention, minimum=0, maximum=_LONGEST_RETENTION)

    def report(self, exchange: StoreExchange) -> None:
        """Report an exchange to `on_exchange`; an exception that it raises is logged and changes nothing."""
        if self.on_exchange is None:
            return
        try:
            self.on_exchange(exchange)
        except Exception as error:  # noqa: BLE001 - a faulty listener must not decide who gets in
            self.notices.warn(f"on_exchange raised {type(error).__name__}", again_after=60)


def _check_prefix(prefix: object) -> None:
    if not isinstance(prefix, str) or not prefix:
        raise refused("prefix", "a name that is not empty, such as 'dpop'", prefix)
    if "{" in prefix or "}" in prefix:
        takes = "a name without braces, since a hash tag would put every entry on one node of a cluster"
        raise refused("prefix", takes, prefix)
    if not prefix.isprintable() or " " in prefix:
        raise refused("prefix", "a name without spaces and control characters", prefix)
    if prefix.endswith(":"):
        raise refused(
            "prefix", "a name that doesn't end in a colon, since the store puts one after it", prefix
        )


def _check_timeout(value: object) -> None:
    takes = "a finite number of seconds above 0, such as 0.25"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused("timeout", takes, value)
    # No NaN is within these bounds, and no integer that is too large for a float.
    if not 0 < value <= sys.float_info.max:
        raise refused("timeout", takes, value)


_ANY_TIMEOUT = 1.0


def check_transport(endpoint: AnyEndpoint, settings: Settings) -> None:
    """Refuse TLS that verifies nothing, unless `unverified_tls` allows it; warn of a password in the clear.

    Raises `ConfigurationError`.
    """
    for connection in _connections(endpoint):
        if not isinstance(connection, SSLConnection):
            continue
        context = connection.ssl_context.get()
        verified = context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
        if not verified and not settings.unverified_tls:
            raise ConfigurationError(
                "the replay store's TLS verifies no certificate or no host name (ssl_cert_reqs, "
                "ssl_check_hostname), so anybody on the way could answer for the server: give the CA with "
                "ssl_ca_certs, or accept that with unverified_tls=True"
            )
    hosts = sorted({host for host, _ in _plain_addresses(endpoint) if not is_loopback(host)})
    if hosts and _has_password(endpoint):
        settings.notices.warn(
            f"the replay store sends its password in the clear to {', '.join(map(ascii, hosts))}: use rediss://"
        )


def _connections(endpoint: AnyEndpoint) -> Iterator[AbstractConnection]:
    yield endpoint.connection(_ANY_TIMEOUT)
    if isinstance(endpoint, SentinelMaster):
        yield endpoint.sentinel_connection(_ANY_TIMEOUT, endpoint.addresses[0])


def _plain_addresses(endpoint: AnyEndpoint) -> Iterator[Address]:
    """The addresses to which the store connects without TLS; a Unix socket has none."""
    if issubclass(endpoint.connection_class, SSLConnection) or "path" in endpoint.options:
        return
    if isinstance(endpoint, Standalone):
        yield str(endpoint.options.get("host", "localhost")), 0
    else:
        yield from endpoint.addresses


def _has_password(endpoint: AnyEndpoint) -> bool:
    of_sentinels = endpoint.sentinel_options if isinstance(endpoint, SentinelMaster) else {}
    return bool(endpoint.options.get("password") or of_sentinels.get("password"))
