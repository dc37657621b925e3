"""The metadata document through real servers, with a root path that a proxy strips and without one."""

import http.client
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceMetadata, ResourceServer
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import reached
from tests.support.servers import SERVERS, ServerKind, serving

PATH = "/.well-known/oauth-protected-resource/v1"


def ask(origin: str, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(origin).netloc, timeout=60)
    try:
        connection.request(method, path, headers={"Host": "evil.example"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("root_path", ["", "/v1"])
@pytest.mark.parametrize("kind", SERVERS)
def test_the_path_alone_is_public(kind: ServerKind, root_path: str) -> None:
    def app_at(origin: str) -> ASGIApp:
        api = ResourceServer(
            issuer="https://auth.example.test",
            resource=f"{origin}/v1",
            jwks=TestIssuer().jwks(),
            replay_store=MemoryReplayStore(),
            metadata=ResourceMetadata(),
        )
        return DPoPMiddleware(Starlette(routes=[Mount("/", reached)]), api)

    with serving(kind, app_at, root_path=root_path) as origin:
        status, body = ask(origin, "GET", f"{PATH}?a=b")
        assert (status, f'"{origin}/v1"'.encode() in body) == (200, True)
        assert ask(origin, "HEAD", PATH) == (200, b"")
        assert ask(origin, "OPTIONS", PATH) == (204, b"")
        assert ask(origin, "POST", PATH) == (405, b"")
        for path in (f"{PATH}/", f"{PATH}/x", f"/x{PATH}", f"/{PATH}", PATH.replace("v1", "%76%31"), "/"):
            status, body = ask(origin, "GET", path)
            assert (status, body == b"reached") == (401, False), path
