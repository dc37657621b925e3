"""TestIssuer: tokens of any form, and `auth=` for every kind of test client."""

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import freezegun
import httpx
import httpx2
import jwt
import pytest
import time_machine
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from dpop_middleware import (
    AccessToken,
    DPoPMiddleware,
    DPoPPolicy,
    HMACNonceProvider,
    MemoryReplayStore,
    ResourceServer,
    errors,
    profiles,
)
from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import base64url
from dpop_middleware.policy import NonceMode
from dpop_middleware.testing import ABSENT, TestIssuer, encode_jws
from dpop_middleware.testing.issuer import merged
from tests.support.clients import CLIENTS, caller, running
from tests.support.production import RESOURCE, NeverAsked, production, protected


class TestToken:
    def decoded(self, issuer: TestIssuer, token: str, **options: Any) -> dict[str, Any]:
        (key,) = jwt.PyJWKSet.from_dict(issuer.jwks()).keys
        assert key.key_id == issuer.kid
        wanted: Any = {"verify_aud": False} | options
        return dict(jwt.decode_complete(token, key, options=wanted))

    @pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256"])
    def test_the_token_follows_rfc_9068(self, algorithm: str) -> None:
        issuer = TestIssuer(algorithm=algorithm, clock=lambda: 4102444800.9)
        token = issuer.token(jkt="thumb", scopes=["a", "b"])
        decoded = self.decoded(issuer, token, verify_iat=False)
        claims = decoded["payload"]
        assert decoded["header"] == {"typ": "at+jwt", "alg": algorithm, "kid": issuer.kid}
        assert len(claims.pop("jti")) == 22
        assert claims == {
            "iss": "https://auth.example.test",
            "sub": "user123",
            "aud": "https://api.example.test",
            "client_id": "my_client",
            "iat": 4102444800,
            "exp": 4102445100,
            "scope": "a b",
            "cnf": {"jkt": "thumb"},
        }

    def test_by_default_the_token_has_no_scope_and_no_binding(self) -> None:
        issuer = TestIssuer()
        assert {"scope", "cnf"}.isdisjoint(self.decoded(issuer, issuer.token())["payload"])

    def test_members_of_the_token_can_be_changed_and_removed(self) -> None:
        issuer = TestIssuer("https://other.example", audience=["a", "b"])
        token = issuer.token(
            sub="ann", client_id="c", audience="x", iat=ABSENT, cnf={"x5t#S256": "y"}, acr=None,
            header={"typ": "JWT", "kid": ABSENT},
        )  # fmt: skip
        decoded = self.decoded(issuer, token)
        claims = decoded["payload"]
        assert decoded["header"] == {"typ": "JWT", "alg": "ES256"}
        assert (claims["iss"], claims["sub"], claims["client_id"], claims["aud"]) == (
            "https://other.example", "ann", "c", "x"
        )  # fmt: skip
        assert "iat" not in claims
        assert (claims["cnf"], claims["acr"]) == ({"x5t#S256": "y"}, None)

    def test_the_token_may_be_expired_or_signed_with_another_key(self) -> None:
        issuer = TestIssuer()
        with pytest.raises(jwt.ExpiredSignatureError):
            self.decoded(issuer, issuer.token(expires_in=-10))
        for key in (DPoPKey.generate(), b"secret", ABSENT):
            with pytest.raises(jwt.InvalidSignatureError):
                self.decoded(issuer, issuer.token(key=key))

    def test_each_issuer_has_its_own_key(self) -> None:
        assert TestIssuer().kid != TestIssuer().kid
        assert "d" not in TestIssuer().jwks()["keys"][0]

    def test_pytest_does_not_collect_the_issuer(self) -> None:
        assert TestIssuer.__test__ is False


