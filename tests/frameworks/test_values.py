"""Decorated functions that a framework asks for a value, where a refusal must not be taken for one."""

from pathlib import Path
from typing import Any

import httpx2
import litestar
from fastapi import APIRouter, Depends, FastAPI
from litestar.di import NamedDependency, Provide
from litestar.handlers import get
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


async def test_neither_a_dependency_nor_a_guard_of_litestars_lets_anybody_pass() -> None:
    world = World()

    @requires_dpop(world.server())
    async def caller(request: litestar.Request[Any, Any, Any]) -> str:
        raise AssertionError

    @requires_dpop(world.server())
    async def guard(request: litestar.Request[Any, Any, Any], _handler: Any) -> None:
        raise AssertionError

    @get("/value", dependencies={"caller": Provide(caller)})
    async def with_value(caller: NamedDependency[Any]) -> str:
        raise AssertionError

    @get("/guarded", guards=[guard])
    async def guarded() -> str:
        raise AssertionError

    app: Any = litestar.Litestar([with_value, guarded], openapi_config=None)
    assert await statuses(app, world, "/value") == [500, 500]
    assert await statuses(app, world, "/guarded") == [500, 500]
