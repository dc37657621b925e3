"""Proof headers of clients that were here before, so that a known key isn't decoded again."""

from collections import OrderedDict
from dataclasses import dataclass

from dpop_middleware.proof import ProofHeader

__all__ = ["KnownClients"]


@dataclass(frozen=True, slots=True)
class _KnownClient:
    segment: str
    header: ProofHeader


class KnownClients:
    """The last proof header that came with each access token, by the token's `ath`.

    Only headers of proofs that passed every check but the replay store's enter, one for each token; the
    oldest goes first when there are more than `max_clients`.
    """

    def __init__(self, *, max_clients: int) -> None:
        self._max_clients = max_clients
        self._clients: OrderedDict[str, _KnownClient] = OrderedDict()

    def header(self, *, ath: str, segment: str) -> ProofHeader | None:
        """Return the parsed header if this very segment came with this token before."""
        known = self._clients.get(ath)
        return known.header if known is not None and known.segment == segment else None

    def remember(self, header: ProofHeader, *, ath: str, segment: str) -> None:
        """Keep the header of a proof that was found to be good."""
        known = self._clients.get(ath)
        if known is not None and known.segment == segment:
            return
        if known is None and len(self._clients) >= self._max_clients:
            self._clients.popitem(last=False)
        self._clients[ath] = _KnownClient(segment, header)
