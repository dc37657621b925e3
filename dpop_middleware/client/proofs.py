"""Proofs that follow what servers said: their nonces and, by option, their clocks (RFC 9449 sections 8, 9).

The one place where a request gets its proof and where a refusal is answered with a new proof: `DPoPAuth` and
`DPoPTransport` send what `exchange` yields, each in its own way. What a server says about the next proof is
remembered per origin. The requests are httpx2's or httpx's, which share interfaces but no classes.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Container, Generator, Iterable, Mapping
from email.utils import parsedate_to_datetime
from importlib import import_module
from threading import Lock
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args

from dpop_middleware import _options
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.urls import NEW_FORM, percent_encoded, request_origin

__all__ = [
    "OriginMemory",
    "Proofs",
    "can_repeat",
    "installed",
    "is_refused_for",
    "library_of",
    "one_nonce",
]

_Learned = TypeVar("_Learned")
_ErrorCode: TypeAlias = Literal["use_dpop_nonce", "invalid_dpop_proof"]
_Lesson: TypeAlias = Literal["nonce", "clock"]

# NQCHAR of RFC 6749 appendix A; the length keeps the proof far below the size that servers refuse.
_NONCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,2048}", re.ASCII)
# Two searches: a single one with `.*` in between takes quadratic time on a hostile challenge.
_SCHEME: Final = re.compile(r"\bDPoP\b", re.ASCII | re.IGNORECASE)
_ERROR: Final[Mapping[_ErrorCode, re.Pattern[str]]] = {
    error: re.compile(rf'\berror\s*=\s*"?{error}\b', re.ASCII | re.IGNORECASE)
    for error in get_args(_ErrorCode)
}

_MAX_OFFSET: Final = 300
# `Date` has whole seconds, and a response takes a while.
_LEAST_OFFSET: Final = 2


def installed(*names: str) -> tuple[Any, ...]:
    """Return the classes with these names from each library that is installed.

    Raises ModuleNotFoundError where there is none.
    """
    return tuple(getattr(library, name) for library in _libraries() for name in names)


def library_of(request: object) -> Any:
    """Return the library to which `request` belongs."""
    return next(library for library in _libraries() if isinstance(request, library.Request))


def _libraries() -> list[Any]:
    found: list[Any] = []
    for name in ("httpx2", "httpx"):
        try:
            library = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
        else:
            # After `httpx2.alias_httpx()` both names are one library's.
            if library not in found:
                found.append(library)
    if not found:
        raise ModuleNotFoundError(
            "the client's side needs httpx2 or httpx: "
            "in a checkout of dpop_middleware, python -m pip install '.[client]'",
            name="httpx2",
        )
    return found


_BYTES: Final = installed("ByteStream")


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


def one_nonce(values: Iterable[str]) -> str | None:
    """Return the nonce in a response's `DPoP-Nonce` fields, None unless there is exactly one well-formed."""
    distinct = {value.strip(" \t") for value in values}
    if len(distinct) != 1:
        return None
    nonce = distinct.pop()
    return nonce if _NONCE.fullmatch(nonce) else None


def is_refused_for(error: _ErrorCode, challenges: Iterable[str], body: object) -> bool:
    """Whether a refusal has the code `error`.

    `challenges` are the `WWW-Authenticate` fields of a resource server (RFC 9449 sections 7.1 and 9), `body`
    is the decoded JSON of an authorization server's answer (sections 5 and 8), None where there is none.
    """
    for value in challenges:
        scheme = _SCHEME.search(value)
        if scheme is not None and _ERROR[error].search(value, scheme.end()) is not None:
            return True
    return isinstance(body, dict) and body.get("error") == error


