import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import RedisReplayStore
from tests.support.load import stolen
from tests.support.replay import after_a_loss, answer, answers, entry
from tests.support.scripted import ScriptedServer, bulk, info
from tests.support.valkey import HOST, Server, until

Script = Callable[[tuple[bytes, ...]], bytes | None]


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


def sets(server: ScriptedServer) -> list[tuple[bytes, ...]]:
    return [words for words in server.commands if words[0] == b"SET" and b"anchor" not in words[1]]


async def outcome(store: RedisReplayStore) -> str | bool:
    result = await answer(store, entry())
    return result if isinstance(result, bool) else str(result.actual)


class TestServersBefore7:
    def old(self, words: tuple[bytes, ...]) -> bytes | None:
        if words[0] == b"INFO":
            return info("6.2.14")
        return b"-ERR syntax error\r\n" if {b"NX", b"GET"} <= set(words) else None

    async def test_an_old_server_gets_a_plain_set(self, scripted: ScriptedServer) -> None:
        scripted.script = self.old
        store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
        item = entry()
        assert await store.add(item) is True
        assert await store.add(item) is False
        assert all(b"GET" not in words for words in sets(scripted))
        assert "before version 7.0" in (await store.health()).nodes[0].warnings[0]
        await store.aclose()

    async def test_an_old_server_that_hides_its_version_is_recognised(self, scripted: ScriptedServer) -> None:
        scripted.script = lambda words: b"-NOPERM no\r\n" if words[0] == b"INFO" else self.old(words)
        store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
        items = [entry() for _ in range(10)]
        assert await answers(store, items) == {True: 10}
        assert await answers(store, items) == {False: 10}
        assert not any(b"GET" in words for words in sets(scripted))

        def break_first(words: tuple[bytes, ...]) -> bytes | None:
            scripted.script = lambda words: b"-NOPERM no\r\n" if words[0] == b"INFO" else self.old(words)
            scripted.cut()
            return b""

        scripted.script = break_first
        assert await store.add(entry()) is True
        assert len([words for words in sets(scripted) if b"GET" in words]) == 1
        await store.aclose()

    async def test_an_unknown_outcome_is_503_and_never_a_replay(self, scripted: ScriptedServer) -> None:
        scripted.script = self.old
        store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
        assert await store.add(entry()) is True

        def apply_and_break(words: tuple[bytes, ...]) -> bytes | None:
            if words[0] == b"SET":
                scripted.keys[words[1]] = words[2]
                scripted.script = self.old
                asyncio.get_running_loop().call_soon(scripted.cut)
                return b""
            return self.old(words)

        scripted.script = apply_and_break
        assert isinstance(await answer(store, entry()), Unavailable)
        await store.aclose()

    async def test_a_write_that_was_not_applied_is_tried_again(self, scripted: ScriptedServer) -> None:
        scripted.script = self.old
        store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
        assert await store.add(entry()) is True

        def break_first(words: tuple[bytes, ...]) -> bytes | None:
            scripted.script = self.old
            scripted.cut()
            return b""

        scripted.script = break_first
        assert await store.add(entry()) is True
        await store.aclose()


@pytest.mark.parametrize(
    ("version", "stray"), [("7.2.0", b"$4\r\nlost\r\n"), ("7.2.0", b":1\r\n"), ("6.2.0", b":1\r\n")]
)
async def test_a_reply_that_no_entry_can_get_is_no_answer(version: str, stray: bytes) -> None:
    """It answers another command: neither a first time nor a replay."""
    async with ScriptedServer() as scripted:

        def script(words: tuple[bytes, ...]) -> bytes | None:
            if words[0] == b"SET" and b"anchor" not in words[1]:
                return stray
            return info(version) if words[0] == b"INFO" else None

        scripted.script = script
        store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
        outcome = await answer(store, entry())
        assert isinstance(outcome, Unavailable)
        assert outcome.actual == "InvalidResponse"
        await store.aclose()


