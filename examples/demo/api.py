"""The API: two routes behind DPoPMiddleware, which is all that protects them."""

import json
import logging
import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, RedisReplayStore, ReplayStore, ResourceServer
from dpop_middleware.events import AuthenticationEvent


async def accounts(request: Request) -> JSONResponse:
    """Answer with the user that the access token names."""
    return JSONResponse({"user": request.user.display_name, "accounts": ["savings", "travel"]})


async def transfers(request: Request) -> JSONResponse:
    """Transfer money, as a thief would like to."""
    return JSONResponse({"user": request.user.display_name, "transferred": 1000})


def write_event(event: AuthenticationEvent) -> None:
    """Append each decision to a file, where the walk reads which check made it, and in which worker."""
    line = {
        "worker": os.getpid(),
        "check": event.check,
        "reason": event.reason,
        "expected": event.expected,
        "actual": event.actual,
    }
    with Path(os.environ["DEMO_EVENTS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, default=str) + "\n")


def is_news(record: logging.LogRecord) -> bool:
    """Leave refusals out of the log: the walk shows each of them."""
    return getattr(record, "dpop_outcome", None) != "refused"


def create_app() -> ASGIApp:
    """Build the application once in each worker; the workers share the replay store."""
    logging.getLogger("dpop_middleware").addFilter(is_news)
    api = ResourceServer(
        issuer=os.environ["DEMO_ISSUER"],
        resource=os.environ["DEMO_RESOURCE"],
        replay_store=replay_store(),
        on_event=write_event,
    )
    routes = [
        Route("/accounts", accounts, methods=["GET", "DELETE"]),
        Route("/transfers", transfers),
    ]
    return DPoPMiddleware(Starlette(routes=routes), api)


def replay_store() -> ReplayStore:
    """Return the store that all workers share, or the one for a single worker where there is no Valkey."""
    redis_url = os.environ.get("DEMO_REDIS_URL")
    if redis_url is None:
        return MemoryReplayStore()
    # A tenth of this is plenty on a server; a busy laptop that has just started everything may need more.
    return RedisReplayStore.from_url(redis_url, timeout=2.0)
