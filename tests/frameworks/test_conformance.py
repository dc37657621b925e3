"""One table of cases for every framework under every server: the conformance suite, unchanged."""

import json
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import httpx2
import pytest

from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.conformance import Target
from dpop_middleware.testing.suite import CASES, run_case
from tests.frameworks.protected import FRAMEWORKS, every_framework
from tests.frameworks.served import serving_apart
from tests.support.adapters import ORIGIN
from tests.support.servers import Certificate, serving

SERVERS = ("uvicorn-h11", "uvicorn-httptools", "hypercorn", "hypercorn-h2", "granian", "daphne")
ISSUER = TestIssuer(audience=ORIGIN)
# Making one for each client takes longer than all its requests.
NO_TLS = ssl.create_default_context()
# Where the server decides by nonces, it doesn't by iat.
ONLY_WITHOUT_NONCES = {case.name for case in CASES if case.by_time}
ONLY_WITH_NONCES = {"unknown_nonce"}


class Served(NamedTuple):
    nonce: str
    http_version: str
    transport: Callable[[], httpx2.AsyncBaseTransport]


class Towards(httpx2.AsyncBaseTransport):
    """Connects to one server for requests to any host, and keeps the Host field."""

    def __init__(self, origin: str, certificate: Certificate | None) -> None:
        self._origin = httpx2.URL(origin)
        self._inner = httpx2.AsyncHTTPTransport(
            http2=certificate is not None, verify=certificate.trust if certificate else NO_TLS
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(
            scheme=self._origin.scheme, host=self._origin.host, port=self._origin.port
        )
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.for_loopback(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(
    scope="module",
    params=[(server, nonce) for nonce in ("off", "required") for server in SERVERS],
    ids="-".join,
)
def served(request: pytest.FixtureRequest, certificate: Certificate) -> Generator[Served]:
    server, nonce = request.param
    by_tls = certificate if server == "hypercorn-h2" else None
    with serving_by(server, nonce, by_tls) as origin:
        yield Served(nonce, "HTTP/2" if by_tls else "HTTP/1.1", lambda: Towards(origin, by_tls))


@contextmanager
def serving_by(server: str, nonce: str, certificate: Certificate | None) -> Generator[str]:
    arguments = (json.dumps(ISSUER.jwks()), nonce)
    if server in ("granian", "daphne"):
        factory = f"{every_framework.__module__}:{every_framework.__name__}"
        with serving_apart(server, "", factory=factory, arguments=arguments) as origin:
            yield origin
    else:
        kind: Any = server.removesuffix("-h2")
        with serving(kind, lambda _: every_framework(*arguments), certificate=certificate) as origin:
            yield origin


def target(served: Served, framework: str) -> Target:
    return replace(Target.of(ISSUER, url=f"{ORIGIN}/{framework}"), transport=served.transport)


def credentials(made: Target, *, nonce: str | None) -> dict[str, str]:
    proof = made.key.proof("GET", made.url, access_token=made.access_token, nonce=nonce, now=time.time())
    return {"Authorization": f"DPoP {made.access_token}", "DPoP": proof}


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_every_case_gets_its_answer(served: Served, framework: str) -> None:
    outcomes = [await run_case(case, target(served, framework)) for case in CASES]
    assert [outcome for outcome in outcomes if outcome.verdict == "failed"] == []
    skipped = {outcome.name for outcome in outcomes if outcome.verdict == "skipped"}
    assert skipped == (ONLY_WITH_NONCES if served.nonce == "off" else ONLY_WITHOUT_NONCES)


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_application_knows_whom_the_token_speaks_for(served: Served, framework: str) -> None:
    made = target(served, framework)
    async with httpx2.AsyncClient(transport=served.transport()) as client:
        answer = await client.get(made.url)
        if served.nonce == "required":
            answer = await client.get(made.url, headers=credentials(made, nonce=None))
        nonce = answer.headers.get("DPoP-Nonce")
        answer = await client.get(made.url, headers=credentials(made, nonce=nonce))
    assert (answer.status_code, answer.text) == (200, "user123")
    assert answer.http_version == served.http_version
