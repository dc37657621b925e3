"""Checks of the library's options, whose messages all have one form: "X takes …, not 'value'".

Each function takes the option's name and its value, returns the value, and raises ConfigurationError with one
sentence that says what the option takes and which value it got.
"""

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dpop_middleware.errors import ConfigurationError

__all__ = [
    "CONTROL",
    "HTTP_TOKEN",
    "SCOPE_TOKEN",
    "choice",
    "clock",
    "credential",
    "field_name",
    "flag",
    "is_asynchronous",
    "listed",
    "listener",
    "names",
    "names_or_one",
    "namespace",
    "part",
    "path",
    "predicates",
    "provides",
    "refused",
    "seconds",
    "secrets",
    "share",
    "shown",
    "strings",
    "text",
    "tokens",
    "whole_number",
]

_Choice = TypeVar("_Choice", bound=str)
_Part = TypeVar("_Part")

HTTP_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a method or of a header field (RFC 9110 section 5.6.2)."""

SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""One scope (RFC 6749 section 3.3). No such token can end the quoted string of a challenge."""

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""A control character: no credential has one (RFC 6749 appendix A)."""

_LARGEST_FLOAT = math.nextafter(math.inf, 0)
_LONGEST_NAMESPACE = 200
_SHORTEST_SECRET = 32


def refused(name: str, takes: str, value: object) -> ConfigurationError:
    """Return the error for an option with a value that it doesn't take."""
    return ConfigurationError(f"{name} takes {takes}, not {shown(value)}")


def shown(value: object) -> str:
    """Return how a message shows `value`: with dots in place of what may be user information, so no password.

    A password whose slashes, question marks and number signs aren't encoded ends at the last @.
    """
    text = repr(value)
    before, _, rest = text.partition("//")
    _, at, after = rest.rpartition("@")
    return f"{before}//...@{after}" if at else text


def part(name: str, value: _Part, takes: str, *, fits: bool) -> _Part:
    """Return an option that is an object, such as a store; `fits` says whether it is suitable.

    If a text or a collection was given, the message has only its type: a URL may contain a password, and a
    mapping may be a private JWK or a token endpoint's answer.
    """
    if fits:
        return value
    if isinstance(value, Collection):
        raise ConfigurationError(f"{name} takes {takes}, not a {type(value).__name__}")
    raise refused(name, takes, value)


def _between(minimum: float, maximum: float) -> str:
    if maximum == math.inf:
        return f"at least {minimum:g}"
    return f"from {minimum:g} to {maximum:g}"


def provides(part: object, *methods: str) -> bool:
    """Return whether `part` has `methods` and is an object, not the class of one."""
    return not isinstance(part, type) and all(callable(getattr(part, method, None)) for method in methods)


def flag(name: str, value: object) -> bool:
    """Return an option that is True or False."""
    if not isinstance(value, bool):
        raise refused(name, "True or False", value)
    return value


def is_asynchronous(function: object) -> bool:
    """Whether `function` is asynchronous: nothing would await its result."""
    return any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))


def listener(name: str, value: Any) -> Any:
    """Return an option that is called at each event: a synchronous function, or None."""
    if value is not None and (is_asynchronous(value) or not callable(value)):
        raise refused(name, "a synchronous function, which may fill a queue", value)
    return value


def choice(name: str, value: object, choices: Collection[_Choice]) -> _Choice:
    """Return an option that is one of `choices`."""
    for one in choices:
        if one == value:
            return one
    raise refused(name, f"one of {', '.join(map(repr, choices))}", value)


def seconds(name: str, value: object, *, minimum: float, maximum: float = math.inf) -> float:
    """Return an option that is a finite number of seconds within the bounds."""
    takes = f"a finite number of seconds, {_between(minimum, maximum)}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refused(name, takes, value)
    # No NaN is within them, and no integer that is too large for a float.
    if not minimum <= value <= min(maximum, _LARGEST_FLOAT):
        raise refused(name, takes, value)
    return value


def secrets(name: str, value: object) -> tuple[bytes, ...]:
    """Return an option that is one secret of at least 32 bytes or several, newest first, as a tuple."""
    several = value if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)) else (value,)
    if not several or not all(
        isinstance(one, (bytes, bytearray)) and len(one) >= _SHORTEST_SECRET for one in several
    ):
        # The value may be a secret that is too short: the message doesn't contain it.
        raise ConfigurationError(
            f"{name} takes a secret of at least {_SHORTEST_SECRET} random bytes, or several: "
            f"make one with secrets.token_bytes({_SHORTEST_SECRET}) and give it to every worker"
        )
    return tuple(bytes(one) for one in several if isinstance(one, (bytes, bytearray)))


