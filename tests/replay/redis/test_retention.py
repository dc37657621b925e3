"""Workers with different policies on one store: none accepts what another has forgotten."""

import asyncio
import contextlib
import gc
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Self

import pytest
from redis.exceptions import InvalidResponse

from dpop_middleware import (
    DPoPPolicy,
    HMACNonceProvider,
    Nonce,
    NonceProvider,
    RedisReplayStore,
    ResourceRequest,
    ResourceServer,
)
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import DPoPError, Unavailable, UseDPoPNonce
from dpop_middleware.replay.redis.resp import FASTEST, LARGEST_STEP, ServerError
from dpop_middleware.replay.redis.retention import LivingRetentions, PublishedRetentions
from dpop_middleware.replay.redis.writes import FORGOTTEN
from dpop_middleware.testing import TestIssuer
from tests.support.api import RESOURCE, Clock, request
from tests.support.batches import MOVED
from tests.support.replay import ENDLESS, answer, answers, entry
from tests.support.scripted import ScriptedServer
from tests.support.valkey import HOST, Server

NOW = 1_800_000_000.0


def worker(
    server: Server,
    issuer: TestIssuer,
    clock: Clock,
    policy: DPoPPolicy,
    *,
    retention: float = 0,
    nonces: NonceProvider | None = None,
) -> ResourceServer:
    return ResourceServer(
        issuer=issuer.issuer,
        resource=RESOURCE,
        jwks=issuer.jwks(),
        replay_store=RedisReplayStore.from_url(server.url, timeout=ENDLESS, retention=retention),
        nonces=nonces or HMACNonceProvider(bytes(32)),
        policy=policy,
        clock=clock,
    )


def presented(key: DPoPKey, token: str, now: float, nonce: str | None = None) -> ResourceRequest:
    """Return a request with a new proof, which is dated `now`."""
    proof = key.proof("GET", f"{RESOURCE}/notes", access_token=token, nonce=nonce, now=now)
    return request(token, proof)


NARROW = DPoPPolicy(proof_lifetime=60, clock_skew=15)


@pytest.mark.parametrize(
    "wide",
    [
        DPoPPolicy(proof_lifetime=300),
        DPoPPolicy(clock_skew=60),
        DPoPPolicy(nonce="fallback"),
        DPoPPolicy(nonce="required"),
        DPoPPolicy(proof_lifetime=3000),
    ],
    ids=["lifetime", "skew", "fallback", "required", "an hour"],
)
async def test_no_worker_accepts_a_proof_that_one_with_a_narrow_policy_has_forgotten(
    server: Server, wide: DPoPPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(time.time())
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    narrow, other = worker(server, issuer, clock, NARROW), worker(server, issuer, clock, wide)
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 10_000)
    nonce = HMACNonceProvider(bytes(32)).for_server(purpose="resource server", server="").issue(clock.now)

    def asked() -> object:
        return presented(key, token, clock.now, nonce)

    used = asked()
    await narrow.authenticate(used)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    # The entry has expired, by the server's clock and by the workers'.
    server.run("DEL", *server.run("KEYS", "dpop:??????????????????????"))
    # Its worker may have ended as well, for as long as the other one would accept the proof.
    later = wide.proof_lifetime - 100 if wide.proof_lifetime > 1000 else 81
    clock.now += later
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"), pytest.raises(DPoPError) as caught:
        await other.authenticate(used)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert isinstance(caught.value, Unavailable | UseDPoPNonce)
    assert "remembers proofs for 80 s" in caplog.text
    # A new one is accepted, in both.
    if caught.value.nonce is not None:
        nonce = caught.value.nonce
    await other.authenticate(asked())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await narrow.authenticate(asked())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await narrow.aclose()
    await other.aclose()


