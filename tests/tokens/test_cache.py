"""The one rule of eviction, and tokens that were verified before."""

import copy
import gc
import hashlib
import json
from typing import Any

import pytest

from dpop_middleware.tokens.access_token import AccessToken, token_hash
from dpop_middleware.tokens.cache import (
    MAX_CACHED_BYTES,
    MAX_CACHED_TOKENS,
    BoundedCache,
    VerifiedToken,
    read_only_claims,
    size_of,
)
from dpop_middleware.tokens.jwks import parse_key_set
from tests.support.issuer_tokens import JKT, issuer_key, key_set

PAYLOAD = b'{"sub": "alice", "cnf": {"jkt": "x"}}'
KEYS = parse_key_set(key_set(issuer_key("ES256")))


def cache(*, entries: int = 3, size: int = 10_000) -> BoundedCache[str, str]:
    return BoundedCache(max_entries=entries, max_bytes=size)


def test_the_least_recently_used_value_is_evicted_first() -> None:
    kept = cache(entries=2)
    kept.put("a", "1", size=1)
    kept.put("b", "2", size=1)
    assert kept.get("a") == "1"
    kept.put("c", "3", size=1)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), len(kept)) == ("1", None, "3", 2)


def test_bytes_are_bounded_and_freed() -> None:
    kept = cache()
    kept.put("a", "1", size=4000)
    kept.put("b", "2", size=4000)
    kept.put("c", "3", size=4000)
    assert (kept.get("a"), kept.get("b"), len(kept)) == (None, "2", 2)
    assert 8000 < kept.bytes <= 10_000
    kept.put("b", "2", size=1)
    kept.discard("c")
    kept.discard("c")
    assert kept.bytes < 1000
    kept.discard("b")
    assert kept.bytes == 0


def test_a_value_that_is_larger_than_the_cache_evicts_nothing() -> None:
    kept = cache()
    kept.put("a", "1", size=1)
    kept.put("b", "2", size=10_000)
    assert (kept.get("a"), kept.get("b")) == ("1", None)
    kept.put("a", "another", size=10_000)
    assert (kept.get("a"), kept.bytes) == (None, 0)


def test_a_cache_of_no_size_keeps_nothing() -> None:
    for kept in (cache(entries=0), cache(size=0)):
        kept.put("a", "1", size=0)
        assert (len(kept), kept.bytes) == (0, 0)


def test_a_value_can_be_put_again_and_discarded() -> None:
    kept = cache()
    kept.put("a", "1", size=37)
    kept.put("a", "2", size=37)
    assert (kept.get("a"), len(kept)) == ("2", 1)
    kept.discard("a")
    kept.discard("a")
    assert kept.get("a") is None


def access_token(
    *,
    payload: bytes = PAYLOAD,
    subject: str = "alice",
    client_id: str = "app",
    scopes: Any = ("notes:read",),
) -> AccessToken:
    return AccessToken(
        claims=read_only_claims(payload),
        issuer="https://as.example.com",
        subject=subject,
        client_id=client_id,
        scopes=frozenset(scopes),
        expires_at=1000.0,
        jkt=JKT,
    )


def verified(token: str = "", **changes: Any) -> VerifiedToken:
    return VerifiedToken(
        access_token=access_token(**changes),
        token_hash=token_hash(token),
        not_before=900.0,
        key_identity=KEYS.keys[0].identity,
    )


@pytest.mark.parametrize(
    ("payload", "name", "value"),
    [
        (PAYLOAD, "sub", "alice"),
        (PAYLOAD, "act", None),
        (PAYLOAD, "jkt", None),
        (PAYLOAD, "su", None),
        (b'{"\\u0061ct": 1}', "act", 1),
        (b'{"x": "\\"act\\"", "act": 1}', "act", 1),
        (b'{"x": "\\"act\\""}', "act", None),
        ('{"\u00e4": 1}'.encode(), "\u00e4", 1),
        (b'{"\\u00e4": 1}', "\u00e4", 1),
        (b'{"https://example.com/role": 1}', "https://example.com/role", 1),
        (b'{"a\\"b": 1}', 'a"b', 1),
        (b'{"": 1}', "", 1),
    ],
)
def test_a_single_claim_equals_the_one_among_all_claims(payload: bytes, name: str, value: object) -> None:
    claims = read_only_claims(payload)
    assert claims.get(name) == dict(claims.items()).get(name) == value
    assert claims.get(name, "none") == dict(claims.items()).get(name, "none")


