"""The exact requests of Traefik and Envoy, sent to a real server that runs ForwardAuth.

The real Envoy is asked where its wheel is installed: tests/examples/test_gateway.py.
"""

from collections.abc import Generator
from typing import Any

import pytest

from dpop_middleware.forward_auth import ForwardAuth
from tests.support.adapters import ORIGIN, World
from tests.support.gateway import GATEWAY_SECRET, Answered, Door, answered, echo
from tests.support.servers import exchange, serving

# Traefik 3, pkg/middlewares/auth/forward.go: the client's fields without the hop-by-hop ones, then its own.
TRAEFIK = """\
GET / HTTP/1.1
Host: 127.0.0.1:8001
User-Agent: curl/8.5.0
Accept: */*
Authorization: {authorization}
Dpop: {dpop}
X-Forward-Auth-Secret: {secret}
X-Forwarded-For: 203.0.113.7
X-Forwarded-Host: api.example.test
X-Forwarded-Method: {method}
X-Forwarded-Port: 443
X-Forwarded-Proto: https
X-Forwarded-Server: 5f0d3c9b7a21
X-Forwarded-Uri: {uri}
Accept-Encoding: gzip
Connection: close

"""
# Envoy 1.40, recorded: method, path, Host and Authorization, the allowed fields, and no body.
ENVOY = """\
{method} {uri} HTTP/1.1
host: api.example.test
content-length: 0
dpop: {dpop}
authorization: {authorization}
x-forward-auth-secret: {secret}
x-envoy-internal: true
x-envoy-expected-rq-timeout-ms: 2000
connection: close

"""
OPTIONS: dict[str, dict[str, Any]] = {
    TRAEFIK: {
        "method_header": "X-Forwarded-Method",
        "uri_header": "X-Forwarded-Uri",
        "host_header": "X-Forwarded-Host",
    },
    ENVOY: {"method_header": None, "uri_header": None},
}
both = pytest.mark.parametrize("recorded", [TRAEFIK, ENVOY], ids=["Traefik", "Envoy"])


class Asked:
    """A server that is asked."""

    def __init__(self, origin: str, door: Door) -> None:
        self.origin = origin
        self.world = World()
        self._door = door

    def ask(
        self,
        recorded: str,
        method: str,
        uri: str,
        *,
        signed: str | None = None,
        secret: str = GATEWAY_SECRET,
        added: str = "",
    ) -> Answered:
        """Ask about a request for `uri`, with a proof for it or for what is `signed`, and a field `added`."""
        api = self.world.server(public_url=[ORIGIN, "https://api.example.org"])
        self._door.app = ForwardAuth(api, secret=GATEWAY_SECRET, **OPTIONS[recorded])
        (_, authorization), (_, dpop) = self.world.fields(signed or uri.partition("?")[0], method=method)
        request = recorded.format(
            authorization=authorization, dpop=dpop, secret=secret, method=method, uri=uri
        )
        if added:
            request = request.removesuffix("\n") + added + "\n\n"
        return answered(exchange(self.origin, request.replace("\n", "\r\n").encode("latin-1"), timeout=30))


@pytest.fixture(scope="module")
def asked() -> Generator[Asked]:
    door = Door(echo())
    with serving("uvicorn-h11", lambda _: door) as origin:
        yield Asked(origin, door)


@both
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_good_request_is_accepted_with_who_asks(asked: Asked, recorded: str, method: str) -> None:
    answer = asked.ask(recorded, method, "/notes%2F1?x=/admin")
    assert (answer.status, answer.values("X-Auth-Identity")) == (200, ["user123"])
    assert answer.values("X-Auth-Scope") == [""], "there, so that it takes the place of the client's"


@both
@pytest.mark.parametrize(
    ("uri", "signed"),
    [("/admin", "/notes"), ("/notes", "https://api.example.org/notes"), ("/notes/%2e%2e/admin", "/admin")],
)
def test_a_proof_for_another_request_is_refused(asked: Asked, recorded: str, uri: str, signed: str) -> None:
    answer = asked.ask(recorded, "GET", uri, signed=signed)
    assert answer.status == 401
    assert len(answer.values("WWW-Authenticate")) == 1


@both
def test_a_question_without_the_secret_is_refused(asked: Asked, recorded: str) -> None:
    assert asked.ask(recorded, "GET", "/notes", secret="a guess").status == 403


def test_a_uri_that_a_client_adds_to_traefiks_is_refused(asked: Asked) -> None:
    assert asked.ask(TRAEFIK, "GET", "/admin", signed="/notes", added="X-Forwarded-Uri: /notes").status == 403


@pytest.mark.parametrize("added", ["X-Original-URI: /notes", "X-Forwarded-Uri: /notes"])
def test_fields_that_envoy_passes_on_decide_nothing(asked: Asked, added: str) -> None:
    assert asked.ask(ENVOY, "GET", "/admin", signed="/notes", added=added).status == 401
    assert asked.ask(ENVOY, "GET", "/admin", added=added).status == 200