class FailingAtFirst(HMACNonceProvider):
    """Issues no nonce at first."""

    def __init__(self) -> None:
        super().__init__(bytes(32))
        self.fails = True
        inner = super().for_server(purpose="resource server", server="")
        self._issue, self._check = inner.issue, inner.check

    def for_server(self, *, purpose: str, server: str) -> Self:
        return self

    def issue(self, now: float) -> str:
        if self.fails:
            raise ConnectionError
        return self._issue(now)

    def check(self, nonce: str, now: float) -> Nonce | None:
        return self._check(nonce, now)


@pytest.mark.parametrize("with_nonce", [True, False])
async def test_a_nonce_provider_that_fails_at_first_makes_no_server_refuse_older_nonces(
    server: Server, with_nonce: bool
) -> None:
    """For how long its nonces are valid isn't known then, and entries are kept for ten minutes."""
    clock, wide = Clock(time.time()), DPoPPolicy(nonce="fallback")
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    failing, other = (worker(server, issuer, clock, wide, nonces=one) for one in (FailingAtFirst(), None))
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 10_000)

    async def ask(server: ResourceServer, nonce: str | None) -> None:
        await server.authenticate(presented(key, token, clock.now, nonce))

    nonce = HMACNonceProvider(bytes(32)).for_server(purpose="resource server", server="").issue(clock.now)
    if with_nonce:
        await ask(failing, nonce)
    else:
        with pytest.raises(Unavailable, match="^a nonce can't be issued now$"):
            await ask(failing, None)
    clock.now += 200
    await ask(other, nonce)
    await failing.aclose()
    await other.aclose()


async def test_a_nonce_provider_that_fails_at_first_revives_no_policy_that_ended_long_ago(
    server: Server,
) -> None:
    """As when nonces are switched on, and their provider can't be reached for the first minute."""
    clock, provider = Clock(time.time()), FailingAtFirst()
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 20_000)

    async def ask(server: ResourceServer, nonce: str | None = None) -> None:
        await server.authenticate(presented(key, token, clock.now, nonce))

    former = worker(server, issuer, clock, NARROW)
    await ask(former)
    await former.aclose()
    clock.now += 7200
    api = worker(server, issuer, clock, DPoPPolicy(nonce="fallback"), nonces=provider)
    with pytest.raises(Unavailable, match="^a nonce can't be issued now$"):
        await ask(api)
    provider.fails = False
    nonce = provider.issue(clock.now)
    clock.now += 200
    await ask(api, nonce)
    await api.aclose()


async def test_with_a_longer_retention_set_first_a_wider_policy_refuses_no_request(server: Server) -> None:
    clock = Clock(time.time())
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    wide = DPoPPolicy(proof_lifetime=300)
    narrow = worker(server, issuer, clock, NARROW, retention=400)
    other = worker(server, issuer, clock, wide)
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 10_000)
    asked = partial(presented, key, token)
    used, fresh = asked(clock.now), asked(clock.now)
    await narrow.authenticate(used)
    # The narrow one has it for as long as the wide one may ask.
    assert server.run("PTTL", *server.run("KEYS", "dpop:??????????????????????")) > 390_000
    clock.now += 200
    with pytest.raises(DPoPError, match="used before"):
        await other.authenticate(used)
    await other.authenticate(fresh)


async def test_an_entry_outlives_its_own_workers_acceptance(server: Server) -> None:
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    item = entry(lifetime=5)._replace(namespace="n", made_at=time.time(), retention=95.0)
    assert await store.add(item) is True
    assert server.run("PTTL", f"dpop:{item.key}") > 94_000
    await store.aclose()


@pytest.mark.parametrize(("ahead", "kept"), [(0.0, 400), (25.0, 425), (-25.0, 400), (-math.inf, 400)])
async def test_an_entry_is_kept_for_the_published_time_after_its_proof_was_made(
    server: Server, ahead: float, kept: int
) -> None:
    """Its `iat` may lie ahead: it is from then on that another worker's policy counts."""
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS, retention=400)
    item = entry(lifetime=5)
    assert await store.add(item._replace(namespace="n", iat=item.now + ahead, retention=95.0)) is True
    # By the fastest clock that a server may have.
    lives = (server.run("PTTL", f"dpop:{item.key}") / 1000 - LARGEST_STEP) / FASTEST
    assert kept - 1 < lives <= kept + 0.001
    await store.aclose()