def test_claims_are_a_read_only_mapping() -> None:
    claims: Any = read_only_claims(PAYLOAD)
    assert claims["sub"] == "alice"
    assert list(claims) == ["sub", "cnf"]
    assert len(claims) == 2
    assert "iss" not in claims
    assert claims == json.loads(PAYLOAD)
    assert dict(claims) == dict(claims.items()) == json.loads(PAYLOAD)
    assert list(claims.values()) == ["alice", {"jkt": "x"}]
    assert copy.deepcopy(claims) == claims
    assert repr(claims) == "<claims sub, cnf>"
    with pytest.raises(TypeError):
        claims["sub"] = "mallory"
    with pytest.raises(TypeError):
        del claims["sub"]
    with pytest.raises(AttributeError):
        claims.extra = 1


def test_an_application_changes_only_its_own_copy_of_a_claim() -> None:
    claims = read_only_claims(PAYLOAD)
    claims["cnf"]["jkt"] = "changed by an application"
    dict(claims.items())["cnf"]["jkt"] = "changed by an application"
    assert claims["cnf"]["jkt"] == "x"


@pytest.mark.parametrize(
    ("now", "usable"), [(884.9, False), (885, True), (950, True), (1014.9, True), (1015, False)]
)
def test_times_are_judged_again(now: float, usable: bool) -> None:
    assert verified().usable(KEYS, now=now, clock_skew=15) is usable


def test_a_token_is_unusable_when_its_key_is_gone() -> None:
    other = parse_key_set(key_set(issuer_key("ES256", number=2)))
    assert not verified().usable(other, now=950, clock_skew=15)
    assert not verified().usable(parse_key_set({"keys": []}), now=950, clock_skew=15)


def test_ten_thousand_usual_tokens_are_kept_within_the_usual_bytes() -> None:
    assert MAX_CACHED_TOKENS == 10_000
    kept: BoundedCache[str, AccessToken] = BoundedCache(max_entries=10_000, max_bytes=MAX_CACHED_BYTES)
    scopes = ("openid", "profile", "email", "notes:read")
    subject = "3f0c1c5e-6a38-4d3b-9d5f-0a4d6e9b7c11"
    usual = access_token(payload=PAYLOAD.ljust(1200), subject=subject, scopes=scopes)
    for position in range(10_000):
        kept.put(f"{position:032}", usual, size=size_of(usual))
    assert len(kept) == 10_000


@pytest.mark.parametrize("changes", [{"subject": "\U0001f600" * 4000}, {"client_id": "\U0001f600" * 4000}])
def test_a_long_name_is_counted_with_four_bytes_a_character(changes: dict[str, Any]) -> None:
    short, long = access_token(), access_token(**changes)
    assert size_of(long) - size_of(short) >= 4 * 3900


def test_the_claims_count_with_the_bytes_of_their_payload() -> None:
    short, long = access_token(), access_token(payload=PAYLOAD + b" " * 5000)
    assert size_of(long) - size_of(short) == 5000


def test_an_entry_is_light_for_the_garbage_collector() -> None:
    kept: BoundedCache[str, VerifiedToken] = BoundedCache(max_entries=1000, max_bytes=MAX_CACHED_BYTES)
    gc.collect()
    before = len(gc.get_objects())
    for position in range(1000):
        token = hashlib.sha256(str(position).encode()).hexdigest()
        value = verified(token, payload=PAYLOAD + bytes(position), scopes=(str(position), "a"))
        kept.put(token, value, size=size_of(value.access_token))
    # The entry, the token with its set of scopes, and the claims, which would be three more if decoded.
    assert len(gc.get_objects()) - before <= 4 * 1000 + 50
