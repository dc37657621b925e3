"""requests-oauth2client (PyPI) at an authorization server that uses `TokenEndpoint` and requires nonces."""

import itertools
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests_oauth2client
from requests_oauth2client import DPoPToken, OAuth2Client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dpop_middleware import DPoPPolicy, HMACNonceProvider, MemoryReplayStore
from dpop_middleware.authorization_server import (
    TokenEndpoint,
    check_code_binding,
    check_refresh_binding,
    confirmation,
    refresh_jkt,
    requested_jkt,
)
from dpop_middleware.errors import DPoPError
from tests.support.clients import running

REDIRECT = "https://app.example/cb"


@dataclass
class Issuer:
    """It has one code and one client; `jkts` are the keys that its access tokens are bound to."""

    origin: str = ""
    jkts: list[str] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    code_jkt: str | None = None
    refresh_jkts: dict[str, str | None] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def app(self) -> Starlette:
        store, nonces = MemoryReplayStore(), HMACNonceProvider(bytes(32))
        routes = []
        for path, answer in (("/token", self.token), ("/par", self.par)):
            endpoint = TokenEndpoint(
                url=f"{self.origin}{path}",
                replay_store=store,
                nonces=nonces,
                policy=DPoPPolicy(nonce="required"),
            )
            routes.append(Route(path, self.refusing(endpoint, answer), methods=["POST"]))
        return Starlette(routes=routes)

    def refusing(self, endpoint: TokenEndpoint, answer: Any) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                proof = await endpoint.verify(request)
                status, content = answer(await request.form(), proof)
            except DPoPError as error:
                self.errors.append(error.code)
                refused = endpoint.error_response(error)
                return Response(refused.body, refused.status, dict(refused.headers))
            return JSONResponse(content, status, dict(endpoint.response_headers(proof)))

        return respond

    def par(self, form: Any, proof: Any) -> tuple[int, dict[str, Any]]:
        self.code_jkt = requested_jkt(dpop_jkt=form.get("dpop_jkt"), proof=proof)
        return 201, {"request_uri": "urn:example:1", "expires_in": 60}

    def token(self, form: Any, proof: Any) -> tuple[int, dict[str, Any]]:
        if form["grant_type"] == "authorization_code":
            check_code_binding(proof, dpop_jkt=self.code_jkt)
        if form["grant_type"] == "refresh_token":
            check_refresh_binding(proof, jkt=self.refresh_jkts.pop(form["refresh_token"]))
        self.jkts.append(confirmation(proof)["jkt"])
        refresh_token = f"refresh {next(self.numbers)}"
        self.refresh_jkts[refresh_token] = refresh_jkt(proof, public_client=True)
        token = {"access_token": "token", "token_type": "DPoP", "expires_in": 60}
        return 200, token | {"refresh_token": refresh_token}


@pytest.fixture
def issuer() -> Generator[Issuer]:
    made = Issuer()
    app: Any = None

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    with running(late) as made.origin:
        app = made.app()
        yield made


@pytest.fixture
def client(issuer: Issuer) -> OAuth2Client:
    made = OAuth2Client(
        token_endpoint=f"{issuer.origin}/token",
        pushed_authorization_request_endpoint=f"{issuer.origin}/par",
        authorization_endpoint=f"{issuer.origin}/authorize",
        redirect_uri=REDIRECT,
        client_id="public",
        dpop_bound_access_tokens=True,
        testing=True,  # plain http to loopback
    )
    made.session.trust_env = False
    return made


def test_a_token_is_bound_and_refreshed_with_the_key_of_the_client(
    issuer: Issuer, client: OAuth2Client
) -> None:
    token = client.client_credentials()
    assert isinstance(token, DPoPToken)
    assert isinstance(client.refresh_token(token), DPoPToken)
    assert issuer.jkts == [token.dpop_key.dpop_jkt] * 2
    assert issuer.errors == ["use_dpop_nonce"]


def test_a_refresh_token_of_another_key_is_refused(issuer: Issuer, client: OAuth2Client) -> None:
    stolen = str(client.client_credentials().refresh_token)
    with pytest.raises(requests_oauth2client.InvalidGrant):
        client.refresh_token(stolen, dpop=True)
    assert issuer.errors[-1] == "invalid_grant"
    assert len(issuer.jkts) == 1


def test_a_pushed_code_is_bound_to_the_key_of_its_request(issuer: Issuer, client: OAuth2Client) -> None:
    request = client.authorization_request(dpop=True)
    assert request.dpop_key is not None
    client.pushed_authorization_request(request)
    assert issuer.code_jkt == request.dpop_key.dpop_jkt
    answer = request.validate_callback(f"{REDIRECT}?code=c&state={request.state}")
    token = client.authorization_code(answer)
    assert isinstance(token, DPoPToken)
    assert issuer.jkts == [request.dpop_key.dpop_jkt]


def test_a_code_of_another_key_is_refused(issuer: Issuer, client: OAuth2Client) -> None:
    client.pushed_authorization_request(client.authorization_request(dpop=True))
    thief = client.authorization_request(dpop=True)
    answer = thief.validate_callback(f"{REDIRECT}?code=c&state={thief.state}")
    with pytest.raises(requests_oauth2client.InvalidGrant):
        client.authorization_code(answer)
    assert (issuer.errors[-1], issuer.jkts) == ("invalid_grant", [])
