"""MCP servers behind `protect`: the caller for tools, the refusals, and the metadata for clients."""

import hashlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from mcp import types
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware import (
    DPoPPolicy,
    HMACNonceProvider,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    ResourceMetadata,
    ResourceServer,
    WebSocketTickets,
)
from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.mcp import protect
from dpop_middleware.testing import ABSENT, TestIssuer
from tests.support.api import ISSUER, RESOURCE
from tests.support.clients import NO_AUTHORITIES
from tests.support.mcp_clients import HEADERS, INITIALIZE, connected
from tests.support.oracle import b64
from tests.support.servers import serving
from tests.support.signer import Signer, signer

KEY = DPoPKey.generate()
NONCES = DPoPPolicy(nonce="required", iat_limit_with_nonce=300)


def who() -> str:
    """Return the caller as the SDK knows it."""
    token = get_access_token()
    if token is None:
        return "nobody"
    return json.dumps(
        {
            "client": token.client_id,
            "scopes": token.scopes,
            "subject": token.subject,
            "resource": token.resource,
            "issuer": (token.claims or {}).get("iss"),
            "expires_in": None if token.expires_at is None else token.expires_at - int(time.time()),
            "hash": hashlib.sha256(token.token.encode()).hexdigest(),
        }
    )


def server_of_tools() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("notes", log_level="CRITICAL")
    server.tool(name="who")(who)

    async def health(request: Request) -> Response:
        return PlainTextResponse(who())

    server.custom_route("/health", methods=["GET"])(health)
    return server


@dataclass
class Served:
    """A protected MCP server and its issuer."""

    url: str
    issuer: TestIssuer

    def token(self, **changes: Any) -> str:
        usual: dict[str, Any] = {"jkt": KEY.jkt, "sub": "ann", "scopes": ["notes:read"]}
        return self.issuer.token(**(usual | changes))

    def call(self, *fields: tuple[str, str], auth: DPoPAuth | None = None) -> httpx2.Response:
        """Send the request that opens a session."""
        with httpx2.Client(verify=NO_AUTHORITIES, trust_env=False, auth=auth) as client:
            return client.post(self.url, headers=[*HEADERS.items(), *fields], json=INITIALIZE)


def serve(
    make: Callable[[], Any] = server_of_tools,
    *,
    policy: DPoPPolicy = DPoPPolicy(),
    around: Callable[[ASGIApp, ResourceServer], ASGIApp] = lambda app, _: app,
    **options: Any,
) -> Generator[Served]:
    found: list[Served] = []

    def app_at(origin: str) -> ASGIApp:
        url = f"{origin}/mcp"
        issuer = TestIssuer(audience=url)
        found.append(Served(url, issuer))
        # The conformance suite's tokens have neither `client_id` nor `jti`.
        verifier = JWTAccessTokenVerifier(
            issuer=issuer.issuer,
            audience=url,
            jwks=issuer.jwks(),
            required_claims=("iss", "exp", "aud", "sub"),
        )
        api = ResourceServer(
            verifier=verifier,
            resource=url,
            replay_store=MemoryReplayStore(),
            policy=policy,
            nonces=None if policy.nonce == "off" else HMACNonceProvider(bytes(32)),
            metadata=ResourceMetadata(scopes_supported=["notes:read"]),
        )
        return around(protect(make(), api, **options), api)

    with serving("uvicorn-h11", app_at):
        yield found[0]


@pytest.fixture(scope="module")
def served() -> Generator[Served]:
    yield from serve(public_paths=["/health"])


@pytest.fixture(scope="module")
def requiring() -> Generator[Served]:
    """One that requires nonces, and the scope `notes:read`."""
    yield from serve(policy=NONCES, scopes=["notes:read"])


@pytest.fixture(params=["nonces off", "nonces required"])
def either(request: pytest.FixtureRequest) -> Served:
    name = "served" if request.param == "nonces off" else "requiring"
    found: Served = request.getfixturevalue(name)
    return found


