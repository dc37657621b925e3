"""Memory that an attacker wants us to keep, and what one request wants to leave there for another."""

import hashlib
import tracemalloc
from typing import Any

import pytest

from dpop_middleware import ResourceRequest, VerifiedRequest
from dpop_middleware._proof.known_clients import KnownClients
from dpop_middleware._proof.proof import parse_header
from dpop_middleware.client import DPoPKey
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.token_cache import TokenCache, VerifiedToken, read_only_claims
from tests.support.faces import ORIGIN, World

MIB = 1024 * 1024


def test_the_attacker_wants_memory_for_padded_headers_and_large_tokens() -> None:
    segment = DPoPKey.generate().proof("GET", "https://api.example.test/").split(".")[0]
    header = parse_header(segment, SUPPORTED_ALGORITHMS)
    clients, tokens = (
        KnownClients(max_clients=10_000, max_bytes=4 * MIB),
        TokenCache(max_tokens=10_000, max_bytes=8 * MIB),
    )
    tracemalloc.start()
    try:
        for number in range(10_000):
            ath = hashlib.sha256(str(number).encode()).hexdigest()
            clients.remember(header, ath=ath, segment=f"{segment}{number:08000}")
            tokens.put(ath.encode(), verified(number.to_bytes(7500, "big")), payload=7500)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held <= 12 * MIB
    assert len(tokens) > 500


def test_the_attacker_wants_memory_for_thousands_of_scopes() -> None:
    tokens = TokenCache(max_tokens=10_000, max_bytes=4 * MIB)
    tracemalloc.start()
    try:
        for number in range(100):
            scopes = frozenset(f"{number}:{scope}" for scope in range(1500))
            tokens.put(str(number).encode(), verified(bytes(9000), scopes), payload=9000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held <= 4 * MIB


def asked(world: World, token: str) -> ResourceRequest:
    proof = world.key.proof("GET", f"{ORIGIN}/notes", access_token=token, now=world.clock())
    return ResourceRequest(
        method="GET", raw_path="/notes", authorization=(f"DPoP {token}",), dpop=(proof,), hosts=()
    )


async def twice(world: World, token: str) -> tuple[VerifiedRequest, VerifiedRequest]:
    api = world.server()
    first = await api.authenticate(asked(world, token))
    return first, await api.authenticate(asked(world, token))


async def test_one_request_wants_to_change_the_token_of_another() -> None:
    world = World()
    token = world.token(["notes:read"], roles=["reader"], org={"id": 7})
    first, second = await twice(world, token)
    assert second.access_token is first.access_token, "the second request is given what the first one held"
    cached: Any = first.access_token
    changes: dict[str, Any] = {"subject": "mallory", "scopes": {"admin"}, "jkt": None, "claims": {}, "new": 1}
    for name, value in changes.items():
        with pytest.raises((AttributeError, TypeError)):
            setattr(cached, name, value)
        with pytest.raises((AttributeError, TypeError)):
            delattr(cached, name)
    with pytest.raises(AttributeError):
        cached.scopes.add("admin")
    with pytest.raises(TypeError):
        cached.claims["roles"] = ["admin"]
    for change in ("update", "pop", "popitem", "clear", "setdefault", "__ior__"):
        assert not hasattr(cached.claims, change)
    cached.claims["roles"].append("admin")
    cached.claims["org"]["id"] = 1
    cached.claims.get("roles").clear()
    dict(cached.claims)["org"].clear()
    assert second.access_token.claims["roles"] == ["reader"]
    assert second.access_token.claims["org"] == {"id": 7}
    assert second.access_token.scopes == {"notes:read"}


async def test_whoever_reads_logs_wants_the_claims() -> None:
    world = World()
    first, _ = await twice(world, world.token(email="s3cr3t@example.com", address={"street": "s3cr3t"}))
    shown = f"{first!r} {first.access_token!r} {first.access_token.claims!r} {first.access_token.claims}"
    assert "s3cr3t" not in shown
    assert "email" in repr(first.access_token.claims), "which claims there are is no secret"


def verified(payload: bytes, scopes: frozenset[str] = frozenset()) -> VerifiedToken:
    token = AccessToken(
        claims=read_only_claims(payload), issuer="https://as.example", subject="a", client_id="b",
        scopes=scopes, expires_at=1e9, jkt=None,
    )  # fmt: skip
    return VerifiedToken(access_token=token, not_before=0.0, key_identity="k")
