"""The store under faults of its server and of the network before it.

Each test checks what clients saw: no replay accepted, no fresh proof refused except by 503, and service
within a second after the server is up again.
"""

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay import RedisReplayStore, ReplayEntry
from dpop_middleware.replay.redis.writes import CROWDED, FENCED, NO_ANSWER, REFUSED
from tests.support.load import (
    AT_ONCE,
    CHANCES,
    HANGS,
    RECOVERY,
    SLACK,
    TIMEOUT,
    Load,
    eventually,
    in_time,
    judged,
    recovery,
    stolen,
)
from tests.support.loop_clock import LoopClock
from tests.support.proxy import Proxy
from tests.support.replay import ENDLESS, after_a_loss, answer, answers, entry
from tests.support.valkey import Server, implementations, until

WRONG_PASSWORD = {"AuthenticationError", "NOAUTH"}


@pytest.fixture
async def hurried(server: Server) -> AsyncIterator[RedisReplayStore]:
    """A store with the usual timeout, for tests of servers that hang: a busy machine may cause a 503, too."""
    store = RedisReplayStore.from_url(server.url, new_server="accept")
    yield store
    await store.aclose()


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisReplayStore]:
    """A store that doesn't refuse because of a busy machine: each refusal has its cause in the store."""
    store = RedisReplayStore.from_url(server.url, new_server="accept", timeout=ENDLESS)
    yield store
    await store.aclose()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
async def hurried_and_proxied(proxy: Proxy) -> AsyncIterator[RedisReplayStore]:
    store = RedisReplayStore.from_url(proxy.url, new_server="accept")
    yield store
    await store.aclose()


@pytest.fixture
async def proxied(proxy: Proxy) -> AsyncIterator[RedisReplayStore]:
    store = RedisReplayStore.from_url(proxy.url, new_server="accept", timeout=ENDLESS)
    yield store
    await store.aclose()


async def refused(store: RedisReplayStore, item: ReplayEntry | None = None) -> Unavailable:
    outcome = await answer(store, item or entry())
    assert isinstance(outcome, Unavailable)
    assert outcome.check is Check.JTI
    assert outcome.retry_after >= 1
    return outcome


async def until_it_pauses(store: RedisReplayStore) -> None:
    """Wait for the beginning of a pause: requests are refused at once, after one that waited.

    How many wait isn't judged: on a busy machine more of them come during an attempt.
    """
    waited, at_once = False, 0
    async with asyncio.timeout(HANGS):
        while at_once < 3:
            request = asyncio.ensure_future(refused(store))
            await asyncio.sleep(0)
            waited = waited or not request.done()
            at_once = at_once + 1 if waited and request.done() else 0
            await in_time(request)
            await asyncio.sleep(0.005)


async def test_a_refused_connection_is_503(server: Server, store: RedisReplayStore) -> None:
    used = entry()
    assert await store.add(used) is True
    server.kill()
    for _ in range(20):
        error = await in_time(refused(store, used), AT_ONCE)
        assert error.description == NO_ANSWER
        assert error.actual == "ConnectionError"
    server.start()
    assert await recovery(store) < RECOVERY
    assert (await refused(store, used._replace(now=time.time()))).description == FENCED


async def test_a_server_may_start_after_the_store(server: Server) -> None:
    server.kill()
    store = RedisReplayStore.from_url(server.url, new_server="accept", timeout=ENDLESS)
    assert (await refused(store)).actual == "ConnectionError"
    server.start()
    assert await recovery(store) < RECOVERY
    await store.aclose()


async def test_a_stopped_server_is_503_and_then_used_again(
    server: Server, store: RedisReplayStore, hurried: RedisReplayStore
) -> None:
    used = entry()
    assert await store.add(used) is True
    recovered = math.inf
    for _ in range(CHANCES):
        server.pause()
        assert await in_time(answers(hurried, [used, *(entry() for _ in range(50))])) == {503: 51}
        await until_it_pauses(hurried)
        server.resume()
        recovered = await recovery(hurried)
        if recovered < RECOVERY:
            break
    assert recovered < RECOVERY
    assert await judged(hurried, used) is False


