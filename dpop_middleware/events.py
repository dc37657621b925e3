"""What a resource server tells its operators: one event for each decision, and a log line for most.

Never a token or a proof: an event holds what was expected and what was found, and the log escapes both.
"""

import inspect
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dpop_middleware._judge.hints import hint_of
from dpop_middleware._options import refused
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.checks import Check
from dpop_middleware.errors import (
    DPoPError,
    MissingCredentials,
    Scheme,
    Unavailable,
    UseDPoPNonce,
)
from dpop_middleware.tokens.access_token import AccessToken

__all__ = ["AuthenticationEvent", "EventSink", "Reporter", "hint_for"]

_LOG = logging.getLogger("dpop_middleware")
_LINES_PER_SECOND = 10
_SECONDS_BETWEEN_TRACEBACKS = 60
_HOW_TO_SEE_MORE = (
    ". Further refusals by this check are logged at INFO, which isn't shown here: to see them, give the "
    "logger 'dpop_middleware' a handler and the level INFO"
)
_LONGEST_VALUE = 200

Outcome = Literal["accepted", "refused", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationEvent:
    """One decision of a resource server.

    - `outcome`: `accepted`, `refused`, or `unavailable` where the verdict couldn't be known.
    - `check`: the check that failed, None for `accepted`. `reason`: the sentence that the client reads.
    - `error`: the OAuth error code, `status` the HTTP status; None for `accepted` and where there is none.
    - `scheme`: the authentication scheme of the request, None without one.
    - `method`, `path`: of the request, the path as it was sent, without the query.
    - `jkt`, `client_id`, `issuer`: of the verified token, None where it wasn't verified.
    - `actor`: who acts for the token's subject (RFC 8693), as in `Actor.identity`; None for nobody else.
    - `duration`: seconds that the decision took.
    - `expected`, `actual`: what the check compared, from the request: escape them before they go anywhere.
    - `hint`: a likely cause.
    """

    outcome: Outcome
    check: Check | None
    reason: str
    error: str | None
    status: int | None
    scheme: Scheme | None
    method: str
    path: str
    jkt: str | None
    client_id: str | None
    duration: float
    expected: object
    actual: object
    hint: str | None
    issuer: str | None = None
    actor: str | None = None


def hint_for(error: DPoPError) -> str | None:
    """Return a likely cause of `error` in one sentence, None where there is none to name.

    For the log of whoever catches an error, as at a token endpoint; never for the client.
    """
    return hint_of(error)


EventSink = Callable[[AuthenticationEvent], object]


def _escaped(value: object) -> str:
    text = ascii(value[: _LONGEST_VALUE + 1] if isinstance(value, str) else value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}...(cut)"


def _named(cause: BaseException | None) -> str:
    """The class of a cause, and the code of a server's error reply such as `OOM`."""
    name = type(cause).__name__
    code = getattr(cause, "code", None)
    return f"{name}({_escaped(code)})" if isinstance(code, str) else name


def _info_is_seen() -> bool:
    """Whether the logger, or one that it hands its records to, has a handler that shows INFO."""
    logger: logging.Logger | None = _LOG if _LOG.isEnabledFor(logging.INFO) else None
    while logger is not None:
        for handler in logger.handlers:
            if handler.level <= logging.INFO and not isinstance(handler, logging.NullHandler):
                return True
        logger = logger.parent if logger.propagate else None
    return False


class _RateLimit:
    """At most ten lines a second of each kind, so that a flood of bad requests is not one of log lines.

    A traceback has fifty: once a minute for each kind and class of exception is enough.
    """

    def __init__(self) -> None:
        self._second: dict[object, tuple[int, int]] = {}
        self._suppressed: dict[object, int] = {}
        self._traced: dict[object, float] = {}

    def admit(self, kind: object, now: float) -> int | None:
        """Return how many lines were left out since the last one, None to leave this one out too."""
        second = int(now)
        started, lines = self._second.get(kind, (second, 0))
        if started != second:
            lines = 0
        if lines >= _LINES_PER_SECOND:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return None
        self._second[kind] = (second, lines + 1)
        return self._suppressed.pop(kind, 0)

    def traceback(self, kind: object, cause: BaseException | None, now: float) -> BaseException | None:
        """Return `cause` where its traceback is to be logged, None where that was done a while ago."""
        kind = (kind, type(cause))
        if now - self._traced.get(kind, -math.inf) < _SECONDS_BETWEEN_TRACEBACKS:
            return None
        self._traced[kind] = now
        return cause


class Reporter:
    """Hands each decision to `on_event` and to the logger `dpop_middleware`.

    Refusals are logged at INFO, unavailability at WARNING with the class of its cause and, once a minute, its
    traceback; acceptance at DEBUG. Servers often show no INFO lines: where none would be seen, the first
    refusal by each check is a WARNING that says how to see the others. A request without credentials and one
    without a nonce don't count: they are the first steps of many clients. What `on_event` raises is logged
    and changes no verdict. Raises ConfigurationError unless `on_event` is a synchronous function.
    """

    def __init__(self, on_event: EventSink | None) -> None:
        asynchronous = any(map(inspect.iscoroutinefunction, (on_event, type(on_event).__call__)))
        if on_event is not None and (asynchronous or not callable(on_event)):
            raise refused("on_event", "a synchronous function, which may fill a queue", on_event)
        self._on_event = on_event
        self._limit = _RateLimit()
        self._shown: set[Check | None] = set()

    @property
    def wants_acceptance(self) -> bool:
        """Whether anybody listens to accepted requests."""
        return self._on_event is not None or _LOG.isEnabledFor(logging.DEBUG)

    def accepted(
        self, request: ResourceRequest, *, scheme: Scheme, token: AccessToken, duration: float
    ) -> None:
        """Report a request that may reach the application; `duration` is in seconds."""
        actor = token.actor
        event = AuthenticationEvent(
            outcome="accepted",
            check=None,
            reason="every check passed",
            error=None,
            status=None,
            scheme=scheme,
            method=request.method,
            path=request.raw_path,
            jkt=token.jkt,
            client_id=token.client_id,
            duration=duration,
            expected=None,
            actual=None,
            hint=None,
            issuer=token.issuer,
            actor=None if actor is None else actor.identity,
        )
        self._deliver(event)
        _LOG.debug("accepted: scheme=%s duration=%.6f", scheme, duration)

    def failed(
        self,
        error: DPoPError,
        request: ResourceRequest,
        *,
        duration: float,
    ) -> None:
        """Report a request that was refused, or couldn't be judged; `duration` is in seconds."""
        unavailable = isinstance(error, Unavailable)
        first = not unavailable and self._is_first_of_its_kind(error)
        level = logging.WARNING if unavailable or first else logging.INFO
        logged = _LOG.isEnabledFor(level)
        if self._on_event is None and not logged:
            return
        event = AuthenticationEvent(
            outcome="unavailable" if unavailable else "refused",
            check=error.check,
            reason=error.description,
            error=error.code,
            status=error.status,
            scheme=error.scheme,
            method=request.method,
            path=request.raw_path,
            jkt=error.jkt,
            client_id=error.client_id,
            duration=duration,
            expected=error.expected,
            actual=error.actual,
            hint=hint_of(error, request),
            issuer=error.refusal.issuer,
            actor=error.refusal.actor,
        )
        self._deliver(event)
        if logged:
            self._log(level, event, error, note=_HOW_TO_SEE_MORE if first else "")

    def _is_first_of_its_kind(self, error: DPoPError) -> bool:
        """Whether nobody would see this refusal at INFO, and none by the same check was shown yet."""
        if isinstance(error, (MissingCredentials, UseDPoPNonce)) or error.check in self._shown:
            return False
        if _info_is_seen() or not _LOG.isEnabledFor(logging.WARNING):
            return False
        self._shown.add(error.check)
        return True

    def _log(self, level: int, event: AuthenticationEvent, error: DPoPError, *, note: str) -> None:
        # By level too: a flood of refusals must not hide an outage that the same check found.
        kind, now = (level, event.check), time.monotonic()
        suppressed = self._limit.admit(kind, now)
        if suppressed is None:
            return
        cause = error.__cause__ if isinstance(error, Unavailable) else None
        _LOG.log(
            level,
            "%s: check=%s error=%s status=%s scheme=%s method=%s path=%s client_id=%s reason=%r "
            "expected=%s actual=%s hint=%s%s suppressed=%d%s",
            event.outcome,
            event.check,
            event.error,
            event.status,
            event.scheme,
            _escaped(event.method),
            _escaped(event.path),
            _escaped(event.client_id),
            event.reason,
            _escaped(event.expected),
            _escaped(event.actual),
            _escaped(event.hint),
            "" if cause is None else f" cause={_named(cause)}",
            suppressed,
            note,
            exc_info=self._limit.traceback(kind, cause, now),
        )

    def _deliver(self, event: AuthenticationEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - a faulty sink must not decide who gets in, nor make a 500
            now = time.monotonic()
            suppressed = self._limit.admit("on_event", now)
            if suppressed is not None:
                _LOG.error(
                    "on_event raised %s: suppressed=%d",
                    _named(error),
                    suppressed,
                    exc_info=self._limit.traceback("on_event", error, now),
                )
