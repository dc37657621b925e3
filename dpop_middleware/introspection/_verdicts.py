"""The endpoint's earlier answers, by the SHA-256 of the token, bounded in entries and bytes.

An active token is kept as a known one after its answer has become too old to count: made-up tokens can
neither evict it nor delay a question about it.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dpop_middleware._request.request import MAX_TOKEN_SIZE
from dpop_middleware._runtime import Moment
from dpop_middleware.errors import InvalidToken
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.cache import BoundedCache, size_of

__all__ = ["Verdict", "Verdicts", "digest_of"]

# A digest, a moment, and the error.
_SIZE: Final = 1000
_MAX_REFUSED: Final = 10_000


def digest_of(token: str) -> bytes | None:
    """Return the SHA-256 of `token`, None where no issuer can have issued it."""
    if len(token) > MAX_TOKEN_SIZE or not token.isascii():
        return None
    return hashlib.sha256(token.encode("ascii")).digest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one answer; `asked` is when the question was sent."""

    outcome: AccessToken | InvalidToken
    asked: Moment

    def access_token(self) -> AccessToken:
        """Return the token, or raise a new InvalidToken: a cached error must hold no traceback."""
        if isinstance(self.outcome, InvalidToken):
            raise self.outcome.restated()
        return self.outcome


class Verdicts:
    """The verdicts on active tokens and on all others; each kind has its own lifetime, in seconds."""

    def __init__(
        self,
        *,
        active_lifetime: float,
        inactive_lifetime: float,
        max_tokens: int,
        max_bytes: int,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._active_lifetime = active_lifetime
        self._inactive_lifetime = inactive_lifetime
        self._clock = clock
        self._monotonic = monotonic
        self._active: BoundedCache[bytes, Verdict] = BoundedCache(max_entries=max_tokens, max_bytes=max_bytes)
        self._refused: BoundedCache[bytes, Verdict] = BoundedCache(
            max_entries=_MAX_REFUSED, max_bytes=_MAX_REFUSED * 2 * _SIZE
        )

    def now(self) -> Moment:
        """Return this moment."""
        return Moment(self._clock(), self._monotonic())

    def get(self, digest: bytes) -> Verdict | None:
        """Return the verdict that still counts, None where the endpoint must be asked."""
        verdict = self._active.get(digest)
        lifetime, expires_at = self._active_lifetime, math.inf
        if verdict is None:
            verdict, lifetime = self._refused.get(digest), self._inactive_lifetime
        if verdict is None:
            return None
        if isinstance(verdict.outcome, AccessToken):
            expires_at = verdict.outcome.expires_at
        now = self._clock()
        age = verdict.asked.age(wall=now, monotonic=self._monotonic())
        return verdict if age < lifetime and now < expires_at else None

    def is_known(self, digest: bytes) -> bool:
        """Whether the token was active when it was last asked about."""
        return self._active.get(digest) is not None

    def put(self, digest: bytes, verdict: Verdict) -> None:
        """Keep the newest verdict on a token."""
        if isinstance(verdict.outcome, InvalidToken):
            self._active.discard(digest)
            self._refused.put(digest, verdict, size=_SIZE)
            return
        self._refused.discard(digest)
        self._active.put(digest, verdict, size=size_of(verdict.outcome))
