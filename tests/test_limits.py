"""Each limit is the documented number: the limit itself passes, one more does not."""

from collections.abc import Callable

import pytest

from dpop_middleware._request.request import MAX_TOKEN_SIZE, ResourceRequest, credentials, one_proof
from dpop_middleware._request.uri import (
    URIError,
    encoded,
    normalize,
    parse_base_url,
    without_dot_segments,
)
from dpop_middleware.errors import DPoPError
from dpop_middleware.jose import JOSEError, strict
from dpop_middleware.tokens import admission, cache, jwks, named_issuers
from tests.support.api import Api


def white_space_taken_off(count: int) -> None:
    for value in (b" " * count + b"DPoP a", b"DPoP a" + b"\t" * count):
        request = ResourceRequest.from_scope(
            {"type": "http", "method": "GET", "path": "/", "headers": [(b"authorization", value)]}
        )
        if request.authorization != ("DPoP a",):
            raise ValueError("white space remains")


def nested(depth: int) -> None:
    # The object itself is the first level.
    strict.parse_object(b'{"a":' + b"[" * (depth - 1) + b"0" + b"]" * (depth - 1) + b"}")


@pytest.mark.parametrize(
    ("limit", "use"),
    [
        (8 * 1024, lambda size: one_proof(("a" * size,), ("ES256",))),
        (16 * 1024, lambda size: one_proof(("a" * size,), ("ES256", "ML-DSA-44"))),
        (16 * 1024, lambda size: credentials((f"DPoP {'a' * size}",))),
        (64, lambda count: credentials((f"DPoP {' ' * count}a",))),
        (64, white_space_taken_off),
        (32, nested),
        (256, lambda count: encoded("/" + "%41" * count)),
        (256, lambda count: encoded("/" + "|" * count)),
        (256, lambda count: without_dot_segments("/a" * (count - 1) + "/..")),
        (300, lambda size: parse_base_url(f"https://{'a' * size}")),
        (300, lambda size: normalize(f"https://{'A' * size}/")),
    ],
    ids=[
        "proof", "post-quantum proof", "token", "blanks after the scheme", "blanks around", "depth of JSON",
        "percent-encoded", "to be percent-encoded", "segments with dots", "authority", "authority of an htu",
    ],
)  # fmt: skip
def test_the_limit_passes_and_one_more_does_not(limit: int, use: Callable[[int], object]) -> None:
    use(limit)
    with pytest.raises((DPoPError, JOSEError, URIError, ValueError), match=r"^\w+ \w+ \w+"):
        use(limit + 1)


async def test_a_request_has_at_most_256_fields() -> None:
    api = Api()
    await api.server.authenticate(api.request()._replace(fields=256))
    with pytest.raises(DPoPError, match="too many header fields"):
        await api.server.authenticate(api.request()._replace(fields=257))


@pytest.mark.parametrize(
    ("limit", "number"),
    [
        (MAX_TOKEN_SIZE, 16_384),
        (jwks.MAX_KEYS, 128),
        (jwks.MAX_CANDIDATES, 8),
        (admission.MAX_WAITING, 2_000),
        (admission.MAX_UNAVAILABLE, 100),
        (admission.UNAVAILABLE_PER_SECOND, 10),
        (admission.MAX_MISSING, 4_096),
        (cache.MAX_CACHED_TOKENS, 10_000),
        (cache.MAX_CACHED_BYTES, 67_108_864),
        (named_issuers.LOOKUPS, 100),
        (named_issuers.MAX_UNKNOWN, 10_000),
    ],
)
def test_limits_that_other_tests_go_by_are_the_ones_that_are_promised(limit: int, number: int) -> None:
    assert limit == number
