"""Paths with characters that clients treat differently: our client signs exactly the path that arrives."""

from collections.abc import Generator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware
from dpop_middleware.client import DPoPAuth, DPoPKey
from tests.support.adapters import World
from tests.support.clients import CLIENTS, caller
from tests.support.servers import serving

ODD = {
    "backslash": "\\",
    "pipe": "|",
    "caret": "^",
    "quote": '"',
    "braces": "{x}",
    "apostrophe": "'",
    "backtick": "`",
    "angles": "<x>",
    "brackets": "[x]",
    "percent": "%",
    "malformed": "%zz",
    "cut": "%4",
    "encoded": "%5C%7c",
    "not ASCII": "\u00e4\u20ac\U0001f600",
    "space": "x y",
    "all": "\\|^\"{}'`<>[]%5C \u00e4",
}
# `DPoPAuth` encodes these; a request with the raw characters has no URI, and no proof is accepted for it.
MALFORMED = {"percent", "malformed", "cut"}
VISIBLE = {name: text for name, text in ODD.items() if text.isascii() and " " not in text}


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module", params=["uvicorn-httptools", "uvicorn-h11", "hypercorn"])
def origin(request: pytest.FixtureRequest, world: World) -> Generator[str]:
    def app_at(origin: str) -> ASGIApp:
        application = Starlette(routes=[Route("/{path:path}", lambda _: PlainTextResponse("notes"))])
        return DPoPMiddleware(application, world.server(public_url=origin))

    with serving(request.param, app_at) as served:
        yield served


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_request_of_dpop_auth_is_accepted(world: World, origin: str, kind: str) -> None:
    statuses: dict[str, int] = {}
    async with caller(kind, auth=DPoPAuth(world.key, world.token(), clock=world.clock)) as client:
        for name, text in ODD.items():
            answer = await client.request("GET", f"{origin}/notes/{text}/x?q={text}")
            statuses[name] = answer.status_code
    assert statuses == dict.fromkeys(ODD, 200)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_proof_for_the_url_of_a_request_is_good_for_it(world: World, origin: str, kind: str) -> None:
    token, statuses = world.token(), dict[str, int]()
    async with caller(kind) as client:
        for name, text in ODD.items():
            request: Any = client.client.build_request("GET", f"{origin}/notes/{text}/x?q={text}")
            request.headers.update(signed(world, request.url, token))
            statuses[name] = (await client.send(request)).status_code
    assert statuses == {name: 400 if name in MALFORMED else 200 for name in ODD}


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_proof_for_a_string_is_good_for_what_is_made_of_it(
    world: World, origin: str, kind: str
) -> None:
    token, statuses = world.token(), dict[str, int]()
    async with caller(kind) as client:
        for name, text in VISIBLE.items():
            url = f"{origin}/notes/{text}/x"
            answer = await client.request("GET", url, headers=signed(world, url, token))
            statuses[name] = answer.status_code
    assert statuses == {name: 400 if name in MALFORMED else 200 for name in VISIBLE}


@pytest.mark.parametrize("name", sorted(ODD.keys() - VISIBLE.keys()))
def test_a_string_that_does_not_travel_is_refused_before_it_is_signed(name: str) -> None:
    with pytest.raises(ValueError, match="percent-encoded as it is sent"):
        DPoPKey.generate().proof("GET", f"https://api.example.com/{ODD[name]}")


def signed(world: World, url: object, token: str) -> dict[str, str]:
    proof = world.key.proof("GET", url, access_token=token, now=world.clock())
    return {"Authorization": f"DPoP {token}", "DPoP": proof}
