"""Keeps the log readable and harmless: values are escaped and cut, lines and tracebacks are limited."""

import logging
import math
from collections.abc import Collection

__all__ = [
    "LOG",
    "RateLimit",
    "escaped",
    "info_is_seen",
    "named",
    "plain",
    "shown",
    "warn_of_idle_nonces",
    "warn_of_plain_http",
]

LOG = logging.getLogger("dpop_middleware")
_LINES_PER_SECOND = 10
_SECONDS_BETWEEN_TRACEBACKS = 60
_LONGEST_VALUE = 200
_LONGEST_SHOWN = 100
# Numbers up to this are the same for every JSON parser; neither NaN nor an infinity is among them.
_MOST_EXACT = 2**53


def escaped(value: object, *, most: int = _LONGEST_VALUE) -> str:
    """Return `value` as a log line shows it: in printable ASCII, cut to `most` characters, by default 200."""
    text = ascii(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most else f"{text[:most]}...(cut)"


def shown(value: object, *, most: int = _LONGEST_SHOWN) -> str:
    """Return `value` as an error has it for the log, cut to `most` characters; the log escapes it."""
    # A string is cut first: its repr costs more than receiving it.
    text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most else text[:most] + "..."


def plain(value: object) -> str | int | float | None:
    """Return `value` as a field of a log record has it: a number as it is, text escaped without quotes."""
    if value is None or (isinstance(value, (int, float)) and abs(value) <= _MOST_EXACT):
        return value
    shown = escaped(value)
    return shown[1:].removesuffix(shown[0]) if isinstance(value, str) else shown


def named(cause: BaseException | None) -> str:
    """The class of a cause, and the code of a server's error reply such as `OOM`."""
    name = type(cause).__name__
    code = getattr(cause, "code", None)
    return f"{name}({escaped(code)})" if isinstance(code, str) else name


def info_is_seen() -> bool:
    """Whether the logger, or one to which it passes its records, has a handler that shows INFO."""
    logger: logging.Logger | None = LOG if LOG.isEnabledFor(logging.INFO) else None
    while logger is not None:
        for handler in logger.handlers:
            if handler.level <= logging.INFO and not isinstance(handler, logging.NullHandler):
                return True
        logger = logger.parent if logger.propagate else None
    return False


def warn_of_plain_http(hosts: Collection[str]) -> None:
    """Log the hosts that the option `insecure_http_hosts` allows; log nothing if it is empty."""
    if hosts:
        LOG.warning("plain http is allowed for these hosts: %s", ", ".join(sorted(hosts)))


def warn_of_idle_nonces(server: str) -> None:
    """Log that the option `nonces` of `server` (its class) has no effect."""
    LOG.warning(
        "nonces= of %s has no effect, since no policy asks for any: set policy=DPoPPolicy(nonce='required')",
        server,
    )


class RateLimit:
    """At most ten lines a second of each kind, so that a flood of bad requests doesn't flood the log.

    A traceback has about fifty lines: one a minute for each kind and class of exception is enough.
    """

    def __init__(self) -> None:
        self._second: dict[object, tuple[int, int]] = {}
        self._suppressed: dict[object, int] = {}
        self._traced: dict[object, float] = {}

    def admit(self, kind: object, now: float) -> int | None:
        """Return how many lines were left out since the last one, None to leave this one out too."""
        second = int(now)
        started, lines = self._second.get(kind, (second, 0))
        if started != second:
            lines = 0
        if lines >= _LINES_PER_SECOND:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return None
        self._second[kind] = (second, lines + 1)
        return self._suppressed.pop(kind, 0)

    def traceback(self, kind: object, cause: BaseException | None, now: float) -> BaseException | None:
        """Return `cause` if its traceback is to be logged, None if one was logged within the last minute."""
        kind = (kind, type(cause))
        if now - self._traced.get(kind, -math.inf) < _SECONDS_BETWEEN_TRACEBACKS:
            return None
        self._traced[kind] = now
        return cause