def credential(name: str, value: object) -> str:
    """Return an option that is an identifier, a secret or a code: a text without line breaks, and not empty.

    The message has only what is wrong with it: a file that holds a secret often ends in a line break.
    """
    if isinstance(value, str) and value and not CONTROL.search(value):
        return value
    wrong = "one with a line break or another control character" if value else "an empty one"
    if not isinstance(value, str):
        wrong = f"a {type(value).__name__}"
    raise ConfigurationError(f"{name} takes a non-empty string, not {wrong}")


def share(name: str, value: object) -> float:
    """Return an option that is a part of a whole: above 0, at most 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise refused(name, "a number above 0 and at most 1", value)
    return value


def whole_number(name: str, value: object, *, minimum: int = 0, of: str = "") -> int:
    """Return an option that is a whole number of at least `minimum`; `of` says of what: " of bytes"."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise refused(name, f"a whole number{of} of at least {minimum}", value)
    return value


def listed(value: object) -> tuple[Any, ...] | None:
    """Return the elements of an option that has several, None for one text or a mapping of them."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return None
    return tuple(value)


def names(name: str, value: object) -> tuple[str, ...]:
    """Return an option that is at least one non-empty string, as a tuple."""
    several = listed(value)
    if not several or not all(isinstance(one, str) and one for one in several):
        raise refused(name, "a sequence of non-empty strings", value)
    return several


def names_or_one(name: str, value: object) -> tuple[str, ...]:
    """Return an option that is one non-empty string or several, as a tuple."""
    return names(name, (value,) if isinstance(value, str) else value)


def tokens(name: str, values: object, *, such_as: str = "notes:read") -> tuple[str, ...]:
    """Return an option that is any number of scope tokens, or of values with the same syntax, as a tuple."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Collection):
        raise refused(name, f"a sequence of strings, such as ({such_as!r},)", values)
    for value in values:
        if not isinstance(value, str) or not SCOPE_TOKEN.fullmatch(value):
            raise refused(name, "strings without spaces, quotes and backslashes", value)
    return tuple(values)


def strings(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return an option that is any number of strings, as a tuple; a single string is refused, not split."""
    several = listed(values)
    if several is None or not all(isinstance(one, str) for one in several):
        raise refused(name, "a sequence of strings, such as ['notes:read']", values)
    return several


def predicates(name: str, value: object) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    """Return an option that maps names of claims to synchronous functions, as a tuple of pairs."""
    takes = "a mapping from names of claims to functions such as lambda roles: 'admin' in roles"
    if not isinstance(value, Mapping):
        raise refused(name, takes, value)
    for claim, function in value.items():
        if not isinstance(claim, str) or not claim or not callable(function):
            raise refused(name, takes, value)
        if is_asynchronous(function):
            raise refused(name, "synchronous functions", function)
    return tuple(value.items())


def field_name(name: str, value: object) -> str:
    """Return an option that is the name of a header field, in lower case (RFC 9110 section 5.1)."""
    if not isinstance(value, str) or not HTTP_TOKEN.fullmatch(value):
        raise refused(name, "the name of a header field, such as 'X-Original-URI'", value)
    return value.lower()


def text(name: str, value: object, takes: str = "a text", *, least: int = 0) -> str:
    """Return an option that is a text of at least `least` characters."""
    if not isinstance(value, str) or len(value) < least:
        raise refused(name, takes, value)
    return value


def path(name: str, value: object, *, such_as: str) -> str:
    """Return an option that is the path of a route."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise refused(name, f"a path that starts with a slash, such as {such_as!r}", value)
    return value


def namespace(name: str, value: object) -> str:
    """Return an option that is a text of at most 200 characters, maybe empty."""
    if not isinstance(value, str) or len(value) > _LONGEST_NAMESPACE or not value.isprintable():
        raise refused(name, f"a printable text of at most {_LONGEST_NAMESPACE} characters", value)
    return value


def clock(value: Callable[[], float]) -> Callable[[], float]:
    """Return the option `clock`, which is a synchronous function that returns seconds since the epoch."""
    if not callable(value) or is_asynchronous(value):
        raise refused("clock", "a function that returns seconds since the epoch, such as time.time", value)
    return value
