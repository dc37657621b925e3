"""A cache that is bounded in entries and in bytes, and a verified access token as it is kept in one.

There is one rule of eviction for everything that is remembered between requests: the least recently used
entry is evicted first. The caller says how large an entry is.

A known client costs no second signature check. What a resource server knows of the client is kept with its
token (`AccessToken.client_memo`). Claims are kept as the bytes of the payload: as dictionaries they would
make every full garbage collection several times as long. Only verified tokens are stored.
"""

import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable, ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from dpop_middleware.tokens.access_token import AccessToken

if TYPE_CHECKING:
    from dpop_middleware.tokens.jwks import KeySet

__all__ = [
    "CLIENT_SIZE",
    "LONGEST_KNOWN_HEADER",
    "MAX_CACHED_BYTES",
    "MAX_CACHED_TOKENS",
    "TAIL",
    "BoundedCache",
    "VerifiedToken",
    "read_only_claims",
    "size_of",
]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

# The bytes of an entry besides its key and value: its place in the mapping and its link in the order of use.
_PLACE = 300
MAX_CACHED_TOKENS = 10_000
MAX_CACHED_BYTES = 64 * 1024 * 1024
# Kept of a client: the header of its proofs, unless it is longer than any without certificates, and the key
# inside OpenSSL.
LONGEST_KNOWN_HEADER = 1024
CLIENT_SIZE = LONGEST_KNOWN_HEADER + 2600
# The hash, the two values, the numbers in them, three short texts, and the client.
_SIZE = 880 + CLIENT_SIZE
# The bytes of a text besides its characters, and the most that a character can take.
_TEXT, _CHARACTER = 56, 4
TAIL = 32
"""A verified token is kept by its last characters, a part of its signature: no unknown token is hashed."""


class BoundedCache(Generic[_Key, _Value]):
    """At most `max_entries` values of at most `max_bytes` in all; 0 of either keeps nothing."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[_Key, _Value] = OrderedDict()
        # Apart from the values: with a tuple for each entry the garbage collector would have more objects to
        # visit.
        self._sizes: dict[_Key, int] = {}
        self._bytes = 0
        # Event loops of several threads may share a resource server.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """The bytes that the entries take, as given to `put`."""
        return self._bytes

    def get(self, key: _Key) -> _Value | None:
        """Return the value and mark it as recently used, None where there is none."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: _Key, value: _Value, *, size: int) -> None:
        """Keep a value that takes `size` bytes with its key; evict others where there are too many.

        A value that is larger than the whole cache is not kept, and evicts nothing.
        """
        size += _PLACE
        with self._lock:
            self._remove(key)
            if size > self._max_bytes or self._max_entries == 0:
                return
            self._entries[key] = value
            self._sizes[key] = size
            self._bytes += size
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))

    def discard(self, key: _Key) -> None:
        """Forget the value, if it is kept."""
        with self._lock:
            self._remove(key)

    def _remove(self, key: _Key) -> None:
        if self._entries.pop(key, None) is not None:
            self._bytes -= self._sizes.pop(key)


class _Claims(Mapping[str, Any]):
    """The claims of one token, decoded at each access, so that requests share nothing but this mapping."""

    __slots__ = ("_payload",)

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def _decoded(self) -> dict[str, Any]:
        # The strict parser has accepted these bytes.
        claims: dict[str, Any] = json.loads(self._payload)
        return claims

    def __getitem__(self, name: str) -> Any:
        return self._decoded()[name]

    def get(self, key: str, default: Any = None) -> Any:
        # Most requested claims are absent, which shows without decoding; an escaped name wouldn't be found
        # so.
        if b"\\" not in self._payload and key.isidentifier() and f'"{key}"'.encode() not in self._payload:
            return default
        return self._decoded().get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def values(self) -> ValuesView[Any]:
        return self._decoded().values()

    def items(self) -> ItemsView[str, Any]:
        return self._decoded().items()

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sys.getsizeof(self._payload)

    def __repr__(self) -> str:
        return f"<claims {', '.join(self)}>"


class VerifiedToken(NamedTuple):
    """The result of one verification.

    `access_token` is the token as applications see it, the same object for every request that carries it, and
    `token_hash` is the hash of the token that it was read from. `not_before` is the later of `nbf` and `iat`,
    in seconds since the epoch. `key_identity` identifies the issuer's key that signed the token.
    """

    access_token: AccessToken
    token_hash: str
    not_before: float
    key_identity: str

    def usable(self, keys: "KeySet", *, now: float, clock_skew: float) -> bool:
        """Whether the verdict is still valid: by the time, and by the key that signed the token."""
        return (
            self.not_before - clock_skew <= now < self.access_token.expires_at + clock_skew
            and self.key_identity in keys.identities
        )


def size_of(token: AccessToken) -> int:
    """Return roughly how many bytes a verified token takes in a cache, rather too many.

    Its scopes are ASCII, and separate objects, of which there may be thousands.
    """
    scopes, names = token.scopes, len(token.subject or "") + len(token.client_id)
    texts = _CHARACTER * names + _TEXT * len(scopes) + sum(map(len, scopes))
    return _SIZE + sys.getsizeof(token.claims) + sys.getsizeof(scopes) + texts


def read_only_claims(payload: bytes) -> Mapping[str, Any]:
    """Return the claims in a payload that `strict.parse_object` accepted, as a mapping that never changes.

    It holds nothing but the payload: each access to a claim returns a new value.
    """
    return _Claims(payload)
