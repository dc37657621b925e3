"""Losses of a server while the connection to it survives, and events that only look like a loss."""

import asyncio
import logging
import time

import pytest
import redis

from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay import RedisReplayStore, ReplayEntry
from dpop_middleware.replay.redis.writes import EVICTED, FENCED
from tests.support.load import stolen
from tests.support.replay import ENDLESS, after_a_loss, answer, answers, entry
from tests.support.scripted import Reporting, ScriptedServer, Words, bulk, shown
from tests.support.valkey import HOST, Server, until

# Later than the next look at a server.
LOOK = 1.1


def again(items: list[ReplayEntry]) -> list[ReplayEntry]:
    """The same proofs, presented now."""
    return [item._replace(now=time.time()) for item in items]


async def test_a_flush_is_noticed_by_a_worker_whose_clock_is_four_seconds_behind(server: Server) -> None:
    ahead, behind = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
    now = time.time()
    # Including proofs of clients whose clocks are ahead: acceptable only since this moment.
    used = [entry(now=now + 4, age=age)._replace(expires_at=now + 100) for age in (0.0, 0.5, 1.0, 2.0, 3.9)]
    assert await answers(ahead, used) == {True: 5}
    assert await behind.add(entry(now=now, age=3.0)) is True
    server.run("FLUSHALL")
    assert await answers(behind, again(used)) == {503: 5}
    # Refused proofs are remembered all the same.
    assert await answers(ahead, [item._replace(now=time.time() + 4) for item in used]) == {False: 5}
    await ahead.aclose()
    await behind.aclose()


async def test_a_server_that_takes_over_other_data_and_returns_lost_entries(implementation: str) -> None:
    with (
        Server({"repl-diskless-sync-delay": 0}, implementation=implementation) as server,
        Server({"repl-diskless-sync-delay": 0}, implementation=implementation) as other,
    ):
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        used = [entry() for _ in range(30)]
        assert await answers(store, used) == {True: 30}
        connections = server.run("INFO", "stats")["total_connections_received"]
        server.run("REPLICAOF", HOST, other.port)
        until(lambda: server.run("ROLE")[3] == "connected")
        server.run("REPLICAOF", "NO", "ONE")
        assert server.run("INFO", "stats")["total_connections_received"] >= connections
        await asyncio.sleep(LOOK)
        assert await answers(store, again(used)) == {503: 30}
        assert await store.add(after_a_loss()) is True
        await store.aclose()


async def test_a_lagging_replica_that_takes_over_on_a_surviving_connection_is_noticed(
    implementation: str,
) -> None:
    """The old anchor went to the replica and back, so only the identity shows the loss."""
    with (
        Server({"repl-diskless-sync-delay": 0}, implementation=implementation) as server,
        Server(
            {"replicaof": (HOST, server.port), "repl-diskless-sync-delay": 0}, implementation=implementation
        ) as replica,
    ):
        until(lambda: replica.run("ROLE")[3] == "connected")
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        assert await store.add(entry()) is True
        until(lambda: replica.run("KEYS", "dpop::anchor"))
        replica.run("REPLICAOF", "NO", "ONE")
        lost = [entry() for _ in range(40)]
        assert await answers(store, lost) == {True: 40}
        server.run("REPLICAOF", HOST, replica.port)
        until(lambda: server.run("ROLE")[3] == "connected")
        server.run("REPLICAOF", "NO", "ONE")
        await asyncio.sleep(LOOK)
        assert await answers(store, again(lost)) == {503: 40}
        await store.aclose()


