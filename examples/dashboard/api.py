"""The API: two routes, one of which needs a scope, and its metrics at a port of their own."""

import json
import logging
import os

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, RedisReplayStore, ReplayStore, ResourceServer
from dpop_middleware.starlette import requires_dpop
from dpop_middleware.telemetry import Telemetry


async def accounts(request: Request) -> JSONResponse:
    """Answer with the user that the access token names."""
    return JSONResponse({"user": request.user.display_name})


class JSONLines(logging.Formatter):
    """Writes each record as one JSON object, with the fields that it has beside its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the level and the fields, without those that are None."""
        fields = {name: value for name, value in vars(record).items() if name.startswith("dpop_")}
        told = {name.removeprefix("dpop_"): value for name, value in fields.items() if value is not None}
        return json.dumps({"level": record.levelname, **(told or {"message": record.getMessage()})})


def create_app() -> ASGIApp:
    """Build the application, and serve what is measured to Prometheus: on loopback, not to the public."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines())
    logging.getLogger("dpop_middleware").addHandler(handler)
    logging.getLogger("dpop_middleware").setLevel(logging.INFO)
    start_http_server(int(os.environ["DASHBOARD_METRICS_PORT"]), "127.0.0.1")
    telemetry = Telemetry(meter_provider=MeterProvider(metric_readers=[PrometheusMetricReader()]))
    api = ResourceServer(
        issuer=os.environ["DEMO_ISSUER"],
        resource=os.environ["DEMO_RESOURCE"],
        replay_store=replay_store(telemetry),
        on_event=telemetry.on_event,
    )
    telemetry.watch(api)

    @requires_dpop(api, "transfers:write")
    async def transfers(request: Request) -> JSONResponse:
        return JSONResponse({"user": request.user.display_name})

    routes = [Route("/accounts", accounts), Route("/transfers", transfers, methods=["POST"])]
    return DPoPMiddleware(Starlette(routes=routes), api)


def replay_store(telemetry: Telemetry) -> ReplayStore:
    """Return the store on Valkey, whose exchanges are measured, or the memory where there is no Valkey."""
    redis_url = os.environ.get("DEMO_REDIS_URL")
    if redis_url is None:
        return MemoryReplayStore()
    return RedisReplayStore.from_url(redis_url, timeout=2.0, on_exchange=telemetry.on_exchange)
