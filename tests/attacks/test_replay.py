"""Attacks on the replay store: a proof that passes twice, a store that is full for others."""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from dpop_middleware import (
    AccessToken,
    DPoPPolicy,
    JWTAccessTokenVerifier,
    MemoryReplayStore,
    RedisReplayStore,
    ResourceServer,
)
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError, Unavailable
from dpop_middleware.testing import TestIssuer
from tests.support.api import NOW, RESOURCE, Api, Clock, request
from tests.support.valkey import HOST, Server, implementations

ISSUER = "https://auth.example.test"


@contextlib.asynccontextmanager
async def two_workers(server: Server, one: Any, other: Any) -> AsyncGenerator[tuple[TestIssuer, list[Any]]]:
    """Two workers of one service over one server, each with a store object and a configuration of its own."""
    issuer = TestIssuer(ISSUER, audience=RESOURCE)
    async with contextlib.AsyncExitStack() as stack:
        workers = []
        for options in (one, other):
            store = RedisReplayStore.from_url(f"redis://{HOST}:{server.port}/0", timeout=5)
            stack.push_async_callback(store.aclose)
            usual = {"issuer": ISSUER, "resource": RESOURCE, "jwks": issuer.jwks(), "public_url": RESOURCE}
            workers.append(ResourceServer(replay_store=store, **(usual | options)))
        yield issuer, workers


@pytest.mark.parametrize("implementation", list(implementations()))
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"audience": RESOURCE}, {"audience": [RESOURCE, "https://new.example.test"]}),
        ({"resource": RESOURCE}, {"resource": f"{RESOURCE}/", "audience": RESOURCE}),
        ({}, {"token_clock_skew": 60}),
    ],
)
async def test_old_and_new_workers_accept_a_proof_once_during_a_deployment(
    implementation: str, one: Any, other: Any
) -> None:
    key = DPoPKey.generate()
    with Server(implementation=implementation) as server:
        async with two_workers(server, one, other) as (issuer, workers):
            token = issuer.token(jkt=key.jkt)
            for first, second in (workers, reversed(workers)):
                asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token))
                await first.authenticate(asked)
                with pytest.raises(DPoPError) as caught:
                    await second.authenticate(asked)
                assert caught.value.check is Check.JTI


async def test_ten_keys_of_one_user_do_not_fill_the_store_for_others() -> None:
    issuer, store = TestIssuer(ISSUER, audience=RESOURCE), MemoryReplayStore(max_entries=200, max_share=0.1)
    server = ResourceServer(issuer=ISSUER, resource=RESOURCE, jwks=issuer.jwks(), replay_store=store)
    keys = [DPoPKey.generate() for _ in range(10)]
    tokens = [issuer.token(jkt=key.jkt, sub="mallory") for key in keys]
    outcomes: Counter[str] = Counter()
    for _ in range(5):
        for key, token in zip(keys, tokens, strict=True):
            proof = key.proof("GET", f"{RESOURCE}/notes", access_token=token)
            try:
                await server.authenticate(request(token, proof))
            except Unavailable:
                outcomes["refused"] += 1
            else:
                outcomes["accepted"] += 1
    assert outcomes == {"accepted": 20, "refused": 30}
    honest = DPoPKey.generate()
    token = issuer.token(jkt=honest.jkt, sub="alice")
    await server.authenticate(request(token, honest.proof("GET", f"{RESOURCE}/notes", access_token=token)))


class Sliding:
    """A user's own verifier: each time it is asked, a token is valid for one more minute."""

    issuers = (ISSUER,)

    def __init__(self, api: Api) -> None:
        self.api = api

    async def verify(self, token: str) -> AccessToken:
        known = await self.api.tokens.verify(token)
        return replace(known, expires_at=self.api.clock.now + 60)


@pytest.mark.parametrize("after", [1, 299, 359, 361, 400, 899, 929])
async def test_a_proof_is_not_accepted_again_when_its_token_should_have_expired(after: float) -> None:
    api = Api(proof_lifetime=900)
    server = ResourceServer(
        verifier=Sliding(api),
        resource=RESOURCE,
        replay_store=MemoryReplayStore(),
        policy=api.server.policy,
        clock=api.clock,
    )
    asked = api.request()
    await server.authenticate(asked)
    api.clock.now += after
    with pytest.raises(DPoPError) as caught:
        await server.authenticate(asked)
    assert caught.value.check is Check.JTI


class SlidingJWT(JWTAccessTokenVerifier):
    """As `Sliding`, by inheritance: the promise of the class that it extends isn't its own."""

    clock: Clock

    async def verify(self, token: str) -> AccessToken:
        return replace(await super().verify(token), expires_at=self.clock() + 60)


async def test_a_verifier_that_extends_ours_accepts_no_proof_again() -> None:
    clock, key = Clock(), DPoPKey.generate()
    issuer = TestIssuer(ISSUER, audience=RESOURCE, clock=clock)
    verifier = SlidingJWT(issuer=ISSUER, audience=RESOURCE, jwks=issuer.jwks(), clock=clock)
    verifier.clock = clock
    server = ResourceServer(
        verifier=verifier,
        resource=RESOURCE,
        replay_store=MemoryReplayStore(),
        policy=DPoPPolicy(proof_lifetime=900),
        clock=clock,
    )
    token = issuer.token(jkt=key.jkt, exp=int(NOW) + 10_000)
    asked = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=NOW))
    await server.authenticate(asked)
    clock.now += 400
    with pytest.raises(DPoPError) as caught:
        await server.authenticate(asked)
    assert caught.value.check is Check.JTI


@pytest.mark.parametrize("after", [30, 330, 361, 3500, 3590, 3660])
async def test_a_proof_dated_an_hour_ahead_is_not_accepted_again_at_its_own_time(after: float) -> None:
    api = Api(nonce="required")
    lenient = ResourceServer(
        verifier=Sliding(api), resource=RESOURCE, replay_store=api.store, clock=api.clock
    )
    strict = ResourceServer(
        verifier=Sliding(api),
        resource=RESOURCE,
        replay_store=api.store,
        policy=api.server.policy,
        nonces=api.nonces,
        clock=api.clock,
    )
    nonce = api.server_nonces.issue(NOW)
    asked = request(
        api.token,
        api.key.proof("GET", f"{RESOURCE}/notes", access_token=api.token, nonce=nonce, now=NOW + 3600),
    )
    await strict.authenticate(asked)
    api.clock.now += after
    for server in (strict, lenient):
        with pytest.raises(DPoPError):
            await server.authenticate(asked)
