"""Metrics and spans: every decision is measured, and no unauthenticated client can make a time series."""

import importlib
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Receive, Scope, Send

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.checks import Check
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.events import AuthenticationEvent, StoreExchange
from dpop_middleware.telemetry import METRICS, SPAN_ATTRIBUTES, Telemetry
from dpop_middleware.tokens import AccessToken
from tests.support.adapters import World, reached, scope_of
from tests.support.api import Api, request
from tests.support.asgi import call
from tests.support.issuer_server import IssuerServer
from tests.support.issuer_tokens import issuer_key, key_set

Point = NumberDataPoint | HistogramDataPoint


class Measured:
    """A telemetry whose metrics a test reads."""

    def __init__(self, **options: Any) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self.reader])
        self.telemetry = Telemetry(meter_provider=self.provider, **options)

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Each series of a metric: its attributes, and its value, or how many were recorded."""
        return [(dict(point.attributes or {}), value_of(point)) for point in self.all().get(name, [])]

    def all(self) -> Mapping[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "dpop_middleware"
        return {metric.name: list(metric.data.data_points) for metric in scope.metrics}


def value_of(point: Point) -> float:
    return point.count if isinstance(point, HistogramDataPoint) else point.value


@pytest.fixture
def measured() -> Iterator[Measured]:
    measured = Measured()
    yield measured
    measured.provider.shutdown()


def watched(measured: Measured, **options: Any) -> Api:
    return Api(on_event=measured.telemetry.on_event, **options)


async def refused(api: Api, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(DPoPError):
        await api.server.authenticate(*args, **kwargs)


DURATION = "dpop.authentication.authenticate.duration"


async def test_each_decision_is_timed_with_its_result(measured: Measured) -> None:
    api = watched(measured)
    await api.server.authenticate(api.request())
    await refused(api, request())
    await refused(api, api.request(method="POST"))
    await refused(api, api.request(), scopes=["notes:write"])
    api.store.answer = ConnectionError()
    await refused(api, api.request())

    def labels(result: str, error: str | None = None, scheme: str | None = "DPoP") -> dict[str, Any]:
        told = {
            "dpop.authentication.result": result,
            "dpop.authentication.scheme": scheme,
            "error.type": error,
        }
        return {name: value for name, value in told.items() if value is not None}

    points = measured.points(DURATION)
    expected = [
        labels("success"),
        labels("none", scheme=None),
        labels("failure", "invalid_dpop_proof"),
        labels("failure", "insufficient_scope"),
        labels("failure", "unavailable"),
    ]
    assert sorted(map(str, expected)) == sorted(str(attributes) for attributes, _ in points)
    assert [count for _, count in points] == [1] * 5


async def test_refusals_are_counted_by_check_and_by_what_was_answered(measured: Measured) -> None:
    api = watched(measured)
    for _ in range(3):
        await refused(api, api.request(method="POST"))
    await refused(api, request())
    await refused(api, api.request(raw_path="/../notes"))
    await refused(api, api.request(), scopes=["notes:write"])
    api.store.answer = ConnectionError()
    await refused(api, api.request())
    scheme = {"dpop.authentication.scheme": "DPoP"}
    challenges = measured.points("dpop.authentication.challenges")
    assert ({**scheme, "error.type": "invalid_dpop_proof", "dpop.check": "htm"}, 3) in challenges
    assert ({"dpop.check": "authorization"}, 1) in challenges
    assert ({**scheme, "error.type": "invalid_request", "dpop.check": "target"}, 1) in challenges
    assert len(challenges) == 3
    forbids = measured.points("dpop.authentication.forbids")
    assert forbids == [({**scheme, "error.type": "insufficient_scope", "dpop.check": "scope"}, 1)]
    unavailable = measured.points("dpop.authentication.unavailable")
    assert unavailable == [({**scheme, "error.type": "unavailable", "dpop.check": "jti"}, 1)]


async def test_accepted_proofs_tell_their_age_and_how_far_the_clock_is_off(measured: Measured) -> None:
    api = watched(measured, accept_bearer=True)
    await api.server.authenticate(api.request(api.proof(at=-40)))
    await api.server.authenticate(api.request(api.proof(at=25)))
    await refused(api, api.request(api.proof(at=-4000)))
    await api.server.authenticate(request(api.tokens.issue(), scheme="Bearer"))
    (age,) = measured.all()["dpop.proof.age"]
    assert (age.count, age.sum) == (2, 40)
    skews = measured.all()["dpop.proof.clock_skew"]
    assert {point.attributes["dpop.clock_skew.direction"]: point.sum for point in skews} == {
        "behind": 40,
        "ahead": 25,
    }


def test_exchanges_of_the_store_are_measured(measured: Measured) -> None:
    measured.telemetry.on_exchange(StoreExchange(entries=3, seconds=0.002, answered=True))
    measured.telemetry.on_exchange(StoreExchange(entries=1, seconds=0.125, answered=False))
    durations = measured.points("dpop.replay_store.exchange.duration")
    assert durations == [({}, 1), ({"error.type": "no_answer"}, 1)]
    (entries,) = measured.all()["dpop.replay_store.exchange.entries"]
    assert (entries.count, entries.sum) == (2, 4)


async def test_the_age_of_issuers_keys_is_told_while_the_server_lives(measured: Measured) -> None:
    with IssuerServer() as issuer:
        issuer.publish(key_set(issuer_key()))
        server = ResourceServer(
            issuer=issuer.origin, resource="https://api.example.com", replay_store=MemoryReplayStore()
        )
        measured.telemetry.watch(server)
        assert measured.points("dpop.issuer.keys.age") == []
        await server.health()
        ((attributes, age),) = measured.points("dpop.issuer.keys.age")
        assert attributes == {"dpop.issuer": issuer.origin}
        assert 0 <= age < 60
        await server.aclose()
        del server
        assert measured.points("dpop.issuer.keys.age") == []


def test_a_server_with_a_verifier_of_its_own_has_no_ages(measured: Measured) -> None:
    api = Api()
    measured.telemetry.watch(api.server)
    assert measured.points("dpop.issuer.keys.age") == []


class Aged:
    """A verifier with keys that it has held for a second."""

    issuers = ("https://issuer.example.com",)

    async def verify(self, token: str) -> AccessToken:
        raise AssertionError

    def key_ages(self) -> tuple[tuple[str, float], ...]:
        return ((self.issuers[0], 1.0),)


def test_a_server_may_be_watched_while_another_thread_reads_the_ages(measured: Measured) -> None:
    late = [Api().server]

    class Server(ResourceServer):
        def __getattribute__(self, name: str) -> Any:
            if name == "verification" and is_watched and late:
                thread = threading.Thread(target=measured.telemetry.watch, args=(late.pop(),))
                thread.start()
                thread.join()
            return super().__getattribute__(name)

    is_watched = False
    server = Server(verifier=Aged(), resource="https://api.example.com", replay_store=MemoryReplayStore())
    measured.telemetry.watch(server)
    is_watched = True
    assert measured.points("dpop.issuer.keys.age") == [({"dpop.issuer": "https://issuer.example.com"}, 1.0)]
    assert late == []


def event(**changes: Any) -> AuthenticationEvent:
    fields: dict[str, Any] = {
        "outcome": "refused",
        "check": Check.HTM,
        "reason": "no",
        "error": "invalid_dpop_proof",
        "status": 401,
        "scheme": "DPoP",
        "method": "GET",
        "path": "/notes",
        "jkt": None,
        "client_id": None,
        "duration": 0.001,
        "expected": None,
        "actual": None,
        "hint": None,
    }
    return AuthenticationEvent(**fields | changes)


def test_nothing_that_an_unauthenticated_client_sends_makes_a_series(measured: Measured) -> None:
    for number in range(2000):
        hostile: Any = f"x{number}"
        measured.telemetry.on_event(
            event(
                method=hostile,
                path=f"/{hostile}",
                jkt=hostile,
                client_id=hostile,
                subject=hostile,
                issuer=hostile,
                actor=hostile,
                expected=hostile,
                actual=hostile,
                # Errors that a user's own verifier or store may raise.
                error=hostile,
                check=hostile,
                scheme=hostile,
            )
        )
    for name in (DURATION, "dpop.authentication.challenges"):
        ((attributes, count),) = measured.points(name)
        assert count == 2000
        assert "x" not in "".join(attributes.values())
        assert attributes["error.type"] == "_OTHER"


def test_every_code_and_every_check_is_known(measured: Measured) -> None:
    codes = [
        "insufficient_scope",
        "insufficient_user_authentication",
        "invalid_dpop_proof",
        "invalid_request",
        "invalid_token",
        "use_dpop_nonce",
    ]
    for error in codes:
        measured.telemetry.on_event(event(error=error))
    for check in Check:
        measured.telemetry.on_event(event(check=check))
    told = [attributes for attributes, _ in measured.points("dpop.authentication.challenges")]
    assert {each["error.type"] for each in told} == set(codes)
    assert {each["dpop.check"] for each in told} == {str(check) for check in Check}


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


Spans = tuple[TracerProvider, InMemorySpanExporter]


async def served(spans: Spans, api: Api, *, fails: bool = False, **changes: Any) -> dict[str, Any]:
    """Serve one request in a span, and return the span's attributes."""
    provider, exporter = spans
    with provider.get_tracer("test").start_as_current_span("GET /notes"):
        if fails:
            await refused(api, api.request(**changes))
        else:
            await api.server.authenticate(api.request(**changes))
    span: ReadableSpan = exporter.get_finished_spans()[-1]
    return dict(span.attributes or {})