class TestAuth:
    def test_auth_works_with_starlettes_test_client(self) -> None:
        api = production()
        issuer = TestIssuer.of(api)
        app = protected(issuer.resource_server(api))
        with TestClient(app, base_url="https://gateway.example.com/") as client:
            auth = issuer.auth(sub="ann", scopes=["notes:read", "more"])
            # The gateway's prefix is missing: the proof names another URL than the server's.
            assert client.get("/notes", auth=auth).status_code == 401
        with TestClient(app, base_url="https://gateway.example.com/v1/", root_path="/v1") as client:
            for _ in range(2):
                answer = client.get("notes", auth=auth)
                assert (answer.status_code, answer.json()) == (
                    200, {"sub": "ann", "scopes": ["more", "notes:read"]}
                )  # fmt: skip
            assert client.get("notes", auth=issuer.auth(scopes=["else"])).status_code == 403
            assert (
                client.get("notes", auth=issuer.auth(scopes=["notes:read"], expires_in=-99)).status_code
                == 401
            )
            assert client.get("notes").status_code == 401

    @pytest.mark.parametrize("library", [httpx, httpx2])
    async def test_auth_works_with_async_clients(self, library: Any) -> None:
        api = production(public_url=None)
        issuer = TestIssuer.of(api)
        transport = library.ASGITransport(app=protected(issuer.resource_server(api)))
        async with library.AsyncClient(transport=transport, base_url=RESOURCE) as client:
            answer = await client.get("/notes", auth=issuer.auth(scopes=["notes:read"]))
        assert answer.status_code == 200

    @pytest.mark.parametrize("kind", CLIENTS)
    @pytest.mark.parametrize("nonce", ["off", "required"])
    async def test_auth_works_with_every_client_over_the_network(self, kind: str, nonce: NonceMode) -> None:
        late: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await late[0](scope, receive, send)

        with running(app) as origin:
            api = production(
                public_url=origin, policy=DPoPPolicy(nonce=nonce), nonces=HMACNonceProvider(b"x" * 32)
            )
            issuer = TestIssuer.of(api)
            server = issuer.resource_server(api)
            late.append(DPoPMiddleware(protected(server), server))
            async with caller(kind, auth=issuer.auth(scopes=["notes:read"])) as client:
                answers = [await client.request("GET", f"{origin}/notes") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        challenged = [len(answer.history) for answer in answers]
        assert challenged == ([1, 0, 0] if nonce == "required" else [0, 0, 0])

    def test_auth_works_through_a_redirect_that_the_test_client_follows(self) -> None:
        api = production(public_url=None)
        issuer = TestIssuer.of(api)
        with TestClient(protected(issuer.resource_server(api)), base_url=RESOURCE) as client:
            answer = client.get("/notes/", auth=issuer.auth(scopes=["notes:read"]))
        assert answer.status_code == 200
        # The client followed with the copied proof, which was refused.
        assert [hop.status_code for hop in answer.history] == [401]

    def test_auth_works_with_websockets(self) -> None:
        api = production(public_url=None)
        issuer = TestIssuer.of(api)

        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(websocket.user.identity)
            await websocket.close()

        server = issuer.resource_server(api)
        app = DPoPMiddleware(Starlette(routes=[WebSocketRoute("/echo", echo)]), server)
        with TestClient(app) as client:
            auth: Any = issuer.auth(sub="ann")
            with client.websocket_connect("wss://api.example.com/echo", auth=auth) as socket:
                assert socket.receive_text() == "ann"

    def test_auth_uses_the_given_key_and_clock(self) -> None:
        key = DPoPKey.generate()
        issuer = TestIssuer(clock=lambda: 1000.0)
        seen: list[httpx2.Request] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(200)

        with httpx2.Client(transport=httpx2.MockTransport(handler)) as client:
            auth = issuer.auth(key=key, origin="https://b.example", follow_redirects=True)
            client.get("https://a.example/", auth=auth)
            client.get("https://b.example/", auth=auth)
        assert "DPoP" not in seen[0].headers
        claims = jwt.decode(seen[1].headers["DPoP"], options={"verify_signature": False})
        assert claims["iat"] == 1000
        token = jwt.decode(seen[1].headers["Authorization"][5:], options={"verify_signature": False})
        assert token["cnf"] == {"jkt": key.jkt}
        assert auth.follow_redirects


def test_a_verifier_without_issuers_gets_the_default_issuer() -> None:
    class Anonymous(NeverAsked):
        issuers = ()

    api = ResourceServer(verifier=Anonymous(), resource=RESOURCE, replay_store=MemoryReplayStore())
    assert TestIssuer.of(api).issuer == "https://auth.example.test"


def test_ten_lines_are_enough() -> None:
    api, make_app = production(public_url=None), protected

    issuer = TestIssuer.of(api)
    client = TestClient(make_app(issuer.resource_server(api)), base_url="https://api.example.com")

    def test_the_client_reads_the_notes() -> None:
        ann = issuer.auth(sub="ann", scopes=["notes:read"])
        assert client.get("/notes", auth=ann).json()["sub"] == "ann"

    def test_the_notes_need_the_scope() -> None:
        assert client.get("/notes", auth=issuer.auth()).status_code == 403

    test_the_client_reads_the_notes()
    test_the_notes_need_the_scope()


class TestAccessToken:
    @pytest.mark.parametrize("profile", [profiles.RFC9068, profiles.KEYCLOAK, profiles.OKTA, profiles.DUENDE])
    def test_it_is_what_an_application_gets(self, profile: profiles.Profile) -> None:
        issuer = TestIssuer(profile=profile)
        token = issuer.access_token(sub="ann", scopes=["a", "b"], client_id="app", acr="2")
        assert isinstance(token, AccessToken)
        assert (token.subject, token.client_id, sorted(token.scopes)) == ("ann", "app", ["a", "b"])
        assert (token.issuer, token.claims["acr"]) == (issuer.issuer, "2")
        assert token.jkt is not None
        assert issuer.access_token().jkt != token.jkt
        assert issuer.access_token(jkt=token.jkt).jkt == token.jkt

    def test_it_may_be_for_other_audiences(self) -> None:
        assert TestIssuer(audience=["a", "b"]).access_token().claims["aud"] == ["a", "b"]
        assert TestIssuer().access_token(audience="c").claims["aud"] == "c"

    @pytest.mark.parametrize(
        "changes", [{"expires_in": -1}, {"exp": ABSENT}, {"scope": 7}, {"iss": "https://x.example"}]
    )
    def test_a_token_that_no_server_would_accept_is_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(errors.InvalidToken):
            TestIssuer().access_token(**changes)


@pytest.mark.parametrize(
    "travel",
    [
        lambda: time_machine.travel(1_000_000_000, tick=False),
        lambda: time_machine.travel(1_000_000_000, tick=True),
        lambda: freezegun.freeze_time("2001-09-09 01:46:40"),
        lambda: freezegun.freeze_time("2001-09-09 01:46:40", real_asyncio=True),
    ],
    ids=["time_machine-still", "time_machine-ticking", "freezegun", "freezegun-real_asyncio"],
)
def test_server_client_and_issuer_travel_together(travel: Any) -> None:
    server = production(public_url=None, audience=None)
    issuer = TestIssuer.of(server)
    app = protected(issuer.resource_server(server))
    with travel() as moved, TestClient(app, base_url=RESOURCE) as client:
        ann = issuer.auth(scopes=["notes:read"])
        token = jwt.decode(issuer.token(), options={"verify_signature": False})
        assert 1_000_000_000 <= token["iat"] < 1_000_000_100
        assert [client.get("/notes", auth=ann).status_code for _ in range(2)] == [200, 200]
        move = moved.tick if hasattr(moved, "tick") and not hasattr(moved, "shift") else moved.shift
        move(250)
        assert client.get("/notes", auth=ann).status_code == 200
        move(100)
        assert client.get("/notes", auth=ann).status_code == 401


def test_a_test_that_calls_no_url_of_the_api_is_told_how_to() -> None:
    issuer, client = TestIssuer(), TestClient(protected(production()))
    with pytest.raises(ConfigurationError) as caught:
        client.get("/notes", auth=issuer.auth())
    assert str(caught.value) == (
        "the request's URL must be the API's own, not 'http://testserver': "
        "TestClient(app, base_url='https://api.example.com'), websocket_connect('wss://api.example.com/notes')"
    )
    client = TestClient(protected(production()), base_url=RESOURCE)
    with pytest.raises(ConfigurationError, match="must be the API's own"):
        client.websocket_connect("/notes", auth=issuer.auth())


def test_a_stand_in_is_made_of_a_resource_server() -> None:
    nobody: Any = None
    with pytest.raises(ConfigurationError, match=r"takes the production ResourceServer, not None"):
        TestIssuer.of(nobody)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            TestIssuer,
            "issuer takes the issuer's identifier: for that of a server, TestIssuer.of(api)",
        ),
        (lambda wrong: TestIssuer(profile=wrong), "profile takes a Profile, such as profiles.KEYCLOAK"),
        (lambda wrong: TestIssuer().token(key=wrong), "key takes a DPoPKey, bytes or ABSENT"),
        (lambda wrong: TestIssuer().auth(key=wrong), "key takes a DPoPKey"),
    ],
)
def test_an_argument_of_another_type_is_named(make: Callable[[Any], object], message: str) -> None:
    wrong = production()
    with pytest.raises(ConfigurationError) as caught:
        make(wrong)
    assert str(caught.value) == f"{message}, not {wrong!r}"