def let_expire(server: Server, clock: Clock) -> None:
    """Let the time pass after which the only entry of `server` may expire, and remove it."""
    (name,) = server.run("KEYS", "dpop:??????????????????????")
    clock.now += (server.run("PTTL", name) / 1000 - LARGEST_STEP) / FASTEST
    server.run("DEL", name)


@pytest.mark.parametrize("retention", [0, 400])
async def test_no_worker_accepts_a_proof_from_ahead_that_another_has_forgotten(
    server: Server, retention: float
) -> None:
    """What the narrow one keeps for longer than its own policy needs, by its nonces or by `retention`."""
    clock = Clock(time.time())
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    narrow = worker(server, issuer, clock, replace(NARROW, nonce="fallback"), retention=retention)
    other = worker(server, issuer, clock, DPoPPolicy(proof_lifetime=380, clock_skew=15))
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 10_000)
    used = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=clock.now + 14))
    await narrow.authenticate(used)
    let_expire(server, clock)
    with pytest.raises(DPoPError):
        await other.authenticate(used)
    await narrow.aclose()
    await other.aclose()


@pytest.mark.parametrize(("retention", "lifetime"), [(0, 250), (400, 380)])
async def test_no_worker_accepts_by_its_iat_a_proof_from_ahead_that_another_accepted_by_its_nonce(
    server: Server, retention: float, lifetime: float
) -> None:
    """Where a nonce is judged, the client's clock may be wrong; others count the retention from its `iat`."""
    clock = Clock(time.time())
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    by_nonce = worker(server, issuer, clock, DPoPPolicy(nonce="required"), retention=retention)
    by_iat = worker(server, issuer, clock, DPoPPolicy(proof_lifetime=lifetime))
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 10_000)
    nonce = HMACNonceProvider(bytes(32)).for_server(purpose="resource server", server="").issue(clock.now)
    used = request(
        token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, nonce=nonce, now=clock.now + 100)
    )
    await by_nonce.authenticate(used)
    let_expire(server, clock)
    with pytest.raises(DPoPError):
        await by_iat.authenticate(used)
    await by_nonce.aclose()
    await by_iat.aclose()


async def test_after_a_loss_no_worker_accepts_what_one_with_a_larger_clock_skew_may_have_accepted(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(time.time())
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    strict = worker(server, issuer, clock, DPoPPolicy(clock_skew=10))
    lax = worker(server, issuer, clock, DPoPPolicy(clock_skew=200))
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 10_000)
    asked = partial(presented, key, token)
    used, begin = asked(clock.now + 190), clock.now
    await lax.authenticate(used)
    await strict.authenticate(asked(begin))
    server.run("FLUSHALL")
    with pytest.raises(Unavailable):
        await strict.authenticate(asked(begin))
    assert "clock_skew" not in caplog.text
    # To the strict one alone it is younger than the loss.
    clock.now = begin + 185
    with pytest.raises(Unavailable) as caught:
        await strict.authenticate(used)
    assert "accepts proofs that are 200 s ahead (clock_skew), this one 10:" in caplog.text
    assert "; if it judges other requests than this one, give one of them a replay_namespace\n" in caplog.text
    assert caught.value.retry_after in {15, 16}
    await lax.aclose()
    # The other one never comes back, and its proofs have ended.
    clock.now = begin + 201
    await strict.authenticate(asked(clock.now + 10))
    await strict.aclose()