async def test_the_span_of_a_request_says_how_it_was_judged(spans: Spans) -> None:
    api = watched(Measured(identities=True))
    attributes = await served(spans, api)
    assert attributes == {
        "dpop.authentication.result": "success",
        "dpop.authentication.scheme": "DPoP",
        "dpop.issuer": "https://auth.example.test",
        "dpop.proof.age": 0.0,
        "dpop.proof.clock_skew": 0.0,
        "dpop.client_id": "my_client",
        "enduser.id": "user123",
    }
    failed = await served(spans, api, fails=True, method="POST")
    assert failed["dpop.authentication.result"] == "failure"
    assert (failed["dpop.authentication.error"], failed["dpop.check"]) == ("invalid_dpop_proof", "htm")
    assert {*attributes, *failed} == set(SPAN_ATTRIBUTES)


async def test_a_span_names_nobody_unless_that_is_asked_for(spans: Spans) -> None:
    attributes = await served(spans, watched(Measured()))
    assert attributes["dpop.authentication.result"] == "success"
    assert not {"dpop.client_id", "enduser.id"} & set(attributes)
    assert await served(spans, watched(Measured(spans=False))) == {}


async def test_neither_token_nor_proof_is_in_a_metric_or_a_span(spans: Spans) -> None:
    measured = Measured(identities=True)
    api = watched(measured)
    api.token = api.tokens.issue(api.key.jkt, name="s3cr3t-access-token")
    proof = api.proof()
    told = str(await served(spans, api, proof=proof))
    told += str(await served(spans, api, proof=proof, fails=True))
    told += str(await served(spans, api, proof=f"{proof}x", fails=True))
    told += str(measured.reader.get_metrics_data())
    assert "s3cr3t" not in told
    for part in proof.split("."):
        assert part not in told


