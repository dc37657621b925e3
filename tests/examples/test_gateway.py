"""The chapter's nginx and Caddy configurations, run by the real programs, with honest and hostile clients."""

import re
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dpop_middleware import DPoPMiddleware, DPoPPolicy, MemoryReplayStore
from dpop_middleware.errors import Unavailable
from dpop_middleware.forward_auth import ForwardAuth
from dpop_middleware.testing.suite import CASES, Case, run_case
from dpop_middleware.testing.target import Target
from tests.support.adapters import ORIGIN, World
from tests.support.gateway import GATEWAY_SECRET, OPTIONS, Answered, Door, Gateway, echo, running_gateway

IDENTITY = ("x-auth-identity", "x-auth-client-id", "x-auth-issuer", "x-auth-scope")


class House:
    """A gateway, the server that it asks, the application behind it, and the tokens."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.world = World()
        self.asked = Door(echo())
        self.behind = Door(echo())
        self.gateway = Gateway(0)

    def protect(self, *, scopes: tuple[str, ...] = (), **options: Any) -> None:
        """Begin anew, with a resource server of these options."""
        self.world = World()
        api = self.world.server(**options)
        self.asked.app = ForwardAuth(api, secret=GATEWAY_SECRET, scopes=scopes, **OPTIONS[self.name])
        self.behind.app = echo()

    def lines(self, path: str, **arguments: Any) -> list[str]:
        """The header lines of a good request."""
        return [f"{name}: {value}" for name, value in self.world.fields(path, **arguments)]

    def get(self, target: str, *lines: str, **options: Any) -> Answered:
        return self.gateway.ask("GET", target, *lines, **options)


@pytest.fixture(scope="module", params=OPTIONS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    name: str = request.param
    house = House(name)
    with running_gateway(name, tmp_path_factory.mktemp(name), house.asked, house.behind) as house.gateway:
        yield house


@pytest.fixture
def house(running: House) -> House:
    running.protect()
    return running


def identity(answer: Answered) -> dict[str, list[str]]:
    """What the application was told of who asks; a field that is empty is one that is not there.

    Some servers take an underscore for a hyphen, PHP a dot too.
    """
    told: dict[str, list[str]] = {}
    for name, values in answer.reached["fields"].items():
        told.setdefault(re.sub("[_.]", "-", name), []).extend(values)
    return {name: told[name] for name in IDENTITY if told.get(name, [""]) != [""]}


def test_the_request_arrives_as_it_was_sent_with_who_asks(house: House) -> None:
    lines = house.lines("/notes%2F1", method="POST", scopes=["notes:write"])
    answer = house.gateway.ask("POST", "/notes%2F1?x=%20", *lines, body=b"a note")
    seen = answer.reached
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/notes%2F1", "x=%20")
    assert seen["body"] == "a note"
    assert identity(answer) == {
        "x-auth-identity": ["user123"],
        "x-auth-client-id": ["my_client"],
        "x-auth-issuer": [house.world.issuer.issuer],
        "x-auth-scope": ["notes:write"],
    }
    assert GATEWAY_SECRET not in answer.body.decode()


def test_a_token_of_many_scopes_and_a_long_name_passes(house: House) -> None:
    scopes = [f"https://api.example.test/auth/notes.{number:03}" for number in range(85)]
    name = "ü" * 200  # six times as long in the token, and in the field
    answer = house.get("/notes", *house.lines("/notes", scopes=scopes, sub=name))
    told = identity(answer)
    assert told["x-auth-scope"] == [" ".join(scopes)]
    assert told["x-auth-identity"] == ["%C3%BC" * 200]
    assert sum(len(value) for values in told.values() for value in values) > 4096


def test_a_body_of_unknown_length_passes(house: House) -> None:
    lines = [*house.lines("/notes", method="PUT"), "Transfer-Encoding: chunked"]
    chunks = b"6\r\na note\r\n0\r\n\r\n"
    request = "\r\n".join(
        ["PUT /notes HTTP/1.1", "Host: api.example.test", "Connection: close", *lines, "", ""]
    )
    answer = house.gateway.send(request.encode() + chunks)
    assert answer.reached["body"] == "a note"


def test_a_request_passes_once(house: House) -> None:
    lines = house.lines("/notes")
    assert [house.get("/notes", *lines).status for _ in range(2)] == [200, 401]


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "OPTIONS"])
def test_no_method_passes_without_credentials_or_with_a_proof_for_another(house: House, method: str) -> None:
    other = "DELETE" if method == "GET" else "GET"
    assert house.gateway.ask(method, "/notes").status == 401
    assert house.gateway.ask(method, "/notes", *house.lines("/notes", method=other)).status == 401
    assert house.gateway.ask(method, "/notes", *house.lines("/notes", method=method)).status == 200


# Requests that a gateway itself answers with 400, without asking.
ANSWERED_BY_ITSELF = {
    "nginx": {"two_authorizations": "two Authorization fields", "oversized": "a header line may have 8 KB"},
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_gateway_passes_the_conformance_suite_but_for_400(house: House, case: Case) -> None:
    origin = f"http://127.0.0.1:{house.gateway.port}"
    house.protect(public_url=origin, nonces=house.world.nonces(), policy=DPoPPolicy(nonce="fallback"))
    target = replace(
        Target.of(house.world.issuer, url=f"{origin}/notes", audience=ORIGIN),
        transport=lambda: httpx2.AsyncHTTPTransport(verify=False),
        leave_out=tuple(ANSWERED_BY_ITSELF.get(house.name, {})),
    )
    outcome = await run_case(replace(case, status=401 if case.status == 400 else case.status), target)
    assert outcome.verdict != "failed", f"expected {outcome.expected}, answered {outcome.actual}"


FORGED = [
    ["X-Original-URI: /notes"],
    ["X-Original-URI: /notes", "X-Original-URI: /notes"],
    ["x-original-uri: /notes", "X-ORIGINAL-URI: /notes"],
    ["X_Original_URI: /notes"],
    ["X-Original-Method: GET"],
    ["X-Original-Method: GET", "x-original-method: GET"],
    ["X_Original_Method: GET"],
    ["X-Original-URI: /notes", "X-Original-Method: GET", f"X-Forward-Auth-Secret: {GATEWAY_SECRET}"],
    ["X-Forward-Auth-Secret: a guess"],
    [f"X-Forward-Auth-Secret: {GATEWAY_SECRET}", "X-Forward-Auth-Secret: a guess"],
    ["X_Forward_Auth_Secret: a guess"],
    ["X-Forwarded-Uri: /notes", "X-Forwarded-Method: GET", "X-Forwarded-Host: evil.example"],
    ["X-HTTP-Method-Override: GET", "X-Rewrite-URL: /notes", "X-Original-URL: /notes"],
    ["Forwarded: host=evil.example;proto=http"],
]


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_no_client_can_set_the_fields_of_the_gateway(house: House, forged: list[str]) -> None:
    stolen = house.lines("/notes")
    assert house.get("/admin", *forged, *stolen).status == 401
    assert house.get("/admin", *stolen, *forged).status == 401
    assert house.gateway.ask("POST", "/notes", *stolen, *forged).status == 401
    honest = house.get("/notes", *forged, *stolen)
    assert honest.reached["path"] == "/notes"
    assert identity(honest)["x-auth-identity"] == ["user123"]


@pytest.mark.parametrize("host", ["evil.example", "api.example.org", "api.example.test.", "localhost"])
def test_the_host_that_a_client_names_is_one_of_ours_or_decides_nothing(house: House, host: str) -> None:
    assert house.get("/notes", *house.lines("/notes"), host=host).status == 200
    house.protect(public_url=[ORIGIN, "https://api.example.org"])
    other = host == "api.example.org"
    signed = "https://api.example.org/notes" if other else "/notes"
    assert house.get("/notes", *house.lines(signed), host=host).status == (200 if other else 401)


CLAIMED = [
    ["X-Auth-Identity: root", "X-Auth-Scope: admin", "X-Auth-Client-ID: evil", "X-Auth-Issuer: evil"],
    ["x-auth-identity: root", "X-AUTH-IDENTITY: root", "x-auth-scope: admin", "X-Auth-scope: root"],
    ["X_Auth_Identity: root", "X_Auth_Scope: admin"],
    ["X-Auth_Identity: root", "X_Auth-Scope: admin", "X-Auth-Client_ID: evil", "x_auth-client_id: evil"],
    ["X.Auth.Identity: root", "X-Auth.Scope: admin", "x.auth-client.id: evil", "X_Auth.Issuer: evil"],
    ["Connection: X-Auth-Identity", "X-Auth-Identity: root", "X-Auth-Scope: admin"],
]


@pytest.mark.parametrize("claimed", CLAIMED, ids=range(len(CLAIMED)))
def test_only_the_gateway_names_the_caller(house: House, claimed: list[str]) -> None:
    answer = house.get("/notes", *claimed, *house.lines("/notes"))
    told = identity(answer)
    assert told.pop("x-auth-identity", ["user123"]) == ["user123"]
    assert told == {"x-auth-client-id": ["my_client"], "x-auth-issuer": [house.world.issuer.issuer]}
    assert identity(house.get("/health", *claimed)) == {}, "without a question there is no identity"
    assert house.get("/notes", *claimed).status == 401


@pytest.mark.parametrize("target", ["/notes/../health", "/notes/%2e%2e/health", "//health", "/HEALTH?x=1"])
def test_the_public_path_of_a_gateway_is_no_other_path_behind_it(house: House, target: str) -> None:
    answer = house.get(target)
    if answer.status != 401:
        assert answer.reached["path"] == "/health"


@pytest.mark.parametrize("named", ["X-Forward-Auth-Secret", "X-Original-URI", "DPoP", "Authorization"])
def test_a_field_that_a_client_has_dropped_opens_nothing(house: House, named: str) -> None:
    forged = f"{named}: /notes"
    answer = house.get("/admin", f"Connection: {named}", forged, *house.lines("/notes"))
    assert answer.status in (400, 401, 403)


def test_two_fields_of_credentials_are_refused(house: House) -> None:
    authorization, proof = house.lines("/notes")
    _, other = house.lines("/notes")
    assert house.get("/notes", authorization, proof, other).status == 401
    assert house.get("/notes", authorization, authorization, proof).status in (400, 401)
    assert house.get("/notes", authorization, proof).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/notes/../admin",
        "/notes/%2e%2e/admin",
        "/notes/..%2fadmin",
        "/notes/.%2e/admin",
        "/notes#/../admin",
        "/notes%00/admin",
        "/notes%",
        "//admin",
        "/admin/.",
        "/%2e/admin",
        "/notes;/../admin",
        "\\admin",
        "*",
    ],
)
@pytest.mark.parametrize("signed", ["/notes", "/admin"])
def test_a_path_that_can_be_read_in_two_ways_passes_in_neither(
    house: House, target: str, signed: str
) -> None:
    assert house.get(target, *house.lines(signed)).status in (400, 401)


def test_a_target_in_absolute_form_is_that_of_the_same_host(house: House) -> None:
    own, other = f"{ORIGIN}/notes", "https://evil.example/notes"
    answer = house.get(own, *house.lines("/notes"))
    assert answer.status in (200, 400, 401)
    if answer.status == 200:
        assert answer.reached["path"] == "/notes"
    assert house.get(other, *house.lines("/admin")).status in (400, 401)
    assert house.get(f"{ORIGIN}/admin", *house.lines("/notes")).status in (400, 401)


async def tell_and_close(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that sends the identity of its caller."""
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.send_text(websocket.headers["x-auth-identity"])
    await websocket.close()


