"""The testing recipe and the conformance suite for the tokens of every profile."""

from typing import Any

import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dpop_middleware import MemoryReplayStore, ResourceServer, profiles
from dpop_middleware.profiles import Profile
from dpop_middleware.starlette import requires_dpop
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.conformance import Target, test_dpop_conformance

# Named, so that no linter takes the imported tests for an unused import.
__all__ = ["test_dpop_conformance"]

PROFILES = [one for one in map(vars(profiles).get, profiles.__all__) if isinstance(one, Profile)]


def production(profile: Profile) -> ResourceServer:
    return ResourceServer(
        issuer="https://auth.example.com",
        resource="https://api.example.com",
        profile=profile,
        replay_store=MemoryReplayStore(),
    )


def make_app(api: ResourceServer) -> Starlette:
    @requires_dpop(api, "notes:read")
    async def notes(request: Request) -> JSONResponse:
        return JSONResponse({"notes_of": request.user.identity})

    return Starlette(routes=[Route("/notes", notes)])


@pytest.fixture(params=PROFILES, ids=lambda profile: profile.name)
def dpop_target(request: pytest.FixtureRequest) -> Target:
    api = production(request.param)
    issuer = TestIssuer.of(api)
    app = make_app(issuer.resource_server(api))
    return Target.of(issuer, app=app, url="https://api.example.com/notes", scopes=["notes:read"])


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_the_recipe_of_the_readme_passes(profile: Profile) -> None:
    api = production(profile)
    issuer = TestIssuer.of(api)
    client = TestClient(make_app(issuer.resource_server(api)), base_url="https://api.example.com")
    ann = issuer.auth(sub="ann", scopes=["notes:read"])
    assert client.get("/notes", auth=ann).json() == {"notes_of": "ann"}
    assert client.get("/notes", auth=issuer.auth(scopes=["other"])).status_code == 403
    assert client.get("/notes", auth=issuer.auth()).status_code == 403


@pytest.mark.parametrize(
    ("profile", "typ", "claims"),
    [
        (profiles.RFC9068, "at+jwt", {"scope": "a b", "client_id": "my_client"}),
        (profiles.KEYCLOAK, "JWT", {"scope": "a b", "azp": "my_client"}),
        (profiles.OKTA, None, {"scp": ["a", "b"], "cid": "my_client"}),
        (profiles.AUTH0, "JWT", {"scope": "a b", "azp": "my_client"}),
        (profiles.DUENDE, "at+jwt", {"scope": ["a", "b"], "client_id": "my_client"}),
    ],
    ids=lambda one: one.name if isinstance(one, Profile) else "",
)
def test_tokens_have_the_shape_of_the_profile(
    profile: Profile, typ: str | None, claims: dict[str, Any]
) -> None:
    issuer = TestIssuer.of(production(profile))
    decoded = jwt.decode_complete(
        issuer.token(scopes=["a", "b"], jkt="x"), options={"verify_signature": False}
    )
    assert decoded["header"].get("typ") == typ
    named = {"iss", "aud", "sub", "iat", "exp", "cnf", *claims} | {"jti"} & {*profile.required_claims}
    assert set(decoded["payload"]) == named
    assert decoded["payload"].items() >= claims.items()