def test_the_global_provider_is_the_default() -> None:
    telemetry = Telemetry()
    assert get_meter_provider() is not None
    telemetry.on_event(event())
    telemetry.on_exchange(StoreExchange(entries=1, seconds=0.001, answered=True))


def test_wrong_options_are_refused() -> None:
    for wrong in ("otel", 1, MeterProvider):
        with pytest.raises(ConfigurationError, match="meter_provider takes an OpenTelemetry MeterProvider"):
            Telemetry(meter_provider=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="spans takes True or False"):
        Telemetry(spans=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="identities takes True or False"):
        Telemetry(identities="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="watch takes a ResourceServer"):
        Telemetry().watch(object())  # type: ignore[arg-type]


def test_without_the_extra_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "dpop_middleware.telemetry")
    with pytest.raises(ImportError, match=r"pip install '\.\[otel\]'"):
        importlib.import_module("dpop_middleware.telemetry")


async def test_every_metric_of_the_list_is_made_and_no_other(measured: Measured) -> None:
    with IssuerServer() as issuer:
        issuer.publish(key_set(issuer_key()))
        server = ResourceServer(
            issuer=issuer.origin, resource="https://api.example.com", replay_store=MemoryReplayStore()
        )
        measured.telemetry.watch(server)
        await server.health()
        api = watched(measured)
        await api.server.authenticate(api.request())
        await refused(api, request())
        await refused(api, api.request(), scopes=["notes:write"])
        measured.telemetry.on_event(event(outcome="unavailable", error=None, status=503))
        measured.telemetry.on_exchange(StoreExchange(entries=1, seconds=0.001, answered=False))
        made = measured.all()
        await server.aclose()
    assert set(made) == {metric.name for metric in METRICS}
    for metric in METRICS:
        for point in made[metric.name]:
            assert set(point.attributes) <= set(metric.attributes), metric.name
            if isinstance(point, HistogramDataPoint):
                assert tuple(point.explicit_bounds) == metric.buckets


async def test_an_acceptance_is_on_the_span_of_its_request_not_on_one_in_which_it_answers(
    spans: Spans,
) -> None:
    provider, exporter = spans
    tracer = provider.get_tracer("test")

    async def rendering(scope: Scope, receive: Receive, send: Send) -> None:
        with tracer.start_as_current_span("render"):
            await reached(scope, receive, send)

    world = World()
    server = world.server(on_event=Measured().telemetry.on_event)
    with tracer.start_as_current_span("GET /notes"):
        await call(DPoPMiddleware(rendering, server), scope_of("/notes", world.fields("/notes")))
    told = {
        span.name: (span.attributes or {}).get("dpop.authentication.result")
        for span in exporter.get_finished_spans()
    }
    assert told == {"render": None, "GET /notes": "success"}
