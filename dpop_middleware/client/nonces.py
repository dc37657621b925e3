"""What servers say about the next proof, remembered per origin (RFC 9449 section 8.2)."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Final, Generic, Literal, TypeAlias, TypeVar, get_args

__all__ = ["OriginMemory", "is_refused_for", "one_nonce"]

Learned = TypeVar("Learned")
DPoPError: TypeAlias = Literal["use_dpop_nonce", "invalid_dpop_proof"]

# NQCHAR of RFC 6749 appendix A; the length keeps the proof far below what servers refuse.
_NONCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,2048}", re.ASCII)
# Two searches: one with `.*` between takes quadratic time on a hostile challenge.
_SCHEME: Final = re.compile(r"\bDPoP\b", re.ASCII | re.IGNORECASE)
_ERROR: Final[Mapping[DPoPError, re.Pattern[str]]] = {
    error: re.compile(rf'\berror\s*=\s*"?{error}\b', re.ASCII | re.IGNORECASE)
    for error in get_args(DPoPError)
}


class OriginMemory(Generic[Learned]):
    """What each origin said last, for the `limit` origins heard of last; safe to share between threads."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._learned: OrderedDict[str, Learned] = OrderedDict()
        self._lock = Lock()

    def get(self, origin: str) -> Learned | None:
        """Return what to use at `origin`, None where it said nothing."""
        with self._lock:
            return self._learned.get(origin)

    def remember(self, origin: str, learned: Learned) -> None:
        """Use `learned` at `origin` from now on."""
        with self._lock:
            self._learned[origin] = learned
            self._learned.move_to_end(origin)
            if len(self._learned) > self._limit:
                self._learned.popitem(last=False)


def one_nonce(values: Iterable[str]) -> str | None:
    """Return the nonce in a response's `DPoP-Nonce` fields, None unless there is exactly one well-formed."""
    distinct = {value.strip(" \t") for value in values}
    if len(distinct) != 1:
        return None
    nonce = distinct.pop()
    return nonce if _NONCE.fullmatch(nonce) else None


def is_refused_for(error: DPoPError, challenges: Iterable[str], body: object) -> bool:
    """Whether a refusal has the code `error`.

    `challenges` are the `WWW-Authenticate` fields of a resource server (RFC 9449 sections 7.1 and 9), `body`
    is the decoded JSON of an authorization server's answer (sections 5 and 8), None where there is none.
    """
    for value in challenges:
        scheme = _SCHEME.search(value)
        if scheme is not None and _ERROR[error].search(value, scheme.end()) is not None:
            return True
    return isinstance(body, dict) and body.get("error") == error
