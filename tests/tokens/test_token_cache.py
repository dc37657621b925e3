"""Tokens that were verified before."""

import copy
import gc
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from dpop_middleware.tokens.jwks import parse_key_set
from dpop_middleware.tokens.token_cache import TokenCache, VerifiedToken
from tests.support.issuer_tokens import JKT, issuer_key, key_set

PAYLOAD = b'{"sub": "alice", "cnf": {"jkt": "x"}}'
KEYS = parse_key_set(key_set(issuer_key("ES256")))


def verified(**changes: Any) -> VerifiedToken:
    token = VerifiedToken(
        payload=PAYLOAD,
        issuer="https://as.example.com",
        subject="alice",
        client_id="app",
        scopes=frozenset({"notes:read"}),
        expires_at=1000.0,
        not_before=900.0,
        jkt=JKT,
        key_identity=KEYS.keys[0].identity,
    )
    return replace(token, **changes)


def test_the_token_as_the_application_sees_it() -> None:
    token = verified().access_token()
    assert (token.issuer, token.subject, token.client_id) == ("https://as.example.com", "alice", "app")
    assert (token.scopes, token.expires_at, token.jkt) == (frozenset({"notes:read"}), 1000.0, JKT)
    assert dict(token.claims) == json.loads(PAYLOAD)


def test_claims_are_a_read_only_mapping() -> None:
    claims: Any = verified().access_token().claims
    assert claims["sub"] == "alice"
    assert list(claims) == ["sub", "cnf"]
    assert len(claims) == 2
    assert "iss" not in claims
    assert claims == json.loads(PAYLOAD)
    assert copy.deepcopy(claims) == claims
    assert repr(claims) == "<claims sub, cnf>"
    with pytest.raises(TypeError):
        claims["sub"] = "mallory"
    with pytest.raises(TypeError):
        del claims["sub"]
    with pytest.raises(AttributeError):
        claims.extra = 1


def test_claims_are_decoded_once_for_a_token_and_never_in_the_cache() -> None:
    entry = verified()
    first, second = entry.access_token(), entry.access_token()
    first.claims["cnf"]["jkt"] = "changed by an application"
    assert first.claims["cnf"]["jkt"] == "changed by an application"
    assert second.claims["cnf"]["jkt"] == "x"
    assert entry.access_token().claims["cnf"]["jkt"] == "x"


@pytest.mark.parametrize(
    ("now", "usable"), [(884.9, False), (885, True), (950, True), (1014.9, True), (1015, False)]
)
def test_times_are_judged_again(now: float, usable: bool) -> None:
    assert verified().usable(KEYS, now=now, clock_skew=15) is usable


def test_an_entry_goes_with_its_key() -> None:
    other = parse_key_set(key_set(issuer_key("ES256", number=2)))
    assert not verified().usable(other, now=950, clock_skew=15)
    assert not verified().usable(parse_key_set({"keys": []}), now=950, clock_skew=15)


def test_the_least_recently_used_token_goes_first() -> None:
    cache = TokenCache(max_tokens=2)
    one, two, three = verified(subject="1"), verified(subject="2"), verified(subject="3")
    cache.put(b"1", one)
    cache.put(b"2", two)
    assert cache.get(b"1") is one
    cache.put(b"3", three)
    assert (cache.get(b"1"), cache.get(b"2"), cache.get(b"3")) == (one, None, three)
    assert len(cache) == 2


def test_put_again_and_discard() -> None:
    cache = TokenCache(max_tokens=2)
    cache.put(b"1", verified())
    cache.put(b"1", verified(subject="bob"))
    assert len(cache) == 1
    cache.discard(b"1")
    cache.discard(b"1")
    assert cache.get(b"1") is None


def test_a_cache_of_no_size_keeps_nothing() -> None:
    cache = TokenCache(max_tokens=0)
    cache.put(b"1", verified())
    assert len(cache) == 0


def test_an_entry_is_light_for_the_garbage_collector() -> None:
    cache = TokenCache(max_tokens=1000)
    gc.collect()
    before = len(gc.get_objects())
    for position in range(1000):
        digest = hashlib.sha256(str(position).encode()).digest()
        cache.put(digest, verified(payload=PAYLOAD + bytes(position), scopes=frozenset({str(position), "a"})))
    # The entry and its set of scopes; the claims would be three more.
    assert len(gc.get_objects()) - before <= 2 * 1000 + 50
