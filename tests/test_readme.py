"""Every Python snippet of the README runs as it stands, and does to requests what the text says."""

import ast
import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

import dpop_middleware
from dpop_middleware import (
    AccessToken,
    DPoPMiddleware,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    RedisReplayStore,
    ResourceServer,
    errors,
)
from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.testing import ABSENT, TestIssuer
from dpop_middleware.tokens.fetch import Endpoint, Fetcher
from tests.support.nginx import NGINX, free_port, nginx
from tests.support.readme import README, Block, blocks
from tests.support.replay import entry
from tests.support.servers import serving
from tests.support.valkey import HOST, Server, implementations

ROOT = Path(__file__).parents[1]
API = "https://api.example.com"
ISSUER = "https://auth.example.com"
SNIPPETS = blocks("python")


async def _who(request: Request) -> JSONResponse:
    """Stands for the reader's application: it says who calls, and by which path."""
    verified = request.scope.get("dpop")
    subject = None if verified is None else verified.access_token.subject
    return JSONResponse({"subject": subject, "path": request.scope["raw_path"].decode()})


def readers_app() -> Starlette:
    return Starlette(routes=[Route("/{path:path}", _who, methods=["GET", "POST"])])


@dataclass
class World:
    """What is around the reader's code: issuers, a server where the URLs lead to, and the network."""

    patch: pytest.MonkeyPatch
    folder: Path
    stack: AsyncExitStack
    issuers: dict[str, TestIssuer] = field(default_factory=dict)
    stores: list[RedisReplayStore] = field(default_factory=list)
    server: Server | None = None

    def __post_init__(self) -> None:
        for issuer in (ISSUER, f"{ISSUER}/realms/main"):
            self.issuers[issuer] = TestIssuer(issuer, audience=API)
        self.patch.setattr(Fetcher, "get", self._fetched)
        trustme.CA().cert_pem.write_to_path(str(self.folder / "ca.pem"))
        from_url = RedisReplayStore.from_url

        def redirected(url: str, **options: Any) -> RedisReplayStore:
            store = from_url(self.here(url), **options)
            self.stores.append(store)
            return store

        self.patch.setattr(RedisReplayStore, "from_url", redirected)

    def _fetched(self, endpoint: Endpoint, **_: object) -> dict[str, Any]:
        """What the issuers publish."""
        for issuer, published in self.issuers.items():
            if endpoint.url == f"{issuer}/jwks":
                return published.jwks()
        issuer = endpoint.url.replace("/.well-known/oauth-authorization-server", "")
        return {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}

    def here(self, url: str) -> str:
        """`url` with the address of our own server, and with a file that is there."""
        if self.server is None:
            self.server = self.stack.enter_context(Server())
        address = f"{HOST}:{self.server.port}"
        own = re.sub(r"localhost:6379|redis\.internal:6379", address, url)
        return own.replace("/etc/ssl/redis-ca.pem", str(self.folder / "ca.pem"))

    def auth(self, **arguments: Any) -> DPoPAuth:
        """Another client with a token of the issuer."""
        return self.issuers[ISSUER].auth(**arguments)

    async def run(self, snippet: Block) -> dict[str, Any]:
        """Execute `snippet` and return its names; what it opened is closed at the end."""
        names: dict[str, Any] = {"app": readers_app(), "__name__": f"readme_line_{snippet.line}"}
        exec(compile("\n" * (snippet.line - 1) + snippet.text, "README.md", "exec"), names)
        for value in names.values():
            if isinstance(value, ResourceServer):
                await self.stack.enter_async_context(value)
        return names


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    async with AsyncExitStack() as stack:
        world = World(monkeypatch, tmp_path, stack)
        yield world
        for store in world.stores:
            await store.aclose()