def test_a_websocket_opens_with_a_proof_and_only_once(house: House) -> None:
    house.behind.app = tell_and_close
    url = f"ws://127.0.0.1:{house.gateway.port}/ws"
    fields = house.world.fields("/ws")
    with connect(url, additional_headers=fields, proxy=None) as client:
        assert client.recv(timeout=30) == "user123"
    for refused in (fields, [], house.world.fields("/notes")):
        with pytest.raises(InvalidStatus) as error, connect(url, additional_headers=refused, proxy=None):
            raise AssertionError("a refused handshake was accepted")
        assert error.value.response.status_code == 401


@pytest.mark.parametrize("target", ["/health", "/notes"])
@pytest.mark.parametrize(
    "upgrades",
    [["h2c"], ["H2C"], ["h2c, websocket"], ["h2c", "websocket"], ["websocket", "h2c"], ["TLS/1.0"]],
)
def test_no_tunnel_leads_past_the_gateway(house: House, target: str, upgrades: list[str]) -> None:
    head = [
        f"GET {target} HTTP/1.1",
        f"Host: {house.gateway.host}",
        "Connection: Upgrade, HTTP2-Settings, close",
        "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        *[f"Upgrade: {one}" for one in upgrades],
        *house.lines(target),
    ]
    answer = house.gateway.send("\r\n".join([*head, "", ""]).encode())
    if answer.status not in (400, 403):  # as Envoy answers it, or of a handshake without a key
        assert answer.reached["fields"].get("upgrade", ["websocket"]) == ["websocket"]