class TestPermissions:
    """The minimal ACL of the README, and less."""

    async def with_acl(self, server: Server, *rules: str) -> RedisReplayStore:
        server.run("ACL", "SETUSER", "api", "reset", "on", ">secret", *rules)
        return RedisReplayStore.from_url(server.url.replace("//", "//api:secret@"), timeout=2.0)

    async def test_the_minimal_acl_suffices(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        store = await self.with_acl(server, "~dpop:*", "+set", "+get", "+info", "+time")
        item = entry()
        with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
            assert await store.add(item) is True
            assert await store.add(item) is False
        assert caplog.text == ""
        (node,) = (await store.health()).nodes
        assert node.fenced
        server.run("FLUSHALL")
        assert isinstance(await answer(store, item), Unavailable)
        await store.aclose()

    @pytest.mark.parametrize("rules", [("+set",), ("+set", "+info")], ids=" ".join)
    async def test_without_get_nothing_is_watched_and_that_is_said_once(
        self, server: Server, caplog: pytest.LogCaptureFixture, rules: tuple[str, ...]
    ) -> None:
        store = await self.with_acl(server, "~dpop:*", *rules)
        item = entry()
        with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
            assert await store.add(item) is True
            assert await store.add(item) is False
            server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert await answers(store, [entry() for _ in range(10)]) == {True: 10}
        assert len([record for record in caplog.records if "+get is granted" in record.message]) == 1
        server.run("FLUSHALL")
        assert await store.add(item) is True
        await store.aclose()

    @pytest.mark.parametrize("loss", ["flush", "restart"])
    async def test_without_info_the_anchors_alone_show_a_loss(
        self, implementation: str, caplog: pytest.LogCaptureFixture, loss: str
    ) -> None:
        user = ("api", "on", ">secret", "~dpop:*", "+set", "+get", "+eval")
        with Server({"user": user}, implementation=implementation) as server:
            url = server.url.replace("//", "//api:secret@")
            one, other = (RedisReplayStore.from_url(url, timeout=2.0) for _ in "ab")
            used = [entry() for _ in range(10)]
            with caplog.at_level(logging.WARNING, "dpop_middleware.replay"):
                # A first start costs nothing, nor does a new connection.
                assert await answers(one, used) == {True: 10}
                assert await answers(other, [entry(age=60) for _ in range(10)]) == {True: 10}
                server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                assert await answers(other, stolen(used)) == {False: 10}
            assert len([record for record in caplog.records if "grant +info" in record.message]) == 2
            if loss == "flush":
                server.run("FLUSHALL")
            else:
                server.kill()
                server.start()
            assert await answers(one, stolen(used)) == {503: 10}
            assert await answers(other, [entry() for _ in range(10)]) == {503: 10}
            assert await other.add(after_a_loss()) is True
            await one.aclose()
            await other.aclose()

    async def test_keys_outside_the_prefix_can_not_be_reached(self, server: Server) -> None:
        store = await self.with_acl(server, "~other:*", "+set", "+get", "+info", "+time")
        assert await outcome(store) == "NOPERM"
        await store.aclose()

    async def test_wait_needs_its_own_permission(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.run(
            "ACL", "SETUSER", "api", "reset", "on", ">secret", "~dpop:*", "+set", "+get", "+info", "+time"
        )
        url = server.url.replace("//", "//api:secret@")
        store = RedisReplayStore.from_url(url, new_server="accept", wait_replicas=1)
        assert isinstance(await answer(store, entry()), Unavailable)
        assert "+wait" in caplog.text
        await store.aclose()


class TestWaitReplicas:
    @pytest.fixture
    async def pair(self, implementation: str) -> AsyncIterator[tuple[Server, Server]]:
        with Server({"repl-diskless-sync-delay": 0}, implementation=implementation) as master:
            options: dict[str, object] = {"replicaof": (HOST, master.port)}
            with Server(options, implementation=implementation) as replica:
                with master.client() as client:
                    until(lambda: client.set("ready", "yes") and client.wait(1, 200) == 1)
                yield master, replica

    async def test_a_replica_that_confirms_makes_the_entry_count(self, pair: tuple[Server, Server]) -> None:
        master, replica = pair
        store = RedisReplayStore.from_url(master.url, new_server="accept", wait_replicas=1, timeout=10.0)
        item = entry()
        assert await store.add(item) is True
        assert replica.run("EXISTS", f"dpop:{item.key}") == 1
        assert await store.add(item) is False
        assert await answers(store, [entry() for _ in range(100)]) == {True: 100}
        await store.aclose()

    async def test_a_replica_that_does_not_confirm_is_503(self, pair: tuple[Server, Server]) -> None:
        master, replica = pair
        store = RedisReplayStore.from_url(master.url, timeout=2.0, new_server="accept", wait_replicas=1)
        item = entry()
        assert await store.add(item) is True
        replica.pause()
        told = ""
        async with asyncio.timeout(10):
            # A busy server may answer too late, and then it can't be known.
            while told != "too few replicas of the replay store confirmed the entry":
                error = await answer(store, entry())
                assert isinstance(error, Unavailable)
                told = error.description
        # A known replay needs no confirmation.
        assert await store.add(item) is False
        replica.resume()
        async with asyncio.timeout(5):
            while await answer(store, entry()) is not True:
                await asyncio.sleep(0.01)
        await store.aclose()

    async def test_a_repeated_write_gives_the_replicas_something_to_confirm(
        self, scripted: ScriptedServer
    ) -> None:
        waited: list[int] = []

        def script(words: tuple[bytes, ...]) -> bytes | None:
            if words[0] == b"WAIT":
                waited.append(len(scripted.commands))
                return b":1\r\n"
            return None

        def lose(words: tuple[bytes, ...]) -> bytes | None:
            scripted.script = script
            scripted.keys[words[1]] = words[2]
            asyncio.get_running_loop().call_soon(scripted.cut)
            return b""

        scripted.script = script
        store = RedisReplayStore.from_url(scripted.url, timeout=2.0, wait_replicas=1)
        assert await store.add(entry()) is True
        assert not any(words[1] == b"dpop::wait" for words in scripted.commands if words[0] == b"SET")
        scripted.script = lose
        assert await store.add(entry()) is True
        before_wait = scripted.commands[waited[-1] - 2]
        assert before_wait == (b"SET", b"dpop::wait", b"1", b"PX", b"1000")
        await store.aclose()


@pytest.mark.parametrize(
    ("reply", "actual"),
    [
        (b"-OOM no memory\r\n", "OOM"),
        (b"-MISCONF no snapshot\r\n", "MISCONF"),
        (b"-NOREPLICAS too few\r\n", "NOREPLICAS"),
        (b"-MASTERDOWN writer\r\n", "MASTERDOWN"),
        (b"-CLUSTERDOWN down\r\n", "CLUSTERDOWN"),
        (b"-READONLY replica\r\n", "READONLY"),
        (b"-MOVED 1 127.0.0.1:1\r\n", "MOVED"),
        (b"-LOADING data\r\n", "LOADING"),
        (b"HTTP/1.1 400 Bad Request\r\n", "InvalidResponse"),
    ],
)
async def test_every_refusal_is_503(scripted: ScriptedServer, reply: bytes, actual: str) -> None:
    def script(words: tuple[bytes, ...]) -> bytes | None:
        return reply if words[0] == b"SET" and b"anchor" not in words[1] else None

    scripted.script = script
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    assert await outcome(store) == actual
    scripted.script = lambda words: None
    async with asyncio.timeout(5):
        while await answer(store, entry()) is not True:
            await asyncio.sleep(0.01)
    await store.aclose()


async def test_a_write_has_at_most_two_tries(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: b"-READONLY no\r\n" if words[0] == b"SET" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    assert await outcome(store) == "READONLY"
    first, second = sets(scripted)
    assert first == second
    await store.aclose()


@pytest.mark.parametrize("code", [b"READONLY", b"MASTERDOWN", b"CLUSTERDOWN"])
async def test_a_stable_address_leads_to_the_new_master_once_the_old_one_is_demoted(
    scripted: ScriptedServer, code: bytes
) -> None:
    """The existing connection stays with the demoted server: the store must close it."""
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    assert await store.add(entry()) is True
    demoted = scripted.opened

    def script(words: tuple[bytes, ...]) -> bytes | None:
        is_entry = words[0] == b"SET" and b"anchor" not in words[1]
        return b"-%b no\r\n" % code if is_entry and scripted.asking <= demoted else None

    scripted.script = script
    assert [await answer(store, entry()) for _ in range(20)] == [True] * 20
    await store.aclose()


async def test_owner_tokens_are_128_bits_and_of_one_call_only(scripted: ScriptedServer) -> None:
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    await answers(store, [entry("same")] * 20)
    tokens = [words[2] for words in sets(scripted)]
    assert len(set(tokens)) == 20
    assert {len(token) for token in tokens} == {16}
    await store.aclose()


async def test_each_batch_has_one_read_of_the_anchor(scripted: ScriptedServer) -> None:
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    assert await answers(store, [entry(), entry()]) == {True: 2}
    scripted.commands.clear()
    assert await answers(store, [entry() for _ in range(100)]) == {True: 100}
    assert [words[0] for words in scripted.commands].count(b"GET") == 1
    # And one look at the server's clock.
    assert len(scripted.commands) == 102
    await store.aclose()


async def test_an_unexpected_reply_is_never_used_as_an_answer(scripted: ScriptedServer) -> None:
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    item = entry()
    assert await store.add(item) is True
    scripted.push(b"$-1\r\n")
    await asyncio.sleep(0.02)
    assert await store.add(item) is False
    assert await store.add(entry()) is True
    await store.aclose()


async def test_an_anchor_of_the_wrong_kind_is_no_verdict(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: b"-WRONGTYPE no string\r\n" if words[0] == b"GET" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    assert await outcome(store) == "WRONGTYPE"
    await store.aclose()


async def test_an_info_reply_that_is_no_text_is_ignored(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: b":1\r\n" if words[0] == b"INFO" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    assert await store.add(entry()) is True
    assert not (await store.health()).nodes[0].fenced
    await store.aclose()


async def test_a_server_without_a_run_id_is_watched_by_its_anchors_alone(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: bulk(b"redis_version:7.2.0\r\n") if words[0] == b"INFO" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=2.0)
    assert await store.add(entry()) is True
    assert "hides its run_id" in (await store.health()).nodes[0].warnings[0]
    scripted.keys.clear()
    assert isinstance(await answer(store, entry()), Unavailable)
    await store.aclose()
