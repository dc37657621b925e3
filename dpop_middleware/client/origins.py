"""To which origins a token and its proofs may go, and what was learned from each origin."""

from collections.abc import Collection, Iterable
from threading import Lock
from typing import Any

from dpop_middleware._request.secure_url import checked_hosts, checked_url
from dpop_middleware.client.target import origin_of

__all__ = ["OwnOrigins", "request_origin"]


class OwnOrigins:
    """The named origins, or else the one that claims to be the first; safe to share between threads.

    An origin by plain http is one of loopback or in `insecure_http_hosts`; others raise ConfigurationError.
    """

    def __init__(self, named: str | Iterable[str] | None, insecure_http_hosts: Collection[str]) -> None:
        urls = (named,) if isinstance(named, str) else tuple(named or ())
        self._hosts = checked_hosts(insecure_http_hosts)
        self._lock = Lock()
        self._origins = frozenset(origin_of(url) for url in urls)
        for origin in self._origins:
            checked_url("origin", origin, insecure_http_hosts=self._hosts)

    def claim(self, request: Any) -> bool:
        """Whether `request` goes to one of the origins; where none is named, the first one's is it."""
        with self._lock:  # two threads may come first
            if not self._origins:
                self.require_secure(request)
                self._origins = frozenset((request_origin(request),))
        return request in self

    def __contains__(self, request: Any) -> bool:
        try:
            return request_origin(request) in self._origins
        except ValueError:
            # A redirect may name what is no http URL; the client then says what it thinks of it.
            return False

    def require_secure(self, request: Any) -> None:
        """Raise ConfigurationError for a request by plain http that crosses a network and isn't named."""
        checked_url("the request's URL", request_origin(request), insecure_http_hosts=self._hosts)


def request_origin(request: Any) -> str:
    """Return the origin of a request of httpx2 or httpx; raises ValueError where its URL is no http URL."""
    return origin_of(str(request.url))
