"""What a link may ask of the cluster that it is part of."""

from collections.abc import Sequence
from typing import Protocol

from dpop_middleware.replay.pending import PendingWrite
from dpop_middleware.replay.replies import ServerError

__all__ = ["Router"]


class Router(Protocol):
    """Where a cluster's link turns to when a write belongs elsewhere or its server can't be used."""

    def resubmit(self, write: PendingWrite) -> None:
        """Send `write` once more, to whichever server it belongs to now."""
        ...

    def redirect(self, write: PendingWrite, error: ServerError) -> None:
        """Follow a redirection, MOVED or ASK."""
        ...

    def look_again(self, error: Exception) -> None:
        """Look at the topology again: a server could not be used or has lost a slot."""
        ...

    def tag(self) -> bytes | None:
        """The hash tag of a slot that the link's server owns, None when it owns none."""
        ...

    def buckets(self) -> Sequence[int]:
        """The buckets in slots that the link's server owns."""
        ...

    def look_around(self) -> None:
        """The link's server has other data: see what lies on the others, and can't be lost with them."""
        ...

    async def present(self, identities: frozenset[bytes], *, patient: bool) -> frozenset[bytes] | None:
        """Those of `identities` whose data other masters have now.

        None where one of them says nothing: without `patient` that is taken for a loss of its data.
        """
        ...