async def ask(app: ASGIApp, method: str, url: str, **options: Any) -> httpx2.Response:
    """Make one request to `app`; a path alone is asked of the API."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=API) as client:
        return await client.request(method, url, **options)


async def replay(app: ASGIApp, method: str, url: str, auth: DPoPAuth) -> list[int]:
    """The statuses of a request and of its replay by a thief."""
    honest = await ask(app, method, url, auth=auth)
    sent = {name: honest.request.headers[name] for name in ("Authorization", "DPoP")}
    return [honest.status_code, (await ask(app, method, url, headers=sent)).status_code]


async def first_screen(names: dict[str, Any], world: World) -> None:
    assert await replay(names["app"], "GET", "/notes", world.auth()) == [200, 401]
    assert (await ask(names["app"], "GET", "/notes")).status_code == 401


async def around_any_application(names: dict[str, Any], world: World) -> None:
    answer = await ask(names["app"], "GET", "/notes", auth=world.auth(sub="ann"))
    assert answer.text == "notes of ann"
    assert await replay(names["app"], "GET", "/notes", world.auth()) == [200, 401]
    for public in ("/health", "/static/style.css"):
        assert (await ask(names["app"], "GET", public)).text == "all is well"


async def fastapi(names: dict[str, Any], world: World) -> None:
    app = names["app"]
    ann = world.auth(sub="ann", scopes=["notes:read"])
    assert (await ask(app, "GET", "/notes", auth=ann)).json() == {"notes_of": "ann"}
    assert (await ask(app, "GET", "/notes", auth=world.auth())).status_code == 403
    assert await replay(app, "GET", "/notes", ann) == [200, 401]
    my_access_token = SimpleNamespace(subject="bob")
    app.dependency_overrides[names["dpop"]] = lambda: my_access_token
    assert (await ask(app, "GET", "/notes")).json() == {"notes_of": "bob"}


async def starlette_route(names: dict[str, Any], world: World) -> None:
    ann = world.auth(sub="ann", scopes=["notes:write"])
    assert (await ask(names["app"], "POST", "/notes", auth=ann)).json() == {"written_by": "ann"}
    assert (await ask(names["app"], "POST", "/notes", auth=world.auth())).status_code == 403
    assert await replay(names["app"], "POST", "/notes", ann) == [200, 401]


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
    acls = [line for block in blocks("") for line in block.text.splitlines() if line.startswith("ACL ")]
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
        # What the client calls, and what the proxy passes on.
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


async def issuers(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    keycloak = world.issuers[f"{ISSUER}/realms/main"]
    auth = keycloak.auth(sub="ann", header={"typ": "JWT"}, jti="1", azp="my_client")
    assert (await ask(app, "GET", "/notes", auth=auth)).json()["subject"] == "ann"
    assert (await ask(app, "GET", "/notes", auth=world.auth())).status_code == 401


async def events(names: dict[str, Any], world: World) -> None:
    app = DPoPMiddleware(names["app"], names["api"])
    assert await replay(app, "GET", "/notes", world.auth()) == [200, 401]
    assert names["verdicts"] == {("accepted", "all"): 1, ("refused", "jti"): 1}


def authorization_server(names: dict[str, Any], world: World) -> Starlette:
    """The README's token endpoint, with what it leaves to the reader: how tokens are signed."""

    def sign(claims: dict[str, Any]) -> str:
        return world.issuers[ISSUER].token(**claims, scopes=["notes:read"])

    names["sign"] = sign
    return Starlette(routes=[Route("/token", names["token"], methods=["POST"])])


async def token_endpoint(names: dict[str, Any], world: World) -> None:
    app, url, key = authorization_server(names, world), f"{ISSUER}/token", DPoPKey.generate()
    proof = {"DPoP": key.proof("POST", url)}
    answer = await ask(app, "POST", url, headers=proof)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    told = answer.json()
    assert told["token_type"] == "DPoP"
    api = ResourceServer(issuer=ISSUER, resource=API, replay_store=MemoryReplayStore())
    await world.stack.enter_async_context(api)
    auth = DPoPAuth(key, told["access_token"])
    assert (await ask(DPoPMiddleware(readers_app(), api), "GET", "/notes", auth=auth)).status_code == 200
    replayed = await ask(app, "POST", url, headers=proof)
    assert (replayed.status_code, replayed.headers["Cache-Control"]) == (400, "no-store")
    assert replayed.json()["error"] == "invalid_dpop_proof"
    # Put behind nonces, the same handler hands out a new one before the old one expires.
    fresh = {"dpop-nonce": "n-2", "cache-control": "no-store"}
    names["endpoint"] = SimpleNamespace(
        verify=names["endpoint"].verify, response_headers=lambda proof: tuple(fresh.items())
    )
    answer = await ask(app, "POST", url, headers={"DPoP": key.proof("POST", url)})
    assert (answer.status_code, answer.headers["DPoP-Nonce"]) == (200, "n-2")


