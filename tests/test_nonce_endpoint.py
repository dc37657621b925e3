"""A nonce from a public endpoint: who gets it, where it is valid, and a wallet that never gets a 401."""

import itertools
import json
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, DPoPPolicy, HMACNonceProvider, Nonce, ResourceServer
from dpop_middleware.client import DPoPAuth
from dpop_middleware.errors import ConfigurationError, Unavailable, UseDPoPNonce
from dpop_middleware.nonce_endpoint import nonce_route
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import SECRET, World, scope_of
from tests.support.api import Api
from tests.support.asgi import Answer, call
from tests.support.servers import serving


@pytest.fixture
def world() -> World:
    return World()


async def ask(api: ResourceServer, *, method: str = "POST", **options: Any) -> Answer:
    app = Starlette(routes=[nonce_route(api, **options)])
    return await call(app, scope_of("/nonce", method=method))


async def test_the_answer_is_that_of_a_credential_issuer(world: World) -> None:
    api = world.server(nonces=world.nonces())
    answer = await ask(api, c_nonce=lambda: "wKI4LT17ac15ES9bw8ac4")
    assert answer.status == 200
    assert answer.values("content-type") == ["application/json"]
    assert answer.values("cache-control") == ["no-store"]
    assert len(answer.values("dpop-nonce")) == 1
    assert json.loads(answer.body) == {"c_nonce": "wKI4LT17ac15ES9bw8ac4"}


async def test_an_async_function_may_make_the_challenge(world: World) -> None:
    async def challenge() -> str:
        return "challenge"

    answer = await ask(world.server(nonces=world.nonces()), c_nonce=challenge)
    assert json.loads(answer.body) == {"c_nonce": "challenge"}


@pytest.mark.parametrize("returned", [None, b"challenge", 7, ""])
async def test_a_challenge_that_is_no_text_is_given_to_nobody(world: World, returned: Any) -> None:
    with pytest.raises(ConfigurationError, match="returns a non-empty string: it returned a"):
        await ask(world.server(nonces=world.nonces()), c_nonce=lambda: returned)


async def test_without_a_challenge_the_nonce_is_all_that_is_given(world: World) -> None:
    answer = await ask(world.server(nonces=world.nonces()))
    assert (answer.status, json.loads(answer.body)) == (200, {})
    assert answer.values("dpop-nonce")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
async def test_only_post_is_answered(world: World, method: str) -> None:
    answer = await ask(world.server(nonces=world.nonces()), method=method)
    assert answer.status == 405
    assert not answer.values("dpop-nonce")


async def test_the_nonce_is_accepted_by_this_server_and_by_no_other() -> None:
    api = Api(nonce="required")
    nonce = dict(api.server.nonce_headers())["dpop-nonce"]
    await api.server.authenticate(api.request(api.proof(nonce=nonce)))
    elsewhere = Api(nonce="required", nonces=HMACNonceProvider(bytes(32)))
    with pytest.raises(UseDPoPNonce):
        await elsewhere.server.authenticate(elsewhere.request(elsewhere.proof(nonce=nonce)))


async def test_the_nonce_follows_the_clock_of_the_server() -> None:
    api = Api(nonce="required")
    nonces = set()
    for _ in range(3):
        nonce = dict(api.server.nonce_headers())["dpop-nonce"]
        nonces.add(nonce)
        await api.server.authenticate(api.request(api.proof(nonce=nonce)))
        api.clock.now += 400
    assert len(nonces) == 3


class Provider:
    """A user's own provider, without dated nonces."""

    def __init__(self, issued: Any = "mine", known: bool = True) -> None:
        self.issued = issued
        self.known = known

    def issue(self, now: float) -> str:
        if isinstance(self.issued, Exception):
            raise self.issued
        issued: str = self.issued
        return issued

    def check(self, nonce: str, now: float) -> Nonce | None:
        return Nonce(issued_at=now, expires_at=now + 60, current=True) if self.known else None


