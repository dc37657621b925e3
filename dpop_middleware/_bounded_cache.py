"""A cache that is bounded in entries and in bytes; what wasn't used for longest goes first.

The one eviction rule for all that is remembered between requests. Entries say themselves how large they are.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

# What an entry takes beside its key and its value: the place in the mapping and its link in the order of use.
_PLACE = 300


class BoundedCache(Generic[_Key, _Value]):
    """At most `max_entries` values of at most `max_bytes` in all; 0 of either keeps nothing."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[_Key, _Value] = OrderedDict()
        # Beside the values: a tuple for each entry would be one more for the garbage collector to visit.
        self._sizes: dict[_Key, int] = {}
        self._bytes = 0
        # Event loops of several threads may share a resource server.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What the entries take, by their own account."""
        return self._bytes

    def get(self, key: _Key) -> _Value | None:
        """Return the value and count it as used, None where there is none."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: _Key, value: _Value, *, size: int) -> None:
        """Keep a value that takes `size` bytes with its key; others go where there are too many.

        What alone is larger than the cache is not kept, and pushes nothing out.
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