class Proofs:
    """Makes the proofs of one key, each by what its origin said last.

    - `heeded`: the requests whose responses are used.
    - `correct_clock`: whether the response to a refused proof may correct this machine's clock for its
      origin: by `Date`, over https only, by at most 5 minutes.
    """

    def __init__(
        self, key: DPoPKey, *, heeded: Container[Any], clock: Callable[[], float], correct_clock: bool
    ) -> None:
        self._key = key
        self._heeded = heeded
        self._clock = _options.clock(clock)
        self._correct_clock = _options.flag("correct_clock", correct_clock)
        self._nonces: OriginMemory[str] = OriginMemory()
        self._offsets: OriginMemory[float] = OriginMemory()

    def exchange(self, request: Any, token: str | None) -> Generator[Any, Any, Any]:
        """Yield each request to send, receive its response, and return the last response.

        After a refusal from which a nonce or the time was learned, the request is yielded once more, unless
        its body was a stream, or the response belongs to another request because the client itself followed a
        redirect.
        """
        unused: set[_Lesson | None] = {"nonce", "clock"}
        repeatable = can_repeat(request)
        while True:
            response = yield self._signed(request, token)
            lesson = self.learn(response)
            if response.request is not request or lesson not in unused or not repeatable:
                return response
            unused.remove(lesson)
            _renew_form(request)

    def needs_body(self, response: Any) -> bool:
        """Whether the reason of a refusal is in its body, which must be read first."""
        headers = response.headers
        return (
            response.status_code in (400, 401)
            and ("DPoP-Nonce" in headers or self._correct_clock)
            and "json" in headers.get("Content-Type", "").lower()
            and not is_refused_for("use_dpop_nonce", headers.get_list("WWW-Authenticate"), None)
        )

    def learn(self, response: Any) -> _Lesson | None:
        """Remember what a response and those before it say; return what was wrong with the last proof."""
        nonce: str | None = None
        for answer in (*response.history, response):
            nonce = one_nonce(answer.headers.get_list("DPoP-Nonce"))
            if nonce is not None and answer.request in self._heeded:
                self._nonces.remember(request_origin(answer.request), nonce)
        if nonce is not None and self._is_refused_for("use_dpop_nonce", response):
            return "nonce"
        if (
            self._correct_clock
            and response.request in self._heeded
            and self._is_refused_for("invalid_dpop_proof", response)
        ):
            return self._learn_clock(request_origin(response.request), response)
        return None

    def _learn_clock(self, origin: str, response: Any) -> _Lesson | None:
        date = _date(response.headers.get_list("Date"))
        if date is None or not origin.startswith("https:"):
            return None
        offset = date - self._clock()
        known = self._offsets.get(origin) or 0.0
        if abs(offset) > _MAX_OFFSET or abs(offset - known) < _LEAST_OFFSET:
            return None
        self._offsets.remember(origin, offset)
        return "clock"

    def _signed(self, request: Any, token: str | None) -> Any:
        request.url = _percent_encoded(request.url)
        origin = request_origin(request)
        request.headers["DPoP"] = self._key.proof(
            request.method,
            request.url,
            access_token=token,
            nonce=self._nonces.get(origin),
            now=self._clock() + (self._offsets.get(origin) or 0.0),
        )
        if token is not None:
            request.headers["Authorization"] = f"DPoP {token}"
        return request

    def _is_refused_for(self, error: _ErrorCode, response: Any) -> bool:
        challenges = response.headers.get_list("WWW-Authenticate") if response.status_code == 401 else ()
        return is_refused_for(error, challenges, _json(response) if self.needs_body(response) else None)


def _renew_form(request: Any) -> None:
    """Give a request that is sent again a new form, where it can be made: an assertion is for one request."""
    make = request.extensions.get(NEW_FORM)
    if make is not None:
        new = type(request)(request.method, request.url, data=make())
        request.stream = new.stream
        request._content = new.content  # what hooks and mock transports read
        request.headers["Content-Length"] = new.headers["Content-Length"]


def can_repeat(request: Any) -> bool:
    """Whether a request can be sent again: its body is not a stream, which the first attempt may consume."""
    return isinstance(request.stream, _BYTES)


def _percent_encoded(url: Any) -> Any:
    path, mark, query = url.raw_path.partition(b"?")
    encoded = percent_encoded(path.decode("latin-1")).encode("ascii")
    return url if encoded == path else url.copy_with(raw_path=encoded + mark + query)


def _json(response: Any) -> object:
    if not response.is_stream_consumed:
        # Too long for an error.
        return None
    try:
        return response.json()
    except (ValueError, RecursionError):  # not JSON, or nested too deep for Python
        return None


def _date(values: list[str]) -> float | None:
    if len(values) != 1:
        return None
    try:
        return parsedate_to_datetime(values[0]).timestamp()
    except (ValueError, OverflowError):
        return None
