"""Every Python snippet of the chapters runs unchanged, and treats requests as the text says."""

import asyncio
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import pytest
from django.http import HttpResponse
from django.urls import path
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp

import dpop_middleware
from dpop_middleware import DPoPMiddleware, MemoryReplayStore, RedisReplayStore, ResourceServer
from dpop_middleware.authorization_server import TokenEndpoint, requested_jkt
from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.fastapi import DPoPSecurity
from dpop_middleware.introspection import IntrospectionVerifier
from dpop_middleware.jose import base64url
from dpop_middleware.testing import ABSENT
from dpop_middleware.testing.target import lifespan
from tests.support.django import configure, serving_by_django
from tests.support.mcp_clients import HEADERS as MCP_HEADERS
from tests.support.mcp_clients import INITIALIZE
from tests.support.reader import (
    API,
    ISSUER,
    PARTNER,
    Scenario,
    World,
    ask,
    driven,
    follow,
    readers_app,
    replay,
    world_of,
)
from tests.support.readme import CHAPTERS, Block, blocks, text_of
from tests.support.replay import entry

PAR = "https://auth.example.com/par"
CLIENT_CHAPTER = "examples/client_and_authorization_server/README.md"
STORE_CHAPTER = "examples/replay_store/README.md"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    monkeypatch.setenv("FORWARD_AUTH_SECRET", "s3cret-that-only-the-gateway-knows")
    async with world_of(monkeypatch, tmp_path) as world:
        yield world


async def rate_limit(names: dict[str, Any], world: World) -> None:
    now = [1000.0]
    names["time"] = SimpleNamespace(monotonic=lambda: now[0])
    ann, bob = world.auth(client_id="ann"), world.auth(client_id="bob")

    async def statuses(auth: DPoPAuth, count: int) -> list[int]:
        return [(await ask(names["app"], "GET", "/notes", auth=auth)).status_code for _ in range(count)]

    assert await statuses(ann, 101) == [*[200] * 100, 429]
    assert await statuses(bob, 1) == [200]
    answer = await ask(names["app"], "GET", "/notes", auth=ann)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    now[0] += 1
    assert await statuses(ann, 1) == [200]
    public = DPoPMiddleware(names["RateLimit"](readers_app(), rate=0), names["api"], public_paths=["/health"])
    assert (await ask(public, "GET", "/health")).json()["subject"] is None


async def redis_in_production(names: dict[str, Any], world: World) -> None:
    assert world.server is not None
    acls = [
        line
        for block in blocks("", STORE_CHAPTER)
        for line in block.text.splitlines()
        if line.startswith("ACL ")
    ]
    assert len(acls) == 1
    world.server.run(*acls[0].split())
    store = names["stores"][0]
    item = entry()
    assert [await store.add(item), await store.add(item)] == [True, False]
    health = await store.health()
    (node,) = health.nodes
    assert (health.ok, node.fenced, node.warnings) == (True, True, ())
    app = DPoPMiddleware(names["app"], names["api"])
    assert await replay(app, "GET", "/notes", world.auth()) == [200, 401]
    own_client = names["stores"][-1]
    assert own_client.__class__ is RedisReplayStore


