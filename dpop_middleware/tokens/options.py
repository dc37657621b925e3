"""Checks of what a verifier is configured with; each message says what to change."""

import logging
import math
from collections.abc import Callable, Collection, Iterable
from typing import Final

from dpop_middleware.errors import ConfigurationError

__all__ = [
    "LONGEST_CLOCK_SKEW",
    "TOKEN_CLOCK_SKEW",
    "checked_clock",
    "checked_count",
    "checked_names",
    "checked_seconds",
    "checked_token_types",
    "warn_of_plain_http",
]

TOKEN_CLOCK_SKEW: Final = 15.0
"""Seconds by which the clocks of issuer and verifier may differ, where nothing else is said."""

LONGEST_CLOCK_SKEW: Final = 300.0
"""The most that a verifier may allow; after that a resource server refuses the token by itself."""

_LOG = logging.getLogger("dpop_middleware")


def checked_names(option: str, value: object) -> tuple[str, ...]:
    """Return `value` as a tuple of at least one non-empty string, or raise ConfigurationError."""
    names = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else None
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"{option} takes a sequence of non-empty strings, not {value!r}")
    return names


def checked_seconds(option: str, value: object, *, minimum: float, maximum: float = math.inf) -> float:
    """Return `value` if it is a finite number within the bounds, or raise ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigurationError(f"{option} takes a finite number of seconds, not {value!r}")
    if not minimum <= value <= maximum:
        raise ConfigurationError(
            f"{option} must be at least {minimum:g} and at most {maximum:g} seconds, not {value!r}"
        )
    return value


def checked_clock(clock: Callable[[], float]) -> Callable[[], float]:
    """Return the option `clock` if it can be called, or raise ConfigurationError."""
    if not callable(clock):
        raise ConfigurationError("clock takes a function that returns seconds since the epoch: time.time")
    return clock


def checked_count(option: str, value: object) -> int:
    """Return `value` if it is a whole number of at least 0, or raise ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{option} takes a whole number of at least 0, not {value!r}")
    return value


def checked_token_types(types: object) -> tuple[str | None, ...]:
    """Return the option `token_types` in lower case, or raise ConfigurationError."""
    if (
        isinstance(types, str)
        or not isinstance(types, Collection)
        or not types
        or not all(name is None or (isinstance(name, str) and name and name.isascii()) for name in types)
    ):
        raise ConfigurationError(
            "token_types takes the accepted values of typ, such as ('at+jwt', 'JWT', None), None for no typ"
        )
    return tuple(None if name is None else name.lower() for name in types)


def warn_of_plain_http(hosts: Collection[str]) -> None:
    """Name in the log what the option `insecure_http_hosts` allows; nothing where it is empty."""
    if hosts:
        _LOG.warning("plain http is allowed for these hosts: %s", ", ".join(sorted(hosts)))
