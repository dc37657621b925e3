"""URLs on the client's side: the `htu` of a proof, and origins: where a token may go, what each said last."""

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable
from threading import Lock
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from dpop_middleware import _options
from dpop_middleware._request.secure_url import checked_hosts, checked_url, shown_url
from dpop_middleware._request.uri import parse_base_url
from dpop_middleware.errors import ConfigurationError

__all__ = [
    "NEW_FORM",
    "OriginMemory",
    "OwnOrigins",
    "check_secure",
    "named_origin",
    "named_urls",
    "origin_of",
    "request_origin",
    "sent_url",
    "target_of",
]

_Learned = TypeVar("_Learned")

NEW_FORM: Final = "dpop_middleware.new_form"
"""The extension of a request whose form is made anew for each attempt: a function that returns it."""

# A WebSocket handshake is a GET at the http form of its address (RFC 6455 section 4.1).
_HTTP_SCHEME: Final = MappingProxyType({"http": "http", "https": "https", "ws": "http", "wss": "https"})
_URL: Final = re.compile(
    r"(https?|wss?)://(?:[^/?#@]*@)?([^/?#@]+)(/[^?#]*)?(?:[?#].*)?", re.ASCII | re.IGNORECASE
)
_ON_THE_WIRE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
# Characters that a path may not contain unencoded (RFC 3986 section 3.3) but clients send: \\ ^ | and others.
_NOT_IN_A_PATH: Final = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]|%(?![0-9A-Fa-f]{2})")

# Where Starlette's TestClient calls an application unless it is told where that is, and WebSockets always.
_OF_TESTS: Final = "testserver"


def sent_url(url: Any) -> Any:
    """Return a URL of httpx2 or httpx with all percent-encoded in its path that a path can't contain."""
    path, mark, query = url.raw_path.partition(b"?")
    encoded = _percent_encoded(path.decode("latin-1")).encode("ascii")
    return url if encoded == path else url.copy_with(raw_path=encoded + mark + query)


def _percent_encoded(path: str) -> str:
    # Each character is one octet.
    return _NOT_IN_A_PATH.sub(lambda found: f"%{ord(found[0]):02X}", path)


def target_of(url: str) -> str:
    """Return the value of `htu`: `url` without query, fragment and user information.

    Characters that a path can't contain are percent-encoded, as `DPoPAuth` and browsers send them. Raises
    ValueError for a URL that isn't absolute, http or https (ws, wss), and visible ASCII.
    """
    scheme, authority, path = _split(url)
    return f"{scheme}://{authority}{_percent_encoded(path)}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of `url` in their one normal form (RFC 6454 section 4).

    Raises ValueError as `target_of` does.
    """
    scheme, authority, _ = _split(url)
    return parse_base_url(f"{scheme}://{authority}").origin


def named_origin(option: str, url: str) -> str:
    """Return `origin_of(url)`; raises ConfigurationError, which names the option and the URL."""
    try:
        return origin_of(url)
    except ValueError as error:
        raise ConfigurationError(f"{option} takes an https URL, not {shown_url(url)}: {error}") from error


def _split(url: str) -> tuple[str, str, str]:
    match = _URL.fullmatch(url)
    if match is None or _ON_THE_WIRE.fullmatch(url) is None:
        raise ValueError("the URL must be absolute, http or https, and percent-encoded as it is sent")
    scheme, authority, path = match.groups()
    return _HTTP_SCHEME[scheme.lower()], authority, path or "/"


def check_secure(option: str, url: str, insecure_http_hosts: Collection[str]) -> None:
    """Raise ConfigurationError for a `url` by plain http, unless its host is loopback or named."""
    checked_url(option, named_origin(option, url), insecure_http_hosts=insecure_http_hosts)


def named_urls(option: str, value: object, insecure_http_hosts: Collection[str]) -> tuple[str, ...]:
    """Return an option that is None, a URL or several, as a tuple; each is checked by `check_secure`."""
    if value is None:
        return ()
    several = _options.listed(value)
    if isinstance(value, str):
        several = (value,)
    elif not several or not all(isinstance(url, str) and url for url in several):
        raise _options.refused(option, "a URL, or several", value)
    for url in several:
        check_secure(option, url, insecure_http_hosts)
    return several


class OwnOrigins:
    """The named origins, or else that of the first request; safe to share between threads.

    An origin with plain http must be loopback or in `insecure_http_hosts`; others raise ConfigurationError.
    """

    def __init__(self, named: str | Iterable[str] | None, insecure_http_hosts: Collection[str]) -> None:
        self._hosts = checked_hosts(insecure_http_hosts)
        self._lock = Lock()
        self._origins = frozenset(map(origin_of, named_urls("origin", named, self._hosts)))

    def claim(self, request: Any) -> bool:
        """Whether `request` goes to one of the origins; where none is named, the first request sets it."""
        with self._lock:  # two threads may send the first request at the same time
            if not self._origins:
                self.require_secure(request)
                self._origins = frozenset((request_origin(request),))
        return request in self

    def __contains__(self, request: Any) -> bool:
        try:
            return request_origin(request) in self._origins
        except ValueError:
            # A redirect may name a URL that isn't http; the client itself then reports the error.
            return False

    def require_secure(self, request: Any) -> None:
        """Raise ConfigurationError for a request by plain http that crosses a network and isn't named."""
        origin = request_origin(request)
        if origin == f"http://{_OF_TESTS}" and _OF_TESTS not in self._hosts:
            raise ConfigurationError(
                f"the request's URL must be the API's own, not {origin!r}: "
                "TestClient(app, base_url='https://api.example.com'), "
                "websocket_connect('wss://api.example.com/notes')"
            )
        checked_url("the request's URL", origin, insecure_http_hosts=self._hosts)


def request_origin(request: Any) -> str:
    """Return the origin of a request of httpx2 or httpx; raises ValueError for a URL that isn't http."""
    return origin_of(str(request.url))


class OriginMemory(Generic[_Learned]):
    """What each origin said last, for the `limit` most recent origins; safe to share between threads."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._learned: OrderedDict[str, _Learned] = OrderedDict()
        self._lock = Lock()

    def get(self, origin: str) -> _Learned | None:
        """Return what to use at `origin`, None where nothing is remembered."""
        with self._lock:
            return self._learned.get(origin)

    def remember(self, origin: str, learned: _Learned) -> None:
        """Use `learned` at `origin` from now on."""
        with self._lock:
            self._learned[origin] = learned
            self._learned.move_to_end(origin)
            if len(self._learned) > self._limit:
                self._learned.popitem(last=False)
