"""The header fields of a request for a document, and to whom those of the configuration are sent."""

import re
from collections.abc import Mapping
from typing import Final

from dpop_middleware.errors import ConfigurationError

__all__ = ["FetchHeaders", "checked_headers"]

_USUAL: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "dpop_middleware",
}
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")
# What says how the message is framed, where it goes or how it is encoded is not for others to say.
_OURS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def checked_headers(value: object) -> dict[str, str]:
    """Return the option `jwks_headers`; raises ConfigurationError, which never shows a value."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError("jwks_headers takes a mapping of header fields, such as {'X-Api-Key': key}")
    for name, content in value.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _OURS:
            raise ConfigurationError(f"jwks_headers can't hold a header field {name!r}")
        if not isinstance(content, str) or not _VALUE.fullmatch(content):
            raise ConfigurationError(f"jwks_headers takes printable ASCII as the value of {name}")
    return dict(value)


class FetchHeaders:
    """The usual fields, and `added` ones, which go to one origin only: they may be secrets."""

    def __init__(self, added: Mapping[str, str], *, origin: tuple[bool, str, int] | None = None) -> None:
        replaced = {name.lower() for name in added}
        kept = {name: value for name, value in _USUAL.items() if name.lower() not in replaced}
        self._added = kept | dict(added)
        self._origin = origin

    def to(self, origin: tuple[bool, str, int]) -> dict[str, str]:
        """Return the fields of a request to `origin`."""
        return self._added if origin == self._origin else _USUAL
