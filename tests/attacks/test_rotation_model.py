"""An issuer that rotates its keys under load, in virtual time, by a seed.

Honest requests carry tokens of keys that the issuer publishes, old and new; others carry forged ones, or are
cancelled; the wall clock steps. Judged is that no honest request gets 401, that it is accepted where the
issuer is well, and that it waits no longer than its patience.
"""

import asyncio
import random
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

from dpop_middleware import JWTAccessTokenVerifier
from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.tokens import AccessToken, jwt, remote_key_source
from dpop_middleware.tokens.admission import MAX_UNAVAILABLE
from dpop_middleware.tokens.jwks import KeySet, parse_key_set
from dpop_middleware.tokens.remote_key_source import Lifetimes, RemoteKeySource
from dpop_middleware.tokens.signed_token import SigningKeys
from tests.support.clock import NOW
from tests.support.issuer_tokens import ISSUER, RESOURCE, IssuerKey, issuer_key, key_set
from tests.support.seeds import first_seed
from tests.support.virtual_time import Steps, VirtualLoop

SEEDS = 5
STEPS = 400
REQUESTS_PER_SECOND = 40.0
BETWEEN_ROTATIONS = 4.0
HOUR = 3600.0


@cache
def token_of(key: IssuerKey, kid: str | None) -> str:
    return key.token(header={"kid": kid or ...}, iat=int(NOW - 2 * HOUR), exp=int(NOW + 9 * HOUR))


@dataclass(frozen=True)
class Published:
    key: IssuerKey
    kid: str | None
    since: float


class Run:
    """One seed: an issuer with two keys at a time, and a verifier that gets them."""

    def __init__(self, seed: int, *, kids: bool, fails: float, loop: asyncio.AbstractEventLoop) -> None:
        self.random = random.Random(seed)
        self.told = f"seed {seed}"
        self.kids, self.fails, self.loop = kids, fails, loop
        self.step = 0.0
        self.rotations = 0
        self.published: list[Published] = []
        self.unavailable = self.accepted = 0
        latency = self.random.choice([0.01, 0.2])
        self.steps = Steps(loop, lambda: self.random.random() * latency)
        self.rotate()
        self.verifier = JWTAccessTokenVerifier(
            issuer=ISSUER,
            audience=RESOURCE,
            jwks="https://as.example.com/jwks",
            max_cached_tokens=0,
            clock=self.wall,
        )

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Let the verifier live in virtual time."""
        lifetimes = Lifetimes(lifetime=self.random.choice([2.0, 300.0]))
        source = RemoteKeySource(self.fetch, lifetimes=lifetimes, clock=self.wall, monotonic=self.loop.time)
        patch.setattr(self.verifier, "_source", source)
        patch.setattr(self.verifier, "_signing_keys", SigningKeys(monotonic=self.loop.time))
        patch.setattr(jwt, "time", SimpleNamespace(monotonic=self.loop.time))
        patch.setattr(remote_key_source, "threading", SimpleNamespace(Thread=self.steps.thread))

    def wall(self) -> float:
        return NOW + self.loop.time() + self.step

    def rotate(self) -> None:
        """Publish one more key, and withdraw all but two."""
        self.rotations += 1
        kid = f"key-{self.rotations}" if self.kids else None
        key = issuer_key("ES256", number=self.rotations % 8, kid=None)
        self.published = [*self.published[-1:], Published(key, kid, self.loop.time())]

    def fetch(self, _: asyncio.AbstractEventLoop) -> KeySet:
        fails = self.random.random() < self.fails
        document = key_set(*(one.key for one in self.published))
        for jwk, one in zip(document["keys"], self.published, strict=True):
            jwk.update({} if one.kid is None else {"kid": one.kid})
        self.steps.pause()
        if fails:
            raise OSError
        return parse_key_set(document)

    def honest(self) -> str:
        """A token of the new key, or of the old one where that stays for a while."""
        newest = self.published[-1]
        stays = self.loop.time() - newest.since < BETWEEN_ROTATIONS - 2
        found = self.published[0] if stays and self.random.random() < 0.4 else newest
        return token_of(found.key, found.kid)

    def forged(self) -> str:
        kid = f"made-up-{self.random.random()}" if self.kids or self.random.random() < 0.5 else None
        return token_of(issuer_key("ES256", number=9, kid=None), kid)

    async def outcome(self, token: str) -> type[Any]:
        try:
            return type(await self.verifier.verify(token))
        except (InvalidToken, Unavailable) as error:
            return type(error)

    async def ask(self, token: str) -> None:
        began = self.loop.time()
        found = await self.outcome(token)
        assert self.loop.time() - began < 1.1, self.told
        self.accepted += found is AccessToken
        self.unavailable += found is Unavailable
        if not self.fails:
            assert found is AccessToken, self.told
        elif self.unavailable < MAX_UNAVAILABLE:
            assert found is not InvalidToken, self.told

    async def whole(self) -> int:
        """Return how many honest requests were accepted."""
        async with asyncio.TaskGroup() as requests:
            for _ in range(STEPS):
                await asyncio.sleep(self.random.expovariate(REQUESTS_PER_SECOND))
                if self.loop.time() - self.published[-1].since >= BETWEEN_ROTATIONS:
                    self.rotate()
                dice = self.random.random()
                if dice < 0.005:
                    self.step = self.random.choice([-HOUR, 0.0, HOUR])
                elif dice < 0.05:
                    requests.create_task(self.outcome(self.forged()))
                elif dice < 0.1:
                    cancelled = requests.create_task(self.outcome(self.honest()))
                    self.loop.call_later(self.random.random() * 0.1, cancelled.cancel)
                else:
                    requests.create_task(self.ask(self.honest()))
        return self.accepted


@pytest.mark.parametrize("fails", [0.0, 0.2])
@pytest.mark.parametrize("kids", [True, False])
def test_no_honest_request_gets_401_while_keys_rotate(
    kids: bool, fails: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = first_seed()
    accepted = 0
    for seed in range(start, start + SEEDS):
        with monkeypatch.context() as patch, asyncio.Runner(loop_factory=VirtualLoop) as runner:
            run = Run(seed, kids=kids, fails=fails, loop=runner.get_loop())
            run.patch(patch)
            accepted += runner.run(run.whole())
    # Of all seeds: one whose first requests to the issuer all fail may accept nothing.
    assert accepted > SEEDS * STEPS / 5
