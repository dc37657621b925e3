import asyncio
import gc
import logging
import math
import os
import secrets
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from redis.asyncio import Redis

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import RedisReplayStore, ReplayStore
from dpop_middleware.replay.redis.health import NodeHealth, StoreHealth
from dpop_middleware.testing.store_contract import ReplayStoreContract
from tests.support.load import judged, recovery
from tests.support.replay import ENDLESS, after_a_loss, answer, answers, entry
from tests.support.scripted import ScriptedServer
from tests.support.valkey import HOST, Server, implementations

HOUSE = Path(__file__).parents[2]


class TestContract(ReplayStoreContract):
    @pytest.fixture
    async def store(self, shared_server: Server) -> AsyncIterator[ReplayStore]:
        store = RedisReplayStore.from_url(shared_server.url, prefix=secrets.token_hex(4), timeout=ENDLESS)
        yield store
        await store.aclose()


class TestContractWithLocalFallback(ReplayStoreContract):
    @pytest.fixture
    async def store(self, shared_server: Server) -> AsyncIterator[ReplayStore]:
        store = RedisReplayStore.from_url(
            shared_server.url, prefix=secrets.token_hex(4), timeout=ENDLESS, on_unavailable="local"
        )
        yield store
        await store.aclose()


@pytest.fixture
async def store(shared_server: Server) -> AsyncIterator[RedisReplayStore]:
    store = RedisReplayStore.from_url(shared_server.url, prefix=secrets.token_hex(4), timeout=ENDLESS)
    yield store
    await store.aclose()


async def assert_it_works(store: RedisReplayStore) -> None:
    item = entry()
    assert await store.add(item) is True
    assert await store.add(item) is False
    await store.aclose()


def in_a_thread(target: Callable[[], object]) -> None:
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()


class TestWaysToConnect:
    @pytest.mark.parametrize(
        "options", [{"protocol": 2}, {"protocol": 3}, {"decode_responses": True}, {"db": 3}], ids=str
    )
    async def test_a_client_and_its_options_are_used(
        self, shared_server: Server, options: dict[str, Any]
    ) -> None:
        client = Redis(host=HOST, port=shared_server.port, **options)
        await assert_it_works(RedisReplayStore(client, prefix=secrets.token_hex(4), timeout=ENDLESS))
        assert await client.ping() is True
        await client.aclose()

    async def test_two_prefixes_are_two_stores(self, shared_server: Server) -> None:
        one, other = (
            RedisReplayStore.from_url(shared_server.url, prefix=prefix, timeout=ENDLESS) for prefix in "ab"
        )
        item = entry()
        assert await one.add(item) is True
        assert await other.add(item) is True
        await one.aclose()
        await other.aclose()

    async def test_a_unix_socket_can_be_used(self, implementation: str, tmp_path: Path) -> None:
        path = tmp_path / "s"
        with Server({"unixsocket": path}, implementation=implementation):
            store = RedisReplayStore.from_url(f"unix://{path}", timeout=ENDLESS)
            assert (await store.health()).nodes[0].address == str(path)
            await assert_it_works(store)

    async def test_a_user_with_a_password_can_connect(self, server: Server) -> None:
        server.run("ACL", "SETUSER", "api", "on", ">p@ss/word", "~dpop:*", "+@all")
        url = server.url.replace("//", "//api:p%40ss%2Fword@")
        await assert_it_works(RedisReplayStore.from_url(url, timeout=ENDLESS))


