"""Protected resource metadata at the middleware and as a route: what becomes public, and what doesn't."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from dpop_middleware import DPoPMiddleware, ResourceMetadata, ResourceServer
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.fastapi import DPoPSecurity
from dpop_middleware.metadata import metadata_route
from dpop_middleware.starlette import requires_dpop
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import ORIGIN, World, reached, scope_of
from tests.support.asgi import Answer, call

PATH = "/.well-known/oauth-protected-resource"
METADATA = ResourceMetadata(scopes_supported=["notes:read"], resource_name="Notes")


@pytest.fixture
def world() -> World:
    return World()


async def endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse("reached")


def describing(world: World, **options: Any) -> ResourceServer:
    return world.server(**{"metadata": METADATA, **options})


async def ask(app: Any, path: str = PATH, **options: Any) -> Answer:
    return await call(app, scope_of(path, **options))


async def test_the_middleware_serves_the_document_to_everybody(world: World) -> None:
    app = DPoPMiddleware(reached, describing(world))
    answer = await ask(app)
    assert answer.status == 200
    assert json.loads(answer.body)["authorization_servers"] == [world.issuer.issuer]
    assert answer.values("access-control-allow-origin") == ["*"]
    assert (await ask(app, method="HEAD")).body == b""
    assert (await ask(app, method="OPTIONS")).status == 204
    assert (await ask(app, method="POST")).status == 405
    tag = ("If-None-Match", answer.values("etag")[0])
    assert (await ask(app, fields=[tag])).status == 304
    assert world.store.asked == 0


async def test_credentials_make_no_difference_to_the_document(world: World) -> None:
    app = DPoPMiddleware(reached, describing(world))
    plain = await ask(app)
    assert await ask(app, fields=world.fields(PATH)) == plain
    assert await ask(app, fields=[("Authorization", "DPoP junk")]) == plain
    assert await ask(app, fields=[("Host", "evil.example"), ("X-Forwarded-Host", "evil.example")]) == plain


async def test_without_metadata_the_path_is_protected_like_any_other(world: World) -> None:
    app = DPoPMiddleware(reached, world.server())
    answer = await ask(app)
    assert answer.status == 401
    assert "resource_metadata" not in answer.challenges[0]


@pytest.mark.parametrize(
    "path",
    [
        f"{PATH}/",
        f"{PATH}/notes",
        f"/{PATH}",
        f"/notes{PATH}",
        f"/notes/..{PATH}",
        f"{PATH}/../../notes",
        f"{PATH}%2f..%2f..%2fnotes",
        f"{PATH};x",
        f"{PATH}%00",
        f"{PATH}%20",
        PATH.upper(),
        PATH.replace(".", "%2e"),
        "/.well-known/oauth-authorization-server",
        "/.well-known/",
        "/notes",
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_nothing_else_becomes_public(world: World, path: str, method: str) -> None:
    app = DPoPMiddleware(reached, describing(world))
    answer = await ask(app, path, method=method)
    assert answer.status in (400, 401), answer
    assert answer.body != b"reached"


async def test_no_request_for_the_document_reaches_the_application(world: World) -> None:
    app = DPoPMiddleware(reached, describing(world), public_paths=["/.well-known/*"])
    for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
        assert (await ask(app, method=method)).values("x-app") == []
    assert (await ask(app, f"{PATH}/x")).body == b"reached"


async def test_another_raw_path_is_another_request(world: World) -> None:
    app = DPoPMiddleware(reached, describing(world))
    assert (await ask(app, raw_path=b"/notes")).status == 401
    assert (await ask(app, "/notes", raw_path=PATH.encode())).status == 401


def test_a_websocket_at_the_path_is_authenticated(world: World) -> None:
    async def accept(websocket: Any) -> None:
        await websocket.accept()

    app = DPoPMiddleware(Starlette(routes=[WebSocketRoute(PATH, accept)]), describing(world))
    client = TestClient(app, base_url=ORIGIN)
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(PATH):
        pass
    assert refused.value.status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", 'x" y="', "api.example.test, evil.example", "", "other.test"]
)
async def test_the_host_field_never_chooses_the_url_in_a_challenge(world: World, host: str) -> None:
    api = describing(world, public_url=[ORIGIN, "https://other.test"])
    fields = [(b"host", host.encode()), (b"x-forwarded-host", b"evil.example"), (b"forwarded", b"host=evil")]
    answer = await ask(DPoPMiddleware(reached, api), "/notes", headers=fields, scheme="http")
    assert answer.status == 401
    assert answer.challenges[0].endswith(f', resource_metadata="{ORIGIN}{PATH}"')


@pytest.mark.parametrize("host", ["api.example.test", "other.test"])
async def test_every_public_host_serves_the_same_document(world: World, host: str) -> None:
    api = describing(world, public_url=[ORIGIN, "https://other.test"])
    answer = await ask(DPoPMiddleware(reached, api), headers=[(b"host", host.encode())])
    assert json.loads(answer.body)["resource"] == ORIGIN


HOSTS = {"api.example.test": ORIGIN, "other.test": "https://other.test", "evil.test": ORIGIN, "": ORIGIN}


@pytest.mark.parametrize("host", HOSTS)
async def test_every_host_that_tokens_may_name_has_a_document_of_its_own(world: World, host: str) -> None:
    own = HOSTS[host]
    resources = [ORIGIN, "https://other.test"]
    api = describing(world, public_url=resources, audience=resources)
    headers = [(b"host", host.encode())]
    for app in (
        DPoPMiddleware(reached, api),
        Starlette(routes=[metadata_route(api), Route("/notes", requires_dpop(api)(endpoint))]),
    ):
        assert json.loads((await ask(app, headers=headers)).body)["resource"] == own
        refused = await ask(app, "/notes", headers=headers)
        assert refused.challenges[0].endswith(f', resource_metadata="{own}{PATH}"')


async def test_a_token_for_each_host_is_accepted_there(world: World) -> None:
    resources = [ORIGIN, "https://other.test"]
    app = DPoPMiddleware(reached, describing(world, public_url=resources, audience=resources))
    for audience in resources:
        token = world.token(audience=audience)
        url = f"{audience}/notes"
        proof = world.key.proof("GET", url, access_token=token, now=world.clock())
        host = (b"host", audience.removeprefix("https://").encode())
        sent = [host, (b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode())]
        assert (await ask(app, "/notes", headers=sent)).body == b"reached"


def test_fastapi_and_a_class_name_the_document_of_their_host(world: World) -> None:
    from typing import Annotated

    from fastapi import Security
    from starlette.endpoints import HTTPEndpoint

    from dpop_middleware import AccessToken

    resources = [ORIGIN, "https://other.test"]
    api = describing(world, public_url=resources, audience=resources)
    dpop = DPoPSecurity(api)
    app = FastAPI()

    @app.get("/notes")
    async def notes(token: Annotated[AccessToken, Security(dpop)]) -> str | None:
        return token.subject

    @requires_dpop(api)
    class Notes(HTTPEndpoint):
        pass

    app.router.routes.append(Route("/class", Notes))
    client = TestClient(app, base_url="https://other.test")
    for path in ("/notes", "/class"):
        challenge = client.get(path).headers["www-authenticate"]
        assert challenge.endswith(f', resource_metadata="https://other.test{PATH}"')


async def test_every_challenge_names_the_url_of_the_metadata(world: World) -> None:
    app = DPoPMiddleware(
        Starlette(routes=[Route("/", requires_dpop(api := describing(world), "notes:write")(endpoint))]), api
    )
    where = f'resource_metadata="{ORIGIN}{PATH}"'
    fields = world.fields("/")
    requests: list[tuple[list[tuple[str, str]], int]] = [
        ([], 401),
        ([("Authorization", "DPoP")], 400),
        ([("Authorization", "DPoP junk"), ("DPoP", "x")], 401),
        (fields[:1], 401),
        (fields, 403),
        (fields, 401),
    ]
    for sent, status in requests:
        answer = await ask(app, "/", fields=sent)
        assert answer.status == status
        assert [challenge.count(where) for challenge in answer.challenges] == [1]


def test_bearers_challenge_says_it_too(world: World) -> None:
    api = describing(world).with_policy(accept_bearer=True)
    client = TestClient(DPoPMiddleware(reached, api), base_url=ORIGIN)
    challenges = client.get("/").headers.get_list("www-authenticate")
    assert challenges[0] == f'Bearer resource_metadata="{ORIGIN}{PATH}"'
    assert challenges[1].endswith(f'resource_metadata="{ORIGIN}{PATH}"')
    assert client.get(PATH).json()["dpop_bound_access_tokens_required"] is False


async def test_a_nonce_challenge_names_the_metadata_and_a_503_does_not(world: World) -> None:
    class Broken:
        async def add(self, entry: object) -> bool:
            raise OSError

    required = describing(world, nonces=world.nonces()).with_policy(nonce="required")
    answer = await ask(DPoPMiddleware(reached, required), "/", fields=world.fields("/"))
    assert 'error="use_dpop_nonce"' in answer.challenges[0]
    assert "resource_metadata=" in answer.challenges[0]
    broken = DPoPMiddleware(reached, describing(world, replay_store=Broken()))
    answer = await ask(broken, "/", fields=world.fields("/"))
    assert (answer.status, answer.challenges) == (503, [])


async def test_the_documents_path_holds_the_resources_own(world: World) -> None:
    api = describing(world, resource=f"{ORIGIN}/v1")
    app = DPoPMiddleware(reached, api)
    assert (await ask(app)).status == 401
    assert json.loads((await ask(app, f"{PATH}/v1")).body)["resource"] == f"{ORIGIN}/v1"
    assert f'resource_metadata="{ORIGIN}{PATH}/v1"' in (await ask(app, "/v1/x")).challenges[0]
    # A server that was told its root path puts it in front of the path, or doesn't.
    below = f"/v1{PATH}/v1"
    assert (await ask(app, below, root_path="/v1")).status == 200
    assert (await ask(app, f"{PATH}/v1", root_path="/v1")).status == 200
    assert (await ask(app, below)).status == 401


async def test_the_test_issuers_server_describes_itself(world: World) -> None:
    production = describing(world, issuer="https://auth.example.com", jwks=None)
    issuer = TestIssuer.of(production)
    answer = await ask(DPoPMiddleware(reached, issuer.resource_server(production)))
    assert json.loads(answer.body)["authorization_servers"] == ["https://auth.example.com"]


def test_nothing_secret_is_in_the_document(world: World) -> None:
    api = describing(world, nonces=world.nonces(), replay_namespace="secret-namespace")
    published = api.published_metadata
    assert published is not None
    body = published.document(api.resource, issuers=api.issuers, policy=api.policy).body
    assert set(json.loads(body)) == {
        "resource",
        "authorization_servers",
        "scopes_supported",
        "bearer_methods_supported",
        "resource_name",
        "dpop_signing_alg_values_supported",
        "dpop_bound_access_tokens_required",
    }
    assert b"secret" not in body


def test_cors_around_the_middleware_still_lets_every_page_read(world: World) -> None:
    cors = Middleware(CORSMiddleware, allow_origins=["https://app.example.com"])
    app = Starlette(middleware=[cors, Middleware(DPoPMiddleware, describing(world))])
    client = TestClient(app, base_url=ORIGIN)
    for page, allowed in (("https://app.example.com", "https://app.example.com"), ("https://b.example", "*")):
        answer = client.get(PATH, headers={"Origin": page})
        assert answer.headers.get_list("access-control-allow-origin") == [allowed]


@pytest.mark.parametrize(("listed", "status"), [([], 400), (["MCP-Protocol-Version"], 200)])
def test_cors_around_the_middleware_answers_preflights_for_the_document(
    world: World, listed: list[str], status: int
) -> None:
    page = "https://app.example.com"
    cors = Middleware(CORSMiddleware, allow_origins=[page], allow_headers=["Authorization", "DPoP", *listed])
    client = TestClient(
        Starlette(middleware=[cors, Middleware(DPoPMiddleware, describing(world))]), base_url=ORIGIN
    )
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "mcp-protocol-version"}
    assert client.options(PATH, headers={"Origin": page, **asked}).status_code == status


def test_a_route_serves_the_document_without_the_middleware(world: World) -> None:
    api = describing(world, resource=f"{ORIGIN}/v1")
    protected = Route("/notes", requires_dpop(api)(endpoint))
    client = TestClient(
        Starlette(routes=[metadata_route(api), Mount("/v1", routes=[protected])]), base_url=ORIGIN
    )
    challenge = client.get("/v1/notes").headers["www-authenticate"]
    assert f'resource_metadata="{ORIGIN}{PATH}/v1"' in challenge
    answer = client.get(f"{PATH}/v1")
    assert (answer.status_code, answer.json()["resource"]) == (200, f"{ORIGIN}/v1")
    assert client.options(f"{PATH}/v1").headers["access-control-allow-origin"] == "*"
    assert client.post(f"{PATH}/v1").status_code == 405
    assert client.head(f"{PATH}/v1").content == b""
    assert client.get(PATH).status_code == 404
    assert client.get(f"{PATH}/v1/x").status_code == 404


def test_fastapi_takes_the_route(world: World) -> None:
    from typing import Annotated

    from fastapi import Security

    from dpop_middleware import AccessToken

    api = describing(world)
    app = FastAPI(routes=[metadata_route(api)])
    dpop = DPoPSecurity(api)

    @app.get("/notes")
    async def notes(token: Annotated[AccessToken, Security(dpop)]) -> str | None:
        return token.subject

    client = TestClient(app, base_url=ORIGIN)
    assert client.get(PATH).json()["resource"] == ORIGIN
    assert f'resource_metadata="{ORIGIN}{PATH}"' in client.get("/notes").headers["www-authenticate"]
    assert client.get("/notes", headers=world.headers("/notes")).json() == "user123"
    assert PATH not in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (lambda world: world.server(), r"metadata_route needs ResourceServer\(metadata="),
        (lambda _: "api", "metadata_route takes a ResourceServer, not a str"),
        (
            lambda world: world.server(metadata=METADATA, resource=f"{ORIGIN}/%7Bid%7D"),
            "a route can't name a path with braces",
        ),
    ],
)
def test_a_route_for_what_has_no_metadata_is_refused(world: World, argument: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        metadata_route(argument(world))


def test_metadata_at_a_host_that_clients_dont_call_are_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="public_url doesn't name"):
        describing(world, public_url="https://other.test")


async def test_an_error_response_by_hand_names_the_metadata(world: World) -> None:
    from dpop_middleware import ResourceRequest

    api = describing(world)
    with pytest.raises(DPoPError) as caught:
        await api.authenticate(ResourceRequest.from_scope(scope_of("/")))
    challenge = dict(api.error_response(caught.value).headers)["www-authenticate"]
    assert challenge.endswith(f'resource_metadata="{ORIGIN}{PATH}"')