async def test_a_provider_of_your_own_is_asked_for_its_nonce() -> None:
    api = Api(nonce="required", nonces=Provider())
    assert api.server.nonce_headers() == (("dpop-nonce", "mine"), ("cache-control", "no-store"))


@pytest.mark.parametrize(
    "provider",
    [
        Provider(RuntimeError("down")),
        Provider(known=False),
        Provider(issued=None),
        Provider(issued='two"quotes"'),
        Provider(issued="two\r\nlines"),
        HMACNonceProvider(SECRET),
    ],
)
async def test_a_nonce_that_the_server_would_refuse_is_never_given(provider: Any, world: World) -> None:
    if isinstance(provider, HMACNonceProvider):
        # Without a server: nonces that a wrapper without `for_server` passes on.
        inner = provider
        provider = type("Wrapper", (), {"issue": inner.issue, "check": inner.check})()
    api = world.server(nonces=provider)
    with pytest.raises(Unavailable, match="^a nonce can't be issued now$"):
        api.nonce_headers()
    answer = await ask(api, c_nonce=lambda: "never asked for")
    assert (answer.status, answer.values("retry-after")) == (503, ["1"])
    assert not answer.values("dpop-nonce")


def test_a_server_without_nonces_has_none_to_give(world: World) -> None:
    with pytest.raises(ConfigurationError, match="nonce_headers needs nonces=HMACNonceProvider"):
        world.server().nonce_headers()
    with pytest.raises(ConfigurationError, match="nonce_route needs nonces=HMACNonceProvider"):
        nonce_route(world.server())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("api",), "resource_server takes a ResourceServer, not a str"),
        ((None,), "resource_server takes a ResourceServer, not None"),
    ],
)
def test_the_route_is_that_of_a_resource_server(arguments: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        nonce_route(*arguments)


@pytest.mark.parametrize("path", ["nonce", "", None, b"/nonce"])
def test_the_path_starts_with_a_slash(path: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="path takes a path that starts with a slash, such as '/nonce'"
    ):
        nonce_route(Api(nonce="required").server, path)


def test_the_challenge_is_made_by_a_function(world: World) -> None:
    wrong: Any = 7
    with pytest.raises(ConfigurationError, match="c_nonce takes a function that returns a string, not 7"):
        nonce_route(world.server(nonces=world.nonces()), c_nonce=wrong)


def test_a_wallet_gets_its_credential_without_one_401() -> None:
    issuer = TestIssuer()
    challenges, world = itertools.count(), World()

    async def credential(request: Request) -> Response:
        return JSONResponse({"for": request.user.identity})

    def served(origin: str) -> ASGIApp:
        api = world.server(
            public_url=origin,
            jwks=issuer.jwks(),
            issuer=issuer.issuer,
            nonces=world.nonces(),
            policy=DPoPPolicy(nonce="required"),
        )
        routes = [
            nonce_route(api, c_nonce=lambda: f"challenge-{next(challenges)}"),
            Route("/credential", credential, methods=["POST"]),
        ]
        return DPoPMiddleware(Starlette(routes=routes), api, public_paths=["/nonce"])

    world.clock.now = issuer.clock()
    statuses: list[int] = []
    with serving("uvicorn-h11", served) as origin:
        hooks = {"response": [lambda response: statuses.append(response.status_code)]}
        with httpx2.Client(base_url=origin, event_hooks=hooks, trust_env=False) as wallet:
            auth = issuer.auth(origin=origin)
            assert isinstance(auth, DPoPAuth)
            assert wallet.post("/nonce", auth=auth).json() == {"c_nonce": "challenge-0"}
            for _ in range(2):
                assert wallet.post("/credential", auth=auth).json() == {"for": "user123"}
            other = issuer.auth(origin=origin)
            assert wallet.post("/credential", auth=other).status_code == 200
    assert statuses == [200, 200, 200, 401, 200], "only the wallet that asked for no nonce saw a 401"