def test_nobody_outside_can_ask_as_the_gateway(house: House) -> None:
    lines = ["X-Original-URI: /notes", "X-Original-Method: GET", *house.lines("/notes")]
    assert house.get("/_dpop", *lines).status in (401, 404)


def test_a_missing_scope_is_a_403_with_its_challenge(house: House) -> None:
    house.protect(scopes=("notes:write",))
    answer = house.get("/notes", *house.lines("/notes"))
    assert answer.status == 403
    (challenge,) = answer.values("WWW-Authenticate")
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="notes:write"' in challenge
    assert house.get("/notes", *house.lines("/notes", scopes=["notes:write"])).status == 200


def test_all_challenges_reach_the_client_in_one_field(house: House) -> None:
    house.protect(policy=DPoPPolicy(accept_bearer=True))
    answer = house.get("/notes")
    assert answer.status == 401
    (challenge,) = answer.values("WWW-Authenticate")
    assert challenge.startswith("Bearer, DPoP algs=")


class Broken(MemoryReplayStore):
    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after

    async def add(self, entry: Any) -> bool:
        raise Unavailable("the store is down", retry_after=self.retry_after)


@pytest.mark.parametrize("seconds", [7, 0])
def test_an_unknown_verdict_is_a_503_for_the_client(house: House, seconds: int) -> None:
    house.protect(replay_store=Broken(seconds))
    answer = house.get("/notes", *house.lines("/notes"))
    status = 403 if house.name == "envoy" else 503  # a 5xx is what failure_mode_allow lets pass
    assert (answer.status, answer.values("Retry-After")) == (status, [str(seconds)])
    assert answer.values("WWW-Authenticate") == []


