"""Checks of what a verifier is configured with; each message says what to change."""

import logging
from collections.abc import Collection, Iterable
from typing import Final

from dpop_middleware._options import refused, seconds
from dpop_middleware.jose.compact import media_type

__all__ = [
    "LONGEST_CLOCK_SKEW",
    "TOKEN_CLOCK_SKEW",
    "audiences_of_all",
    "checked_clock_skew",
    "checked_token_types",
    "clock_skew_of",
    "warn_of_plain_http",
]

TOKEN_CLOCK_SKEW: Final = 15.0
"""Seconds by which the clocks of issuer and verifier may differ, where nothing else is said."""

LONGEST_CLOCK_SKEW: Final = 300.0
"""The most that a verifier may allow; after that a resource server refuses the token by itself."""

_LOG = logging.getLogger("dpop_middleware")


def checked_clock_skew(option: str, value: object) -> float:
    """Return the seconds that an option for a clock skew gives, or raise ConfigurationError."""
    return seconds(option, value, minimum=0, maximum=LONGEST_CLOCK_SKEW)


def clock_skew_of(verifier: object) -> float:
    """Return for how many seconds after its expiry `verifier` accepts a token: its `clock_skew`.

    One that tells none is taken to have the usual one. Raises ConfigurationError for what isn't 0 to 300
    seconds.
    """
    return checked_clock_skew("the verifier's clock_skew", getattr(verifier, "clock_skew", TOKEN_CLOCK_SKEW))


def audiences_of_all(verifiers: Iterable[object]) -> frozenset[str]:
    """Return the audiences that each of `verifiers` accepts; of one that tells none, none."""
    known = [frozenset(getattr(verifier, "audiences", ())) for verifier in verifiers]
    return frozenset.intersection(*known) if known else frozenset()


def checked_token_types(types: object) -> tuple[str | None, ...]:
    """Return the media types that the option `token_types` names, or raise ConfigurationError."""
    if (
        isinstance(types, str)
        or not isinstance(types, Collection)
        or not types
        or not all(name is None or (isinstance(name, str) and name and name.isascii()) for name in types)
    ):
        takes = "the accepted values of typ, such as ('at+jwt', 'JWT', None), None for no typ"
        raise refused("token_types", takes, types)
    return tuple(dict.fromkeys(media_type(name) for name in types))


def warn_of_plain_http(hosts: Collection[str]) -> None:
    """Name in the log what the option `insecure_http_hosts` allows; nothing where it is empty."""
    if hosts:
        _LOG.warning("plain http is allowed for these hosts: %s", ", ".join(sorted(hosts)))