async def client(names: dict[str, Any], world: World) -> None:
    """The README's client against the README's token endpoint, and an API."""
    (snippet,) = [block for block in SNIPPETS if "TokenEndpoint(" in block.text]
    token_server = authorization_server(await world.run(snippet), world)
    api = ResourceServer(issuer=ISSUER, resource=API, replay_store=MemoryReplayStore())
    await world.stack.enter_async_context(api)
    hosts: dict[str, ASGIApp] = {
        "auth.example.com": token_server,
        "api.example.com": DPoPMiddleware(readers_app(), api),
    }
    loop = asyncio.get_running_loop()

    class Network(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return asyncio.run_coroutine_threadsafe(self.carried(request), loop).result(10)

        async def carried(self, request: httpx2.Request) -> httpx2.Response:
            answer = await ask(
                hosts[request.url.host],
                request.method,
                str(request.url),
                headers=request.headers,
                content=request.read(),
            )
            return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)

    class OnTheNetwork(httpx2.Client):
        def __init__(self) -> None:
            super().__init__(transport=Network())

    world.patch.setattr(httpx2, "Client", OnTheNetwork)
    notes = await asyncio.to_thread(names["read_notes"], names["key"])
    assert json.loads(notes) == {"subject": "user123", "path": "/notes"}


Scenario = Callable[[dict[str, Any], World], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, list[Scenario]] = {
    "dpop_middleware": [first_screen],
    "Around any ASGI application": [around_any_application],
    "FastAPI in five minutes": [fastapi],
    "One Starlette route": [starlette_route],
    "A rate limit for each client": [rate_limit],
    "Redis in production": [redis_in_production],
    "Behind a proxy: `public_url`": [public_urls],
    "Browsers and CORS": [cors],
    "Nonces": [nonces],
    "Routes": [routes],
    "Moving from Bearer": [moving_from_bearer],
    "Issuers": [issuers],
    "Events and logs": [events],
    "Client and authorization server": [client, token_endpoint],
}


# What these issuers write into access tokens, where that differs from RFC 9068.
VENDORS: dict[str, dict[str, Any]] = {
    "RFC 9068": {},
    "Keycloak": {
        "header": {"typ": "JWT"},
        "typ": "DPoP",
        "azp": "my_client",
        "client_id": ABSENT,
        "aud": [API, "account"],
        "scope": "openid email",
        "acr": "1",
    },
    "Okta": {
        "header": {"typ": ABSENT},
        "ver": 1,
        "cid": "my_client",
        "client_id": ABSENT,
        "uid": "00u1",
        "scp": ["openid", "email"],
        "scope": ABSENT,
    },
    "Auth0": {
        "header": {"typ": "JWT"},
        "azp": "my_client",
        "client_id": ABSENT,
        "jti": ABSENT,
        "aud": [API, f"{ISSUER}/userinfo"],
        "scope": "openid email",
    },
}


@pytest.mark.parametrize("vendor", VENDORS)
async def test_the_row_of_an_issuer_lets_its_tokens_in(vendor: str) -> None:
    (row,) = re.findall(rf"^\| {vendor}[^|]*\| (.*) \|$", README, re.MULTILINE)
    options = {name: ast.literal_eval(value) for name, value in re.findall(r"`(\w+)=(\(.*?\))`", row)}
    issuer, key = TestIssuer(ISSUER, audience=API), DPoPKey.generate()
    token = issuer.token(jkt=key.jkt, **VENDORS[vendor])

    async def verified(**options: Any) -> AccessToken | None:
        verifier = JWTAccessTokenVerifier(issuer=ISSUER, audience=API, jwks=issuer.jwks(), **options)
        try:
            return await verifier.verify(token)
        except errors.InvalidToken:
            return None

    wanted = await verified(**options)
    assert wanted is not None
    assert (wanted.client_id, wanted.jkt) == ("my_client", key.jkt)
    assert wanted.scopes == ({"openid", "email"} if options else set())
    for left_out in options:
        fewer = await verified(**{name: value for name, value in options.items() if name != left_out})
        assert fewer is None or fewer.scopes != wanted.scopes


def driven() -> Iterator[Any]:
    """Each snippet that is no file of its own, with what drives it."""
    scenarios = {heading: iter(all_of_them) for heading, all_of_them in SCENARIOS.items()}
    for snippet in SNIPPETS:
        if snippet.file is None:
            scenario = next(scenarios.get(snippet.heading, iter(())), None)
            yield pytest.param(snippet, scenario, id=f"line {snippet.line}")


