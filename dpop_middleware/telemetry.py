"""Metrics and span attributes by OpenTelemetry: what a dashboard needs (extra `otel`).

The names follow OpenTelemetry's conventions for ASP.NET Core's authentication. An attribute of a metric is
one of a few fixed words, or an issuer that was configured: nothing that an unauthenticated client sends
becomes one.
"""

import threading
from functools import lru_cache
from typing import Final, NamedTuple, get_args
from weakref import WeakSet

from dpop_middleware import errors
from dpop_middleware._adapter.connection import checked_resource_server
from dpop_middleware._log import plain
from dpop_middleware._options import flag, part, provides
from dpop_middleware.checks import Check
from dpop_middleware.errors import Scheme
from dpop_middleware.events import AuthenticationEvent, StoreExchange
from dpop_middleware.resource_server import ResourceServer
from dpop_middleware.tokens.optional_members import key_ages_of_all

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError(
        "dpop_middleware.telemetry needs opentelemetry-api, which is not installed: "
        "in a checkout of dpop_middleware, python -m pip install '.[otel]'"
    ) from error

__all__ = ["METRICS", "SPAN_ATTRIBUTES", "Metric", "Telemetry"]

_OTHER: Final = "_OTHER"
_CODES = frozenset(filter(None, (getattr(getattr(errors, name), "code", None) for name in errors.__all__)))
_CHECKS = frozenset(check.value for check in Check)
_SCHEMES = frozenset(get_args(Scheme))
_FORBIDDEN = 403
_DURATIONS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_AGES = (1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 300, 600)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

_Attributes = dict[str, str]


class Metric(NamedTuple):
    """A metric: its name, kind and unit, its description, and its attributes."""

    name: str
    kind: str
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_RESULT, _SCHEME = "dpop.authentication.result", "dpop.authentication.scheme"
_CHECK, _ERROR = "dpop.check", "error.type"
_DIRECTION, _ISSUER = "dpop.clock_skew.direction", "dpop.issuer"
_AHEAD, _BEHIND = {_DIRECTION: "ahead"}, {_DIRECTION: "behind"}
_NOT_ANSWERED, _ANSWERED = {_ERROR: "no_answer"}, _Attributes()

_DURATION: Final = Metric(
    "dpop.authentication.authenticate.duration",
    "histogram",
    "s",
    "How long each decision took.",
    (_RESULT, _SCHEME, _ERROR),
    _DURATIONS,
)
_CHALLENGES: Final = Metric(
    "dpop.authentication.challenges",
    "counter",
    "{challenge}",
    "Requests that were answered 401 or 400.",
    (_SCHEME, _ERROR, _CHECK),
)
_FORBIDS: Final = Metric(
    "dpop.authentication.forbids",
    "counter",
    "{forbid}",
    "Requests that were answered 403: a scope or a claim was missing.",
    (_SCHEME, _ERROR, _CHECK),
)
_UNAVAILABLE: Final = Metric(
    "dpop.authentication.unavailable",
    "counter",
    "{request}",
    "Requests that were answered 503: store, keys or introspection couldn't be asked.",
    (_SCHEME, _ERROR, _CHECK),
)
_PROOF_AGE: Final = Metric(
    "dpop.proof.age",
    "histogram",
    "s",
    "Age of accepted proofs: since the iat, or since the issue of the nonce that counts instead.",
    (),
    _AGES,
)
_CLOCK_SKEW: Final = Metric(
    "dpop.proof.clock_skew",
    "histogram",
    "s",
    "How far the iat of accepted proofs was from the server's clock.",
    (_DIRECTION,),
    _AGES,
)
_EXCHANGES: Final = Metric(
    "dpop.replay_store.exchange.duration",
    "histogram",
    "s",
    "How long the replay store's server took for each batch of entries.",
    (_ERROR,),
    _DURATIONS,
)
_BATCHES: Final = Metric(
    "dpop.replay_store.exchange.entries",
    "histogram",
    "{entry}",
    "How many entries travelled to the replay store together.",
    (),
    _SIZES,
)
_KEYS_AGE: Final = Metric(
    "dpop.issuer.keys.age", "gauge", "s", "For how long the issuer's keys have been held.", (_ISSUER,)
)

METRICS: Final = (
    _DURATION,
    _CHALLENGES,
    _FORBIDS,
    _UNAVAILABLE,
    _PROOF_AGE,
    _CLOCK_SKEW,
    _EXCHANGES,
    _BATCHES,
    _KEYS_AGE,
)
"""Every metric, in the order of the dashboard's page."""

_CLIENT, _SUBJECT = "dpop.client_id", "enduser.id"
_SPAN_ERROR, _SPAN_AGE, _SPAN_SKEW = "dpop.authentication.error", "dpop.proof.age", "dpop.proof.clock_skew"

SPAN_ATTRIBUTES: Final = (
    _RESULT,
    _SCHEME,
    _SPAN_ERROR,
    _CHECK,
    _ISSUER,
    _SPAN_AGE,
    _SPAN_SKEW,
    _CLIENT,
    _SUBJECT,
)
"""Every attribute of a span; the last two with `identities=True` only."""


