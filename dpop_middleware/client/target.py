"""What a proof, a nonce and a token know of a URL that a client is about to call."""

import re
from types import MappingProxyType
from typing import Final

from dpop_middleware._request.uri import parse_base_url

__all__ = ["origin_of", "percent_encoded", "target_of"]

# A WebSocket handshake is a GET at the http form of its address (RFC 6455 section 4.1).
_HTTP_SCHEME: Final = MappingProxyType({"http": "http", "https": "https", "ws": "http", "wss": "https"})
_URL: Final = re.compile(
    r"(https?|wss?)://(?:[^/?#@]*@)?([^/?#@]+)(/[^?#]*)?(?:[?#].*)?", re.ASCII | re.IGNORECASE
)
_ON_THE_WIRE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
# What no path may have unencoded (RFC 3986 section 3.3) and clients send as it is: \\ ^ | and others.
_NOT_IN_A_PATH: Final = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]|%(?![0-9A-Fa-f]{2})")


def percent_encoded(path: str) -> str:
    """Return `path`, one character for each octet, with all percent-encoded that a path can't have."""
    return _NOT_IN_A_PATH.sub(lambda found: f"%{ord(found[0]):02X}", path)


def target_of(url: str) -> str:
    """Return the value of `htu`: `url` without query, fragment and user information.

    What a path can't have is percent-encoded, as `DPoPAuth` sends it and browsers do. Raises ValueError for a
    URL that isn't absolute, http or https (ws, wss), and visible ASCII.
    """
    scheme, authority, path = _split(url)
    return f"{scheme}://{authority}{percent_encoded(path)}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of `url` in their one normal form (RFC 6454 section 4).

    Raises ValueError as `target_of` does.
    """
    scheme, authority, _ = _split(url)
    return parse_base_url(f"{scheme}://{authority}").origin


def _split(url: str) -> tuple[str, str, str]:
    match = _URL.fullmatch(url)
    if match is None or _ON_THE_WIRE.fullmatch(url) is None:
        raise ValueError("the URL must be absolute, http or https, and percent-encoded as it is sent")
    scheme, authority, path = match.groups()
    return _HTTP_SCHEME[scheme.lower()], authority, path or "/"
