"""Decorated functions that a framework asks for a value, where a refusal must not be taken for one."""

from pathlib import Path
from typing import Any

import httpx2
import litestar
import pytest
from asgiref.sync import sync_to_async
from django.test import RequestFactory
from fastapi import APIRouter, Depends, FastAPI
from litestar.di import NamedDependency, Provide
from litestar.handlers import get
from starlette.requests import Request
from starlette.types import ASGIApp

from dpop_middleware import django as dpop_django
from dpop_middleware.starlette import requires_dpop
from tests.frameworks.houses import by_django
from tests.support.adapters import ORIGIN, World, scope_of


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
    async def guard(request: Any, _handler: Any) -> None:
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


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_decorated_auth_of_django_ninja_lets_no_stranger_pass(is_async: bool) -> None:
    by_django()  # gives Django its settings
    from ninja import NinjaAPI

    world = World()

    @dpop_django.requires_dpop(world.server())
    def caller(request: Any) -> str:
        return str(request.user)

    def notes(request: Any) -> dict[str, str]:
        return {"of": request.auth}

    async def async_notes(request: Any) -> dict[str, str]:
        return notes(request)

    ninja: Any = NinjaAPI(auth=caller, docs_url=None, urls_namespace=f"ninja {is_async}")
    ninja.get("/notes")(async_notes if is_async else notes)
    (view,) = [url.callback for url in ninja.urls[0] if str(url.pattern) == "notes"]

    async def ask(fields: list[tuple[str, str]]) -> tuple[int, bytes]:
        request: Any = RequestFactory().get("/notes")
        request.scope = scope_of("/notes", fields)
        answer = await (view(request) if is_async else sync_to_async(view)(request))
        return answer.status_code, answer.content

    assert (await ask([]))[0] == 401
    assert await ask(world.fields("/notes")) == (200, b'{"of": "user123"}')
