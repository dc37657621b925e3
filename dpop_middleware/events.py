"""Reports of a resource server to its operators: one event for each decision, and a log line for most.

They never contain a token or a proof: an event has what was expected and what was found, and the log escapes
both.
"""

import logging
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Literal

from dpop_middleware._judge.hints import hint_of
from dpop_middleware._judge.verdicts import Authentication
from dpop_middleware._log import LOG, RateLimit, escaped, info_is_seen, named, plain
from dpop_middleware._options import listener
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.checks import Check
from dpop_middleware.errors import (
    DPoPError,
    MissingCredentials,
    Scheme,
    Unavailable,
    UseDPoPNonce,
)
from dpop_middleware.replay.store import ExchangeSink, StoreExchange

__all__ = [
    "AuthenticationEvent",
    "EventSink",
    "ExchangeSink",
    "HeldAcceptances",
    "Outcome",
    "Reporter",
    "StoreExchange",
    "hint_for",
]

_HOW_TO_SEE_MORE = (
    ". Further refusals by this check are logged at INFO, which isn't shown here: to see them, give the "
    "logger 'dpop_middleware' a handler and the level INFO"
)
# The fields of an event that are in its log line and in the line's `extra`.
_LOGGED = (
    "outcome", "check", "error", "status", "scheme", "method", "path", "client_id", "reason", "expected",
    "actual", "hint", "duration",
)  # fmt: skip

