"""Whether what a store sends and receives can be read, or answered, by somebody on the way.

Whoever answers in the server's place decides which proofs were used before.
"""

import ssl
from collections.abc import Iterator

from redis.asyncio.connection import AbstractConnection, SSLConnection

from dpop_middleware._request.secure_url import is_loopback
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.replay.settings import Settings
from dpop_middleware.replay.target import Address, Target

__all__ = ["check_transport"]

_ANY_TIMEOUT = 1.0


def check_transport(target: Target, settings: Settings) -> None:
    """Refuse TLS that verifies nobody, unless `unverified_tls` asks for it; warn of a password in the clear.

    Raises `ConfigurationError`.
    """
    for connection in _connections(target):
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
    hosts = sorted({host for host, _ in _plain_addresses(target) if not is_loopback(host)})
    if hosts and _has_password(target):
        settings.notices.warn(
            f"the replay store sends its password in the clear to {', '.join(map(ascii, hosts))}: use rediss://"
        )


def _connections(target: Target) -> Iterator[AbstractConnection]:
    yield target.connection(_ANY_TIMEOUT)
    if target.kind == "sentinel":
        yield target.sentinel_connection(_ANY_TIMEOUT, target.addresses[0])


def _plain_addresses(target: Target) -> Iterator[Address]:
    """The addresses at which we connect without TLS; of a Unix socket there is none."""
    if not issubclass(target.connection_class, SSLConnection) and "path" not in target.options:
        yield from target.addresses or [(str(target.options.get("host", "localhost")), 0)]


def _has_password(target: Target) -> bool:
    return bool(target.options.get("password") or target.sentinel_options.get("password"))
