"""What a replay store is asked, the one question it answers (RFC 9449 section 11.1), and what it tells."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dpop_middleware.jose import base64url

__all__ = ["ExchangeSink", "ReplayEntry", "ReplayKeyspace", "ReplayStore", "StoreExchange"]

_KEY_SIZE = 16


class ReplayEntry(NamedTuple):
    """One presentation of a proof, to be remembered until it can't be accepted any more.

    `key` names the proof: an ASCII digest over the namespace, the key's thumbprint and the `jti`, with
    nothing of the request in clear. `jkt` is the thumbprint of the proof's key. `now`, `not_before` and
    `expires_at` are seconds since the epoch by the server's clock: the moment of this request, the first
    moment at which the proof could have been accepted, and the last at which it could be, with the margin for
    clocks that differ between workers. `speaks_for` is whom the access token speaks for, its issuer and its
    subject or client: a store that gives each client a share counts by it, since keys are free. It is empty
    where no token came with the proof.

    `made_at` is the moment from which the proof's age counts, its `iat` or the issue of its nonce, and
    `retention` for how many seconds after it the policies of this server may ask for the entry, the margin
    for clocks included; 0 where that isn't told. Workers of one `namespace`, an ASCII digest, may differ in
    it while a change is rolled out: a shared store judges no proof that another worker may have forgotten.
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


class ReplayStore(Protocol):
    """Remembers presentations of proofs, for all workers that share it."""

    async def add(self, entry: ReplayEntry) -> bool:
        """Remember `entry` atomically; True the first time, False when it was there.

        The lifetime of the memory is `entry.expires_at - entry.now` seconds; no clock of the store's own is
        compared with the entry's. Raises `dpop_middleware.errors.Unavailable` when it can't know.
        """
        ...


def _length_prefixed(text: str) -> bytes:
    octets = text.encode()
    return len(octets).to_bytes(4, "big") + octets


class ReplayKeyspace:
    """The keys of one namespace's entries, apart from those of any other in the same store.

    `namespace` is the user's. Nothing else of a server's configuration takes part: two workers of one service
    may differ in it while a change is rolled out, and a proof must still be used once.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = _length_prefixed(namespace)
        self.name = base64url.encode(hashlib.sha256(self._namespace).digest()[:6])

    def apart(self, label: str) -> "ReplayKeyspace":
        """Return the keys of `label` within this namespace; no namespace of a user's is one of these."""
        return ReplayKeyspace(f"{hashlib.sha256(self._namespace).hexdigest()}\0{label}")

    def key(self, *, jkt: str, jti: str) -> str:
        """Return the key of a proof, 22 characters: 128 bits of SHA-256 over namespace, `jkt` and `jti`."""
        named = self._namespace + f"{len(jkt)}:{jkt}{jti}".encode()
        return base64url.encode(hashlib.sha256(named).digest()[:_KEY_SIZE])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreExchange:
    """One exchange with a server of the replay store.

    - `entries`: how many travelled together. `seconds`: from sending them until the last reply was read; what
      they waited before isn't counted.
    - `answered`: False where the replies didn't come, or made no sense.
    """

    entries: int
    seconds: float
    answered: bool


ExchangeSink = Callable[[StoreExchange], object]
