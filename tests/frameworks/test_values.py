"""Decorated functions that a framework asks for a value, where a refusal must not be taken for one."""

from pathlib import Path

import httpx2
from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp

from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import ORIGIN, World


async def statuses(app: ASGIApp, world: World, path: str) -> list[int]:
    """Return the status that a stranger gets, then that of a client with credentials."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        asked = [await client.get(path, headers=fields) for fields in ({}, world.headers(path))]
    return [answer.status_code for answer in asked]


async def test_the_files_of_a_frontend_are_for_those_whom_a_decorated_dependency_accepts(
    tmp_path: Path,
) -> None:
    world = World()

    @requires_dpop(world.server())
    async def caller(request: Request) -> str:
        return str(request.user.identity)

    (tmp_path / "index.html").write_text("a secret")
    whole = FastAPI(dependencies=[Depends(caller)])
    whole.frontend("/", directory=tmp_path)
    router = APIRouter(dependencies=[Depends(caller)])
    router.frontend("/", directory=tmp_path)
    included = FastAPI()
    included.include_router(router, prefix="/app")
    assert await statuses(whole, world, "/index.html") == [401, 200]
    assert await statuses(included, world, "/app/index.html") == [401, 200]