@pytest.mark.slow
async def test_a_server_is_killed_and_restarted_under_load_without_a_replay(
    server: Server, store: RedisReplayStore
) -> None:
    async with Load(store, within=AT_ONCE) as load:
        await load.until_accepted_by_all()
        await asyncio.to_thread(server.kill)
        await load.until(lambda: load.unavailable > 100)
        await asyncio.to_thread(server.start)
        recovered = await load.recovery()
        await load.until_accepted_by_all()
        await load.until_a_replay_is_refused()
    # A proof of now is judged again when no worker's clock can have shown it before the loss.
    assert recovered < WORKER_CLOCK_MARGIN + RECOVERY


async def test_a_server_that_loads_its_data_is_503(server: Server, store: RedisReplayStore) -> None:
    used = entry()
    assert await store.add(used) is True
    with server.client() as client:
        client.config_set("rdbcompression", "no")
        client.mset({f"key:{number}": "x" * 1024 for number in range(3000)})
        client.save()
    server.kill()
    # It answers after each key, and needs a minute for all of them.
    server.options |= {"key-load-delay": 20_000, "loading-process-events-interval-bytes": 1024}
    server.start()
    assert (await refused(store)).actual == "BusyLoadingError"
    server.run("CONFIG", "SET", "key-load-delay", "0")
    until(lambda: server.run("PING"))
    assert await recovery(store) < RECOVERY
    # It came back with the snapshot, so it knows this one.
    assert await store.add(used) is False


async def test_a_read_only_replica_is_503(server: Server, store: RedisReplayStore) -> None:
    used = entry()
    assert await store.add(used) is True
    server.run("REPLICAOF", "127.0.0.1", "1")
    error = await refused(store)
    assert error.actual in {"READONLY", "ServerUnfit"}
    server.run("REPLICAOF", "NO", "ONE")
    assert await recovery(store) < RECOVERY
    assert await store.add(used) is False


async def test_a_server_out_of_memory_is_503(server: Server, store: RedisReplayStore) -> None:
    used = entry()
    assert await store.add(used) is True
    server.run("CONFIG", "SET", "maxmemory", "1")
    error = await refused(store)
    assert error.actual == "OOM"
    assert error.description == REFUSED
    server.run("CONFIG", "SET", "maxmemory", "0")
    assert await store.add(entry()) is True
    assert await store.add(used) is False


async def test_permissions_may_be_taken_away_and_given_back(server: Server, store: RedisReplayStore) -> None:
    used = entry()
    assert await store.add(used) is True
    server.run("ACL", "SETUSER", "default", "-set")
    assert (await refused(store)).actual == "NOPERM"
    server.run("ACL", "SETUSER", "default", "+set")
    assert await store.add(entry()) is True
    assert await store.add(used) is False


async def test_a_wrong_or_missing_password_is_503(server: Server) -> None:
    server.run("CONFIG", "SET", "requirepass", "right")
    for credentials in ("", ":wrong@"):
        store = RedisReplayStore.from_url(server.url.replace("//", f"//{credentials}"), timeout=ENDLESS)
        assert (await refused(store)).actual in WRONG_PASSWORD
        await store.aclose()
    url = server.url.replace("//", "//:right@")
    store = RedisReplayStore.from_url(url, new_server="accept", timeout=ENDLESS)
    assert await store.add(entry()) is True
    await store.aclose()


async def test_a_password_may_change_under_load(server: Server) -> None:
    """Open connections continue; new ones are refused until the old password is set again."""
    used = entry()
    with server.client() as before:
        before.config_set("requirepass", "right")
    url = server.url.replace("//", "//:right@")
    store, other = (RedisReplayStore.from_url(url, timeout=ENDLESS) for _ in range(2))
    with server.client(password="right") as admin:
        assert await store.add(used) is True
        async with Load(store, within=AT_ONCE) as load:
            await load.until_accepted_by_all()
            admin.config_set("requirepass", "changed")
            assert await store.add(entry()) is True
            assert await store.add(used) is False
            assert not WRONG_PASSWORD & {actual for _, actual in load.refusals}
            assert (await refused(other)).actual in WRONG_PASSWORD
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await eventually(lambda: load.unavailable > 20)
            assert (await refused(store)).actual in WRONG_PASSWORD
            await refused(store, used._replace(now=time.time()))
            accepted = load.accepted
            await asyncio.sleep(0.3)
            assert load.accepted == accepted
            admin.config_set("requirepass", "right")
            recovered = await load.recovery()
            assert await recovery(other) < RECOVERY + SLACK
            assert await answer(store, used._replace(now=time.time())) is False
            assert await answer(other, used._replace(now=time.time())) is False
            await load.until_a_replay_is_refused()
    assert recovered < RECOVERY + SLACK
    await store.aclose()
    await other.aclose()