class TestTools:
    async def test_tools_see_user_client_and_scopes(self, either: Served) -> None:
        token = either.token(client_id="app", scopes=["notes:read", "a"], expires_in=600)
        async with connected(either.url, KEY, token=token) as caller:
            seen = json.loads(await caller.call("who"))
        assert 590 <= seen.pop("expires_in") <= 600
        assert seen == {
            "client": "app",
            "scopes": ["a", "notes:read"],
            "subject": "ann",
            "resource": either.url,
            "issuer": either.issuer.issuer,
            "hash": hashlib.sha256(token.encode()).hexdigest(),
        }

    async def test_see_the_token_of_each_request_and_not_that_of_the_first(self, served: Served) -> None:
        async with connected(served.url, KEY, token=served.token()) as caller:
            for scopes in (["notes:read"], ["notes:read", "notes:write"], []):
                caller.use(served.token(scopes=scopes))
                assert json.loads(await caller.call("who"))["scopes"] == scopes

    async def test_a_session_is_for_no_other_caller(self, served: Served) -> None:
        async with connected(served.url, KEY, token=served.token()) as caller:
            for other in ({"sub": "bob"}, {"client_id": "another"}):
                caller.use(served.token(**other))
                with pytest.raises(MCPError, match="Session not found"):
                    await caller.call("who")
            caller.use(served.token())
            assert json.loads(await caller.call("who"))["subject"] == "ann"

    async def test_tools_of_a_low_level_server_see_the_same(self) -> None:
        async def call_tool(context: Any, params: Any) -> types.CallToolResult:
            return types.CallToolResult(content=[types.TextContent(type="text", text=who())])

        async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
            return types.ListToolsResult(tools=[types.Tool(name="who", input_schema={"type": "object"})])

        for served in serve(lambda: Server("notes", on_call_tool=call_tool, on_list_tools=list_tools)):
            async with connected(served.url, KEY, token=served.token()) as caller:
                assert json.loads(await caller.call("who"))["subject"] == "ann"

    async def test_tools_of_a_ready_application_see_the_same(self) -> None:
        for served in serve(lambda: server_of_tools().streamable_http_app(stateless_http=True)):
            async with connected(served.url, KEY, token=served.token()) as caller:
                assert json.loads(await caller.call("who"))["subject"] == "ann"

    def test_a_stream_that_a_ticket_opens_knows_whose_it_is_and_no_token(self) -> None:
        made: list[WebSocketTickets] = []

        def make() -> MCPServer[Any]:
            server = server_of_tools()

            async def ticket(request: Request) -> Response:
                return PlainTextResponse(made[0].issue(request, path="/events"))

            async def events(request: Request) -> Response:
                return PlainTextResponse(who(), media_type="text/event-stream")

            server.custom_route("/ticket", methods=["POST"])(ticket)
            server.custom_route("/events", methods=["GET"])(events)
            return server

        def around(app: ASGIApp, api: ResourceServer) -> ASGIApp:
            made.append(WebSocketTickets(api, bytes(32), query_parameter="ticket"))
            return made[0].middleware(app)

        for served in serve(make, around=around):
            origin, auth = served.url.removesuffix("/mcp"), DPoPAuth(KEY, served.token())
            fields = {"Accept": "text/event-stream", "Sec-Fetch-Site": "same-origin"}
            with httpx2.Client(base_url=origin, verify=NO_AUTHORITIES, trust_env=False) as client:
                ticket = client.post("/ticket", auth=auth).text
                answer = client.get("/events", params={"ticket": ticket}, headers=fields)
            assert answer.status_code == 200
            seen = json.loads(answer.text)
            assert seen["subject"] == "ann"
            assert seen["hash"] == hashlib.sha256(b"").hexdigest()

    def test_a_public_route_of_the_server_knows_nobody(self, served: Served) -> None:
        with httpx2.Client(verify=NO_AUTHORITIES, trust_env=False) as client:
            answer = client.get(served.url.replace("/mcp", "/health"))
        assert (answer.status_code, answer.text) == (200, "nobody")


def lifespan_of(app: Any) -> AbstractAsyncContextManager[object]:
    """The lifespan of the SDK's application inside what `protect` returned."""
    inside: Starlette = app.app.app
    return inside.router.lifespan_context(inside)


def challenge_of(answer: httpx2.Response) -> str:
    (challenge,) = answer.headers.get_list("WWW-Authenticate")
    assert challenge.startswith("DPoP ")
    return challenge


class TestDiscovery:
    def test_a_request_without_credentials_is_told_all(self, either: Served) -> None:
        answer = either.call()
        challenge = challenge_of(answer)
        assert answer.status_code == 401
        assert 'algs="' in challenge
        document = challenge.partition('resource_metadata="')[2].partition('"')[0]
        assert document == either.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
        with httpx2.Client(verify=NO_AUTHORITIES, trust_env=False) as client:
            metadata = client.get(document, headers={"Origin": "https://inspector.example.com"})
        assert metadata.headers["Access-Control-Allow-Origin"] == "*"
        found = metadata.json()
        assert found["resource"] == either.url
        assert found["authorization_servers"] == [either.issuer.issuer]
        assert found["scopes_supported"] == ["notes:read"]
        assert found["dpop_bound_access_tokens_required"] is True
        assert not any(name.startswith(("HS", "none")) for name in found["dpop_signing_alg_values_supported"])

    def test_a_missing_scope_is_a_403(self, requiring: Served) -> None:
        answer = requiring.call(auth=DPoPAuth(KEY, requiring.token(scopes=["other"])))
        assert answer.status_code == 403
        assert 'error="insufficient_scope"' in challenge_of(answer)
        assert 'scope="notes:read"' in challenge_of(answer)


