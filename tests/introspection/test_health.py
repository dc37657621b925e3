"""A readiness probe learns whether the endpoint gives answers."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from dpop_middleware import MemoryReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.introspection import IntrospectionHealth, IntrospectionVerifier
from tests.support.introspection_server import API, IssuerOfOpaqueTokens, Question, answers

JKT = DPoPKey.generate().jkt
Verifier = Callable[..., IntrospectionVerifier]


async def test_an_endpoint_that_answers_is_healthy(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    opaque = verifier(endpoint=None)
    for _ in range(2):
        health = await opaque.health()
        assert health.ok
        assert health.endpoint == issuer.endpoint
        assert health.error is None
        assert health.age is not None
    assert len(issuer.asked) == 1, "an answer that is new says it too"
    assert issuer.says(issuer.asked[0].form["token"]) == {"active": False}


async def test_recent_traffic_replaces_the_question_of_a_probe(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier()
    await opaque.verify(issuer.issue(JKT))
    assert (await opaque.health()).ok
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"error": "invalid_client"}, "the status is 401"),
        (200, {"active": True, "aud": API, "sub": "x", "exp": time.time() + 86_400}, "required"),
        (200, {"active": "no"}, "doesn't say"),
    ],
)
async def test_an_endpoint_that_can_not_be_used_is_unhealthy(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, status: int, body: dict[str, Any], error: str
) -> None:
    async def behave(_question: Question) -> Response:
        return JSONResponse(body, status)

    issuer.behaves = behave
    health = await verifier(required_claims=("exp",)).health()
    if error == "required":
        assert health.error == "the endpoint calls a made-up token active"
    else:
        assert error in str(health.error)
    assert not health.ok
    assert health.age is None
    issuer.behaves = None
    assert (await verifier().health()).ok


@pytest.mark.parametrize(("status", "well"), [(400, True), (422, True), (500, False), (404, False)])
async def test_an_endpoint_that_calls_a_made_up_token_malformed_may_be_healthy(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, status: int, well: bool
) -> None:
    issuer.behaves = answers(status)
    health = await verifier().health()
    assert health.ok is well
    assert (health.error is None) is well
    assert health.age is None


async def test_the_endpoint_is_healthy_again_after_a_failure(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier()
    await opaque.verify(issuer.issue(JKT))
    issuer.behaves = answers(503)
    with pytest.raises(Exception, match="can't be looked up"):
        await opaque.verify("another")
    assert not (await opaque.health()).ok
    issuer.behaves = None
    assert (await opaque.health()).ok


async def test_the_servers_health_covers_the_endpoint(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    api = ResourceServer(verifier=verifier(), resource=API, replay_store=MemoryReplayStore())
    async with api:
        health = await api.health()
    assert health.ready
    assert isinstance(health.issuer_keys.details, IntrospectionHealth)
    nobody = verifier(endpoint="http://127.0.0.1:9/introspect")
    down = ResourceServer(verifier=nobody, resource=API, replay_store=MemoryReplayStore())
    health = await down.health()
    assert not health.ready
    assert "ConnectError" in str(health.issuer_keys.error)


async def test_opening_finds_the_endpoint_without_waiting(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    opaque = verifier(endpoint=None, signed_answers=True)
    await opaque.open()
    await opaque.open()
    assert (await opaque.health()).endpoint == issuer.endpoint
    assert issuer.requests.count("/.well-known/oauth-authorization-server") == 2, "for endpoint and keys"
    assert caplog.messages == []


@pytest.mark.parametrize(("issuer_of", "says"), [("/jwks", "status is 404"), ("/text", "not a JSON object")])
async def test_an_issuer_without_metadata_is_unhealthy(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, issuer_of: str, says: str
) -> None:
    """Neither of the two documents exists, or neither is a JSON object."""
    health = await verifier(endpoint=None, issuer=issuer.origin + issuer_of).health()
    assert says in str(health.error)


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"issuer": "https://other.example"}, "another issuer's"),
        ({"introspection_endpoint": None}, "introspection_endpoint takes an https URL"),
        ({"introspection_endpoint": "http://auth.example.com/introspect"}, "takes an https URL"),
    ],
)
async def test_metadata_without_a_usable_endpoint_are_logged(
    issuer: IssuerOfOpaqueTokens,
    verifier: Verifier,
    caplog: pytest.LogCaptureFixture,
    metadata: dict[str, Any],
    says: str,
) -> None:
    issuer.metadata = metadata
    opaque = verifier(endpoint=None)
    await opaque.open()
    assert says in str((await opaque.health()).error)
    while says not in caplog.text:
        await asyncio.sleep(0.01)
    assert (await opaque.health()).endpoint is None
    issuer.metadata = {}
    assert (await opaque.health()).endpoint == issuer.endpoint


async def test_an_endpoint_that_moved_is_found_again(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    issuer.metadata = {"introspection_endpoint": f"{issuer.origin}/old"}
    opaque = verifier(endpoint=None)
    assert not (await opaque.health()).ok
    issuer.metadata = {}
    assert (await opaque.verify(issuer.issue(JKT))).jkt == JKT
