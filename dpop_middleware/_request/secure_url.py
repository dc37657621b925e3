"""Which URLs may be trusted: https, and http only on this machine or for hosts that were named.

The issuer, its metadata and its keys decide which requests are accepted, so they must not be sent in the
clear (RFC 8414 section 6.2, RFC 9728 section 7.1).
"""

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from dpop_middleware._options import refused
from dpop_middleware._request.uri import BaseURL, URIError, normalize, parse_base_url
from dpop_middleware.errors import ConfigurationError

__all__ = [
    "Endpoint",
    "checked_endpoint",
    "checked_hosts",
    "checked_url",
    "is_loopback",
    "is_this_machine",
    "shown_url",
]

_NAME = re.compile(r"[A-Za-z0-9._-]+")
# From where the user information may begin, also where slashes are missing or too many, to the last @.
_USER = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*+:(?=/))?+/*+).*@", re.DOTALL)
# Not the two slashes after the scheme.
_EMPTY_SEGMENTS = re.compile(r"(?<![:/])/{2,}")
_NUMBERS = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}")


def is_loopback(host: str) -> bool:
    """Return whether `host` (a name, or an address without brackets) is this machine itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_this_machine(host: str) -> bool:
    """Return whether `host` leads to this machine: loopback in any spelling, `*.localhost`, the address 0.

    It is wider than `is_loopback`, which says what may be trusted: this says what a document of another party
    must not name. Not checked: whether a name resolves to this machine.
    """
    name = host.lower().removesuffix(".")
    if is_loopback(name) or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        # inet_aton's spellings (127.1, 2130706433, 0x7f.1), which a resolver may read as an address.
        return _NUMBERS.fullmatch(name) is not None
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def checked_hosts(hosts: object) -> frozenset[str]:
    """Return the option `insecure_http_hosts` as a set of lower-case host names.

    Raises ConfigurationError for anything but a collection of host names (no scheme, no port).
    """
    if isinstance(hosts, (str, Mapping)) or not isinstance(hosts, Collection):
        raise refused("insecure_http_hosts", "a sequence of host names, such as ('auth',)", hosts)
    return frozenset(_host(host) for host in hosts)


def _host(host: object) -> str:
    if isinstance(host, str) and _NAME.fullmatch(host):
        return host.lower()
    try:
        return ipaddress.IPv6Address(str(host).removeprefix("[").removesuffix("]")).compressed
    except ValueError as error:
        raise refused("insecure_http_hosts", "hosts without scheme and port, such as 'auth'", host) from error


def shown_url(url: str) -> str:
    """Return `url` in quotes for a message, with dots in place of what may be user information."""
    user = _USER.match(url)
    return repr(url if user is None else f"{user[1]}...@{url[user.end() :]}")


def checked_url(name: str, url: object, *, insecure_http_hosts: Collection[str]) -> BaseURL:
    """Parse the absolute URL `url` and refuse one whose responses could be forged in transit.

    - `name`: the option or metadata member that holds the URL, for the message.
    - `url`: an https URL without user, query and fragment. An http URL is accepted for `localhost`,
      127.0.0.0/8, `::1`, and the hosts in `insecure_http_hosts`.

    Raises ConfigurationError with one sentence that says what to do. Not checked: whether a server answers at
    the URL.
    """
    hosts = checked_hosts(insecure_http_hosts)
    if not isinstance(url, str):
        raise refused(name, "an https URL as a string", url)
    try:
        base = parse_base_url(url)
    except URIError as error:
        raise ConfigurationError(
            f"{name} takes an https URL without user, query and fragment, not {shown_url(url)}: {error}"
        ) from error
    if base.scheme == "https" or is_loopback(base.host) or base.host in hosts:
        return base
    raise ConfigurationError(
        f"{name} takes an https URL, not {url!r}: to use plain http anyway, "
        f"name its host in insecure_http_hosts=({base.host!r},)"
    )


class Endpoint(NamedTuple):
    """Where a document is: the host to connect to and the target to request, which is path and query."""

    url: str
    secure: bool
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[bool, str, int]:
        """Whether it is https, the host and the port: equal for all URLs of one origin."""
        return (self.secure, self.host, self.port)


def checked_endpoint(name: str, url: object, *, insecure_http_hosts: Collection[str]) -> Endpoint:
    """Parse the URL of a document; `name` is the option or member that holds it, for the message.

    It may have a query. Otherwise it is judged as in `checked_url`, and ConfigurationError is raised.
    """
    if not isinstance(url, str):
        raise refused(name, "an https URL as a string", url)
    base_url, mark, query = url.partition("?")
    # Empty segments are legal, and some issuers write them; they matter only in the target.
    base = checked_url(name, _EMPTY_SEGMENTS.sub("/", base_url), insecure_http_hosts=insecure_http_hosts)
    if not all("!" <= character <= "~" and character != "#" for character in query):
        raise ConfigurationError(f"{name} has an illegal character in its query: percent-encode it")
    port = base.authority.rpartition("]")[2].partition(":")[2]
    secure = base.scheme == "https"
    return Endpoint(
        url=url,
        secure=secure,
        host=base.host,
        port=int(port) if port else (443 if secure else 80),
        # The path of a base URL has lost its last slash, which counts here.
        target=normalize(base_url).removeprefix(base.origin) + mark + query,
    )
