"""Proofs that follow what servers said: their nonces and, by option, their clocks (RFC 9449 sections 8, 9).

The one place where a request gets its proof and where a refusal is answered with a new proof: `DPoPAuth` and
`DPoPTransport` send what `exchange` yields, each in its own way. What a server says about the next proof is
remembered per origin. The requests are httpx2's or httpx's, which share interfaces but no classes.
"""

import re
from collections.abc import Callable, Container, Generator, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeAlias, get_args

from dpop_middleware import _options
from dpop_middleware._runtime import installed
from dpop_middleware.client.key import DPoPKey
from dpop_middleware.client.urls import NEW_FORM, OriginMemory, request_origin, sent_url

__all__ = [
    "Proofs",
    "can_repeat",
    "is_refused_for",
    "json_object",
    "one_nonce",
]

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

_BYTES: Final = installed("ByteStream")


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
        request.url = sent_url(request.url)
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
        return is_refused_for(error, challenges, json_object(response) if self.needs_body(response) else None)


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


def _date(values: list[str]) -> float | None:
    if len(values) != 1:
        return None
    try:
        return parsedate_to_datetime(values[0]).timestamp()
    except (ValueError, OverflowError):
        return None


def json_object(response: Any) -> dict[str, Any]:
    """Return the JSON object in a body that was read, an empty one where there is none."""
    if not response.is_stream_consumed:  # too long for an error
        return {}
    try:
        answer = response.json()
    except (ValueError, RecursionError):  # not JSON, or nested too deep for Python
        return {}
    return answer if isinstance(answer, dict) else {}