Outcome = Literal["accepted", "refused", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationEvent:
    """One decision of a resource server.

    - `outcome`: `accepted`, `refused`, or `unavailable` where the verdict couldn't be known.
    - `check`: the check that failed, None for `accepted`. `reason`: the sentence that the client reads.
    - `error`: the OAuth error code, `status` the HTTP status; None for `accepted` and where there is none.
    - `scheme`: the authentication scheme of the request, None without one.
    - `method`, `path`: of the request, the path as it was sent, without the query.
    - `jkt`, `client_id`, `issuer`, `subject`: of the verified token, None where it wasn't verified.
    - `actor`: the party that acts for the token's subject (RFC 8693), as in `Actor.identity`; or None.
    - `duration`: seconds that the decision took.
    - `proof_age`: of an accepted proof: seconds since its `iat`, or since the issue of the nonce that counts
      instead. `clock_offset`: by how many seconds its `iat` is ahead of the server's clock, or below 0.
    - `expected`, `actual`: the values that the check compared, from the request: escape them before any use.
    - `hint`: a likely cause. It is looked for at the first ten refusals a second by each check.
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
    subject: str | None = None
    proof_age: float | None = None
    clock_offset: float | None = None


def hint_for(error: DPoPError) -> str | None:
    """Return a likely cause of `error` in one sentence, None if none is known.

    For the log of code that catches an error, as at a token endpoint; never for the client.
    """
    return hint_of(error)


EventSink = Callable[[AuthenticationEvent], object]


class Reporter:
    """Passes each decision to `on_event` and to the logger `dpop_middleware`.

    Refusals are logged at INFO, unavailability at WARNING with the class of its cause and, once a minute, its
    traceback; acceptance at DEBUG. Servers often show no INFO lines: then the first refusal by each check is
    a WARNING that says how to see the others. A request without credentials and one without a nonce don't
    count: they are the first steps of many clients. An exception of `on_event` is logged and changes no
    verdict. Raises ConfigurationError unless `on_event` is a synchronous function.
    """

    def __init__(self, on_event: EventSink | None) -> None:
        self._on_event: EventSink | None = listener("on_event", on_event)
        self._limit = RateLimit()
        self._shown: set[Check | None] = set()

    @property
    def wants_acceptance(self) -> bool:
        """Whether accepted requests are reported at all."""
        return self._on_event is not None or LOG.isEnabledFor(logging.DEBUG)

    def accepted(self, authentication: Authentication, *, duration: float) -> None:
        """Report a request that may reach the application; `duration` is in seconds."""
        request, scheme, token = authentication.request, authentication.scheme, authentication.access_token
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
            subject=token.subject,
            proof_age=authentication.proof_age,
            clock_offset=authentication.clock_offset,
        )
        self._deliver(event)
        if LOG.isEnabledFor(logging.DEBUG):
            extra = {"dpop_outcome": event.outcome, "dpop_scheme": scheme, "dpop_duration": duration}
            LOG.debug("accepted: scheme=%s duration=%.6f", scheme, duration, extra=extra)

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
        logged = LOG.isEnabledFor(level)
        if self._on_event is None and not logged:
            return
        # A flood of refusals must not hide an outage by the same check, and an outage no first refusal.
        kind = (level, logged, first, error.check)
        suppressed = self._limit.admit(kind, time.monotonic())
        if self._on_event is None and suppressed is None:
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
            hint=None if suppressed is None else hint_of(error, request),
            issuer=error.refusal.issuer,
            actor=error.refusal.actor,
            subject=error.refusal.subject,
        )
        self._deliver(event)
        if logged and suppressed is not None:
            self._log(kind, event, error, suppressed=suppressed, note=_HOW_TO_SEE_MORE if first else "")

    def _is_first_of_its_kind(self, error: DPoPError) -> bool:
        """Whether INFO lines aren't shown, and no refusal by the same check was logged yet."""
        if isinstance(error, (MissingCredentials, UseDPoPNonce)) or error.check in self._shown:
            return False
        if info_is_seen() or not LOG.isEnabledFor(logging.WARNING):
            return False
        self._shown.add(error.check)
        return True

    def _log(
        self,
        kind: tuple[int, bool, bool, Check | None],
        event: AuthenticationEvent,
        error: DPoPError,
        *,
        suppressed: int,
        note: str,
    ) -> None:
        cause = error.__cause__ if isinstance(error, Unavailable) else None
        LOG.log(
            kind[0],
            "%s: check=%s error=%s status=%s scheme=%s method=%s path=%s client_id=%s reason=%r "
            "expected=%s actual=%s hint=%s%s suppressed=%d%s",
            event.outcome,
            event.check,
            event.error,
            event.status,
            event.scheme,
            escaped(event.method),
            escaped(event.path),
            escaped(event.client_id),
            event.reason,
            escaped(event.expected),
            escaped(event.actual),
            escaped(event.hint),
            "" if cause is None else f" cause={named(cause)}",
            suppressed,
            note,
            exc_info=self._limit.traceback(kind, cause, time.monotonic()),
            extra={f"dpop_{name}": plain(getattr(event, name)) for name in _LOGGED}
            | {"dpop_cause": None if cause is None else named(cause), "dpop_suppressed": suppressed},
        )

    def _deliver(self, event: AuthenticationEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - a faulty listener changes no verdict, and causes no 500
            now = time.monotonic()
            suppressed = self._limit.admit("on_event", now)
            if suppressed is not None:
                LOG.error(
                    "on_event raised %s: suppressed=%d",
                    named(error),
                    suppressed,
                    exc_info=self._limit.traceback("on_event", error, now),
                )


class HeldAcceptances:
    """The acceptances of one connection that aren't reported yet, one for each server and its siblings.

    An adapter further inside may still refuse the request. Each is reported in the context in which it was
    made.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Reporter, tuple[Context, Authentication, float]] = {}

    def keep(self, reporter: Reporter, authentication: Authentication) -> None:
        """Hold back one acceptance."""
        if reporter.wants_acceptance:
            duration = time.perf_counter() - authentication.started
            self._waiting[reporter] = copy_context(), authentication, duration

    def drop(self, reporter: Reporter) -> None:
        """Drop the acceptance that was held back for the server that has refused the request."""
        self._waiting.pop(reporter, None)

    def report(self) -> None:
        """Report what is held back."""
        while self._waiting:
            reporter, (context, authentication, duration) = self._waiting.popitem()
            context.run(reporter.accepted, authentication, duration=duration)
