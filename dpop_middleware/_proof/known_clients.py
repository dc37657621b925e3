"""Proof headers of clients that were here before, so that a known key isn't decoded again."""

import hashlib
from typing import Final

from dpop_middleware._bounded_cache import BoundedCache
from dpop_middleware._options import whole_number
from dpop_middleware._proof.proof import ProofHeader

__all__ = ["MAX_KNOWN_BYTES", "MAX_KNOWN_CLIENTS", "KnownClients"]

# As many as a verifier remembers tokens by default.
MAX_KNOWN_CLIENTS: Final = 10_000
MAX_KNOWN_BYTES: Final = 32 * 1024 * 1024

# A longer header than any without certificates is kept as its hash: padding buys no memory.
_LONGEST_KEPT: Final = 1024
# `ath`, the header's value and thumbprint, and the key inside OpenSSL: about 2 KB for P-256.
_SIZE: Final = 2600


def _kept(segment: str) -> str | bytes:
    return segment if len(segment) <= _LONGEST_KEPT else hashlib.sha256(segment.encode()).digest()


class KnownClients:
    """The last proof header that came with each access token, by the token's `ath`.

    Only headers of proofs that passed every check but the replay store's enter, one for each token. When
    there are more than `max_clients`, or more than `max_bytes`, the one that wasn't used for longest goes.
    Raises ConfigurationError.
    """

    def __init__(self, *, max_clients: int, max_bytes: int = MAX_KNOWN_BYTES) -> None:
        self._clients: BoundedCache[str, tuple[str | bytes, ProofHeader]] = BoundedCache(
            max_entries=whole_number("max_known_clients", max_clients),
            max_bytes=whole_number("max_known_bytes", max_bytes),
        )

    def header(self, *, ath: str, segment: str) -> ProofHeader | None:
        """Return the parsed header if this very segment came with this token before."""
        known = self._clients.get(ath)
        return known[1] if known is not None and known[0] == _kept(segment) else None

    def remember(self, header: ProofHeader, *, ath: str, segment: str) -> None:
        """Keep the header of a proof that was found to be good."""
        if self.header(ath=ath, segment=segment) is None:
            kept = _kept(segment)
            self._clients.put(ath, (kept, header), size=len(kept) + _SIZE)
