"""Keys that are given once."""

from dpop_middleware.tokens.jwks import parse_key_set
from dpop_middleware.tokens.key_source import StaticKeySource
from tests.support.issuer_tokens import issuer_key, key_set


async def test_given_keys_never_change() -> None:
    keys = parse_key_set(key_set(issuer_key()))
    source = StaticKeySource(keys)
    assert source.current() is keys
    assert await source.load() is keys
    assert await source.newer_than(keys) is keys
    await source.aclose()
    assert source.current() is keys
