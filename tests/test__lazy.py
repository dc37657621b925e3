"""What not everybody needs is imported at its first use."""

import subprocess
import sys

import pytest

import dpop_middleware
from dpop_middleware import client, introspection, replay, tokens
from dpop_middleware._lazy import importing

LAZY = {
    "JWTAccessTokenVerifier": "dpop_middleware.tokens.jwt",
    "JWTOrOpaqueVerifier": "dpop_middleware.tokens.jwt_or_opaque",
    "MultiIssuerVerifier": "dpop_middleware.tokens.multi_issuer",
    "RedisReplayStore": "dpop_middleware.replay.redis",
    "ResourceMetadata": "dpop_middleware._metadata",
    "WebSocketTickets": "dpop_middleware.websocket_tickets",
}


def test_a_name_comes_from_its_module_and_no_other_name_is_there() -> None:
    found = importing("dpop_middleware", {"Check": "checks"})
    assert found("Check") is dpop_middleware.checks.Check
    with pytest.raises(AttributeError, match="module 'dpop_middleware' has no attribute 'Checks'"):
        found("Checks")


@pytest.mark.parametrize("name", LAZY)
def test_what_only_some_need_is_imported_at_its_first_use(name: str) -> None:
    program = (
        "import sys; from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer; "
        f"assert {LAZY[name]!r} not in sys.modules; from dpop_middleware import {name}; "
        f"assert {LAZY[name]!r} in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_redis_client_is_not_imported_without_its_store() -> None:
    program = (
        "import sys; from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer; "
        "assert 'redis' not in sys.modules; from dpop_middleware import RedisReplayStore; "
        "assert 'redis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("package", [dpop_middleware, client, introspection, replay, tokens])
def test_every_public_name_of_a_package_is_there_and_no_other_one(package: object) -> None:
    assert all(hasattr(package, name) for name in getattr(package, "__all__", ()))
    assert not hasattr(package, "Nothing")
