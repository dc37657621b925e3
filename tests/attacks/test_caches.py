"""Attacks on caches: memory that an attacker wants to fill, and data that one request leaves for another."""

import hashlib
import tracemalloc
from typing import Any

import pytest

from dpop_middleware import ReplayEntry, ResourceRequest, VerifiedRequest
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import encode_jws
from dpop_middleware.tokens.access_token import AccessToken, token_hash
from dpop_middleware.tokens.cache import BoundedCache, VerifiedToken, read_only_claims, size_of
from tests.support.adapters import ORIGIN, World

MIB = 1024 * 1024


def test_the_attacker_wants_memory_for_large_tokens() -> None:
    tokens: BoundedCache[str, VerifiedToken] = BoundedCache(max_entries=10_000, max_bytes=8 * MIB)
    tracemalloc.start()
    try:
        for number in range(10_000):
            token = hashlib.sha256(str(number).encode()).hexdigest()
            kept = verified(number.to_bytes(7500, "big"))
            tokens.put(token, kept, size=size_of(kept.access_token))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held <= 8 * MIB
    assert len(tokens) > 500


async def test_the_attacker_wants_memory_for_padded_proof_headers() -> None:
    world = World()
    api, token = world.server(), world.token()
    for padding, is_kept in (("", True), ("x" * 1024, False)):
        proof = encode_jws(
            {"typ": "dpop+jwt", "alg": "ES256", "jwk": world.key.public_jwk, "pad": padding},
            {
                "jti": f"{len(padding)} characters",
                "htm": "GET",
                "htu": f"{ORIGIN}/notes",
                "iat": int(world.clock()),
                "ath": token_hash(token),
            },
            key=world.key,
        )
        verified = await api.authenticate(asked(world, token, proof))
        segment, _, _ = proof.partition(".")
        assert (segment in repr(verified.access_token.client_memo)) is is_kept


def test_the_attacker_wants_memory_for_thousands_of_scopes() -> None:
    tokens: BoundedCache[str, VerifiedToken] = BoundedCache(max_entries=10_000, max_bytes=4 * MIB)
    tracemalloc.start()
    try:
        for number in range(100):
            scopes = frozenset(f"{number}:{scope}" for scope in range(1500))
            kept = verified(bytes(9000), scopes)
            tokens.put(f"{number:032}", kept, size=size_of(kept.access_token))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held <= 4 * MIB


class Forgetful:
    """A replay store that keeps nothing, so that only other memory is measured."""

    async def add(self, entry: ReplayEntry) -> bool:
        return entry.key != ""


async def test_an_unauthenticated_client_wants_memory_for_each_proof_at_the_token_endpoint() -> None:
    url, key = "https://auth.example.test/token", DPoPKey.generate()
    endpoint = TokenEndpoint(url=url, replay_store=Forgetful())
    requests = [
        ResourceRequest("POST", "/token", (), (), (key.proof("POST", url),)) for _ in range(600)
    ]  # fmt: skip
    await endpoint.verify(requests.pop())
    tracemalloc.start()
    try:
        for request in requests:
            await endpoint.verify(request)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 64 * 1024


def asked(world: World, token: str, proof: str | None = None) -> ResourceRequest:
    proof = proof or world.key.proof("GET", f"{ORIGIN}/notes", access_token=token, now=world.clock())
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


async def test_a_reader_of_logs_wants_the_claims() -> None:
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
    return VerifiedToken(access_token=token, token_hash="", not_before=0.0, key_identity="k")
