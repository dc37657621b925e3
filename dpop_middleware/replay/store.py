"""The protocol of replay stores (RFC 9449 section 11.1), their entries, and the events of an exchange."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from dpop_middleware.jose import base64url

__all__ = [
    "ExchangeSink",
    "ReplayEntry",
    "ReplayKeyspace",
    "ReplayStore",
    "StoreExchange",
    "check_entry",
]

_KEY_SIZE = 16
_FOREVER: Final = 1e15


class ReplayEntry(NamedTuple):
    """One presentation of a proof, to be remembered until it can't be accepted any more.

    `key` names the proof: an ASCII digest over the namespace, the key's thumbprint and the `jti`, with
    nothing of the request in clear. `jkt` is the thumbprint of the proof's key. `now`, `not_before` and
    `expires_at` are seconds since the epoch by the server's clock: the moment of this request, the first
    moment at which the proof could have been accepted, and the last at which it could be, with the margin for
    clocks that differ between workers. `speaks_for` is the user or client of the access token, with its
    issuer: a store that gives each client a share counts by it, since anybody can make many keys. It is empty
    where no token came with the proof.

    `made_at` is the moment from which the proof's age counts, its `iat` or the issue of its nonce, and
    `retention` for how many seconds after it the policies of this server may ask for the entry, including the
    margin for clocks; 0 where that is unknown. Workers of one `namespace`, an ASCII digest, may differ in it
    while a change is rolled out: a shared store judges no proof that another worker may have forgotten.
    Another worker may count from the proof's `iat` where this one counts from its nonce, so an entry whose
    `iat` is in the future is kept from there. Where the token ends before the proof's `iat`, `iat` is that
    end. `ahead` is for how many seconds before an `iat` the policies of this server may accept a proof by it;
    `by_iat` says that `not_before` is that moment, and not the issue of a nonce.
    """

    key: str
    jkt: str
    now: float
    not_before: float
    expires_at: float
    speaks_for: str = ""
    namespace: str = ""
    made_at: float = math.inf
    retention: float = 0.0
    iat: float = -math.inf
    ahead: float = 0.0
    by_iat: bool = False


def check_entry(entry: ReplayEntry, expires_at: float) -> None:
    """Raise ValueError or TypeError if a store can't remember `entry` until `expires_at`, or judge it."""
    is_sound = (
        expires_at - entry.now < _FOREVER
        and entry.not_before > -_FOREVER
        and entry.made_at > -_FOREVER
        and 0 <= entry.retention < _FOREVER
        and (entry.iat > -_FOREVER or not (entry.by_iat or math.isnan(entry.iat)))
        and -_FOREVER < entry.ahead < _FOREVER
        and str.isascii(entry.namespace)
    )
    if not is_sound:
        raise ValueError("an entry takes finite moments, an end, and an ASCII namespace")


class ReplayStore(Protocol):
    """Remembers presentations of proofs, for all workers that share it.

    A store may also have `open()`, `aclose()` and `health()`, as an `AccessTokenVerifier` may.
    """

    async def add(self, entry: ReplayEntry) -> bool:
        """Remember `entry` atomically; True the first time, False when it was there already.

        An entry is remembered for `entry.expires_at - entry.now` seconds; the store's own clock is not
        compared with the entry's. Raises `dpop_middleware.errors.Unavailable` when it can't know.
        """
        ...


def _length_prefixed(text: str) -> bytes:
    octets = text.encode()
    return len(octets).to_bytes(4, "big") + octets


class ReplayKeyspace:
    """The keys of one namespace's entries, distinct from those of any other in the same store.

    `namespace` is the user's. Nothing else of a server's configuration changes the keys: two workers of one
    service may differ in it while a change is rolled out, and a proof must still be accepted only once.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = _length_prefixed(namespace)
        self.name = base64url.encode(hashlib.sha256(self._namespace).digest()[:6])

    def apart(self, label: str) -> "ReplayKeyspace":
        """Return the keys of `label` within this namespace; no user's namespace can have the same."""
        return ReplayKeyspace(f"{hashlib.sha256(self._namespace).hexdigest()}\0{label}")

    def key(self, *, jkt: str, jti: str) -> str:
        """Return the key of a proof, 22 characters: 128 bits of SHA-256 over namespace, `jkt` and `jti`."""
        named = self._namespace + f"{len(jkt)}:{jkt}{jti}".encode()
        return base64url.encode(hashlib.sha256(named).digest()[:_KEY_SIZE])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreExchange:
    """One exchange with a server of the replay store.

    - `entries`: how many were sent together. `seconds`: from sending them until the last reply was read;
      their wait before that isn't counted.
    - `answered`: False where the replies didn't arrive, or were invalid.
    """

    entries: int
    seconds: float
    answered: bool


ExchangeSink = Callable[[StoreExchange], object]
