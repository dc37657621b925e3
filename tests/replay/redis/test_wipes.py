"""What clients see of a resource server whose store loses its entries: no replay, and 503 for a bounded time.

Proofs from before the loss can't be judged any more. Without nonces a proof counts as made `clock_skew`
seconds before its `iat`, with a nonce when the nonce was issued.
"""

import asyncio
import itertools
import json
import math
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx2
import pytest
from starlette.types import ASGIApp

from dpop_middleware import DPoPMiddleware, DPoPPolicy, HMACNonceProvider, RedisReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay.redis.writes import FENCED, NO_ANSWER
from dpop_middleware.testing import TestIssuer
from tests.support.adapters import reached, scope_of
from tests.support.asgi import Answer, call
from tests.support.load import HANGS, RECOVERY, SLACK
from tests.support.replay import ENDLESS
from tests.support.running import running
from tests.support.valkey import Server

ORIGIN = "https://api.example.test"


class Client:
    """A client with a token, which makes its proofs by hand."""

    def __init__(self, issuer: TestIssuer) -> None:
        self._key = DPoPKey.generate()
        self._token = issuer.token(jkt=self._key.jkt)

    def proof(self, now: float | None = None) -> str:
        """A new proof, by a clock that shows `now` or by a correct one; its `iat` has whole seconds."""
        return self._key.proof("GET", f"{ORIGIN}/notes", access_token=self._token, now=now)

    async def get(self, app: ASGIApp, proof: str) -> Answer:
        return await call(
            app, scope_of("/notes", [("Authorization", f"DPoP {self._token}"), ("DPoP", proof)])
        )


def description(answer: Answer) -> str:
    return str(json.loads(answer.body)["error_description"])


def retry_after(answer: Answer) -> int:
    (seconds,) = answer.values("retry-after")
    return int(seconds)


@dataclass
class Diary:
    """The answers to a client that asked all the time: `waits` by the `iat` of its proofs, all in seconds.

    `noticed` and `accepted_after` are moments of `running`: when the loss was noticed, and when proofs were
    accepted again.
    """

    waits: list[tuple[int, int]] = field(default_factory=list)
    noticed: float = 0.0
    accepted_after: float = 0.0
    accepted_at: float = 0.0
    accepted: str = ""


async def asks_until_accepted(client: Client, apps: Iterable[ASGIApp], used: Iterable[str]) -> Diary:
    """Present a fresh proof ten times a second, to another worker each time, and a thief one of `used`."""
    diary, thief = Diary(), itertools.cycle(used)
    for app in itertools.cycle(apps):
        assert (await client.get(app, next(thief))).status in {401, 503}
        now = time.time()
        proof = client.proof(now)
        answer = await client.get(app, proof)
        if answer.status == 200:
            diary.accepted_at, diary.accepted_after, diary.accepted = now, running(), proof
            break
        assert answer.status == 503
        if description(answer) == FENCED:
            diary.noticed = diary.noticed or running()
            diary.waits.append((int(now), retry_after(answer)))
        else:
            assert (description(answer), retry_after(answer)) == (NO_ANSWER, 1)
        await asyncio.sleep(0.1)
    return diary