@pytest.mark.parametrize(("snippet", "scenario"), list(driven()))
async def test_snippet(snippet: Block, scenario: Scenario | None, world: World) -> None:
    assert scenario is not None, "give the new snippet a scenario that drives it"
    if "from_url" in snippet.text or scenario is client:
        if not implementations():
            pytest.skip("neither Valkey nor Redis is installed")
        world.here("")
    await scenario(await world.run(snippet), world)


def test_every_scenario_has_its_snippet() -> None:
    told = [snippet.heading for snippet in SNIPPETS if snippet.file is None]
    assert told == [heading for heading, scenarios in SCENARIOS.items() for _ in scenarios]


def test_the_section_on_testing_works_in_an_empty_folder(tmp_path: Path) -> None:
    files = [snippet for snippet in SNIPPETS if snippet.file is not None]
    assert [snippet.file for snippet in files] == ["test_notes.py", "notes.py", "test_dpop.py"]
    for snippet in files:
        (tmp_path / str(snippet.file)).write_text(snippet.text)
    first = [line for line in files[0].text.splitlines()[1:] if line]
    assert len(first) <= 10, "a protected application is tested in ten lines"
    # Of the oldest starlette, which the newest anyio warns about.
    odd = "ignore:The anyio"
    # The reader has pytest alone, and the package from wherever these tests have it.
    reader = {
        "PYTHONPATH": str(Path(dpop_middleware.__path__[0]).parent),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-W", odd, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | reader,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50
    assert "failed" not in done.stdout


@pytest.fixture
def behind_nginx(tmp_path: Path) -> Generator[Callable[..., httpx2.Response]]:
    """The README's nginx, with two applications behind it; yields what calls them."""
    (block,) = blocks("nginx")
    issuer = TestIssuer(ISSUER, audience=API)

    def protected(public_url: str) -> Callable[[str], ASGIApp]:
        api = ResourceServer(
            issuer=ISSUER,
            resource=API,
            public_url=public_url,
            jwks=issuer.jwks(),
            replay_store=MemoryReplayStore(),
        )
        return lambda _: DPoPMiddleware(readers_app(), api)

    authority, port = trustme.CA(), free_port()
    certificate = authority.issue_cert("api.example.com")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(str(tmp_path / "chain.pem"), append=True)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        serving("uvicorn-h11", protected(API)) as plain,
        serving("uvicorn-h11", protected(f"{API}/v1")) as prefixed,
    ):
        files = f"ssl_certificate {tmp_path}/chain.pem; ssl_certificate_key {tmp_path}/key.pem;"
        config = block.text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl; {files}")
        config = config.replace("http://127.0.0.1:8000", plain).replace("http://127.0.0.1:8001", prefixed)

        def call(path: str) -> httpx2.Response:
            key = DPoPKey.generate()
            token = issuer.token(jkt=key.jkt)
            with httpx2.Client(verify=ssl.create_default_context(cafile=tmp_path / "ca.pem")) as http:
                return http.get(
                    f"https://127.0.0.1:{port}{path}",
                    headers={
                        "Host": "api.example.com",
                        "Authorization": f"DPoP {token}",
                        "DPoP": key.proof("GET", f"{API}{path}", access_token=token),
                    },
                    extensions={"sni_hostname": "api.example.com"},
                )

        with nginx(tmp_path, config, port):
            yield call


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")
def test_the_nginx_configuration(behind_nginx: Callable[..., httpx2.Response]) -> None:
    assert behind_nginx("/notes%2F1").json() == {"subject": "user123", "path": "/notes%2F1"}
    assert behind_nginx("/v1/notes%2F1").json() == {"subject": "user123", "path": "/notes%2F1"}


def test_the_commands_are_the_ones_that_we_promise() -> None:
    first_screen = README[: README.index("---")]
    assert "python3 -m pip install tox && python3 -m tox -e demo\n" in first_screen
    assert "python3 -m pip install tox && python3 -m tox\n" in first_screen
    assert "pipx run tox" in first_screen


def test_the_environments_of_tox_are_there() -> None:
    told = set(re.findall(r"tox -e (\w+)", README))
    assert {"demo", "flow", "cluster", "bench"} <= told
    there = set(
        re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert told <= there


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert {target[1:] for target in targets if target.startswith("#")} <= headings
    local = [target for target in targets if not target.startswith(("#", "https://"))]
    assert [target for target in local if not (ROOT / target).exists()] == []
