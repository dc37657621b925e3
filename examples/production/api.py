"""The API: what it is configured with stands in a file, which each new worker reads."""

import contextlib
import json
import logging
import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, DPoPPolicy, HMACNonceProvider, RedisReplayStore, ResourceServer
from dpop_middleware.telemetry import Telemetry

# Small, so that an old secret can be taken away while we look on. The defaults are 300 and 60 seconds.
NONCE_LIFETIME, NONCE_STEP = 9, 3


async def accounts(request: Request) -> JSONResponse:
    """Answer with the user that the access token names."""
    return JSONResponse({"user": request.user.display_name, "worker": os.getpid()})


def create_app() -> ASGIApp:
    """Build the application once in each worker."""
    configuration = json.loads(Path(os.environ["PRODUCTION_CONFIGURATION"]).read_text(encoding="utf-8"))
    # Refusals and 503s are counted by the metrics; a thief causes too many of them for a log.
    logging.getLogger("dpop_middleware").setLevel(logging.ERROR)
    telemetry = Telemetry(meter_provider=MeterProvider(metric_readers=[PrometheusMetricReader()]))
    # A busy laptop may need seconds for what takes milliseconds on a server, where 0.25 is plenty.
    store = RedisReplayStore.from_url(
        configuration["replay_store"], timeout=5.0, strict=True, on_exchange=telemetry.on_exchange
    )
    secrets = [bytes.fromhex(secret) for secret in configuration["nonce_secrets"]]
    api = ResourceServer(
        issuer=configuration["issuer"],
        resource=configuration["resource"],
        replay_store=store,
        nonces=HMACNonceProvider(secrets, lifetime=NONCE_LIFETIME, step=NONCE_STEP),
        policy=DPoPPolicy(**configuration["policy"]),
        on_event=telemetry.on_event,
    )
    telemetry.watch(api)

    async def ready(request: Request) -> JSONResponse:
        health = await api.health()
        return JSONResponse({"ready": health.ready}, 200 if health.ready else 503)

    @contextlib.asynccontextmanager
    async def announced(_: Starlette) -> AsyncGenerator[None]:
        with target(configuration["generation"]):
            yield

    routes = [Route("/accounts", accounts, methods=["GET", "POST"]), Route("/ready", ready)]
    return DPoPMiddleware(Starlette(routes=routes, lifespan=announced), api, public_paths=["/ready"])


@contextlib.contextmanager
def target(generation: int) -> Generator[None]:
    """Serve the metrics on a port of this worker's own, named in a file that Prometheus finds.

    `file_sd_configs: [{files: ["…/targets/*.json"]}]` in Prometheus reads these files.
    """
    server, thread = start_http_server(0, "127.0.0.1")
    labels = {"server": os.environ["PRODUCTION_SERVER"], "generation": str(generation)}
    file = Path(os.environ["PRODUCTION_TARGETS"], f"{os.getpid()}.json")
    written = file.with_suffix(".new")
    written.write_text(json.dumps([{"targets": [f"127.0.0.1:{server.server_port}"], "labels": labels}]))
    written.rename(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        thread.join()
