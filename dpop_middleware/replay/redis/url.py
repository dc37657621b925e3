"""A replay store's URL, read part by part.

An unusable part is named in the error, and no part is ignored silently. Messages quote no values except the
names of files: any other value that was misread may be a piece of a password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS

from dpop_middleware.errors import ConfigurationError

__all__ = ["OF_SENTINELS", "Address", "Deployment", "StoreURL", "parse_store_url", "shown"]

Address = tuple[str, int]
Deployment = Literal["standalone", "sentinel", "cluster"]

_SCHEMES: Final[Mapping[str, tuple[str, Deployment]]] = {
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
# Not urlsplit: how it reads several hosts, one of them an IPv6 address, depends on Python's version.
_URL: Final = re.compile(r"([A-Za-z+]+)://([^/?]*)([^?]*)(?:\?(.*))?", re.DOTALL)
_DEFAULT_PORTS: Final[Mapping[Deployment, int]] = {"standalone": 6379, "sentinel": 26379, "cluster": 6379}
OF_SENTINELS: Final = "sentinel_"
_DEADLINES: Final = ("timeout", "socket_timeout", "socket_connect_timeout")
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_UNLIKELY_IN_A_PASSWORD: Final = (OF_SENTINELS, "socket_", "ssl_")
_IN_A_PASSWORD: Final = "in a password write & / ? # @ % as %26 %2F %3F %23 %40 %25"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreURL:
    """The parts of a URL.

    `scheme` is redis-py's, `addresses` the hosts of Sentinels and clusters. `options` are those of the
    connections to the server, `sentinel_options` those that only the Sentinels get. `query` is the URL's own.
    """

    deployment: Deployment
    scheme: str
    addresses: tuple[Address, ...]
    service: str
    options: Mapping[str, Any] = field(repr=False)
    sentinel_options: Mapping[str, Any] = field(repr=False)
    query: str = field(repr=False)


def parse_store_url(url: object) -> StoreURL:
    """Read a URL; raises `ConfigurationError` that names the part which can't be used."""
    if not isinstance(url, str):
        raise ConfigurationError(
            f"from_url takes a URL as a string, such as redis://localhost:6379/0, not a {type(url).__name__}"
        )
    match = _URL.fullmatch(url.strip())
    if match is None or match[1].lower() not in _SCHEMES:
        raise ConfigurationError(f"the scheme of the replay store's URL must be one of {', '.join(_SCHEMES)}")
    if "#" in url:
        raise ConfigurationError(f"the URL of the replay store has a fragment; {_IN_A_PASSWORD}")
    parts = SplitResult(match[1].lower(), match[2], match[3], match[4] or "", "")
    scheme, deployment = _SCHEMES[parts.scheme]
    addresses: tuple[Address, ...] = ()
    service = ""
    located: dict[str, Any] = {"path": _socket_path(parts)} if scheme == "unix" else {}
    if not located:
        addresses = _addresses(parts, deployment)
        service, database = _service_and_database(parts.path, deployment)
        located = {"host": addresses[0][0], "port": addresses[0][1], **database}
    options = _query(parts.query, located | _user(parts))
    if options.get("db", 0) < 0:
        raise ConfigurationError("the database in the replay store's URL must be a number from 0")
    if deployment == "cluster" and options.get("db"):
        raise ConfigurationError("a cluster has database 0 only: leave it out of its URL")
    return StoreURL(
        deployment=deployment,
        scheme=scheme,
        addresses=() if deployment == "standalone" else addresses,
        service=service,
        options={name: value for name, value in options.items() if not name.startswith(OF_SENTINELS)},
        sentinel_options={
            name.removeprefix(OF_SENTINELS): value
            for name, value in options.items()
            if name.startswith(OF_SENTINELS)
        },
        query=parts.query,
    )


def _socket_path(parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2] or not path.strip("/"):
        raise ConfigurationError("a unix URL has three slashes and a path: unix:///run/valkey/valkey.sock")
    return path


def _addresses(parts: SplitResult, deployment: Deployment) -> tuple[Address, ...]:
    hosts = parts.netloc.rpartition("@")[2]
    if deployment != "standalone":
        return tuple(_address(host, _DEFAULT_PORTS[deployment]) for host in hosts.split(","))
    if "," in hosts:
        raise ConfigurationError("several hosts belong in a redis+sentinel:// or redis+cluster:// URL")
    return (_address(hosts or "localhost", _DEFAULT_PORTS[deployment]),)


def _address(text: str, default_port: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        # Here and below the cause is left out: it may quote a piece of a password.
        raise ConfigurationError(
            f"a host in the replay store's URL has brackets or a port that can't be read; {_IN_A_PASSWORD}"
        ) from None
    if not host:
        raise ConfigurationError("the replay store's URL lacks a host")
    if port == 0:
        raise ConfigurationError("the replay store's URL has port 0, on which no server can listen")
    return unquote(host), default_port if port is None else port


def _service_and_database(path: str, deployment: Deployment) -> tuple[str, dict[str, int]]:
    database = path.strip("/")
    service = ""
    if deployment == "sentinel":
        service, _, database = database.partition("/")
        if not service:
            raise ConfigurationError(
                "a Sentinel URL names the master: redis+sentinel://host:26379/service-name"
            )
    if not database:
        return unquote(service), {}
    if not database.isascii() or not database.isdecimal():
        raise ConfigurationError("the database in the replay store's URL must be a number, as in …/0")
    return unquote(service), {"db": int(database)}


def _user(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    given = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in given.items() if value}


def _query(text: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return `options` with those of the query."""
    for name, value in parse_qsl(text, keep_blank_values=True):
        plain = name.removeprefix(OF_SENTINELS)
        if plain in _DEADLINES:
            raise ConfigurationError(f"leave {name} out of the URL: the store has its own timeout=")
        if name in options:
            raise ConfigurationError(f"the URL of the replay store has an option twice: {shown(name, text)}")
        try:
            options[name] = URL_QUERY_ARGUMENT_PARSERS.get(plain, str)(value)
        except (TypeError, ValueError):
            raise ConfigurationError(f"the URL of the replay store has no usable value for {name}") from None
        if plain in _FILES and not Path(value).is_file():
            raise ConfigurationError(
                f"{name} in the replay store's URL names a file that isn't there: {value}"
            )
    return options


def shown(name: str, query: str) -> str:
    """How a message names an option: by its name, unless that may be the part of a password after an `&`."""
    suspicious = "password" in query or "@" in query
    is_harmless = name.startswith(_UNLIKELY_IN_A_PASSWORD) and name.isidentifier()
    if suspicious and not is_harmless:
        return f"one that is not named here, because it may be a piece of a password; {_IN_A_PASSWORD}"
    return name