async def test_a_lost_reply_does_not_cause_a_replay_refusal(proxy: Proxy, proxied: RedisReplayStore) -> None:
    assert await proxied.add(entry()) is True
    for _ in range(20):
        item = entry()
        proxy.lose_next_reply = True
        assert await proxied.add(item) is True
        assert await proxied.add(item) is False


async def test_a_batch_whose_replies_are_lost_is_tried_again(proxy: Proxy, proxied: RedisReplayStore) -> None:
    known = [entry() for _ in range(30)]
    assert await answers(proxied, known) == {True: 30}
    fresh = [entry() for _ in range(30)]
    proxy.lose_next_reply = True
    outcomes = await asyncio.gather(
        *(proxied.add(item) for pair in zip(known, fresh, strict=True) for item in pair)
    )
    assert outcomes == [False, True] * 30


async def test_a_request_whose_replies_never_come_is_asked_again_at_half_its_time(
    proxy: Proxy, proxied: RedisReplayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await proxied.add(entry()) is True
    item, clock = entry(), LoopClock(monkeypatch)
    proxy.swallow_replies = True
    asking = asyncio.ensure_future(proxied.add(item))
    await clock.until(lambda: proxy.swallowed > 0)
    proxy.swallow_replies = False
    # It asks again at half of its time.
    await clock.until_after(ENDLESS / 2, asking.done)
    assert asking.result() is True
    assert await proxied.add(item) is False


async def test_requests_wait_for_a_slow_server_within_the_timeout(
    proxy: Proxy, proxied: RedisReplayStore, hurried_and_proxied: RedisReplayStore
) -> None:
    assert await proxied.add(entry()) is True
    proxy.reply_delay = TIMEOUT
    assert await proxied.add(entry()) is True
    assert await answers(proxied, [entry() for _ in range(100)]) == {True: 100}
    proxy.reply_delay = 4 * TIMEOUT
    error = await in_time(refused(hurried_and_proxied))
    assert error.actual in {"TimeoutError", "ConnectionError"}


@pytest.mark.slow
async def test_a_server_that_takes_a_second_for_each_answer_is_503(
    proxy: Proxy, proxied: RedisReplayStore, hurried_and_proxied: RedisReplayStore
) -> None:
    used, recovered = [entry() for _ in range(30)], math.inf
    assert await answers(proxied, used) == {True: 30}
    async with Load(hurried_and_proxied, within=TIMEOUT + SLACK) as load:
        for _ in range(CHANCES):
            await load.until_accepted_by_all()
            proxy.reply_delay = 1.0
            error = await in_time(refused(hurried_and_proxied))
            assert error.actual in {"TimeoutError", "ConnectionError"}
            assert await answers(hurried_and_proxied, stolen(used)) == {503: 30}
            accepted = load.accepted
            await asyncio.sleep(1.5)
            assert load.accepted == accepted
            await until_it_pauses(hurried_and_proxied)
            proxy.reply_delay = 0.0
            recovered = await load.recovery()
            await load.until_a_replay_is_refused()
            if recovered < RECOVERY + SLACK:
                break
    assert recovered < RECOVERY + SLACK
    # Nothing was lost, so every worker knows what was used before.
    assert await answers(proxied, stolen(used)) == {False: 30}
    assert await answers(proxied, [entry() for _ in range(30)]) == {True: 30}


async def test_replies_in_small_pieces_are_read(proxy: Proxy, proxied: RedisReplayStore) -> None:
    assert await proxied.add(entry()) is True
    proxy.piece = 3
    known = entry()
    outcomes = await asyncio.gather(*(proxied.add(item) for item in (known, entry(), known)))
    assert outcomes == [True, True, False]


async def test_a_connection_that_the_server_closed_while_idle_is_replaced(
    server: Server, store: RedisReplayStore
) -> None:
    for _ in range(5):
        item = entry()
        assert await store.add(item) is True
        server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.01)
        assert await store.add(item) is False