class Telemetry:
    """Measures the decisions of resource servers by OpenTelemetry.

        telemetry = Telemetry()
        store = RedisReplayStore.from_url(url, on_exchange=telemetry.on_exchange)
        api = ResourceServer(…, replay_store=store, on_event=telemetry.on_event)
        telemetry.watch(api)

    - `meter_provider`: an OpenTelemetry MeterProvider; the global one by default.
    - `spans`: True, the default, puts attributes on the span of the request that is being served.
    - `identities`: True puts the token's client and subject there too. They are personal data.

    Neither metrics nor spans contain a token, a proof or its `jti`, or anything else of an unverified
    request. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        meter_provider: metrics.MeterProvider | None = None,
        spans: bool = True,
        identities: bool = False,
    ) -> None:
        provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
        takes = "an OpenTelemetry MeterProvider"
        part("meter_provider", meter_provider, takes, fits=provides(provider, "get_meter"))
        self._spans = flag("spans", spans)
        self._identities = flag("identities", identities)
        self._watched: WeakSet[ResourceServer] = WeakSet()
        # The ages may be read in a thread of its own.
        self._watching = threading.Lock()
        meter = provider.get_meter("dpop_middleware")
        self._duration, self._proof_age, self._clock_skew, self._exchanges, self._batches = [
            _histogram(meter, metric) for metric in (_DURATION, _PROOF_AGE, _CLOCK_SKEW, _EXCHANGES, _BATCHES)
        ]
        self._challenges, self._forbids, self._unavailable = [
            meter.create_counter(metric.name, metric.unit, metric.description)
            for metric in (_CHALLENGES, _FORBIDS, _UNAVAILABLE)
        ]
        meter.create_observable_gauge(_KEYS_AGE.name, [self._key_ages], _KEYS_AGE.unit, _KEYS_AGE.description)

    def watch(self, resource_server: ResourceServer) -> None:
        """Also report the age of the keys of the server's issuers, while the server exists."""
        server = checked_resource_server(resource_server, option="watch")
        with self._watching:
            self._watched.add(server)

    def on_event(self, event: AuthenticationEvent) -> None:
        """Count and time one decision: the `on_event` of a resource server, or called by yours."""
        labels = _labels(event.outcome, event.scheme, event.error, event.check)
        self._duration.record(event.duration, labels.timed)
        if event.outcome == "unavailable":
            self._unavailable.add(1, labels.counted)
        elif event.outcome == "refused":
            (self._forbids if event.status == _FORBIDDEN else self._challenges).add(1, labels.counted)
        if event.proof_age is not None and event.clock_offset is not None:
            self._proof_age.record(event.proof_age)
            self._clock_skew.record(abs(event.clock_offset), _AHEAD if event.clock_offset > 0 else _BEHIND)
        if self._spans:
            self._describe(event, labels)

    def on_exchange(self, exchange: StoreExchange) -> None:
        """Measure one exchange of the replay store: the `on_exchange` of a `RedisReplayStore`."""
        self._exchanges.record(exchange.seconds, _ANSWERED if exchange.answered else _NOT_ANSWERED)
        self._batches.record(exchange.entries)

    def _describe(self, event: AuthenticationEvent, labels: "_Labels") -> None:
        span = trace.get_current_span()
        if not span.is_recording():
            return
        attributes: dict[str, str | int | float | None] = {
            _RESULT: labels.timed[_RESULT],
            _SCHEME: labels.timed.get(_SCHEME),
            # The span's own error.type is the result of the whole request.
            _SPAN_ERROR: labels.timed.get(_ERROR),
            _CHECK: labels.counted.get(_CHECK),
            _ISSUER: plain(event.issuer),
            _SPAN_AGE: event.proof_age,
            _SPAN_SKEW: event.clock_offset,
        }
        if self._identities:
            attributes[_CLIENT], attributes[_SUBJECT] = plain(event.client_id), plain(event.subject)
        span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def _key_ages(self, _: metrics.CallbackOptions) -> list[metrics.Observation]:
        with self._watching:
            watched = list(self._watched)
        ages = dict(key_ages_of_all([server.verification.verifier for server in watched]))
        return [metrics.Observation(age, {_ISSUER: issuer}) for issuer, age in ages.items()]


def _histogram(meter: metrics.Meter, metric: Metric) -> metrics.Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )


class _Labels(NamedTuple):
    """The attributes of one decision: of the histogram of durations, and of the counters."""

    timed: _Attributes
    counted: _Attributes


@lru_cache(maxsize=512)
def _labels(outcome: str, scheme: str | None, error: str | None, check: str | None) -> _Labels:
    """Return the attributes, each one of a few words: a user's own verifier may raise its own errors."""
    if outcome == "accepted":
        result = "success"
    else:
        result = "none" if outcome == "refused" and error is None else "failure"
    kind = "unavailable" if outcome == "unavailable" else _known(error, _CODES)
    timed = _present({_RESULT: result, _SCHEME: _known(scheme, _SCHEMES), _ERROR: kind})
    counted = _present({_SCHEME: _known(scheme, _SCHEMES), _ERROR: kind, _CHECK: _known(check, _CHECKS)})
    return _Labels(timed, counted)


def _known(word: str | None, words: frozenset[str]) -> str | None:
    return None if word is None else str(word) if word in words else _OTHER


def _present(attributes: dict[str, str | None]) -> _Attributes:
    return {name: value for name, value in attributes.items() if value is not None}
