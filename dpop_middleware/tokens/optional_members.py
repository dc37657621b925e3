"""The optional members of a verifier: what it says of itself, and what holds where it says nothing."""

from collections.abc import Iterable

from dpop_middleware._options import flag, is_asynchronous, refused, seconds
from dpop_middleware.tokens.access_token import LONGEST_CLOCK_SKEW, TOKEN_CLOCK_SKEW

__all__ = [
    "asks_another_server",
    "checked_clock_skew",
    "clock_skew_of",
    "key_ages_of_all",
    "may_ask_another_server",
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


def key_ages_of_all(verifiers: Iterable[object]) -> tuple[tuple[str, float], ...]:
    """Return issuers, and for how many seconds their keys have been held; by the verifiers that know it."""
    reports = [getattr(verifier, "key_ages", None) for verifier in verifiers]
    return tuple(age for report in reports if report is not None for age in report())