async def public_urls(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    for url in (f"{API}/v1", "https://api.example.org"):
        # The URL that the client calls, and the one that the proxy passes on.
        passed = url.replace("/v1", "") + "/notes%2F1"
        key = DPoPKey.generate()
        token = world.issuers[ISSUER].token(jkt=key.jkt)
        proof = key.proof("GET", f"{url}/notes%2F1", access_token=token)
        fields = {"Authorization": f"DPoP {token}", "DPoP": proof}
        answer = await ask(app, "GET", passed, headers=fields)
        assert answer.json()["path"] == "/notes%2F1"
    assert (await ask(app, "GET", "https://evil.example/notes", auth=world.auth())).status_code == 401


async def cors(names: dict[str, Any], world: World) -> None:
    preflight = {
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization, dpop",
    }
    answer = await ask(names["app"], "OPTIONS", "/notes", headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    refused = await ask(names["app"], "GET", "/notes", headers={"Origin": "https://app.example.com"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Expose-Headers"] == "DPoP-Nonce, WWW-Authenticate"
    let_in = await ask(names["app"], "GET", "/notes", auth=world.auth())
    assert let_in.status_code == 404, "the snippet's application has no routes"


async def nonces(names: dict[str, Any], world: World) -> None:
    auth = world.auth()
    assert (await ask(names["app"], "GET", "/notes", auth=auth)).status_code == 200
    key = DPoPKey.generate()
    token = world.issuers[ISSUER].token(jkt=key.jkt)
    without = {"Authorization": f"DPoP {token}", "DPoP": key.proof("GET", f"{API}/notes", access_token=token)}
    challenge = await ask(names["app"], "GET", "/notes", headers=without)
    assert challenge.status_code == 401
    assert 'error="use_dpop_nonce"' in challenge.headers["WWW-Authenticate"]
    assert challenge.headers["DPoP-Nonce"]


async def clocks(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    key = DPoPKey.generate()
    token = world.issuers[ISSUER].token(jkt=key.jkt)
    fields = {"Authorization": f"DPoP {token}", "DPoP": key.proof("GET", f"{API}/notes", access_token=token)}
    nonce = (await ask(app, "GET", "/notes", headers=fields)).headers["DPoP-Nonce"]
    for late, status in ((290, 200), (310, 401)):
        now = world.issuers[ISSUER].clock() - late
        fields["DPoP"] = key.proof("GET", f"{API}/notes", access_token=token, nonce=nonce, now=now)
        assert (await ask(app, "GET", "/notes", headers=fields)).status_code == status


async def nonce_endpoint(names: dict[str, Any], world: World) -> None:
    auth = world.auth()
    given = await ask(names["app"], "POST", "/nonce", auth=auth)
    assert (given.status_code, given.headers["Cache-Control"]) == (200, "no-store")
    assert given.json()["c_nonce"] in names["challenges"]
    key = DPoPKey.generate()
    token = world.issuers[ISSUER].token(jkt=key.jkt)
    nonce = given.headers["DPoP-Nonce"]
    proof = key.proof("GET", f"{API}/notes", access_token=token, nonce=nonce)
    fields = {"Authorization": f"DPoP {token}", "DPoP": proof}
    assert (await ask(names["app"], "GET", "/notes", headers=fields)).status_code == 404, "it has no notes"
    assert [name for name, _ in names["api"].nonce_headers()] == ["dpop-nonce", "cache-control"]


async def readiness(names: dict[str, Any], world: World) -> None:
    assert (await ask(names["app"], "GET", "/ready")).json() == {"ready": True}
    assert (await ask(names["app"], "GET", "/other")).status_code == 401


async def tokens_without_a_subject(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    auth = world.auth(sub=ABSENT, client_id="my_client")
    assert (await ask(app, "GET", "/notes", auth=auth)).json()["subject"] is None


async def keycloak(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    issuer = world.issuers[f"{ISSUER}/realms/main"]
    token: dict[str, Any] = {"header": {"typ": "JWT"}, "client_id": ABSENT, "azp": "app", "sub": "ann"}
    assert (await ask(app, "GET", "/notes", auth=issuer.auth(**token))).json()["subject"] == "ann"
    token["azp"] = ABSENT
    without_client = issuer.auth(**token)
    assert (await ask(app, "GET", "/notes", auth=without_client)).status_code == 401


async def several_issuers(names: dict[str, Any], world: World) -> None:
    told = []
    for name in (ISSUER, PARTNER):
        answer = await ask(names["app"], "GET", "/", auth=world.issuers[name].auth(sub="1"))
        told.append(answer.text)
    assert told == ["https://auth.example.com 1", "https://partner.okta.com/oauth2/default 1"]
    assert [identity.partition(" ")[2] for identity in told] == ["1", "1"]
    mixed_up = world.issuers[PARTNER].auth(iss=ISSUER, audience=API, header={"typ": "at+jwt"})
    assert (await ask(names["app"], "GET", "/", auth=mixed_up)).status_code == 401
    keys = (await names["api"].health()).issuer_keys
    assert (keys.ok, [issuer for issuer, _ in keys.details.issuers]) == (True, [ISSUER, PARTNER])


async def tenants(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    assert (await ask(app, "GET", "/notes", auth=world.auth())).status_code == 200
    stranger = world.issuers[PARTNER].auth()
    assert (await ask(app, "GET", "/notes", auth=stranger)).status_code == 401
    # Another one would lack the keys, which this one keeps while the issuer is down.
    assert await names["tenant"](ISSUER) is await names["tenant"](ISSUER)


async def claims(names: dict[str, Any], world: World) -> None:
    editor = {"realm_access": {"roles": ["editor"]}}
    for scopes, roles, status in (
        (["notes:write"], editor, 200),
        (["notes:admin"], editor, 200),
        (["notes:read"], editor, 403),
        (["notes:write"], {"realm_access": {"roles": ["reader"]}}, 403),
        (["notes:write"], {"realm_access": {}}, 403),
        (["notes:write"], {}, 403),
    ):
        answer = await ask(names["app"], "POST", "/notes", auth=world.auth(scopes=scopes, **roles))
        assert answer.status_code == status
        challenge = answer.headers.get("WWW-Authenticate", 'scope="notes:write"')
        assert 'scope="notes:write"' in challenge


def opaque_token(world: World, jkt: str) -> str:
    token = f"opaque-{len(world.opaque)}"
    world.opaque[token] = {
        "active": True,
        "aud": API,
        "sub": "ann",
        "exp": time.time() + 60,
        "token_type": "DPoP",
        "cnf": {"jkt": jkt},
    }
    return token


async def opaque_tokens(names: dict[str, Any], world: World) -> None:
    key = DPoPKey.generate()
    app = DPoPMiddleware(readers_app(), names["api"])
    token = opaque_token(world, key.jkt)
    answer = await ask(app, "GET", "/notes", auth=DPoPAuth(key, token))
    assert answer.json()["subject"] == "ann"
    stolen = await ask(app, "GET", "/notes", auth=DPoPAuth(DPoPKey.generate(), token))
    assert stolen.status_code == 401
    assert (await ask(app, "GET", "/notes", auth=DPoPAuth(key, "made-up"))).status_code == 401
    del world.opaque[token]["aud"]
    world.opaque["no-audience"] = world.opaque[token]
    assert (await ask(app, "GET", "/notes", auth=DPoPAuth(key, "no-audience"))).status_code == 401


async def both_kinds(names: dict[str, Any], world: World) -> None:
    await opaque_tokens(names, world)
    app = DPoPMiddleware(readers_app(), names["api"])
    assert (await ask(app, "GET", "/notes", auth=world.auth())).status_code == 200


async def routes(names: dict[str, Any], world: World) -> None:
    issuer = world.issuers[ISSUER]
    ann = world.auth(sub="ann", scopes=["payments:write"], auth_time=int(issuer.clock()))
    assert (await ask(names["app"], "POST", "/pay", auth=ann)).text == "paid by ann"
    assert (await ask(names["app"], "POST", "/pay", auth=world.auth())).status_code == 403
    late = world.auth(scopes=["payments:write"], auth_time=int(issuer.clock()) - 600)
    assert (await ask(names["app"], "POST", "/pay", auth=late)).status_code == 401
    assert (await ask(names["app"], "GET", "/legacy")).status_code == 401
    bearer = {"Authorization": f"Bearer {issuer.token()}"}
    assert (await ask(names["app"], "GET", "/legacy", headers=bearer)).text == "as ever"
    assert (await ask(names["app"], "POST", "/pay", headers=bearer)).status_code == 401


async def moving_from_bearer(names: dict[str, Any], world: World) -> None:
    issuer = world.issuers[ISSUER]
    unbound = {"Authorization": f"Bearer {issuer.token(client_id='old')}"}
    assert (await ask(names["app"], "GET", "/notes", headers=unbound)).status_code == 200
    bound = {"Authorization": f"Bearer {issuer.token(jkt=DPoPKey.generate().jkt)}"}
    assert (await ask(names["app"], "GET", "/notes", headers=bound)).status_code == 401
    assert (await ask(names["app"], "GET", "/notes", auth=world.auth(client_id="new"))).status_code == 200
    assert names["schemes"] == {("Bearer", "old"): 1, ("DPoP", "new"): 1}
    challenges = (await ask(names["app"], "GET", "/notes")).headers.get_list("WWW-Authenticate")
    assert sorted(challenge.split()[0] for challenge in challenges) == ["Bearer", "DPoP"]


async def events(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    assert await replay(app, "GET", "/notes", world.auth()) == [200, 401]
    assert names["verdicts"] == {("accepted", "all"): 1, ("refused", "jti"): 1}


async def dashboard(names: dict[str, Any], world: World) -> None:
    assert await replay(names["app"], "GET", "/notes", world.auth()) == [200, 401]
    read = generate_latest().decode()
    names["provider"].shutdown()
    assert 'dpop_authentication_challenges_total{dpop_authentication_scheme="DPoP",dpop_check="jti"' in read
    assert "dpop_replay_store_exchange_entries_sum" in read
    assert f'dpop_issuer_keys_age_seconds{{dpop_issuer="{ISSUER}"' in read


def authorization_server(names: dict[str, Any], world: World) -> Starlette:
    """The README's token endpoint, with the part that the reader adds: how tokens are signed."""

    def sign(claims: dict[str, Any]) -> str:
        return world.issuers[ISSUER].token(**claims, scopes=["notes:read"])

    names["sign"] = sign
    return Starlette(routes=[Route("/token", names["token"], methods=["POST"])])


async def token_endpoint(names: dict[str, Any], world: World) -> None:
    app, url, key = authorization_server(names, world), f"{ISSUER}/token", DPoPKey.generate()
    proof = {"DPoP": key.proof("POST", url)}
    answer = await ask(app, "POST", url, headers=proof)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    answered = answer.json()
    assert answered["token_type"] == "DPoP"
    api = ResourceServer(issuer=ISSUER, resource=API, replay_store=MemoryReplayStore())
    await world.stack.enter_async_context(api)
    auth = DPoPAuth(key, answered["access_token"])
    assert (await ask(DPoPMiddleware(readers_app(), api), "GET", "/notes", auth=auth)).status_code == 200
    replayed = await ask(app, "POST", url, headers=proof)
    assert (replayed.status_code, replayed.headers["Cache-Control"]) == (400, "no-store")
    assert replayed.json()["error"] == "invalid_dpop_proof"
    # With nonces, the same handler sends a new one before the old one expires.
    fresh = {"dpop-nonce": "n-2", "cache-control": "no-store"}
    names["endpoint"] = SimpleNamespace(
        verify=names["endpoint"].verify, response_headers=lambda proof: tuple(fresh.items())
    )
    answer = await ask(app, "POST", url, headers={"DPoP": key.proof("POST", url)})
    assert (answer.status_code, answer.headers["DPoP-Nonce"]) == (200, "n-2")


async def network(world: World) -> Callable[[httpx2.Request], Coroutine[Any, Any, httpx2.Response]]:
    """The chapter's token endpoint and an API, as a client's requests reach them."""
    (snippet,) = [block for block in blocks("python", CLIENT_CHAPTER) if "TokenEndpoint(" in block.text]
    token_server = authorization_server(await world.run(snippet), world)
    api = ResourceServer(issuer=ISSUER, resource=API, replay_store=MemoryReplayStore())
    await world.stack.enter_async_context(api)
    hosts: dict[str, ASGIApp] = {
        "auth.example.com": token_server,
        "api.example.com": DPoPMiddleware(readers_app(), api),
    }

    async def carried(request: httpx2.Request) -> httpx2.Response:
        answer = await ask(
            hosts[request.url.host],
            request.method,
            str(request.url),
            headers=request.headers.raw,
            content=await request.aread() if hasattr(request.stream, "__aiter__") else request.read(),
        )
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return carried


async def client(names: dict[str, Any], world: World) -> None:
    """The chapter's client against the chapter's token endpoint, and an API."""
    carried, loop = await network(world), asyncio.get_running_loop()

    class Network(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return asyncio.run_coroutine_threadsafe(carried(request), loop).result(10)

    class OnTheNetwork(httpx2.Client):
        def __init__(self) -> None:
            super().__init__(transport=Network())

    world.patch.setattr(httpx2, "Client", OnTheNetwork)
    notes = await asyncio.to_thread(names["read_notes"], names["key"])
    assert json.loads(notes) == {"subject": "user123", "path": "/notes"}


async def pushed_request(names: dict[str, Any], world: World) -> None:
    """The chapter's client against an endpoint for pushed requests, made of the package's own parts."""
    endpoint = TokenEndpoint(url=PAR, replay_store=MemoryReplayStore())
    pushed: list[dict[str, str]] = []

    async def par(request: Request) -> JSONResponse:
        proof, form = await endpoint.verify(request), dict(parse_qsl((await request.body()).decode()))
        assert requested_jkt(dpop_jkt=form["dpop_jkt"], proof=proof) == key.jkt
        pushed.append(form)
        return JSONResponse({"request_uri": "urn:example:1", "expires_in": 60}, 201)

    async def token(request: Request) -> JSONResponse:
        form = dict(parse_qsl((await request.body()).decode()))
        verifier = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64url.encode(verifier) == pushed[0]["code_challenge"]
        assert (form["code"], form["redirect_uri"]) == ("the code", pushed[0]["redirect_uri"])
        return JSONResponse({"access_token": "t", "token_type": "DPoP"})

    key, session = DPoPKey.generate(), dict[str, str]()
    app = Starlette(routes=[Route(f"/{one.__name__}", one, methods=["POST"]) for one in (par, token)])
    with TestClient(app, base_url="https://auth.example.com") as client:
        url = await asyncio.to_thread(names["begin_login"], client, key, session)
        assert url == "https://auth.example.com/authorize?client_id=my_client&request_uri=urn%3Aexample%3A1"
        stolen = dict(session)
        with pytest.raises(ValueError, match="another login"):
            await asyncio.to_thread(names["end_login"], client, key, stolen, "the code", "another")
        state = pushed[0]["state"]
        answer = await asyncio.to_thread(names["end_login"], client, key, session, "the code", state)
    assert (answer.access_token, session) == ("t", {})


async def client_of_others(names: dict[str, Any], world: World) -> None:
    """Authlib, which supports only Bearer, against the chapter's token endpoint, and an API."""
    transport = httpx2.MockTransport(await network(world))
    world.patch.setattr(httpx2, "AsyncHTTPTransport", lambda: transport)
    notes = await names["read_notes"](names["key"])
    assert json.loads(notes) == {"subject": "user123", "path": "/notes"}


async def mcp_server(names: dict[str, Any], world: World) -> None:
    world.issuers[ISSUER].audience = f"{API}/mcp"
    app, endpoint = names["app"], {"headers": MCP_HEADERS, "json": INITIALIZE}
    async with lifespan(app):
        reader, other = (world.auth(scopes=[scope]) for scope in ("notes:read", "other"))
        assert (await ask(app, "POST", "/mcp", auth=reader, **endpoint)).status_code == 200
        assert (await ask(app, "POST", "/mcp", auth=other, **endpoint)).status_code == 403
        assert (await ask(app, "POST", "/mcp", **endpoint)).status_code == 401


async def mcp_client(names: dict[str, Any], world: World) -> None:
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200)

    class LoggedIn(httpx2.Auth):
        def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
            request.headers["Authorization"] = "Bearer token"
            yield request

    world.patch.setattr(httpx2, "AsyncHTTPTransport", lambda: httpx2.MockTransport(answer))
    async with names["http_client"](LoggedIn(), DPoPKey.generate()) as http:
        await http.get(f"{API}/mcp")
    assert sent[0].headers["Authorization"] == "DPoP token"
    assert "DPoP" in sent[0].headers


async def metadata(names: dict[str, Any], world: World) -> None:
    url = f"{API}/.well-known/oauth-protected-resource/v1"
    challenge = (await ask(names["app"], "GET", "/v1/notes")).headers["WWW-Authenticate"]
    assert f'resource_metadata="{url}"' in challenge
    document = (await ask(names["app"], "GET", url)).json()
    assert document["resource"] == f"{API}/v1"
    assert document["authorization_servers"] == [ISSUER]
    assert document["scopes_supported"] == ["notes:read", "notes:write"]


async def metadata_by_a_route(names: dict[str, Any], world: World) -> None:
    answer = await ask(names["app"], "GET", f"{API}/.well-known/oauth-protected-resource/v1")
    assert (answer.status_code, answer.json()["resource"]) == (200, f"{API}/v1")


async def metadata_of_two_hosts(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    for host in names["hosts"]:
        url = f"{host}/.well-known/oauth-protected-resource"
        assert url in (await ask(app, "GET", f"{host}/notes")).headers["WWW-Authenticate"]
        assert (await ask(app, "GET", url)).json()["resource"] == host


async def keys_through_a_proxy(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    assert (await ask(app, "GET", "/notes", auth=world.auth())).status_code == 200


async def keys_by_an_own_client(names: dict[str, Any], world: World) -> None:
    await keys_through_a_proxy(names, world)
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200 if request.url.path == "/jwks" else 404, content=b"{}")
    )
    async with names["client"], httpx2.AsyncClient(transport=transport) as names["client"]:
        assert await names["fetch"](f"{ISSUER}/jwks") == b"{}"
        with pytest.raises(httpx2.HTTPStatusError):
            await names["fetch"](f"{ISSUER}/other")


async def post_quantum(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    for algorithm, status in (("ES256", 200), ("ML-DSA-44", 200), ("ML-DSA-65", 401), ("RS256", 401)):
        auth = world.auth(key=DPoPKey.generate(algorithm))
        assert (await ask(app, "GET", "/notes", auth=auth)).status_code == status


async def gateway(names: dict[str, Any], world: World) -> None:
    auth = world.auth(sub="ann", origin=API)
    asks = {
        "X-Original-Method": "GET",
        "X-Original-URI": "/notes",
        "X-Forward-Auth-Secret": os.environ["FORWARD_AUTH_SECRET"],
    }
    answer = await ask(names["app"], "GET", "/notes", headers=asks, auth=auth)
    assert (answer.status_code, answer.headers["X-Auth-Identity"]) == (200, "ann")
    asks["X-Original-URI"] = "/other"
    assert (await ask(names["app"], "GET", "/notes", headers=asks, auth=auth)).status_code == 401
    del asks["X-Forward-Auth-Secret"]
    assert (await ask(names["app"], "GET", "/notes", headers=asks, auth=auth)).status_code == 403


async def django_behind_the_middleware(names: dict[str, Any], world: World) -> None:
    with serving_by_django((path("notes", lambda request: HttpResponse(b"notes")),)):
        app = names["application"]
        assert (await ask(app, "GET", "/notes", auth=world.auth())).text == "notes"
        assert (await ask(app, "GET", "/notes")).status_code == 401
        assert (await ask(app, "GET", "/health")).status_code == 404


async def django_views(names: dict[str, Any], world: World) -> None:
    csrf = "django.middleware.csrf.CsrfViewMiddleware"
    with serving_by_django(tuple(names["urlpatterns"]), csrf) as app:
        reader, writer = (world.auth(scopes=[f"notes:{scope}"]) for scope in ("read", "write"))
        assert (await ask(app, "GET", "/notes", auth=reader)).json() == {"notes_of": "user123"}
        assert (await ask(app, "GET", "/notes", auth=writer)).status_code == 403
        assert (await ask(app, "POST", "/drafts", auth=writer)).text == "user123"
        assert (await ask(app, "POST", "/drafts")).status_code == 401


async def optional_in_fastapi(names: dict[str, Any], world: World) -> None:
    app = names["app"]
    assert (await ask(app, "GET", "/notes")).json() == {"notes_of": "everybody"}
    assert (await ask(app, "GET", "/notes", auth=world.auth())).json() == {"notes_of": "user123"}
    described = app.openapi()["paths"]["/notes"]["get"]
    assert {"400", "401", "403", "503"} < set(described["responses"])
    assert described["security"] == [{"DPoP": []}, {}]


configure()


async def tickets(names: dict[str, Any], world: World) -> None:
    page = {"Origin": "https://app.example.com"}
    answer = await ask(names["app"], "POST", "/ticket", auth=world.auth(sub="ann"), headers=page)
    assert answer.headers["Cache-Control"] == "no-store"
    offered = ["dpop.ticket", f"dpop.ticket.{answer.json()['ticket']}"]
    client = TestClient(names["app"], base_url=API)
    with client.websocket_connect("/chat", subprotocols=offered, headers=page) as websocket:
        assert websocket.accepted_subprotocol == "dpop.ticket"
        assert websocket.receive_text() == "hello, ann"
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/chat", offered, headers=page):
        pass


async def page_that_signs(names: dict[str, Any], world: World) -> None:
    page = await ask(names["app"], "GET", "/docs")
    assert (page.status_code, "api-docs" in page.text) == (200, True)
    assert "https://auth.example.com" in page.headers["Content-Security-Policy"]
    assert (await ask(names["app"], "GET", "/docs/page.js")).status_code == 200
    auth = world.auth(sub="ann", scopes=["notes:read"])
    assert (await ask(names["app"], "GET", "/notes", auth=auth)).json() == {"notes_of": "ann"}


async def overridden(names: dict[str, Any], world: World) -> None:
    """The snippet itself runs the override that judges; the other one gives every caller Ann's token."""
    app, dpop = names["app"], names["dpop"]
    answer = await ask(app, "GET", "/notes")
    judged = isinstance(app.dependency_overrides[dpop], DPoPSecurity)
    assert (answer.status_code, answer.json()) == (401, answer.json()) if judged else (200, "ann")


async def websocket_test(names: dict[str, Any], world: World) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        names["client"].websocket_connect("wss://api.example.com/greet"),
    ):
        pass
    assert refused.value.status_code == 401


SCENARIOS: dict[str, dict[str, list[Scenario]]] = {
    "behind_a_proxy": {"Behind a proxy: `public_url`": [public_urls]},
    "browsers": {"Browsers and CORS": [cors], "FastAPI's page at `/docs`": [page_that_signs]},
    "client_and_authorization_server": {
        "Client and authorization server": [client, pushed_request, token_endpoint],
        "Below a third-party client": [client_of_others],
        "Tokens that are renewed": [client],
    },
    "dashboard": {"Metrics": [dashboard]},
    "events": {"Events": [events]},
    "fetching_keys": {
        "Through an egress proxy": [keys_through_a_proxy],
        "With your own HTTP client": [keys_by_an_own_client],
    },
    "frameworks": {
        "Django": [django_behind_the_middleware, django_views],
        "FastAPI: optional security, and refusals in OpenAPI": [optional_in_fastapi],
    },
    "gateway": {"At a gateway": [gateway]},
    "health": {"Readiness and liveness": [readiness]},
    "issuers": {
        "Profiles": [keycloak],
        "Several issuers": [several_issuers],
        "Tenants": [tenants],
        "Opaque tokens": [opaque_tokens],
        "Both kinds of token": [both_kinds],
        "Tokens without a subject": [tokens_without_a_subject],
    },
    "mcp": {"The server": [mcp_server], "The client": [mcp_client]},
    "metadata": {
        "Publish the metadata": [metadata],
        "Without the middleware": [metadata_by_a_route],
        "Behind a proxy": [metadata_of_two_hosts],
    },
    "moving_from_bearer": {"Moving from Bearer": [moving_from_bearer]},
    "nonces": {
        "Nonces": [nonces],
        "A nonce before the first request": [nonce_endpoint],
        "Clocks": [clocks],
    },
    "post_quantum": {"Post-quantum signatures: ML-DSA": [post_quantum]},
    "replay_store": {
        "Redis in production": [redis_in_production],
        "A rate limit for each client": [rate_limit],
    },
    "websocket": {"Browsers: tickets": [tickets]},
    "testing": {"FastAPI: one line": [overridden, overridden], "WebSockets": [websocket_test]},
    "routes": {"Rules of one route": [routes], "Claims, and one of several scopes": [claims]},
}


def scenarios_of(document: str) -> dict[str, list[Scenario]]:
    return SCENARIOS.get(Path(document).parent.name, {})


@pytest.mark.parametrize(
    ("snippet", "scenario"),
    [case for document in CHAPTERS for case in driven(document, scenarios_of(document))],
)
async def test_each_snippet_does_what_the_text_says(
    snippet: Block, scenario: Scenario | None, world: World
) -> None:
    assert scenario is not None, "give the new snippet a scenario that drives it"
    await follow(snippet, scenario, world)


@pytest.mark.parametrize("document", CHAPTERS)
def test_every_scenario_has_its_snippet(document: str) -> None:
    headings = [snippet.heading for snippet in blocks("python", document) if snippet.file is None]
    assert headings == [heading for heading, scenarios in scenarios_of(document).items() for _ in scenarios]


def option_tables() -> list[tuple[str, str, list[str]]]:
    """Of each table with a column of options: the chapter, the section around it, and the options."""
    found: list[tuple[str, str, list[str]]] = []
    for document in CHAPTERS:
        for section in re.split(r"(?m)^#+ ", text_of(document)):
            for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
                head, _, *rows = [
                    [cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()
                ]
                if "option" in head:
                    cells = " ".join(row[head.index("option")] for row in rows)
                    found.append((document, section, re.findall(r"`(?:\w+\()?(\w+)", cells)))
    return found


def test_the_options_in_each_table_are_those_of_a_class_that_its_section_names() -> None:
    assert len(option_tables()) > 3
    public = {name: getattr(dpop_middleware, name) for name in dpop_middleware.__all__}
    public["IntrospectionVerifier"] = IntrospectionVerifier
    for document, section, options in option_tables():
        named = [public[word] for word in re.findall(r"\w+", section) if isinstance(public.get(word), type)]
        known = {option for one in named for option in inspect.signature(one).parameters}
        assert set(options) <= known, f"{document}: where are these set?"


@pytest.mark.parametrize("document", CHAPTERS)
def test_a_snippet_around_the_readers_application_says_so(document: str) -> None:
    for snippet in blocks("python", document):
        first = re.search(r"^app = (.*)$", snippet.text, re.MULTILINE)
        if first is not None and re.search(r"\bapp\b(?!=)", first[1].partition("#")[0]):
            assert first[1].endswith("# around your own application")


def homes() -> dict[str, set[str]]:
    """The public modules that have each name, for those names that `dpop_middleware` itself lacks."""
    found: dict[str, set[str]] = {}
    for module in pkgutil.walk_packages(dpop_middleware.__path__, "dpop_middleware."):
        if not re.search(r"\._|\.cli\b", module.name):
            for name in getattr(importlib.import_module(module.name), "__all__", ()):
                found.setdefault(name, set()).add(module.name)
    return {name: modules for name, modules in found.items() if name not in dpop_middleware.__all__}


@pytest.mark.parametrize("document", CHAPTERS)
def test_a_chapter_says_from_where_each_name_that_it_calls_is_imported(document: str) -> None:
    text, known = text_of(document), homes()
    spans = re.findall(r"`([^`]+)`", re.sub(r"(?s)```.*?```", "", text))
    called = {name for span in spans for name in re.findall(r"(?<![\w.])([A-Za-z_]\w*)(?:\.\w+)?\(", span)}
    assert [
        name
        for name in sorted(called & known.keys())
        if not any(re.search(rf"{re.escape(module)}(?!\.?\w)", text) for module in known[name])
    ] == []