@pytest.mark.parametrize("ahead", [-50, 0, 30])
async def test_after_a_loss_a_worker_without_nonces_accepts_no_proof_that_another_accepted_by_its_nonce(
    server: Server, ahead: float
) -> None:
    """Where the client's clock is right within the `clock_skew`: beyond, it looks newer than the loss."""
    start = time.time()
    clock = Clock(start)
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    by_nonce = worker(server, issuer, clock, DPoPPolicy(nonce="required"))
    by_iat = ResourceServer(
        issuer=issuer.issuer,
        resource=RESOURCE,
        jwks=issuer.jwks(),
        replay_store=RedisReplayStore.from_url(server.url, timeout=ENDLESS),
        clock=clock,
    )
    token = issuer.token(jkt=key.jkt, exp=int(start) + 10_000)
    nonce = HMACNonceProvider(bytes(32)).for_server(purpose="resource server", server="").issue(start)
    asked = partial(presented, key, token)
    used = asked(start + ahead, nonce)
    await by_nonce.authenticate(used)
    await by_iat.authenticate(asked(start))
    server.run("FLUSHALL")
    with pytest.raises(Unavailable):
        await by_iat.authenticate(asked(start))
    for clock.now in (start + second for second in range(150)):
        with pytest.raises(DPoPError):
            await by_iat.authenticate(used)
        # A refused proof is remembered all the same.
        if names := server.run("KEYS", "dpop:??????????????????????"):
            server.run("DEL", *names)
    await by_nonce.aclose()
    await by_iat.aclose()


@pytest.mark.parametrize("skew", [0, 10])
async def test_after_a_loss_the_nonce_alone_dates_a_proof_however_far_its_iat_is_from_it(
    server: Server, skew: int
) -> None:
    """The client's clock is ahead by exactly the skew: the `iat` alone would give the same moment."""
    clock = Clock(int(time.time()))
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    strict = worker(server, issuer, clock, DPoPPolicy(nonce="fallback", clock_skew=skew))
    lax = worker(server, issuer, clock, DPoPPolicy(nonce="fallback", clock_skew=200))
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 10_000)

    def asked(nonce: str | None = None) -> ResourceRequest:
        return presented(key, token, clock.now + skew, nonce)

    for one in (lax, strict):
        await one.authenticate(asked())
    server.run("FLUSHALL")
    # The first finds the loss, and nonces are younger ten seconds later.
    with pytest.raises(Unavailable):
        await strict.authenticate(asked())
    clock.now += 11
    with pytest.raises(UseDPoPNonce) as caught:
        await strict.authenticate(asked())
    await strict.authenticate(asked(caught.value.nonce))
    await strict.aclose()
    await lax.aclose()


async def test_retentions_of_another_namespace_do_not_count(server: Server) -> None:
    store, other = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
    made_at = time.time() - 50
    for name, retention in (("narrow", 10.0), ("wide", 300.0)):
        item = entry()._replace(namespace=name, made_at=time.time(), retention=retention)
        assert await store.add(item) is True
    old = entry()._replace(namespace="wide", made_at=made_at, retention=300.0)
    assert await other.add(old) is True
    old = entry()._replace(namespace="narrow", made_at=made_at, retention=300.0)
    error = await answer(other, old)
    assert isinstance(error, Unavailable)
    assert (error.description, error.newer_proof) == (FORGOTTEN, True)
    await store.aclose()
    await other.aclose()


