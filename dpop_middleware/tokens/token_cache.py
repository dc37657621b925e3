"""Access tokens that were verified before, so that a known client costs no second signature check.

Claims are kept as the bytes of the payload: as dictionaries they would make every full garbage collection
several times as long. Only what was verified enters, and the number of entries is bounded.
"""

import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.jwks import KeySet

__all__ = ["TokenCache", "VerifiedToken"]


class _Claims(Mapping[str, Any]):
    """The claims of one token, decoded when they are first looked at."""

    __slots__ = ("_claims", "_payload")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._claims: dict[str, Any] | None = None

    def _decoded(self) -> dict[str, Any]:
        claims = self._claims
        if claims is None:
            # The strict parser has accepted these very bytes.
            claims = self._claims = json.loads(self._payload)
        return claims

    def __getitem__(self, name: str) -> Any:
        return self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __repr__(self) -> str:
        return f"<claims {', '.join(self)}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """What one verification found out. `not_before` is the later of `nbf` and `iat`, in seconds."""

    payload: bytes = field(repr=False)
    issuer: str
    subject: str
    client_id: str
    scopes: frozenset[str]
    expires_at: float
    not_before: float
    jkt: str | None
    key_identity: str

    def usable(self, keys: KeySet, *, now: float, clock_skew: float) -> bool:
        """Whether the verdict still stands: by the time, and by the key that signed the token."""
        return (
            self.not_before - clock_skew <= now < self.expires_at + clock_skew
            and self.key_identity in keys.identities
        )

    def access_token(self) -> AccessToken:
        """Return the token as the application sees it, its claims not yet decoded."""
        return AccessToken(
            claims=_Claims(self.payload),
            issuer=self.issuer,
            subject=self.subject,
            client_id=self.client_id,
            scopes=self.scopes,
            expires_at=self.expires_at,
            jkt=self.jkt,
        )


class TokenCache:
    """Verified tokens by the SHA-256 of the token; the one that wasn't used for longest goes first."""

    def __init__(self, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._tokens: OrderedDict[bytes, VerifiedToken] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def get(self, digest: bytes) -> VerifiedToken | None:
        """Return the entry and count it as used."""
        try:
            self._tokens.move_to_end(digest)
            return self._tokens[digest]
        except KeyError:
            return None

    def put(self, digest: bytes, token: VerifiedToken) -> None:
        """Keep a verified token, and let the least recently used one go when there are too many."""
        self._tokens[digest] = token
        # Another thread's event loop may let entries go at the same moment.
        with contextlib.suppress(KeyError):
            while len(self._tokens) > self._max_tokens:
                self._tokens.popitem(last=False)

    def discard(self, digest: bytes) -> None:
        """Forget the token, if it is kept."""
        self._tokens.pop(digest, None)
