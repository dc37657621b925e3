"""Honest clients and made-up tokens at a failing introspection endpoint, in virtual time, by a seed.

Judged is that a token which was active before never gets 401; that it is accepted soon after the endpoint
works again, whatever an attacker sends; that the same holds for new tokens where nobody attacks; that no
request waits longer than its patience; and that nothing is left over.
"""

import asyncio
import json
import random
from types import SimpleNamespace

import pytest

from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier, _questions, verifier
from dpop_middleware.introspection._endpoint import Answer
from dpop_middleware.introspection._transport import EndpointError
from tests.support.clock import NOW
from tests.support.seeds import first_seed
from tests.support.virtual_time import VirtualLoop

SEEDS = 10
STEPS = 400
API, ISSUER = "https://api.example.com", "https://as.example.com"
ACTIVE = {
    "active": True,
    "aud": API,
    "sub": "ann",
    "client_id": "app",
    "exp": int(NOW) + 10**7,
    "token_type": "DPoP",
    "cnf": {"jkt": "k" * 42 + "A"},
}
HOUR = 3600.0
# The longest pause after failures, the longest question, and a little.
RECOVERY = 2.0 + 2.0 + 0.5
MADE_UP = ("made-up", "odd", "blocked")


class FailingEndpoint:
    """Has the interface of `_endpoint.Endpoint`; `fault` is None while it works."""

    url = f"{ISSUER}/introspect"

    def __init__(self, chance: random.Random) -> None:
        self.random = chance
        self.latency = chance.choice([0.01, 0.1])
        self.fault: EndpointError | float | None = None
        self.active: set[str] = set()
        self.under_way = 0

    async def ask(self, token: str) -> Answer:
        self.under_way += 1
        try:
            return await self._answer(token)
        finally:
            self.under_way -= 1

    async def _answer(self, token: str) -> Answer:
        await asyncio.sleep(self.random.random() * self.latency)
        if isinstance(self.fault, EndpointError):
            raise self.fault
        if self.fault is not None:
            await asyncio.sleep(self.fault)
        if token.startswith("odd"):
            raise EndpointError("the status is 400", of_token=True, declined=True)
        if token.startswith("blocked"):
            raise EndpointError("the status is 403", blocked=True)
        said = ACTIVE if token in self.active else {"active": False}
        return Answer("application/json", json.dumps(said).encode())

    async def aclose(self) -> None:
        assert self.under_way == 0


class Run:
    """One seed: an endpoint, a verifier and its clients."""

    def __init__(self, seed: int, *, attacked: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.random = random.Random(seed)
        self.told = f"seed {seed}"
        self.attacked, self.loop = attacked, loop
        self.step = 0.0
        self.works_since = loop.time()
        self.rate = self.random.choice([20.0, 200.0])
        self.accepted = 0
        self.endpoint = FailingEndpoint(self.random)
        self.verifier = IntrospectionVerifier(
            issuer=ISSUER,
            audience=API,
            client_authentication=ClientSecretBasic(client_id="api", client_secret="s3cret"),
            endpoint=FailingEndpoint.url,
            clock=lambda: NOW + loop.time() + self.step,
            active_lifetime=self.random.choice([0.0, 1.0, 30.0]),
        )

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Let the verifier live in virtual time, with this endpoint."""
        clock = SimpleNamespace(monotonic=self.loop.time)
        patch.setattr(_questions, "time", clock)
        patch.setattr(verifier, "time", clock)
        patch.setattr(verifier, "Endpoint", lambda _: self.endpoint)
        patch.setattr(vars(self.verifier)["_verdicts"], "_monotonic", self.loop.time)

    def issue(self) -> str:
        token = f"token-{len(self.endpoint.active)}"
        self.endpoint.active.add(token)
        return token

    async def outcome(self, token: str) -> str:
        began = self.loop.time()
        try:
            await self.verifier.verify(token)
            found = "accepted"
        except (InvalidToken, Unavailable) as error:
            found = type(error).__name__
        assert self.loop.time() - began < 1.1, self.told
        return found

    async def honest(self, token: str, *, known: bool) -> None:
        works_since = self.works_since
        must = self.endpoint.fault is None and self.loop.time() - works_since > RECOVERY
        found = await self.outcome(token)
        # A fault may have come and gone meanwhile.
        must = must and self.endpoint.fault is None and self.works_since == works_since
        self.accepted += found == "accepted"
        if known or not self.attacked:
            assert found != "InvalidToken", self.told
            assert found == "accepted" or not must, self.told

    def changes(self) -> None:
        dice = self.random.random()
        if dice < 0.005:
            blocked = EndpointError("the status is 403", blocked=True)
            faults: list[EndpointError | float] = [60.0, blocked, EndpointError("the status is 503")]
            self.endpoint.fault = self.random.choice(faults)
        elif dice < 0.015:
            self.endpoint.fault, self.works_since = None, self.loop.time()
        elif dice < 0.02:
            self.step = self.random.choice([-HOUR, 0.0, HOUR])

    async def whole(self) -> int:
        """Return how many honest requests were accepted."""
        known = [self.issue() for _ in range(5)]
        for token in known:
            assert await self.outcome(token) == "accepted", self.told
        async with asyncio.TaskGroup() as requests:
            for number in range(STEPS):
                await asyncio.sleep(self.random.expovariate(self.rate))
                self.changes()
                dice = self.random.random()
                if dice < 0.4 and self.attacked:
                    requests.create_task(self.outcome(f"{self.random.choice(MADE_UP)}-{number}"))
                elif dice < 0.5:
                    requests.create_task(self.honest(self.issue(), known=False))
                elif dice < 0.55:
                    cancelled = requests.create_task(self.outcome(self.random.choice(known)))
                    self.loop.call_later(self.random.random() * 0.05, cancelled.cancel)
                else:
                    requests.create_task(self.honest(self.random.choice(known), known=True))
        self.endpoint.fault = None
        await asyncio.sleep(RECOVERY)
        for token in (self.issue(), known[0]):
            assert await self.outcome(token) == "accepted", self.told
        await self.verifier.aclose()
        return self.accepted


@pytest.mark.parametrize("attacked", [False, True])
def test_honest_clients_are_served_whatever_fails_and_whatever_is_made_up(
    attacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = first_seed()
    accepted = 0
    for seed in range(start, start + SEEDS):
        with monkeypatch.context() as patch, asyncio.Runner(loop_factory=VirtualLoop) as runner:
            run = Run(seed, attacked=attacked, loop=runner.get_loop())
            run.patch(patch)
            accepted += runner.run(run.whole())
    assert accepted > SEEDS * STEPS / 10