async def test_a_retention_is_published_as_long_as_its_entries_come_however_busy_another_namespace_is(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One API in a process has many requests, another few: they come between two looks of the first."""
    store, other = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
    loop, passed = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + passed)
    for passed in (0.0, 700.0):
        now = time.time() + passed
        for name, retention in (("busy", 95.0), ("narrow", 80.0)):
            made = entry(now=now)._replace(namespace=name, made_at=now, retention=retention)
            assert await store.add(made) is True
    # Its proof is forgotten by now, and this worker's policy would accept it.
    passed, now = passed + 100, now + 100
    old = entry(now=now)._replace(namespace="narrow", made_at=now - 100, retention=300.0)
    error = await answer(other, old)
    assert isinstance(error, Unavailable)
    assert error.description == FORGOTTEN
    await store.aclose()
    await other.aclose()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_retention_ends_ten_minutes_after_its_last_worker_for_those_who_read_it_until_then_too(
    server: Server, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    ended = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    store = RedisReplayStore.from_url(f"{server.url}?protocol={protocol}", timeout=ENDLESS)
    loop, passed, begin = asyncio.get_running_loop(), 0.0, time.time()
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + passed)

    async def answer_to_an_older_proof() -> bool | Unavailable:
        now = begin + passed
        made = entry(now=now)._replace(namespace="n", made_at=now - 100, retention=300.0)
        return await answer(store, made)

    item = entry(now=begin)._replace(namespace="n", made_at=begin, retention=80.0, ahead=30.0)
    assert await ended.add(item) is True
    await ended.aclose()
    for moment in (1.0, 300.0, 629.0):
        passed = moment
        assert isinstance(await answer_to_an_older_proof(), Unavailable)
    passed = 632.0
    assert await answer_to_an_older_proof() is True
    await store.aclose()


async def test_every_retention_of_a_batch_is_published(server: Server) -> None:
    """Two APIs in a process may have one namespace and different policies."""
    store, other = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
    item = entry()._replace(namespace="n", made_at=time.time())
    both = [item._replace(key=entry().key, retention=retention) for retention in (80.0, 300.0)]
    assert await answers(store, both) == {True: 2}
    error = await answer(other, item._replace(made_at=item.made_at - 100, retention=300.0))
    assert isinstance(error, Unavailable)
    assert error.description == FORGOTTEN
    await store.aclose()
    await other.aclose()


async def test_a_server_that_refuses_the_sorted_set_still_judges_entries() -> None:
    async with ScriptedServer(
        lambda words: b"-NOPERM no\r\n" if words[0].startswith(b"Z") else None
    ) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        for _ in range(3):
            item = entry()._replace(made_at=time.time(), retention=95.0)
            assert await store.add(item) is True
            await asyncio.sleep(0)
        assert [words[0] for words in server.commands].count(b"ZADD") == 1
        await store.aclose()


def test_the_retention_of_an_ended_worker_counts_for_ten_minutes() -> None:
    living = LivingRetentions()
    living.note({("n", 50.0): NOW + 600}, NOW)
    living.note({("n", 95.0): NOW + 900}, NOW)
    assert living.shortest(NOW + 600)["n"] == 50.0
    assert living.shortest(NOW + 601)["n"] == 95.0
    assert "other" not in living.shortest(NOW)


def test_a_retention_is_published_at_each_change_and_every_second() -> None:
    published = PublishedRetentions(b"dpop", LivingRetentions())
    published.connected(b"")
    assert published.exchange(set(), at=0, now=NOW) == ()
    assert len(published.exchange({("n", 95.0, 30.0)}, at=0, now=NOW)) == 2
    assert published.exchange({("n", 95.0, 30.0)}, at=0.9, now=NOW) == ()
    assert published.exchange({("n", 96.0, 30.0)}, at=0.9, now=NOW) != ()
    assert published.exchange({("m", 96.0, 30.0)}, at=1.0, now=NOW) != ()
    assert published.exchange({("m", 96.0, 30.0)}, at=1.1, now=NOW) == ()
    assert published.exchange({("n", 96.0, 30.0)}, at=1.1, now=NOW) != ()
    assert published.exchange({("n", 96.0, 30.0), ("m", 96.0, 30.0)}, at=1.9, now=NOW) == ()
    assert published.exchange({("n", 96.0, 30.0)}, at=2.0, now=NOW) != ()


@pytest.mark.parametrize(("retention", "since"), [(95.0, NOW), (600.0, NOW), (600.5, NOW - 0.5)])
def test_an_ended_worker_counts_until_its_last_proofs_are_too_old_here(
    retention: float, since: float
) -> None:
    published = PublishedRetentions(b"dpop", LivingRetentions())
    published.connected(b"")
    told, alive = published.exchange({("n", retention, 30.0)}, at=0, now=NOW)
    assert b"%.3f" % (NOW + 630) in told
    assert b"%.3f" % since in alive


@pytest.mark.parametrize(
    "reply",
    [
        [b"soon n", b"%d" % NOW],
        [b"nan n", b"%d" % NOW],
        [b"-1 n", b"%d" % NOW],
        [b"inf n", b"%d" % NOW],
        [b"80.0 n", b"soon"],
        [[b"80.0 n", 10**400]],
        [],
        ServerError("ERR"),
    ],
)
def test_invalid_retentions_are_ignored(reply: object) -> None:
    living = LivingRetentions()
    published = PublishedRetentions(b"dpop", living)
    published.read(1, reply, now=NOW)
    assert "n" not in living.shortest(NOW)
    assert not published.is_forbidden


@pytest.mark.parametrize(
    "reply",
    [
        b"OK",
        None,
        7,
        [b"80.0 n"],
        [b"80.0 n", b"%d" % NOW, b"95.0 n"],
        [None, b"%d" % NOW],
        [b"80.0 n", None],
        [[b"80.0 n", NOW], b"95.0 n"],
        [[b"80.0 n"]],
        [[b"80.0 n", NOW, b"95.0 n"]],
        [[b"80.0 n", [NOW]]],
    ],
)
def test_what_is_no_reply_to_the_question_for_retentions_puts_the_connection_in_doubt(reply: object) -> None:
    published = PublishedRetentions(b"dpop", LivingRetentions())
    with pytest.raises(InvalidResponse, match="ZRANGEBYSCORE"):
        published.read(1, reply, now=NOW)


async def test_after_a_loss_a_proof_that_is_judged_by_its_nonce_is_no_older_than_that(server: Server) -> None:
    strict, lax = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
    now = time.time()
    known = entry(now=now)._replace(namespace="n", made_at=now, retention=305.0, iat=now, ahead=10.0)
    assert await lax.add(known._replace(ahead=200.0)) is True
    assert await strict.add(known._replace(key="before")) is True
    server.run("FLUSHALL")
    assert isinstance(await answer(strict, known), Unavailable)
    later = now + 20
    by_nonce = known._replace(key="nonce", now=later, not_before=later, made_at=later, iat=later + 100)
    assert await strict.add(by_nonce) is True
    by_iat = by_nonce._replace(key="iat", not_before=later + 90, made_at=later + 100, by_iat=True)
    assert isinstance(await answer(strict, by_iat), Unavailable)
    # Nobody differs in another namespace.
    assert await strict.add(by_iat._replace(namespace="other", key="other")) is True
    await strict.aclose()
    await lax.aclose()


async def test_after_a_loss_a_worker_that_may_not_publish_its_clock_skew_still_heeds_it(
    server: Server,
) -> None:
    server.run("ACL", "SETUSER", "api", "on", ">secret", "~dpop:*", "+@all", "-zadd")
    lax = RedisReplayStore.from_url(f"redis://api:secret@{HOST}:{server.port}", timeout=ENDLESS)
    near, far = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
    now = time.time()
    known = entry(now=now)._replace(namespace="n", made_at=now, retention=305.0, iat=now, by_iat=True)
    for store, ahead in ((near, 10.0), (far, 30.0), (lax, 200.0)):
        made = known._replace(key=f"{ahead}", ahead=ahead, not_before=now - ahead)
        assert await store.add(made) is True
    server.run("FLUSHALL")
    again = known._replace(iat=now + 150, ahead=200.0, not_before=now - 50)
    assert isinstance(await answer(lax, again), Unavailable)
    for store in (lax, near, far):
        await store.aclose()


def read(living: LivingRetentions, own: float, *members: bytes, now: float = NOW) -> None:
    published = PublishedRetentions(b"dpop", living)
    published.connected(b"")
    published.exchange({("n", own, 10.0)}, at=0, now=now)
    score = b"%.3f" % (now + 630)
    published.read(1, [word for member in members for word in (member, score)], now=now)


def test_how_far_ahead_a_worker_goes_counts_for_as_long_as_any_connection_read() -> None:
    living = LivingRetentions()
    assert living.ahead == {}
    near, far = ("n", 10.0), ("n", 30.0)
    living.note_ahead({near: NOW + 100, far: NOW + 100}, NOW)
    living.note_ahead({near: NOW + 100, far: NOW + 50}, NOW)
    living.note_ahead({}, NOW + 100)
    assert living.ahead == {"n": 30.0}


@pytest.mark.parametrize(("own", "until"), [(50.0, 600.0 + 30.0), (900.0, 900.0 + 30.0)])
def test_how_far_ahead_a_worker_went_that_has_ended_counts_until_its_last_proofs_are_too_old_here(
    own: float, until: float
) -> None:
    living = LivingRetentions()
    read(living, own, b"ahead=10.0 n", b"ahead=30.0 n", b"ahead=30.0 m", b"95.0 n")
    assert living.ahead == {"n": 30.0}
    read(living, own, b"ahead=10.0 n", now=NOW + until)
    assert living.ahead == {"n": 30.0}
    read(living, own, b"ahead=10.0 n", now=NOW + until + 0.1)
    assert living.ahead == {}


async def test_the_retention_of_an_ended_worker_counts_until_its_last_proofs_from_ahead_are_too_old(
    server: Server,
) -> None:
    """The worker with a wider policy starts only then, and has never seen the other."""
    clock = Clock(time.time())
    issuer, key = TestIssuer(audience=RESOURCE, clock=clock), DPoPKey.generate()
    narrow = worker(server, issuer, clock, DPoPPolicy(clock_skew=120))
    token = issuer.token(jkt=key.jkt, exp=int(clock.now) + 10_000)
    used = request(token, key.proof("GET", f"{RESOURCE}/notes", access_token=token, now=clock.now + 110))
    await narrow.authenticate(used)
    await narrow.aclose()
    server.run("DEL", *server.run("KEYS", "dpop:??????????????????????"))
    clock.now += 650
    wide = worker(server, issuer, clock, DPoPPolicy(proof_lifetime=550))
    with pytest.raises(Unavailable):
        await wide.authenticate(used)
    await wide.aclose()


def test_what_a_worker_wrote_is_readable_until_its_proofs_from_ahead_are_too_old() -> None:
    published = PublishedRetentions(b"dpop", LivingRetentions())
    published.connected(b"")
    told, _ = published.exchange({("n", 95.0, 30.0)}, at=0, now=NOW)
    assert b"%.3f\r\n$6\r\n95.0 n\r\n" % (NOW + 630) in told
    assert b"%.3f\r\n$12\r\nahead=30.0 n\r\n" % (NOW + 630) in told


@pytest.mark.parametrize(
    "member", [b"ahead=-1.0 n", b"ahead=nan n", b"ahead=86401 n", b"ahead= n", b"95.0 n"]
)
def test_an_invalid_distance_is_ignored_and_a_version_without_one_does_no_harm(member: bytes) -> None:
    living = LivingRetentions()
    read(living, 95.0, b"ahead=10.0 n", member)
    assert living.ahead == {}


def test_a_retention_counts_for_its_published_time() -> None:
    living = LivingRetentions()
    living.note({("n", 10.0): 600.0}, 0.0)
    living.note({("n", 10.0): 5.0}, 0.0)
    assert living.shortest(599.0)["n"] == 10.0
    assert "n" not in living.shortest(601.0)


class Compared(float):
    """A number; while it is compared, another thread does something."""

    meanwhile: Callable[[], object] | None = None

    def __lt__(self, other: float) -> bool:
        self._another_thread_runs()
        return float(self) < other

    def __gt__(self, other: float) -> bool:
        self._another_thread_runs()
        return float(self) > other

    __hash__ = float.__hash__

    def _another_thread_runs(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


def test_a_retention_may_end_in_two_event_loops_at_once() -> None:
    """One store may serve several, each in a thread of its own."""
    living, end = LivingRetentions(), Compared(5.0)
    living.note({("n", 10.0): end}, 0.0)
    end.meanwhile = lambda: living.note({}, 600.0)
    living.note({}, 600.0)
    assert "n" not in living.shortest(600.0)
    assert end.meanwhile is None


def test_what_two_event_loops_find_at_once_counts() -> None:
    living, end = LivingRetentions(), NOW + 600
    of_one, of_other = Compared(10.0), Compared(30.0)
    of_one.meanwhile = lambda: living.note({("n", 5.0): end}, NOW)
    living.note({("n", 20.0): end, ("n", of_one): end}, NOW)
    assert living.shortest(NOW)["n"] == 5.0
    of_other.meanwhile = lambda: living.note_ahead({("n", 60.0): end}, NOW)
    living.note_ahead({("n", 20.0): end, ("n", of_other): end}, NOW)
    assert living.ahead == {"n": 60.0}
    assert of_one.meanwhile is of_other.meanwhile is None


@contextlib.contextmanager
def meanwhile(another_thread: Callable[[], object], *, objects: int) -> Generator[None]:
    """Have `another_thread` run after so many new `objects`: a garbage collection lets others run.

    That begins anywhere where an object is made, as in the midst of a list, or else at the end.
    """

    def begins(_phase: str, _info: object) -> None:
        gc.callbacks.remove(begins)
        another_thread()

    gc.collect()
    usual = gc.get_threshold()
    gc.callbacks.append(begins)
    gc.set_threshold(objects)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.collect()


@pytest.mark.parametrize("objects", range(1, 25))
def test_what_another_event_loop_finds_counts_wherever_a_garbage_collection_begins(objects: int) -> None:
    living, known = LivingRetentions(), {("n", float(seconds)): NOW for seconds in range(50, 80)}
    living.note(known, NOW)
    with meanwhile(lambda: living.note({("n", 5.0): NOW}, NOW), objects=objects):
        living.note(known, NOW)
    living.note_ahead(known, NOW)
    with meanwhile(lambda: living.note_ahead({("n", 99.0): NOW}, NOW), objects=objects):
        living.note_ahead(known, NOW)
    assert living.shortest(NOW) == {"n": 5.0}
    assert living.ahead == {"n": 99.0}


def test_the_retentions_of_many_namespaces_are_summed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Mapping[tuple[str, float], float]] = []
    monkeypatch.setattr(LivingRetentions, "note", lambda _, found, now: noted.append(found))
    read(LivingRetentions(), 95.0, b"95.0 a", b"95.0 b", b"80.0 b")
    assert [set(found) for found in noted] == [{("a", 95.0), ("b", 95.0), ("b", 80.0)}]


def test_retentions_are_told_until_there_is_something_to_send() -> None:
    published = PublishedRetentions(b"dpop", LivingRetentions())
    published.connected(b"")
    one, other = ("n", 95.0, 30.0), ("m", 95.0, 30.0)
    sent = list[bool]()
    for own, at in (
        ({one}, 0.0),
        ({one}, 0.5),
        ({other}, 0.9),
        ({one, other}, 0.99),
        ({one}, 1.0),
        (set(), 9.0),
    ):
        told = published.are_told(own, at)
        sent.append(published.exchange(own, at=at, now=NOW) != ())
        assert told is not sent[-1]
    assert sent == [True, False, True, False, True, False]
    published.read(ServerError("NOPERM no"), ServerError("NOPERM no"), now=NOW)
    assert published.are_told({other}, 99.0)


async def test_the_slot_of_the_retentions_may_move() -> None:
    retentions = PublishedRetentions(b"dpop", LivingRetentions())
    retentions.connected(b"{1}")
    assert retentions.exchange({("n", 10.0, 30.0)}, at=0.0, now=0.0)
    retentions.read(MOVED, MOVED, now=0.0)
    assert retentions.elsewhere is MOVED
    retentions.connected(b"{2}")
    assert retentions.elsewhere is None
