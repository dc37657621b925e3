"""Names that differ only in how they are written: for a machine they are two (RFC 7519 section 2)."""

from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["difference"]


def _without_slash(name: str) -> str:
    return name.rstrip("/")


def _alike(name: str) -> str:
    return name.rstrip("/").lower()


_DIFFERENCES: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("only a trailing slash differs", _without_slash),
    ("only upper and lower case differ", str.lower),
    ("a trailing slash and upper and lower case differ", _alike),
)


def difference(ours: Iterable[str], theirs: Iterable[str]) -> str | None:
    """Return how one of `ours` differs from one of `theirs`, None where they differ in more than spelling.

    Of several pairs, the one that differs least counts.
    """
    ours, theirs = tuple(ours), tuple(theirs)
    for words, unified in _DIFFERENCES:
        if not set(map(unified, ours)).isdisjoint(map(unified, theirs)):
            return words
    return None