@pytest.mark.skipif("redis" not in implementations(), reason="redis-server is not installed: no TLS server")
class TestTLS:
    @pytest.fixture
    def tls_server(self, tmp_path: Path) -> Iterator[Server]:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        server = Server(implementation="redis")
        server.options |= {
            "port": 0,
            "tls-port": server.port,
            "tls-cert-file": tmp_path / "cert.pem",
            "tls-key-file": tmp_path / "key.pem",
            "tls-ca-cert-file": tmp_path / "ca.pem",
            "tls-auth-clients": "no",
        }
        with server:
            yield server

    async def test_a_store_works_over_tls(self, tls_server: Server, tmp_path: Path) -> None:
        url = f"rediss://localhost:{tls_server.port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        await assert_it_works(RedisReplayStore.from_url(url, timeout=ENDLESS))

    async def test_an_unknown_authority_or_name_is_503(self, tls_server: Server, tmp_path: Path) -> None:
        for url, reason in (
            (f"rediss://localhost:{tls_server.port}", "certificate verify failed"),
            (f"rediss://{HOST}:{tls_server.port}?ssl_ca_certs={tmp_path / 'ca.pem'}", "is not valid for"),
        ):
            store = RedisReplayStore.from_url(url, timeout=ENDLESS)
            assert isinstance(await answer(store, entry()), Unavailable)
            (node,) = (await store.health()).nodes
            assert str(node.error).startswith("ConnectionError: SSLCertVerificationError: ")
            assert reason in str(node.error)
            await store.aclose()

    async def test_a_server_may_stop_and_continue_under_tls(self, tls_server: Server, tmp_path: Path) -> None:
        url = f"rediss://localhost:{tls_server.port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        store, hurried = (RedisReplayStore.from_url(url, timeout=seconds) for seconds in (ENDLESS, 1.0))
        item = entry()
        assert await store.add(item) is True
        tls_server.pause()
        assert await answers(hurried, [entry() for _ in range(10)]) == {503: 10}
        tls_server.resume()
        await recovery(hurried, entry)
        for one in (store, hurried):
            assert await judged(one, item) is False
            await one.aclose()


