"""Keys that are given once."""

from dpop_middleware.tokens.jwks import parse_key_set
from dpop_middleware.tokens.key_source import IssuerKeysHealth, StaticKeySource
from tests.support.issuer_tokens import issuer_key, key_set


async def test_given_keys_never_change() -> None:
    keys = parse_key_set(key_set(issuer_key()))
    source = StaticKeySource(keys)
    assert source.current() is keys
    assert await source.load() is keys
    assert await source.newer_than(keys, since=0, wanted="") is keys
    source.open()
    assert await source.health() == IssuerKeysHealth(ok=True, keys=1)
    await source.aclose()
    assert source.current() is keys
