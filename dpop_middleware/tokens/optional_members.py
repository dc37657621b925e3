"""What a verifier says of itself, most of it optional, and what holds where it says nothing.

Whatever has a verifier calls `check_members` at the start, and these functions later.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from dpop_middleware._options import flag, is_asynchronous, listed, refused, seconds
from dpop_middleware.tokens.access_token import LONGEST_CLOCK_SKEW, TOKEN_CLOCK_SKEW

__all__ = [
    "asks_another_server",
    "audiences_of",
    "check_members",
    "checked_clock_skew",
    "clock_skew_of",
    "issuers_of",
    "key_ages_of_all",
    "may_ask_another_server",
    "promises_final_expiry",
]


def checked_clock_skew(option: str, value: object) -> float:
    """Return the seconds that an option for a clock skew gives, or raise ConfigurationError."""
    return seconds(option, value, minimum=0, maximum=LONGEST_CLOCK_SKEW)


def clock_skew_of(verifier: object) -> float:
    """Return for how many seconds `verifier` accepts a token after its expiry: its `clock_skew`.

    Without one, the default is returned. Raises ConfigurationError for a value that isn't 0 to 300 seconds.
    """
    return checked_clock_skew("the verifier's clock_skew", getattr(verifier, "clock_skew", TOKEN_CLOCK_SKEW))


def asks_another_server(verifier: object, token: str) -> bool:
    """Return whether `verifier` asks another server about `token`: by its `is_remote`, or its `remote`."""
    ask = getattr(verifier, "is_remote", None)
    return bool(getattr(verifier, "remote", False)) if ask is None else ask(token) is not False


def may_ask_another_server(verifier: object) -> bool:
    """Return whether `verifier` asks one about any token.

    Raises ConfigurationError for a `remote` or an `is_remote` that can't be believed.
    """
    remote = flag("the verifier's remote", getattr(verifier, "remote", False))
    ask = getattr(verifier, "is_remote", None)
    if ask is None:
        return remote
    if not callable(ask) or is_asynchronous(ask):
        raise refused("the verifier's is_remote", "a synchronous function of a token", ask)
    return True


def promises_final_expiry(verifier: object) -> bool:
    """Return whether the author of `verify` promises that the `expires_at` of a token never changes.

    A class that inherits the promise but has its own `verify` has promised nothing.
    """
    for names in (getattr(verifier, "__dict__", {}), *map(vars, type(verifier).__mro__)):
        if "expiry_is_final" in names or "verify" in names:
            return names.get("expiry_is_final") is True
    return False


def check_members(verifier: object) -> None:
    """Raise ConfigurationError for issuers, audiences or key ages that can't be used."""
    issuers_of(verifier)
    audiences_of(verifier)
    _report_of_key_ages(verifier)


def issuers_of(verifier: object) -> tuple[str, ...]:
    """Return the issuers whose tokens `verifier` accepts."""
    return _texts(verifier, "issuers")


def audiences_of(verifier: object) -> frozenset[str]:
    """Return the audiences that `verifier` accepts; without `audiences` it accepts none."""
    return frozenset(_texts(verifier, "audiences"))


def _texts(verifier: object, member: str) -> tuple[str, ...]:
    value = getattr(verifier, member, ())
    # An iterator would have nothing left the next time.
    texts = None if isinstance(value, Iterator) else listed(value)
    if texts is None or not all(isinstance(one, str) and one for one in texts):
        raise refused(f"the verifier's {member}", "a sequence of non-empty strings", value)
    return texts


def key_ages_of_all(verifiers: Iterable[object]) -> tuple[tuple[str, float], ...]:
    """Return issuers, and for how many seconds their keys have been held; by the verifiers that know it."""
    reports = map(_report_of_key_ages, verifiers)
    return tuple(age for report in reports for age in report())


def _report_of_key_ages(verifier: object) -> Callable[[], Iterable[tuple[str, float]]]:
    report: Any = getattr(verifier, "key_ages", None)
    if report is None:
        return tuple
    if not callable(report) or is_asynchronous(report):
        raise refused("the verifier's key_ages", "a synchronous method", report)
    return cast("Callable[[], Iterable[tuple[str, float]]]", report)