async def test_a_loss_is_logged_once_with_what_may_have_caused_it(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    assert await store.add(entry()) is True
    server.run("FLUSHALL")
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        assert await answers(store, [entry(age=20) for _ in range(3)]) == {503: 3}
        assert isinstance(await answer(store, entry(age=20)), Unavailable)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "it restarted, was flushed or replaced" in warning
    await store.aclose()


@pytest.mark.parametrize("policy", ["volatile-ttl", "allkeys-random"])
async def test_evictions_are_losses_unless_they_are_accepted(
    server: Server, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, careless = (
        RedisReplayStore.from_url(server.url, timeout=ENDLESS, on_evictions=how)
        for how in ("refuse", "accept")
    )
    server.run("CONFIG", "SET", "maxmemory-policy", policy)
    used = [entry() for _ in range(60)]
    assert await answers(store, used) == {True: 60}
    assert await careless.add(entry()) is True
    assert server.run("INFO", "stats")["evicted_keys"] == 0
    server.run("CONFIG", "SET", "maxmemory", server.run("INFO", "memory")["used_memory"] + 100_000)
    with server.client() as client:
        for number in range(400):
            client.set(f"filler:{number}", "x" * 1000, px=500_000)
    assert server.run("INFO", "stats")["evicted_keys"] > 0
    await asyncio.sleep(LOOK)
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        assert (await answers(store, again(used)))[True] == 0
    assert "on_evictions='accept'" in caplog.text
    error = await answer(store, entry(age=20))
    assert isinstance(error, Unavailable)
    # No newer nonce would help.
    assert (error.description, error.newer_proof) == (EVICTED, False)
    assert isinstance(await answer(careless, entry(age=-WORKER_CLOCK_MARGIN)), bool)
    server.run("CONFIG", "SET", "maxmemory", 0)
    await asyncio.sleep(LOOK)
    assert isinstance(await answer(store, entry(age=20)), Unavailable)
    await asyncio.sleep(LOOK)
    error = await answer(store, entry(age=20))
    assert isinstance(error, Unavailable)
    assert (error.description, error.newer_proof) == (FENCED, True)
    await store.aclose()
    await careless.aclose()


async def test_evictions_are_losses_also_where_the_server_counts_them_anew(server: Server) -> None:
    def evict(count: int, *, spare: int) -> None:
        server.run("CONFIG", "SET", "maxmemory", server.run("INFO", "memory")["used_memory"] + spare)
        with server.client() as client:
            for number in range(count):
                client.set(f"filler:{number}", "x" * 1000, px=500_000)
        server.run("CONFIG", "SET", "maxmemory", 0)

    server.run("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    evict(900, spare=300_000)
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    used = [entry() for _ in range(60)]
    assert await answers(store, used) == {True: 60}
    counted = server.run("INFO", "stats")["evicted_keys"]
    server.run("CONFIG", "RESETSTAT")
    evict(200, spare=0)
    assert 0 < server.run("INFO", "stats")["evicted_keys"] < counted
    await asyncio.sleep(LOOK)
    assert (await answers(store, again(used)))[True] == 0
    await store.aclose()


async def test_the_first_replica_and_the_end_of_the_last_one_are_no_loss(implementation: str) -> None:
    with (
        Server({"repl-diskless-sync-delay": 0}, implementation=implementation) as server,
        Server({"repl-diskless-sync-delay": 0}, implementation=implementation) as replica,
    ):
        # Earlier commands don't matter either.
        server.run("CONFIG", "SET", "repl-backlog-ttl", 1)
        busy, idle = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
        first = server.run("INFO", "replication")["master_replid"]
        used = entry(age=60)
        assert await busy.add(used) is True
        assert await idle.add(entry(age=60)) is True
        replica.run("REPLICAOF", HOST, server.port)
        until(lambda: replica.run("ROLE")[3] == "connected")
        replica.run("REPLICAOF", "NO", "ONE")
        until(lambda: server.run("INFO", "replication")["master_replid"] != first)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert await busy.add(entry(age=60)) is True
            await asyncio.sleep(0.05)
        assert await busy.add(used._replace(now=time.time())) is False
        assert await idle.add(entry(age=60)) is True
        newcomer = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        assert await newcomer.add(entry(age=60)) is True
        assert await busy.add(entry(age=60)) is True
        for store in (busy, idle, newcomer):
            await store.aclose()


async def test_a_servers_clock_that_steps_forward_lets_every_entry_expire() -> None:
    stepping = Reporting()
    async with ScriptedServer(stepping) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        used, others = ([entry() for _ in range(30)] for _ in "ab")
        assert await answers(store, [*used, *others]) == {True: 60}
        assert await answers(store, [entry(age=60)]) == {True: 1}
        stepping.step = 100.0
        server.expire()
        # At once, however short ago the last look at the server was.
        assert await answers(store, again(used)) == {503: 30}
        # Others learn of it from the anchor.
        other = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        assert await store.add(after_a_loss()) is True
        assert await answers(other, again(others)) == {503: 30}
        # A step back lets entries live longer, which is harmless.
        stepping.step = 0.0
        assert await store.add(entry(age=-30)) is True
        await store.aclose()
        await other.aclose()


async def test_a_step_is_noticed_by_a_worker_that_was_idle_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten idle minutes don't hide half a minute: other workers' entries are younger than that."""
    stepping = Reporting()
    async with ScriptedServer(stepping) as server:
        idle, other = (RedisReplayStore.from_url(server.url, timeout=ENDLESS) for _ in "ab")
        assert await idle.add(entry(age=60)) is True
        passed, loop = 600.0, asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: time.monotonic() + passed)
        stepping.step = passed
        used = entry(now=time.time() + passed)
        assert await other.add(used) is True
        await other.aclose()
        passed += 75.0
        # It would live for 105 s by the server's clock.
        stepping.step = passed + 30.0
        server.expire()
        assert isinstance(await answer(idle, used._replace(now=time.time() + passed)), Unavailable)
        await idle.aclose()


@pytest.mark.parametrize("at_first", [0.0, -200.0])
async def test_a_server_whose_clock_is_behind_is_asked_again_without_a_request(at_first: float) -> None:
    """Entries that were written in between expire when it is set right, and nobody else can see that."""
    ahead = at_first

    def script(words: Words) -> bytes | None:
        moment = time.time() + ahead
        if words[0] == b"INFO":
            report = b"run_id:a\r\nmaster_replid:b\r\nuptime_in_seconds:9999\r\nrole:master\r\n"
            return bulk(report + b"server_time_usec:%d\r\n" % (moment * 1e6))
        return shown(moment) if words[0] == b"TIME" else None

    async with ScriptedServer(script) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        assert await store.add(entry(age=60)) is True
        ahead = -200.0
        assert await store.add(entry(age=60)) is True
        known, ahead = server.keys[b"dpop::anchor"], 0.0
        async with asyncio.timeout(60):
            while server.keys[b"dpop::anchor"] == known:
                await asyncio.sleep(0.01)
        await store.aclose()


async def test_a_connection_that_opens_while_the_server_is_busy_is_watched_all_the_same(
    server: Server,
) -> None:
    """A script that runs for long makes INFO an error, as long as it runs."""
    server.run("CONFIG", "SET", "busy-reply-threshold", 1)
    script = asyncio.create_task(asyncio.to_thread(run_for_ever, server))
    store, used = RedisReplayStore.from_url(server.url, timeout=ENDLESS), entry(age=60)
    error = Unavailable("not asked yet")
    async with asyncio.timeout(60):
        while error.actual != "BUSY":
            outcome = await answer(store, entry(age=60))
            error = outcome if isinstance(outcome, Unavailable) else error
    server.run("SCRIPT", "KILL")
    await script
    async with asyncio.timeout(60):
        while await answer(store, used) is not True:
            await asyncio.sleep(0.01)
    server.run("FLUSHALL")
    assert await answers(store, again([used])) == {503: 1}
    await store.aclose()


def run_for_ever(server: Server) -> None:
    with pytest.raises(redis.ResponseError, match="killed"):
        server.run("EVAL", "while true do end", 0)


async def test_a_busy_server_is_asked_for_its_time_with_the_next_batch() -> None:
    stepping = Reporting()
    async with ScriptedServer(stepping) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        used = [entry() for _ in range(30)]
        assert await answers(store, used) == {True: 30}
        server.script = lambda words: b"-BUSY a script runs\r\n" if words[0] == b"TIME" else stepping(words)
        assert await store.add(entry(age=60)) is True
        server.script = stepping
        stepping.step = 100.0
        server.expire()
        assert await answers(store, again(used)) == {503: 30}
        await store.aclose()


async def test_where_the_user_may_not_time_a_step_is_noticed_by_the_next_look(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stepping = Reporting(b"TIME")
    async with ScriptedServer(stepping) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        used = [entry() for _ in range(30)]
        with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
            assert await answers(store, used) == {True: 30}
            assert await store.add(entry(age=60)) is True
        assert [record.getMessage() for record in caplog.records if "+time" in record.getMessage()] != []
        assert [words for words in server.commands if words[0] == b"TIME"] == [(b"TIME",)]
        await asyncio.sleep(LOOK)
        stepping.step = 100.0
        server.expire()
        assert await answers(store, again(used)) == {503: 30}
        await store.aclose()


async def test_a_user_who_may_no_longer_ask_info_is_told_in_the_log(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
    assert await store.add(entry(age=60)) is True
    server.run("ACL", "SETUSER", "default", "-info")
    await asyncio.sleep(LOOK)
    with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
        assert await answers(store, [entry(age=60) for _ in range(30)]) == {True: 30}
    assert "the user may not ask INFO" in caplog.text
    await store.aclose()


async def test_a_server_may_say_its_time_in_numbers() -> None:
    """As Dragonfly does."""
    step = 0.0

    def script(words: Words) -> bytes | None:
        return b"*2\r\n:%d\r\n:5\r\n" % (time.time() + step) if words[0] == b"TIME" else None

    async with ScriptedServer(script) as server:
        store, used = RedisReplayStore.from_url(server.url, timeout=ENDLESS), entry()
        assert await store.add(used) is True
        step = 100.0
        server.expire()
        assert isinstance(await answer(store, used), Unavailable)
        assert await store.add(after_a_loss()) is True
        await store.aclose()


@pytest.mark.parametrize("told", [b"+OK\r\n", b"*1\r\n$1\r\n1\r\n", b"*2\r\n$1\r\n1\r\n$1\r\nx\r\n"])
async def test_a_server_that_says_something_else_than_its_time_is_not_believed(told: bytes) -> None:
    async with ScriptedServer(lambda words: told if words[0] == b"TIME" else None) as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        assert isinstance(await answer(store, entry()), Unavailable)
        await store.aclose()


@pytest.mark.slow
async def test_a_real_servers_clock_is_set_forward_and_back(clocked: Server) -> None:
    stores = [RedisReplayStore.from_url(clocked.url, timeout=ENDLESS) for _ in "ab"]
    used, others = ([entry() for _ in range(30)] for _ in "ab")
    assert await answers(stores[0], used) == {True: 30}
    assert await answers(stores[1], others) == {True: 30}
    clocked.set_clock(100)
    # At once, however short ago the last look at the server was.
    assert await answers(stores[0], again(used)) == {503: 30}
    assert await answers(stores[1], again(others)) == {503: 30}
    newer = after_a_loss()
    assert await stores[0].add(newer) is True
    clocked.set_clock(0)
    assert await stores[1].add(newer._replace(now=time.time())) is False
    for store in stores:
        await store.aclose()


@pytest.mark.slow
async def test_a_restart_is_noticed_although_the_servers_clock_was_set_back_to_before_its_start(
    clocked: Server,
) -> None:
    """Its uptime is negative then: without one, nothing would be noticed on a new connection."""
    store = RedisReplayStore.from_url(clocked.url, timeout=ENDLESS)
    used = [entry() for _ in range(30)]
    assert await answers(store, used) == {True: 30}
    clocked.kill()
    clocked.start()
    clocked.set_clock(-100)
    assert clocked.run("INFO", "server")["uptime_in_seconds"] < 0
    clocked.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await answers(store, again(used)) == {503: 30}
    assert await store.add(after_a_loss()) is True
    await store.aclose()


@pytest.mark.slow
async def test_a_worker_that_waits_does_not_believe_how_long_a_new_server_has_run(clocked: Server) -> None:
    """Its clock, by which it counts that, may have been set forward since its start, as after a boot."""
    store = RedisReplayStore.from_url(clocked.url, timeout=ENDLESS)
    used = [entry() for _ in range(30)]
    assert await answers(store, used) == {True: 30}
    await store.aclose()
    clocked.restart()
    clocked.set_clock(100)
    newcomer = RedisReplayStore.from_url(clocked.url, timeout=ENDLESS, new_server="wait")
    assert await answers(newcomer, again(used)) == {503: 30}
    assert await newcomer.add(after_a_loss()) is True
    await newcomer.aclose()


@pytest.mark.slow
async def test_a_servers_clock_that_is_wrong_for_a_moment_lets_entries_expire(clocked: Server) -> None:
    """Those that were written meanwhile, as soon as it is right again."""
    store = RedisReplayStore.from_url(clocked.url, timeout=ENDLESS)
    assert await store.add(entry()) is True
    clocked.set_clock(-200)
    used = [entry() for _ in range(30)]
    assert await answers(store, used) == {True: 30}
    clocked.set_clock(0)
    assert await answers(store, again(used)) == {503: 30}
    await store.aclose()


@pytest.mark.slow
async def test_a_worker_that_wrote_while_a_servers_clock_was_wrong_tells_the_others_unasked(
    clocked: Server,
) -> None:
    """The others saw nothing: to them the clock shows what it should."""
    other, idle = (RedisReplayStore.from_url(clocked.url, timeout=ENDLESS) for _ in "ab")
    for store in (other, idle):
        assert await answers(store, [entry()]) == {True: 1}
    await asyncio.to_thread(clocked.set_clock, -200)
    used = [entry() for _ in range(10)]
    assert await answers(idle, used) == {True: 10}
    known = clocked.run("GET", "dpop::anchor")
    await asyncio.to_thread(clocked.set_clock, 0)
    await asyncio.to_thread(until, lambda: clocked.run("GET", "dpop::anchor") != known)
    assert (await answers(other, stolen(used)))[True] == 0
    await other.aclose()
    await idle.aclose()