def test_nothing_passes_while_nobody_can_be_asked(house: House) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a bug")

    house.asked.app = failing
    answer = house.get("/notes", *house.lines("/notes"))
    assert answer.status == (500 if house.name == "caddy" else 503)
    assert answer.values("Retry-After") == (["1"] if house.name == "nginx" else [])


def test_a_gateway_with_a_wrong_secret_lets_no_request_through(house: House) -> None:
    house.asked.app = ForwardAuth(house.world.server(), secret="x" * 32)
    answer = house.get("/notes", *house.lines("/notes"))
    assert (answer.status, answer.values("WWW-Authenticate")) == (403, [])


def test_one_nonce_reaches_the_client_though_two_verify(house: House) -> None:
    house.protect(nonces=house.world.nonces(), policy=DPoPPolicy(nonce="required"))
    api = house.world.server(nonces=house.world.nonces(), policy=DPoPPolicy(nonce="required"))
    house.behind.app = DPoPMiddleware(echo(), api)
    refused = house.get("/notes", *house.lines("/notes"))
    assert refused.status == 401
    assert 'error="use_dpop_nonce"' in refused.values("WWW-Authenticate")[0]
    (nonce,) = refused.values("DPoP-Nonce")
    first = house.get("/notes", *house.lines("/notes", nonce=nonce))
    assert (first.status, first.values("DPoP-Nonce")) == (200, [])
    assert first.values("Cache-Control") == ["private"]
    house.world.clock.now += 61
    later = house.get("/notes", *house.lines("/notes", nonce=nonce))
    assert later.reached["path"] == "/notes"
    (newer,) = later.values("DPoP-Nonce")
    assert newer != nonce
    assert "no-store" in later.values("Cache-Control")


def test_a_403_has_the_nonce_too(house: House) -> None:
    house.protect(nonces=house.world.nonces(), policy=DPoPPolicy(nonce="fallback"), scopes=("a",))
    answer = house.get("/notes", *house.lines("/notes"))
    assert answer.status == 403
    assert len(answer.values("DPoP-Nonce")) == 1
    assert "no-store" in answer.values("Cache-Control")
