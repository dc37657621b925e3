"""A FastAPI application as a team runs it: routers, scopes, CORS, uploads, streams, settings, readiness.

    export NOTES_ISSUER=https://auth.example.com/realms/main NOTES_RESOURCE=https://api.example.com
    python -m uvicorn examples.fastapi_app.app:create_app --factory

The page beside this file says how to test and to deploy it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware

from dpop_middleware.fastapi import DPoPHTTPException, dpop_exception_handler, refusal_responses
from examples.fastapi_app import notes, streams
from examples.fastapi_app.security import api, settings

__all__ = ["create_app"]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    """Fetch the issuer's keys and connect to Valkey before the first request, and close both at the end."""
    async with api:
        yield


async def ready(response: Response) -> dict[str, bool]:
    """Say whether requests can be judged: 503 takes this worker out of a load balancer."""
    health = await api.health()
    response.status_code = 200 if health.ready else 503
    return {"ready": health.ready}


def create_app() -> FastAPI:
    """Return the application."""
    app = FastAPI(title="Notes", lifespan=lifespan, responses=refusal_responses())
    app.add_exception_handler(DPoPHTTPException, dpop_exception_handler)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.pages,
        allow_methods=["GET", "POST", "PUT"],
        allow_headers=["Authorization", "DPoP", "Content-Type"],
        expose_headers=["WWW-Authenticate", "DPoP-Nonce"],
    )
    app.include_router(notes.router)
    app.include_router(streams.router)
    app.get("/ready", include_in_schema=False)(ready)
    return app
