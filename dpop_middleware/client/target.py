"""What a proof, a nonce and a token know of a URL that a client is about to call."""

import re
from types import MappingProxyType
from typing import Final

from dpop_middleware._request.uri import parse_base_url

__all__ = ["origin_of", "target_of"]

# A WebSocket handshake is a GET at the http form of its address (RFC 6455 section 4.1).
_HTTP_SCHEME: Final = MappingProxyType({"http": "http", "https": "https", "ws": "http", "wss": "https"})
_URL: Final = re.compile(
    r"(https?|wss?)://(?:[^/?#@]*@)?([^/?#@]+)(/[^?#]*)?(?:[?#].*)?", re.ASCII | re.IGNORECASE
)
_ON_THE_WIRE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


def target_of(url: str) -> str:
    """Return the value of `htu`: `url` as it is sent, without query, fragment and user information.

    Raises ValueError for a URL that isn't absolute, http or https (ws, wss), and percent-encoded.
    """
    scheme, authority, path = _split(url)
    return f"{scheme}://{authority}{path}"


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