Edit = Callable[["Probe"], None]


@dataclass
class Probe:
    """A correct request, until something is made wrong."""

    signer: Signer
    token: str
    header: dict[str, Any]
    claims: dict[str, Any]
    scheme: str = "DPoP"
    proofs: list[str] | None = None


def _bad_signature(probe: Probe) -> None:
    proof = probe.signer.jws(probe.header, probe.claims)
    probe.proofs = [proof[:-8] + ("A" * 8 if proof[-8:] != "A" * 8 else "B" * 8)]


def _twice(probe: Probe) -> None:
    other = probe.claims | {"jti": "another"}
    probe.proofs = [probe.signer.jws(probe.header, claims) for claims in (probe.claims, other)]


def _unsigned(probe: Probe) -> None:
    signed = probe.signer.jws(probe.header | {"alg": "none"}, probe.claims)
    probe.proofs = [signed.rpartition(".")[0] + "."]


# SEP-1932's battery for servers: what is wrong, and the error codes that may say so.
PROOF, TOKEN = ("invalid_dpop_proof",), ("invalid_token",)
DEFECTS: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "bad signature": (_bad_signature, PROOF),
    "no jti": (lambda probe: probe.claims.pop("jti"), PROOF),
    "no htm": (lambda probe: probe.claims.pop("htm"), PROOF),
    "no htu": (lambda probe: probe.claims.pop("htu"), PROOF),
    "no iat": (lambda probe: probe.claims.pop("iat"), PROOF),
    "no ath": (lambda probe: probe.claims.pop("ath"), PROOF),
    "no jwk": (lambda probe: probe.header.pop("jwk"), PROOF),
    "another typ": (lambda probe: probe.header.update(typ="jwt"), PROOF),
    "another htu": (lambda probe: probe.claims.update(htu="https://wrong.example.com/mcp"), PROOF),
    "another htm": (lambda probe: probe.claims.update(htm="GET"), PROOF),
    "another ath": (lambda probe: probe.claims.update(ath="not-the-right-hash"), PROOF),
    "a private key": (lambda probe: probe.header["jwk"].update(d="AAAA"), PROOF),
    "alg none": (_unsigned, PROOF),
    "a symmetric alg": (lambda probe: probe.header.update(alg="HS256"), PROOF),
    "an old iat": (lambda probe: probe.claims.update(iat=int(time.time()) - 303), PROOF),
    "an iat ahead": (lambda probe: probe.claims.update(iat=int(time.time()) + 303), PROOF),
    "two proofs": (_twice, PROOF),
    "no proof": (lambda probe: setattr(probe, "proofs", []), PROOF),
    "no JWT": (lambda probe: setattr(probe, "proofs", ["this-is-not-a-jwt"]), PROOF),
    "the scheme Bearer": (lambda probe: setattr(probe, "scheme", "Bearer"), PROOF + TOKEN),
}


def send(served: Served, probe: Probe) -> httpx2.Response:
    proofs = [probe.signer.jws(probe.header, probe.claims)] if probe.proofs is None else probe.proofs
    fields = [("Authorization", f"{probe.scheme} {probe.token}"), *(("DPoP", proof) for proof in proofs)]
    return served.call(*fields)


def probe_of(served: Served, **token: Any) -> Probe:
    """A correct request: with the nonce that the server requires, if it does."""
    client = signer("ES256")
    access_token = served.token(
        **{"jkt": client.jkt, "client_id": ABSENT, "jti": ABSENT, "scopes": ["notes:read"], **token}
    )

    def made(nonce: dict[str, str]) -> Probe:
        header = client.header() | {"jwk": dict(client.jwk)}
        claims = client.claims("POST", served.url, token=access_token, now=int(time.time()))
        return Probe(
            client, access_token, header, claims | {"jti": b64(DPoPKey.generate().jkt.encode())} | nonce
        )

    first = send(served, made({}))
    nonce = first.headers.get("DPoP-Nonce")
    return made({} if nonce is None else {"nonce": nonce})