async def test_a_flush_is_noticed_by_every_worker(server: Server, store: RedisReplayStore) -> None:
    other = RedisReplayStore.from_url(server.url, new_server="accept", timeout=ENDLESS)
    now = time.time()
    used = [[entry(now=now, age=age) for age in (0.0, 5.0, 15.0)] for _ in range(2)]
    for asked, items in zip((store, other), used, strict=True):
        assert await answers(asked, items) == {True: 3}
    flushed = time.time()
    server.run("FLUSHALL")
    for asked, items in zip((store, other), used, strict=True):
        for item in items:
            error = await refused(asked, item._replace(now=time.time()))
            assert error.description == FENCED
            # The wait ends when a proof of that age would be from after the flush.
            assert math.ceil(flushed - item.not_before) <= error.retry_after
            assert error.retry_after <= math.ceil(time.time() + WORKER_CLOCK_MARGIN - item.not_before)
            assert error.judges_from is not None
        assert await asked.add(after_a_loss()) is True
    # An honest client's next proof, made after the wait in Retry-After.
    later = time.time() + 15.5 + WORKER_CLOCK_MARGIN
    assert await store.add(entry(now=later, age=15.0)) is True
    await other.aclose()


async def test_nothing_else_is_lost_by_a_flush(server: Server, store: RedisReplayStore) -> None:
    assert await store.add(entry()) is True
    server.run("FLUSHALL")
    await refused(store, entry(age=1.0))
    item = after_a_loss()
    assert await store.add(item) is True
    assert await store.add(item) is False
    assert await answers(store, [after_a_loss() for _ in range(100)]) == {True: 100}


async def test_a_restart_without_persistence_is_noticed(server: Server, store: RedisReplayStore) -> None:
    used = [entry(age=random.random() * 15) for _ in range(500)]
    assert await answers(store, used) == {True: 500}
    server.restart()
    assert await recovery(store) < RECOVERY
    assert await answers(store, [item._replace(now=time.time()) for item in used]) == {503: 500}


async def test_a_server_that_started_after_the_store_is_not_treated_as_new(server: Server) -> None:
    used, early = entry(), RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    assert await early.add(used) is True
    await early.aclose()
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    # The server reports its uptime in whole seconds, up to one too many.
    await asyncio.sleep(2.1)
    server.restart()
    assert isinstance(await answer(store, used._replace(now=time.time())), Unavailable)
    await store.aclose()


async def test_server_and_workers_may_restart_together(server: Server) -> None:
    store = RedisReplayStore.from_url(server.url, new_server="accept", timeout=ENDLESS)
    used = [entry(age=15.0) for _ in range(100)]
    assert await answers(store, used) == {True: 100}
    await store.aclose()
    server.restart()
    store = RedisReplayStore.from_url(server.url, new_server="wait", timeout=ENDLESS)
    assert await answers(store, [item._replace(now=time.time()) for item in used]) == {503: 100}
    assert await store.add(entry(now=time.time() + 17 + WORKER_CLOCK_MARGIN, age=15.0)) is True
    await store.aclose()


async def test_a_worker_that_waits_does_so_however_long_the_server_has_run(server: Server) -> None:
    await asyncio.sleep(2.1)
    store = RedisReplayStore.from_url(server.url, new_server="wait", timeout=ENDLESS)
    assert isinstance(await answer(store, entry(age=0.5 - WORKER_CLOCK_MARGIN)), Unavailable)
    assert await store.add(after_a_loss()) is True
    await store.aclose()