async def waits_as_told(client: Client, app: ASGIApp) -> int:
    """How often a client that obeys Retry-After had to wait because the store had lost entries."""
    times = 0
    while (answer := await client.get(app, client.proof())).status != 200:
        assert answer.status == 503
        times += description(answer) == FENCED
        await asyncio.sleep(retry_after(answer))
    return times


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(DPoPPolicy(clock_skew=1), id="1 s of clock skew"),
        pytest.param(DPoPPolicy(), id="default policy", marks=pytest.mark.slow),
    ],
)
async def test_a_restart_without_persistence_lets_no_replay_pass(server: Server, policy: DPoPPolicy) -> None:
    """Two workers; without nonces an honest client is accepted after `clock_skew` seconds, as announced."""
    skew, issuer = int(policy.clock_skew), TestIssuer()
    client = Client(issuer)
    workers = [
        ResourceServer(
            issuer=issuer.issuer,
            resource=ORIGIN,
            jwks=issuer.jwks(),
            replay_store=RedisReplayStore.from_url(server.url, timeout=ENDLESS),
            policy=policy,
        )
        for _ in range(2)
    ]
    apps = [DPoPMiddleware(reached, worker) for worker in workers]
    # By correct clocks, and by clocks that are as far ahead as is allowed.
    used = [client.proof(time.time() + ahead) for _ in range(100) for ahead in (0, skew)]
    for app, proof in zip(itertools.cycle(apps), used, strict=False):
        assert (await client.get(app, proof)).status == 200
    server.kill()
    killed = time.time()
    for proof in (used[0], client.proof()):
        answer = await client.get(apps[0], proof)
        assert (answer.status, description(answer), retry_after(answer)) == (503, NO_ANSWER, 1)
    server.start()
    back = running()
    async with asyncio.timeout(skew + WORKER_CLOCK_MARGIN + HANGS):
        diary, told_to_wait = await asyncio.gather(
            asks_until_accepted(client, apps, used), waits_as_told(client, apps[1])
        )
    assert diary.noticed - back < RECOVERY + SLACK
    # Retry-After counts down to one second, the same for all: until then every proof is refused, from then on
    # none is.
    (due,) = {iat + seconds for iat, seconds in diary.waits}
    assert diary.waits[-1][0] < due <= int(diary.accepted_at)
    assert told_to_wait == 1
    # The `iat` of proofs has whole seconds: that costs up to one more.
    assert killed + skew + WORKER_CLOCK_MARGIN <= due
    assert diary.accepted_after - back < skew + WORKER_CLOCK_MARGIN + 1 + RECOVERY + SLACK
    for app in apps:
        assert (await client.get(app, diary.accepted)).status == 401
        for proof in used:
            assert (await client.get(app, proof)).status in {401, 503}
            assert (await client.get(app, client.proof())).status == 200
    for worker in workers:
        await worker.aclose()


class Frozen:
    """A clock that shows the same until somebody waits, which takes no real time."""

    def __init__(self, now: float) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    async def wait(self, seconds: float) -> None:
        self._now += seconds


class Wall:
    """The wall clock."""

    def __call__(self) -> float:
        return time.time()

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def into(step: int, phase: float) -> Callable[[], Frozen]:
    """Return a function that makes a clock at `phase` seconds after the beginning of a step."""
    return lambda: Frozen(math.ceil(time.time() / step) * step + phase)


@pytest.mark.parametrize(
    ("step", "clock_of"),
    [
        pytest.param(3, into(3, 0.5), id="early in a step"),
        pytest.param(3, into(3, 2), id="late in a step"),
        pytest.param(60, into(60, 1), id="early in a step of a minute"),
        pytest.param(60, into(60, 58), id="late in a step of a minute"),
        pytest.param(1, Wall, id="by the clock on the wall"),
    ],
)
async def test_a_flush_where_nonces_are_required_lets_no_replay_pass(
    server: Server, step: int, clock_of: Callable[[], Frozen | Wall]
) -> None:
    """A client that obeys Retry-After and uses the nonces that it gets is back as soon as clocks allow."""
    clock = clock_of()
    issuer = TestIssuer(clock=clock)
    api = ResourceServer(
        issuer=issuer.issuer,
        resource=ORIGIN,
        jwks=issuer.jwks(),
        replay_store=RedisReplayStore.from_url(server.url, timeout=ENDLESS),
        nonces=HMACNonceProvider(secrets.token_bytes(32), lifetime=5 * step, step=step),
        policy=DPoPPolicy(nonce="required"),
        clock=clock,
    )
    app = DPoPMiddleware(reached, api)
    transport = httpx2.ASGITransport(app=app)
    async with api, httpx2.AsyncClient(transport=transport, base_url=ORIGIN, auth=issuer.auth()) as client:
        used = await client.get("/notes")
        assert used.status_code == 200
        server.run("FLUSHALL")
        waits: list[int] = []
        while (response := await client.get("/notes")).status_code != 200:
            assert (response.status_code, response.json()) == (503, {"error_description": FENCED})
            assert await presented_again(app, used) in {401, 503}
            assert "DPoP-Nonce" not in response.headers
            waits.append(int(response.headers["Retry-After"]))
            await clock.wait(waits[-1])
        # It waits once, for the time in Retry-After; then it is challenged with a nonce from after the loss.
        assert len(waits) == 1
        assert waits[0] <= WORKER_CLOCK_MARGIN + 2
        assert await presented_again(app, used) == 401
        assert await presented_again(app, response) == 401
        assert (await client.get("/notes")).status_code == 200


async def presented_again(app: ASGIApp, response: httpx2.Response) -> int:
    """The status of a thief's request with the proof that was answered with `response`."""
    fields = [(name, response.request.headers[name]) for name in ("Authorization", "DPoP")]
    return (await call(app, scope_of("/notes", fields))).status