def test_who_names_that_host_may_call_it() -> None:
    auth = DPoPAuth(DPoPKey.generate(), "token", insecure_http_hosts=["testserver"])
    with TestClient(protected(TestIssuer().resource_server(production()))) as client:
        assert client.get("/notes", auth=auth).status_code == 401


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_the_key_signs_whatever_the_header_says(algorithm: str) -> None:
    key = DPoPKey.generate(algorithm)
    token = encode_jws({"alg": algorithm, "x": 1}, {"a": "ü"}, key=key)
    public = jwt.PyJWK(key.public_jwk, algorithm=algorithm)
    assert jwt.decode_complete(token, public, algorithms=[algorithm])["payload"] == {"a": "ü"}
    lying = encode_jws({"alg": "none"}, {}, key=key)
    assert len(base64url.decode(lying.split(".")[2])) == 64


def test_json_text_is_encoded_unchanged() -> None:
    header, payload, signature = encode_jws('{"a":1,"a":2}', "not json", key=ABSENT).split(".")
    assert base64url.decode(header) == b'{"a":1,"a":2}'
    assert base64url.decode(payload) == b"not json"
    assert signature == ""


def test_bytes_are_an_hmac_secret() -> None:
    token = encode_jws({"alg": "HS256"}, {}, key=b"secret")
    signing_input, _, signature = token.rpartition(".")
    expected = hmac.digest(b"secret", signing_input.encode(), hashlib.sha256)
    assert base64url.decode(signature) == expected


def test_absent_removes_a_member_and_null_stays() -> None:
    assert merged({"a": 1, "b": 2, "c": 3}, {"a": ABSENT, "b": None, "d": 4}) == {"b": None, "c": 3, "d": 4}
    assert json.dumps(merged({}, {"b": None})) == '{"b": null}'
