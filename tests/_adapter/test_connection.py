"""The state that the framework adapters of one connection share."""

import gc
from dataclasses import replace

import pytest

from dpop_middleware._adapter.connection import Connection, has_credentials
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._judge.verdicts import Authentication, VerifiedRequest
from dpop_middleware._request.request import ResourceRequest
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidDPoPProof, InvalidToken
from dpop_middleware.resource_server import ResourceServer
from tests.support.adapters import World, scope_of


async def test_a_scope_and_its_copies_have_one_connection() -> None:
    scope = scope_of("/")
    connection = Connection.of(scope)
    assert Connection.of(scope) is connection
    assert Connection.of({**scope, "path": "/other"}) is connection
    assert Connection.of(scope_of("/")) is not connection


async def test_the_root_path_is_the_one_that_was_seen_first() -> None:
    scope = scope_of("/svc/a", root_path="/svc")
    connection = Connection.of(scope)
    first = connection.request(scope)
    assert first.root_path == "/svc"
    assert connection.request({**scope, "root_path": "/svc/mount"}) == first
    assert connection.request({**scope, "app_root_path": "/else"}) == first
    assert connection.request({**scope, "raw_path": b"/b"}) != first


async def test_a_verdict_on_one_path_does_not_hold_for_another() -> None:
    world = World()
    server = world.server()
    scope = scope_of("/a", world.fields("/a"))
    connection = Connection.of(scope)
    first = await connection.authenticate(server, scope, Requirements())
    with pytest.raises(InvalidDPoPProof, match="used before"):
        await connection.authenticate(server, {**scope, "path": "/b"}, Requirements())
    assert await connection.authenticate(server, scope, Requirements()) == first


class Stricter(ResourceServer):
    """A user's own server, which checks more for some clients."""

    async def verify(self, request: ResourceRequest) -> Authentication:
        evidence = await super().verify(request)
        if evidence.access_token.subject == "stolen":
            raise InvalidToken("reported as stolen", check=Check.TOKEN_CLAIMS)
        return evidence


async def test_every_adapter_calls_the_verify_of_a_users_own_server() -> None:
    world = World()
    server = world.server(Stricter)
    for subject, passes in (("ann", True), ("stolen", False)):
        scope = scope_of("/a", world.fields("/a", sub=subject))
        connection = Connection.of(scope)
        for _ in range(2):
            verdict = await connection.judge(server, scope, Requirements())
            assert isinstance(verdict, VerifiedRequest) is passes
            assert ("dpop" in scope) is passes


def connections() -> int:
    # Not by isinstance: a lazy object, such as Django's settings, would be created by it.
    return sum(type(one) is Connection for one in gc.get_objects())


async def test_a_refused_connection_goes_with_its_scope_and_waits_for_no_collection() -> None:
    server = World().server()
    before = connections()
    gc.disable()
    try:
        for _ in range(3):
            scope = scope_of("/a", [("Authorization", "DPoP x")])
            with pytest.raises(InvalidDPoPProof, match="required"):
                await Connection.of(scope).authenticate(server, scope, Requirements())
            del scope
        left = connections()
    finally:
        gc.enable()
    assert left <= before


async def test_the_evidence_of_a_request_is_found_by_its_very_token() -> None:
    world = World()
    server = world.server()
    scope = scope_of("/a", world.fields("/a"))
    connection = Connection.of(scope)
    verified = await connection.authenticate(server, scope, Requirements())
    evidence = connection.evidence(server, verified)
    assert evidence is not None
    assert evidence.access_token is verified.access_token
    another = verified._replace(access_token=replace(verified.access_token, subject="another"))
    assert connection.evidence(server, another) is None
    assert connection.evidence(world.server(), verified) is None


def test_credentials_are_an_authorization_field_in_any_case() -> None:
    assert has_credentials(scope_of("/", [("AUTHORIZATION", "")]))
    assert not has_credentials(scope_of("/", [("DPoP", "x"), ("Proxy-Authorization", "x")]))
