"""How a team tests it: with its own tokens, without a network.

The lifespan is left out (`with TestClient(...)` would run it): it connects to the real issuer and Valkey.
"""

import pytest
from fastapi.testclient import TestClient

from dpop_middleware.fastapi import DPoPSecurity
from dpop_middleware.testing import TestIssuer
from examples.fastapi_app.app import create_app
from examples.fastapi_app.security import api, dpop, settings

issuer = TestIssuer.of(api)
test_server = issuer.resource_server(api)


@pytest.fixture
def client() -> TestClient:
    """A client of an application that trusts the tests' issuer."""
    app = create_app()
    app.dependency_overrides[dpop] = DPoPSecurity(test_server)
    return TestClient(app, base_url=settings.resource)


def test_ann_writes_and_reads(client: TestClient) -> None:
    """A token with both scopes."""
    ann = issuer.auth(sub="ann", scopes=["notes:read", "notes:write"])
    assert client.post("/notes", json={"text": "buy milk"}, auth=ann).status_code == 201
    assert client.get("/notes", auth=ann).json() == ["buy milk"]


def test_bob_may_only_read(client: TestClient) -> None:
    """A scope is missing."""
    bob = issuer.auth(sub="bob", scopes=["notes:read"])
    assert client.get("/notes", auth=bob).json() == []
    assert client.post("/notes", json={"text": "sell milk"}, auth=bob).status_code == 403
    assert client.put("/files/a", content=b"x", auth=bob).status_code == 403


def test_a_stranger_is_refused_before_anything_is_read(client: TestClient) -> None:
    """No credentials: 401, however wrong the body is."""
    assert client.put("/files/a", content=b"x" * 1_000_000).status_code == 401
    assert client.get("/notes").status_code == 401


def test_a_file_is_taken(client: TestClient) -> None:
    """A body in pieces."""
    ann = issuer.auth(sub="ann", scopes=["notes:write"])
    assert client.put("/files/a", content=b"x" * 100_000, auth=ann).json()["size"] == 100_000
    assert client.put("/files/a", content=b"x" * 11_000_000, auth=ann).status_code == 413