class TestHealth:
    async def test_a_working_server_is_healthy(self, shared_server: Server, store: RedisReplayStore) -> None:
        health = await store.health()
        (node,) = health.nodes
        assert health == StoreHealth(ok=True, nodes=(node,))
        assert node.address == f"localhost:{shared_server.port}".replace("localhost", HOST)
        assert (node.software, node.role, node.maxmemory_policy) == (
            shared_server.implementation, "master", "noeviction",
        )  # fmt: skip
        assert node.clock_offset is not None
        assert abs(node.clock_offset) < 2
        assert node.fenced
        assert node.error is None
        assert node.warnings == ()

    async def test_a_server_that_can_not_be_reached_is_unhealthy(self) -> None:
        store = RedisReplayStore.from_url(f"redis://{HOST}:1")
        health = await store.health()
        assert not health.ok
        (node,) = health.nodes
        assert node == NodeHealth(address=f"{HOST}:1", error=node.error)
        assert str(node.error).startswith("ConnectionError: ConnectionRefusedError: [Errno ")

    async def test_a_server_that_hangs_is_unhealthy(self, server: Server) -> None:
        store = RedisReplayStore.from_url(server.url)
        server.pause()
        health = await store.health()
        server.resume()
        assert not health.ok
        assert health.nodes[0].error == "TimeoutError"

    async def test_a_replica_is_unhealthy(self, server: Server) -> None:
        server.run("REPLICAOF", HOST, "1")
        health = await RedisReplayStore.from_url(server.url, timeout=ENDLESS).health()
        assert not health.ok
        assert health.nodes[0].error == "the server is a replica"
        assert "this server is a slave" in health.nodes[0].warnings[0]

    async def test_a_server_that_evicted_keys_has_warnings(self, server: Server) -> None:
        server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        server.run("SET", "k", "v")
        server.run("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(redis.OutOfMemoryError):
            server.run("SET", "l", "v")
        server.run("CONFIG", "SET", "maxmemory", "0")
        health = await RedisReplayStore.from_url(server.url, timeout=ENDLESS).health()
        assert health.ok
        assert health.nodes[0].evicted_keys >= 1
        assert [warning.partition(": ")[2][:20] for warning in health.nodes[0].warnings] == [
            "maxmemory-policy is ", "the server has evict",
        ]  # fmt: skip

    async def test_health_counts_the_requests_that_could_not_be_answered(self, server: Server) -> None:
        store = RedisReplayStore.from_url(
            server.url, timeout=ENDLESS, new_server="accept", on_unavailable="local"
        )
        assert await store.add(entry()) is True
        server.kill()
        await store.add(entry())
        health = await store.health()
        assert (health.ok, health.local_answers, health.unavailable_answers) == (False, 1, 1)
        await store.aclose()


class TestLocalFallback:
    async def test_this_process_still_refuses_replays(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = RedisReplayStore.from_url(
            server.url, timeout=ENDLESS, new_server="accept", on_unavailable="local"
        )
        before, during = entry(), entry()
        assert await store.add(before) is True
        server.kill()
        with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
            assert await store.add(during) is True
            assert await store.add(entry()) is True
        assert len([record for record in caplog.records if "own memory" in record.message]) == 1
        assert await store.add(before) is False
        assert await store.add(during) is False
        server.start()
        async with asyncio.timeout(60):
            while not (await store.health()).ok:
                await asyncio.sleep(0.01)
        assert await store.add(during) is False
        await store.aclose()

    async def test_proofs_of_another_process_are_refused_while_the_server_is_up(self, server: Server) -> None:
        one, other = (
            RedisReplayStore.from_url(
                server.url, timeout=ENDLESS, new_server="accept", on_unavailable="local"
            )
            for _ in "ab"
        )
        item = entry()
        assert await one.add(item) is True
        assert await other.add(item) is False
        await one.aclose()
        await other.aclose()

    async def test_an_entry_that_its_caller_has_to_correct_is_not_remembered(self) -> None:
        async with ScriptedServer() as server:
            store = RedisReplayStore.from_url(server.url, timeout=ENDLESS, on_unavailable="local")
            item = entry()
            with pytest.raises(ValueError, match="^an entry takes finite moments"):
                await store.add(item._replace(not_before=math.nan))
            assert await store.add(item) is True
            await store.aclose()

    async def test_a_full_local_memory_has_no_effect_while_the_server_is_up(self, server: Server) -> None:
        server.kill()
        store = RedisReplayStore.from_url(
            server.url, timeout=ENDLESS, new_server="accept", on_unavailable="local"
        )
        share = 0
        while await answer(store, entry()) is True:
            share += 1
        assert share == 20_000
        server.start()
        await eventually_judges(store)
        items = [after_a_loss() for _ in range(3)]
        assert await answers(store, items) == {True: 3}
        assert await answers(store, items) == {False: 3}
        server.kill()
        assert isinstance(await answer(store, entry()), Unavailable)
        await store.aclose()


async def eventually_judges(store: RedisReplayStore) -> None:
    async with asyncio.timeout(60):
        while await answer(store, after_a_loss()) is not True:
            await asyncio.sleep(0.01)


class TestLifeCycle:
    async def test_closing_answers_waiting_requests_and_the_store_opens_again_on_demand(
        self, server: Server
    ) -> None:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS, new_server="accept")
        assert await store.add(entry()) is True
        server.pause()
        waiting = [asyncio.ensure_future(answer(store, entry())) for _ in range(20)]
        await asyncio.sleep(0.01)
        late = asyncio.ensure_future(answer(store, entry()))
        await asyncio.sleep(0)
        await store.aclose()
        outcomes = await asyncio.gather(*waiting, late)
        server.resume()
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        await assert_it_works(store)
        await store.aclose()

    async def test_a_store_may_be_closed_before_use_and_twice(self) -> None:
        async with ScriptedServer() as server:
            store = RedisReplayStore.from_url(server.url)
            await store.aclose()
            await store.aclose()
            assert server.opened == 0

    async def test_a_store_may_be_closed_before_anything_was_sent(self, store: RedisReplayStore) -> None:
        asking = asyncio.ensure_future(answer(store, entry()))
        await asyncio.sleep(0)
        await store.aclose()
        assert isinstance(await asking, Unavailable)
        assert await store.add(entry()) is True

    async def test_a_store_whose_task_was_cancelled_starts_again(self, store: RedisReplayStore) -> None:
        item = entry()
        assert await store.add(item) is True
        for task in asyncio.all_tasks():
            if task.get_name().startswith("dpop replay store"):
                task.cancel()
        await asyncio.sleep(0.01)
        assert await store.add(item) is False

    async def test_a_store_may_be_closed_while_the_connection_opens(self, server: Server) -> None:
        server.pause()
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        asking = asyncio.ensure_future(answer(store, entry()))
        await asyncio.sleep(0.02)
        await store.aclose()
        server.resume()
        assert isinstance(await asking, Unavailable)

    async def test_cancelled_requests_do_not_affect_others(self, store: RedisReplayStore) -> None:
        items = [entry() for _ in range(400)]
        tasks = [asyncio.ensure_future(store.add(item)) for item in items]
        for step, task in enumerate(tasks):
            if step % 7 == 0:
                await asyncio.sleep(0)
            if step % 3 == 0:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(outcome is True for step, outcome in enumerate(outcomes) if step % 3)
        kept = [item for item, outcome in zip(items, outcomes, strict=True) if outcome is True]
        assert await answers(store, kept) == {False: len(kept)}
        assert await answers(store, [entry() for _ in range(100)]) == {True: 100}

    async def test_a_probe_that_is_cancelled_lets_the_next_one_through(self, server: Server) -> None:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS, new_server="accept")
        assert await store.add(entry()) is True
        server.kill()
        for _ in range(3):
            assert isinstance(await answer(store, entry()), Unavailable)
        server.start()
        await asyncio.sleep(0.5)
        probe = asyncio.ensure_future(answer(store, entry()))
        await asyncio.sleep(0)
        probe.cancel()
        await asyncio.sleep(0.01)
        # It passes the fence: this test is about whether the server is asked at all.
        assert await store.add(after_a_loss()) is True
        await store.aclose()

    def test_event_loops_may_follow_one_another(self, shared_server: Server) -> None:
        store = RedisReplayStore.from_url(shared_server.url, prefix=secrets.token_hex(4), timeout=ENDLESS)
        item = entry()
        loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

        async def ask() -> bool:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            return await store.add(item)

        assert [asyncio.run(ask()) for _ in range(3)] == [True, False, False]
        gc.collect()
        # Only the last one is kept, until there is another.
        assert [loop() is None for loop in loops] == [True, True, False]

    def test_event_loops_may_run_side_by_side(self, shared_server: Server) -> None:
        store = RedisReplayStore.from_url(shared_server.url, prefix=secrets.token_hex(4), timeout=ENDLESS)
        items = [entry() for _ in range(200)]
        wins: list[int] = []

        async def race() -> None:
            wins.append([await store.add(item) for item in items].count(True))
            await store.aclose()

        threads = [threading.Thread(target=lambda: asyncio.run(race())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(wins) == 200

    def test_two_threads_may_replace_an_event_loop_that_ended(self, shared_server: Server) -> None:
        store = RedisReplayStore.from_url(shared_server.url, prefix=secrets.token_hex(4), timeout=ENDLESS)

        class Loop(asyncio.SelectorEventLoop):
            meanwhile: Callable[[], None] | None = None

            def is_closed(self) -> bool:
                meanwhile, self.meanwhile = self.meanwhile, None
                if meanwhile is not None:
                    meanwhile()
                return super().is_closed()

        with asyncio.Runner(loop_factory=Loop) as runner:
            ended = runner.get_loop()
            assert runner.run(store.add(entry())) is True
        assert isinstance(ended, Loop)
        others: list[bool] = []
        ended.meanwhile = lambda: in_a_thread(lambda: others.append(asyncio.run(store.add(entry()))))
        assert asyncio.run(store.add(entry())) is True
        assert others == [True]

    def test_one_thread_may_close_a_store_that_another_opens(self, shared_server: Server) -> None:
        store = RedisReplayStore.from_url(shared_server.url, prefix=secrets.token_hex(4), timeout=ENDLESS)

        meanwhile: list[Callable[[], None]] = []

        class Task(asyncio.Task[Any]):
            def get_loop(self) -> asyncio.AbstractEventLoop:
                while meanwhile:
                    meanwhile.pop()()
                return super().get_loop()

        async def opened_and_closed() -> None:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(lambda loop, coroutine, **named: Task(coroutine, loop=loop, **named))
            await store.open()
            meanwhile.append(lambda: in_a_thread(lambda: other.run(store.open())))
            await store.aclose()

        with asyncio.Runner() as other:
            asyncio.run(opened_and_closed())
            assert not meanwhile
            assert other.run(store.add(entry())) is True
            other.run(store.aclose())

    @pytest.mark.parametrize("closing", ["await store.aclose()", "pass"])
    @pytest.mark.parametrize("runner", ["asyncio.run", "uvloop.run"])
    def test_the_end_of_a_process_is_silent(self, shared_server: Server, closing: str, runner: str) -> None:
        code = f"""
import asyncio, sys, warnings
sys.path.append({str(HOUSE)!r})
import {runner.partition(".")[0]}
from dpop_middleware.replay import RedisReplayStore
from tests.support.replay import entry
store = RedisReplayStore.from_url({shared_server.url!r}, prefix={secrets.token_hex(4)!r}, timeout={ENDLESS})
async def main():
    assert await store.add(entry())
    {closing}
{runner}(main())
{runner}(main())
"""
        pytest.importorskip(runner.partition(".")[0])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-X", "dev", "-c", code],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        noise = [line for line in done.stderr.splitlines() if "took" not in line]
        assert noise == []

    async def test_connections_that_a_fork_copied_are_not_touched(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        item = entry()
        async with ScriptedServer() as server:
            store = RedisReplayStore.from_url(server.url, timeout=10.0)
            assert await store.add(item) is True
            with monkeypatch.context() as child:
                child.setattr(os, "getpid", lambda: -1)
                assert await store.add(item) is False
                assert server.open == 2
                await store.aclose()
                async with asyncio.timeout(60):
                    while server.open > 1:
                        await asyncio.sleep(0.005)
            # The parent's connection, which nothing here may close.
            await asyncio.sleep(0.05)
            assert (server.open, server.opened) == (1, 2)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
    def test_a_fork_after_use_gets_connections_of_its_own(self, shared_server: Server) -> None:
        code = f"""
import asyncio, os, sys
sys.path.append({str(HOUSE)!r})
from dpop_middleware.replay import RedisReplayStore
from tests.support.replay import entry
store = RedisReplayStore.from_url({shared_server.url!r}, prefix={secrets.token_hex(4)!r}, timeout={ENDLESS})
items = [entry() for _ in range(200)]
async def race():
    return [await store.add(item) for item in items].count(True)
loop = asyncio.new_event_loop()
assert loop.run_until_complete(store.add(entry()))
read, write = os.pipe()
child = os.fork()
if child == 0:
    asyncio.events._set_running_loop(None)
    os.write(write, b"%d" % asyncio.new_event_loop().run_until_complete(race()))
    os._exit(0)
mine = loop.run_until_complete(race())
os.waitpid(child, 0)
theirs = int(os.read(read, 10))
assert mine + theirs == 200, (mine, theirs)
assert loop.run_until_complete(store.add(entry()))
loop.run_until_complete(store.aclose())
loop.close()
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "odd",
    [
        {"expires_at": math.inf},
        {"expires_at": math.nan},
        {"expires_at": 1e308},
        {"expires_at": None},
        {"retention": math.inf},
        {"iat": math.inf},
        {"iat": None},
        {"now": math.nan},
        {"now": -math.inf},
        {"not_before": None},
        {"not_before": math.nan},
        {"not_before": -math.inf},
        {"by_iat": True, "iat": -math.inf},
        {"made_at": None},
        {"made_at": math.nan},
        {"namespace": "\ud800", "retention": 95.0},
        {"namespace": None, "retention": 95.0},
        {"namespace": ["a"], "retention": 95.0},
        {"ahead": math.nan, "retention": 95.0},
        {"ahead": math.inf, "retention": 95.0},
        {"ahead": 1e308, "retention": 95.0},
        {"ahead": -math.inf, "retention": 95.0},
        {"ahead": None, "retention": 95.0},
    ],
    ids=ascii,
)
async def test_an_entry_that_can_not_be_sent_is_an_error_of_its_caller_alone(odd: dict[str, Any]) -> None:
    """One that an application makes by hand."""
    async with ScriptedServer() as server:
        store = RedisReplayStore.from_url(server.url, timeout=ENDLESS)
        adding = [store.add(item) for item in (entry(), entry()._replace(**odd), entry())]
        first, told, last = await asyncio.gather(*adding, return_exceptions=True)
        assert (first, last) == (True, True)
        assert isinstance(told, ValueError | TypeError)
        assert server.opened == 1
        await store.aclose()


async def test_an_entry_that_nobody_can_have_accepted_earlier_is_remembered(store: RedisReplayStore) -> None:
    item = entry()._replace(namespace="a", retention=95.0, not_before=math.inf, made_at=math.inf)
    assert [await store.add(item), await store.add(item)] == [True, False]


async def test_writes_of_concurrent_requests_are_sent_together() -> None:
    async with ScriptedServer() as server:
        exchanges: list[int] = []
        store = RedisReplayStore.from_url(
            server.url, timeout=ENDLESS, on_exchange=lambda exchange: exchanges.append(exchange.entries)
        )
        assert await answers(store, [entry(), entry()]) == {True: 2}
        assert await answers(store, [entry() for _ in range(1500)]) == {True: 1500}
        assert exchanges[-3:] == [512, 512, 476]
        await store.aclose()