def test_the_battery_starts_from_a_request_that_passes(either: Served) -> None:
    assert send(either, probe_of(either)).status_code == 200


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_a_401_with_its_challenge(either: Served, defect: str) -> None:
    edit, codes = DEFECTS[defect]
    probe = probe_of(either)
    edit(probe)
    answer = send(either, probe)
    challenge = challenge_of(answer)
    assert answer.status_code == 401
    assert any(f'error="{code}"' in challenge for code in codes), challenge
    assert "resource_metadata=" in challenge


@pytest.mark.parametrize(
    "wrong",
    [
        {"audience": "https://not-this-server.example.com/mcp"},
        {"jkt": KEY.jkt},
        {"jkt": None},
        {"expires_in": -60},
        {"iss": "https://another.example.com"},
        {"key": DPoPKey.generate()},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_each_wrong_token_is_a_401_with_its_challenge(either: Served, wrong: dict[str, Any]) -> None:
    answer = send(either, probe_of(either, **wrong))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in challenge_of(answer)


def test_an_unbound_token_as_bearer_is_refused(either: Served) -> None:
    answer = either.call(("Authorization", f"Bearer {either.token(jkt=None)}"))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in challenge_of(answer)


def test_a_nonce_is_asked_for_and_a_wrong_one_refused(requiring: Served) -> None:
    probe = probe_of(requiring)
    probe.claims["nonce"] = "wrong"
    answer = send(requiring, probe)
    assert answer.status_code == 401
    assert 'error="use_dpop_nonce"' in challenge_of(answer)
    assert answer.headers["DPoP-Nonce"]


class TestSetUp:
    @staticmethod
    def api(resource: str = f"{RESOURCE}/mcp", **options: Any) -> ResourceServer:
        options = {"issuer": ISSUER, "metadata": ResourceMetadata(), **options}
        return ResourceServer(resource=resource, replay_store=MemoryReplayStore(), **options)

    def test_metadata_is_needed(self) -> None:
        with pytest.raises(ConfigurationError, match="metadata=ResourceMetadata"):
            protect(server_of_tools(), self.api(metadata=None))

    def test_protect_takes_a_server_and_a_resource_server(self) -> None:
        with pytest.raises(ConfigurationError, match="resource_server takes a ResourceServer"):
            protect(server_of_tools(), "https://api.example.test/mcp")  # type: ignore[arg-type]
        for wrong in ("server", MCPServer, None):
            with pytest.raises(ConfigurationError, match="server takes a server of the MCP SDK"):
                protect(wrong, self.api())
        with pytest.raises(ConfigurationError, match="path is for a server"):
            protect(server_of_tools().streamable_http_app(), self.api(), path="/mcp")

    @pytest.mark.parametrize("path", ["mcp", "", 1])
    def test_a_path_starts_with_a_slash(self, path: Any) -> None:
        with pytest.raises(ConfigurationError, match="^path takes a path that starts with a slash"):
            protect(server_of_tools(), self.api(), path=path)

    def test_a_server_with_authentication_of_its_own_is_refused(self) -> None:
        class Verifier:
            async def verify_token(self, token: str) -> None:
                return None

        auth = AuthSettings(
            issuer_url=AnyHttpUrl("https://auth.example.test"),
            resource_server_url=AnyHttpUrl(f"{RESOURCE}/mcp"),
            validate_token_resource=True,
        )
        server: MCPServer[Any] = MCPServer("notes", auth=auth, token_verifier=Verifier())
        with pytest.raises(ConfigurationError, match="without auth= of its own"):
            protect(server, self.api())

    @pytest.mark.parametrize(
        ("resource", "path", "expected"),
        [
            (RESOURCE, None, "/mcp"),
            (f"{RESOURCE}/notes/mcp", None, "/notes/mcp"),
            (f"{RESOURCE}/notes/mcp", "/mcp", "/mcp"),
            (f"{RESOURCE}/my%20notes/%C3%BC", None, "/my notes/ü"),
            ("http://127.0.0.1:8000/mcp", None, "/mcp"),
            ("http://localhost:8000", None, "/mcp"),
        ],
    )
    def test_the_path_is_that_of_the_resource(self, resource: str, path: str | None, expected: str) -> None:
        seen: list[tuple[str, str]] = []

        class OfTheSDK:
            def streamable_http_app(
                self, *, streamable_http_path: str, host: str, transport_security: Any
            ) -> ASGIApp:
                has_check = transport_security is None or transport_security.enable_dns_rebinding_protection
                seen.append((streamable_http_path, f"{host} {has_check}"))
                return nothing

        class OfFastMCP:
            auth = None

            def http_app(self, path: str, host_origin_protection: object) -> ASGIApp:
                seen.append((path, str(host_origin_protection)))
                return nothing

        async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError("called")

        for server in (OfTheSDK(), OfFastMCP()):
            protect(server, self.api(resource), path=path)
        is_local = resource.startswith("http:")
        assert seen == [
            (expected, f"127.0.0.1 {is_local}"),
            (expected, "auto" if is_local else "False"),
        ]
        with pytest.raises(ConfigurationError, match="a FastMCP without auth="):
            protect(type("WithAuth", (OfFastMCP,), {"auth": object()})(), self.api(resource))

    @pytest.mark.parametrize(("options", "status"), [({}, 421), ({"host": "api.example.test"}, 200)])
    async def test_a_ready_application_checks_the_host_by_options_of_its_own(
        self, options: dict[str, Any], status: int
    ) -> None:
        issuer = TestIssuer(audience=f"{RESOURCE}/mcp")
        served = server_of_tools().streamable_http_app(stateless_http=True, **options)
        app = protect(served, issuer.resource_server(self.api()))
        lifespan = served.router.lifespan_context(served)
        async with lifespan, httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
            auth = DPoPAuth(KEY, issuer.token(jkt=KEY.jkt))
            answer = await client.post(f"{RESOURCE}/mcp", auth=auth, headers=HEADERS, json=INITIALIZE)
        assert answer.status_code == status

    @pytest.mark.parametrize(
        "resource",
        [
            f"{RESOURCE}/my%20notes",
            "http://localhost/mcp",
            "https://localhost/mcp",
            "http://127.0.0.2:8000/mcp",
        ],
    )
    async def test_an_encoded_path_and_every_name_of_this_machine_are_served(self, resource: str) -> None:
        issuer = TestIssuer(audience=resource)
        app = protect(server_of_tools(), issuer.resource_server(self.api(resource)))
        async with lifespan_of(app), httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
            auth = DPoPAuth(KEY, issuer.token(jkt=KEY.jkt))
            answer = await client.post(resource, auth=auth, headers=HEADERS, json=INITIALIZE)
        assert answer.status_code == 200

    async def test_another_host_name_is_no_hindrance_where_the_resource_is_not_here(self) -> None:
        issuer = TestIssuer(audience=f"{RESOURCE}/mcp")
        app = protect(server_of_tools(), issuer.resource_server(self.api()))
        transport = httpx2.ASGITransport(app)
        async with lifespan_of(app), httpx2.AsyncClient(transport=transport) as client:
            auth = DPoPAuth(KEY, issuer.token(jkt=KEY.jkt))
            answer = await client.post(f"{RESOURCE}/mcp", auth=auth, headers=HEADERS, json=INITIALIZE)
        assert answer.status_code == 200

    def test_without_the_extra_an_error_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "mcp.server.auth.middleware.auth_context", None)
        monkeypatch.delitem(sys.modules, "dpop_middleware.mcp")
        with pytest.raises(ImportError, match=r"pip install '\.\[mcp\]'"):
            importlib.import_module("dpop_middleware.mcp")


@pytest.mark.parametrize(("stateless", "status"), [(False, 404), (True, 200)])
async def test_only_a_server_without_sessions_goes_on_at_another_worker(stateless: bool, status: int) -> None:
    url = "https://api.example.com/mcp"
    issuer = TestIssuer(audience=url)
    auth = issuer.auth()
    async with AsyncExitStack() as stack:

        async def worker() -> httpx2.AsyncClient:
            api = ResourceServer(
                issuer=issuer.issuer,
                resource=url,
                jwks=issuer.jwks(),
                replay_store=MemoryReplayStore(),
                metadata=ResourceMetadata(),
            )
            app = server_of_tools().streamable_http_app(stateless_http=stateless, host="api.example.com")
            protected = protect(app, api)
            await stack.enter_async_context(lifespan_of(protected))
            transport = httpx2.ASGITransport(protected)
            return await stack.enter_async_context(httpx2.AsyncClient(transport=transport, auth=auth))

        one, another = await worker(), await worker()
        opened = await one.post(url, headers=HEADERS, json=INITIALIZE)
        session = {"Mcp-Session-Id": opened.headers.get("Mcp-Session-Id", "none")}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        answer = await another.post(url, headers=HEADERS | session, json=ping)
        assert (opened.status_code, answer.status_code) == (200, status)
