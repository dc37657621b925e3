"""The API: one route behind DPoPMiddleware; its workers share the cluster as their replay store."""

import logging
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, DPoPPolicy, RedisReplayStore, ResourceServer

# Small, to keep the example short: after a failover it is the time for which proofs can't be judged.
CLOCK_SKEW = 3


async def accounts(request: Request) -> JSONResponse:
    """Answer with the user that the access token names."""
    return JSONResponse({"user": request.user.display_name, "worker": os.getpid()})


def create_app() -> ASGIApp:
    """Build the application once in each worker."""
    # The refusals are counted by the load; no need to read each of them as well.
    logging.getLogger("dpop_middleware").setLevel(logging.ERROR)
    api = ResourceServer(
        issuer=os.environ["DEMO_ISSUER"],
        resource=os.environ["DEMO_RESOURCE"],
        # The cluster was started a moment ago, so it knows nothing and has nothing to lose.
        replay_store=RedisReplayStore.from_url(os.environ["DEMO_REDIS_URL"]),
        policy=DPoPPolicy(clock_skew=CLOCK_SKEW),
    )
    return DPoPMiddleware(Starlette(routes=[Route("/accounts", accounts)]), api)
