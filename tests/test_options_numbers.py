"""The options of the public parts that are numbers: any other value is refused at the start."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import pytest

from dpop_middleware import (
    DPoPPolicy,
    HMACNonceProvider,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    MultiIssuerVerifier,
    RedisReplayStore,
    ResourceMetadata,
    ResourceServer,
    WebSocketTickets,
)
from dpop_middleware.client import ClientCredentials, DPoPKey, TokenSource
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.fastapi import DPoPSecurity
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from dpop_middleware.replay.redis.options import Options
from dpop_middleware.starlette import requires_dpop
from tests.support.adapters import SECRET, World

ISSUER, API = "https://auth.example.test", "https://api.example.test"
NUMBERS = (int, float, int | None, float | None)


async def no_tenant(issuer: str) -> None:
    raise AssertionError


def parts() -> dict[str, Callable[..., object]]:
    """Return what makes each part of the library with its usual options."""
    server = World().server()
    client = ClientSecretBasic(client_id="api", client_secret="hidden")
    return {
        "policy": partial(DPoPPolicy, nonce="required"),
        "FAPI policy": DPoPPolicy.fapi2,
        "nonces": partial(HMACNonceProvider, SECRET),
        "JWT": partial(JWTAccessTokenVerifier, issuer=ISSUER, audience=API),
        "several issuers": partial(MultiIssuerVerifier, resolver=no_tenant),
        "introspection": partial(
            IntrospectionVerifier, issuer=ISSUER, audience=API, client_authentication=client
        ),
        "memory": MemoryReplayStore,
        "metadata": ResourceMetadata,
        "server": partial(ResourceServer, issuer=ISSUER, resource=API, replay_store=MemoryReplayStore()),
        "tickets": partial(WebSocketTickets, server, SECRET),
        "decorator": partial(requires_dpop, server),
        "dependency": partial(DPoPSecurity, server),
        "token source": partial(
            TokenSource,
            httpx2.Client(),
            f"{ISSUER}/token",
            ClientCredentials(),
            key=DPoPKey.generate(),
            client_id="client",
        ),
    }


def numbers(make: Callable[..., object]) -> list[str]:
    return [name for name, each in inspect.signature(make).parameters.items() if each.annotation in NUMBERS]


def options() -> list[Any]:
    named = {part: (make, numbers(make)) for part, make in parts().items()}
    redis = [name for name, kind in Options.__annotations__.items() if kind in NUMBERS]
    named["Redis"] = partial(RedisReplayStore.from_url, "redis://localhost"), redis
    return [
        pytest.param(make, name, id=f"{part}-{name}")
        for part, (make, names) in named.items()
        for name in names
    ]


def test_without_the_value_each_part_is_made() -> None:
    for make in parts().values():
        assert numbers(make)
        make()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, -1, "5", b"5", [5], 5j])
@pytest.mark.parametrize(("make", "option"), options())
def test_what_is_no_number_of_its_kind_is_refused(
    make: Callable[..., Any], option: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=option):
        make(**{option: value})
