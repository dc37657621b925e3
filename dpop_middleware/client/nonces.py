"""What servers want to see in the next proof: their nonces, remembered per origin (RFC 9449 section 8.2)."""

import re
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Final

__all__ = ["NonceMemory", "demands_nonce", "one_nonce"]

# NQCHAR of RFC 6749 appendix A; the length keeps the proof far below what servers refuse.
_NONCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,2048}", re.ASCII)
# Two searches: one with `.*` between takes quadratic time on a hostile challenge.
_SCHEME: Final = re.compile(r"\bDPoP\b", re.ASCII | re.IGNORECASE)
_ERROR: Final = re.compile(r'\berror\s*=\s*"?use_dpop_nonce\b', re.ASCII | re.IGNORECASE)


class NonceMemory:
    """The last nonce of each origin, for the `limit` origins used last; safe to share between threads."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._nonces: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    def get(self, origin: str) -> str | None:
        """Return the nonce to use at `origin`, None where it gave none."""
        with self._lock:
            return self._nonces.get(origin)

    def remember(self, origin: str, nonce: str) -> None:
        """Use `nonce` at `origin` from now on."""
        with self._lock:
            self._nonces[origin] = nonce
            self._nonces.move_to_end(origin)
            if len(self._nonces) > self._limit:
                self._nonces.popitem(last=False)


def one_nonce(values: Iterable[str]) -> str | None:
    """Return the nonce in a response's `DPoP-Nonce` fields, None unless there is exactly one well-formed."""
    distinct = {value.strip(" \t") for value in values}
    if len(distinct) != 1:
        return None
    nonce = distinct.pop()
    return nonce if _NONCE.fullmatch(nonce) else None


def demands_nonce(challenges: Iterable[str], body: object) -> bool:
    """Whether a refusal asks for a nonce.

    `challenges` are the `WWW-Authenticate` fields of a resource server (RFC 9449 section 9), `body` is the
    decoded JSON of an authorization server's answer (section 8), None where there is none.
    """
    for value in challenges:
        scheme = _SCHEME.search(value)
        if scheme is not None and _ERROR.search(value, scheme.end()) is not None:
            return True
    return isinstance(body, dict) and body.get("error") == "use_dpop_nonce"
