"""Memory that an attacker wants us to keep."""

import hashlib
import tracemalloc

from dpop_middleware._proof.known_clients import KnownClients
from dpop_middleware._proof.proof import parse_header
from dpop_middleware.client import DPoPKey
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.tokens.access_token import AccessToken
from dpop_middleware.tokens.token_cache import TokenCache, VerifiedToken, read_only_claims

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


def verified(payload: bytes, scopes: frozenset[str] = frozenset()) -> VerifiedToken:
    token = AccessToken(
        claims=read_only_claims(payload), issuer="https://as.example", subject="a", client_id="b",
        scopes=scopes, expires_at=1e9, jkt=None,
    )  # fmt: skip
    return VerifiedToken(access_token=token, not_before=0.0, key_identity="k")