async def test_the_server_is_checked_when_the_store_is_opened(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        await store.open()
        assert caplog.records == []
        async with asyncio.timeout(HANGS):
            while "allkeys-lru" not in caplog.text:
                await asyncio.sleep(0.01)
    await store.aclose()


async def test_a_server_that_is_unreachable_at_the_start_is_logged(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        await store.open()
        async with asyncio.timeout(HANGS):
            while "the replay store can't be used (ConnectionError: ConnectionRefused" not in caplog.text:
                await asyncio.sleep(0.01)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    await store.aclose()


async def test_closing_does_not_wait_for_the_check_of_a_server_that_hangs(server: Server) -> None:
    store = RedisReplayStore.from_url(server.url, timeout=30)
    server.pause()
    try:
        await store.open()
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(store.aclose())
        await asyncio.wait({closing}, timeout=15)
        assert closing.done(), "it waits as long as for an answer"
        await closing
    finally:
        server.resume()


async def test_an_eviction_policy_causes_a_warning(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    store = RedisReplayStore.from_url(server.url, new_server="accept", timeout=ENDLESS)
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        assert await answers(store, [entry() for _ in range(10)]) == {True: 10}
        server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await answers(store, [entry() for _ in range(10)]) == {True: 10}
    assert len([record for record in caplog.records if "allkeys-lru" in record.message]) == 1
    await store.aclose()


async def test_an_eviction_policy_is_refused_when_strict(server: Server) -> None:
    server.run("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    store = RedisReplayStore.from_url(server.url, new_server="accept", strict=True, timeout=ENDLESS)
    error = await refused(store)
    assert (error.description, error.actual) == (REFUSED, "ServerUnfit")
    assert not (await store.health()).ok
    server.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert await recovery(store) < RECOVERY
    assert (await store.health()).ok
    await store.aclose()


async def test_clocks_that_differ_cause_a_warning(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    store = RedisReplayStore.from_url(server.url, new_server="accept", timeout=ENDLESS)
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        assert await store.add(entry(now=time.time() + 60)) is True
    assert "more than 5 seconds apart" in caplog.text
    await store.aclose()


async def test_a_full_queue_refuses_requests(proxy: Proxy) -> None:
    store = RedisReplayStore.from_url(proxy.url, timeout=ENDLESS, max_waiting=10)
    assert await answers(store, [entry(), entry()]) == {True: 2}
    proxy.hold()
    first = [asyncio.ensure_future(answer(store, entry())) for _ in range(5)]
    await asyncio.sleep(0.02)
    second = [asyncio.ensure_future(answer(store, entry())) for _ in range(15)]
    await asyncio.sleep(0)
    proxy.release()
    outcomes = await asyncio.gather(*first, *second)
    assert outcomes[:15] == [True] * 15
    assert {getattr(error, "description", None) for error in outcomes[15:]} == {CROWDED}
    await store.aclose()


@pytest.mark.slow
async def test_connections_may_be_cut_at_random_under_load(
    proxy: Proxy, proxied: RedisReplayStore, implementation: str
) -> None:
    rounds = 60 if implementation == next(iter(implementations())) else 30
    slowest = 0.0
    async with Load(proxied, within=AT_ONCE) as load:
        for _ in range(rounds):
            for _ in range(random.randint(1, 8)):
                await asyncio.sleep(random.uniform(0.001, 0.1))
                match random.randrange(4):
                    case 0:
                        proxy.lose_next_reply = True
                    case 1:
                        proxy.piece = random.choice([None, 7, 100])
                    case _:
                        proxy.cut()
            proxy.piece = None
            slowest = max(slowest, await load.recovery())
        await load.until_a_replay_is_refused()
    assert slowest < RECOVERY
    assert proxy.connections > rounds


async def test_a_server_that_is_up_again_is_found_without_any_request(server: Server) -> None:
    stores = [RedisReplayStore.from_url(server.url) for _ in "ab"]
    for store in stores:
        await recovery(store)
    outcomes: list[Counter[object]] = []
    for _ in range(CHANCES):
        server.pause()
        await asyncio.gather(*map(until_it_pauses, stores))
        server.resume()
        await asyncio.sleep(RECOVERY)
        outcomes = await asyncio.gather(*(answers(one, [entry() for _ in range(10)]) for one in stores))
        if outcomes == [{True: 10}] * 2:
            break
    assert outcomes == [{True: 10}] * 2
    for store in stores:
        await store.aclose()


async def test_a_server_that_starts_after_the_store_is_found_without_any_request(
    server: Server,
) -> None:
    server.kill()
    store = RedisReplayStore.from_url(server.url, new_server="wait", timeout=ENDLESS)
    await store.open()
    await asyncio.sleep(0.3)
    server.start()
    # Later than its next attempt, however long that takes: requests wait for it.
    await asyncio.sleep(RECOVERY)
    assert await answers(store, [after_a_loss() for _ in range(20)]) == {True: 20}
    await store.aclose()


async def test_a_request_during_the_opening_waits_for_it_within_its_own_time(
    server: Server,
) -> None:
    store, loop = RedisReplayStore.from_url(server.url, timeout=0.6), asyncio.get_running_loop()
    await recovery(store)
    server.pause()
    for _ in range(2):
        await answers(store, [entry() for _ in range(3)])
    # Each attempt hangs; a request that comes then is neither refused at once nor delayed for longer.
    waited = 0.0
    async with asyncio.timeout(HANGS):
        while waited < 0.3:
            asked = loop.time()
            await in_time(refused(store), 0.6 + SLACK)
            waited = loop.time() - asked
            await asyncio.sleep(0.001)
    assert waited >= 0.3, "no request waited for an attempt"
    server.resume()
    # How soon: `test_a_stopped_server_is_503_and_then_used_again`.
    await recovery(store)
    await store.aclose()
