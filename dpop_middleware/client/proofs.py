"""Proofs that heed what servers said: their nonces and, by option, their clocks (RFC 9449 sections 8 and 9).

The one place where a request gets its proof and where a refusal is answered with another: `DPoPAuth` and
`DPoPTransport` send what `exchange` yields, each in its own way.
"""

from collections.abc import Callable, Container, Generator
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeAlias

from dpop_middleware import _options
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.libraries import installed
from dpop_middleware.client.nonces import DPoPError, OriginMemory, is_refused_for, one_nonce
from dpop_middleware.client.origins import request_origin
from dpop_middleware.client.target import percent_encoded

__all__ = ["Proofs", "can_repeat"]

Lesson: TypeAlias = Literal["nonce", "clock"]

_MAX_OFFSET: Final = 300
# `Date` has whole seconds, and an answer takes a while.
_LEAST_OFFSET: Final = 2
_BYTES: Final = installed("ByteStream")


class Proofs:
    """Makes the proofs of one key, each with what its origin said last.

    - `heeded`: whose answers are heeded, by their requests.
    - `correct_clock`: whether a refused proof's answer may correct this machine's clock for its origin: by
      `Date`, over https only, by at most 5 minutes.
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
        """Yield what to send, receive each response, and return the last one.

        After a refusal that teaches something, the request is yielded once more, unless its body was a
        stream or the response is to another request: a client that follows redirects went on by itself.
        """
        unused: set[Lesson | None] = {"nonce", "clock"}
        repeatable = can_repeat(request)
        while True:
            response = yield self._signed(request, token)
            lesson = self.learn(response)
            if response.request is not request or lesson not in unused or not repeatable:
                return response
            unused.remove(lesson)

    def needs_body(self, response: Any) -> bool:
        """Whether what a refusal teaches stands in its body, which must be read first."""
        headers = response.headers
        return (
            response.status_code in (400, 401)
            and ("DPoP-Nonce" in headers or self._correct_clock)
            and "json" in headers.get("Content-Type", "")
            and not is_refused_for("use_dpop_nonce", headers.get_list("WWW-Authenticate"), None)
        )

    def learn(self, response: Any) -> Lesson | None:
        """Remember what a response and those before it say, and return what was wrong with the last proof."""
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

    def _learn_clock(self, origin: str, response: Any) -> Lesson | None:
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

    def _is_refused_for(self, error: DPoPError, response: Any) -> bool:
        challenges = response.headers.get_list("WWW-Authenticate") if response.status_code == 401 else ()
        return is_refused_for(error, challenges, _json(response) if self.needs_body(response) else None)


def can_repeat(request: Any) -> bool:
    """Whether a request can be sent again: its body is not a stream, which its first use may consume."""
    return isinstance(request.stream, _BYTES)


def _percent_encoded(url: Any) -> Any:
    path, mark, query = url.raw_path.partition(b"?")
    encoded = percent_encoded(path.decode("latin-1")).encode("ascii")
    return url if encoded == path else url.copy_with(raw_path=encoded + mark + query)


def _json(response: Any) -> object:
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
