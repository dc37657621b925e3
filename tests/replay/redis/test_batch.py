"""What each reply to a batch means for its writes, on scripted and real servers and without any."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest
from redis.exceptions import InvalidResponse

from dpop_middleware.errors import Unavailable
from dpop_middleware.replay import RedisReplayStore
from dpop_middleware.replay.redis.anchors import Anchor
from dpop_middleware.replay.redis.batch import Batch, NewEntries
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.options import Settings
from dpop_middleware.replay.redis.resp import ASKING, ServerError, command
from dpop_middleware.replay.redis.retention import LivingRetentions, PublishedRetentions
from dpop_middleware.replay.redis.vitals import identity_of
from dpop_middleware.replay.redis.writes import CHANGED, PendingWrite
from tests.support.batches import (
    ASK,
    BUCKETS,
    INFO,
    KNOWN,
    MOVED,
    NOW,
    SAID,
    SHOWN,
    SLOTS,
    Received,
    anchor,
    fence,
    write,
)
from tests.support.load import stolen
from tests.support.replay import ENDLESS, after_a_loss, answer, answers, entry
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
        store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
        item = entry()
        assert await store.add(item) is True
        assert await store.add(item) is False
        assert all(b"GET" not in words for words in sets(scripted))
        assert "before version 7.0" in (await store.health()).nodes[0].warnings[0]
        await store.aclose()

    async def test_an_old_server_that_hides_its_version_is_recognised(self, scripted: ScriptedServer) -> None:
        scripted.script = lambda words: b"-NOPERM no\r\n" if words[0] == b"INFO" else self.old(words)
        store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
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
        store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
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
        store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
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
        store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
        outcome = await answer(store, entry())
        assert isinstance(outcome, Unavailable)
        assert outcome.actual == "InvalidResponse"
        await store.aclose()


class TestPermissions:
    """The minimal ACL of the README, and less."""

    async def with_acl(self, server: Server, *rules: str) -> RedisReplayStore:
        server.run("ACL", "SETUSER", "api", "reset", "on", ">secret", *rules)
        return RedisReplayStore.from_url(server.url.replace("//", "//api:secret@"), timeout=ENDLESS)

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
            one, other = (RedisReplayStore.from_url(url, timeout=ENDLESS) for _ in "ab")
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
        store = RedisReplayStore.from_url(url, timeout=ENDLESS, new_server="accept", wait_replicas=1)
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
        store = RedisReplayStore.from_url(master.url, new_server="accept", wait_replicas=1, timeout=ENDLESS)
        item = entry()
        assert await store.add(item) is True
        assert replica.run("EXISTS", f"dpop:{item.key}") == 1
        assert await store.add(item) is False
        assert await answers(store, [entry() for _ in range(100)]) == {True: 100}
        await store.aclose()

    async def test_a_replica_that_does_not_confirm_is_503(self, pair: tuple[Server, Server]) -> None:
        master, replica = pair
        store, patient = (
            RedisReplayStore.from_url(master.url, timeout=seconds, new_server="accept", wait_replicas=1)
            for seconds in (2.0, ENDLESS)
        )
        item = entry()
        assert await patient.add(item) is True
        await patient.aclose()
        replica.pause()
        told = ""
        async with asyncio.timeout(60):
            # A busy server may answer too late, and then it can't be known.
            while told != "too few replicas of the replay store confirmed the entry":
                error = await answer(store, entry())
                assert isinstance(error, Unavailable)
                told = error.description
            # A known replay needs no confirmation.
            while (known := await answer(store, item)) is not False:
                assert isinstance(known, Unavailable)
        replica.resume()
        async with asyncio.timeout(60):
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
        store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS, wait_replicas=1)
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
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await outcome(store) == actual
    scripted.script = lambda words: None
    async with asyncio.timeout(60):
        while await answer(store, entry()) is not True:
            await asyncio.sleep(0.01)
    await store.aclose()


async def test_a_write_has_at_most_two_tries(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: b"-READONLY no\r\n" if words[0] == b"SET" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await outcome(store) == "READONLY"
    first, second = sets(scripted)
    assert first == second
    await store.aclose()


@pytest.mark.parametrize("code", [b"READONLY", b"MASTERDOWN", b"CLUSTERDOWN"])
async def test_a_stable_address_leads_to_the_new_master_once_the_old_one_is_demoted(
    scripted: ScriptedServer, code: bytes
) -> None:
    """The existing connection stays with the demoted server: the store must close it."""
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await store.add(entry()) is True
    demoted = scripted.opened

    def script(words: tuple[bytes, ...]) -> bytes | None:
        is_entry = words[0] == b"SET" and b"anchor" not in words[1]
        return b"-%b no\r\n" % code if is_entry and scripted.asking <= demoted else None

    scripted.script = script
    assert [await answer(store, entry()) for _ in range(20)] == [True] * 20
    await store.aclose()


async def test_owner_tokens_are_128_bits_and_of_one_call_only(scripted: ScriptedServer) -> None:
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    await answers(store, [entry("same")] * 20)
    tokens = [words[2] for words in sets(scripted)]
    assert len(set(tokens)) == 20
    assert {len(token) for token in tokens} == {16}
    await store.aclose()


async def test_each_batch_has_one_read_of_the_anchor(scripted: ScriptedServer) -> None:
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await answers(store, [entry(), entry()]) == {True: 2}
    scripted.commands.clear()
    assert await answers(store, [entry() for _ in range(16)]) == {True: 16}
    assert [words[0] for words in scripted.commands].count(b"GET") == 1
    # And one look at the server's clock.
    assert len(scripted.commands) == 18
    await store.aclose()


async def test_an_unexpected_reply_is_never_used_as_an_answer(scripted: ScriptedServer) -> None:
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    item = entry()
    assert await store.add(item) is True
    scripted.push(b"$-1\r\n")
    await asyncio.sleep(0.02)
    assert await store.add(item) is False
    assert await store.add(entry()) is True
    await store.aclose()


async def test_an_anchor_of_the_wrong_kind_is_no_verdict(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: b"-WRONGTYPE no string\r\n" if words[0] == b"GET" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await outcome(store) == "WRONGTYPE"
    await store.aclose()


async def test_an_info_reply_that_is_no_text_is_ignored(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: b":1\r\n" if words[0] == b"INFO" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await store.add(entry()) is True
    assert not (await store.health()).nodes[0].fenced
    await store.aclose()


async def test_a_server_without_a_run_id_is_watched_by_its_anchors_alone(scripted: ScriptedServer) -> None:
    scripted.script = lambda words: bulk(b"redis_version:7.2.0\r\n") if words[0] == b"INFO" else None
    store = RedisReplayStore.from_url(scripted.url, timeout=ENDLESS)
    assert await store.add(entry()) is True
    assert "hides its run_id" in (await store.health()).nodes[0].warnings[0]
    scripted.keys.clear()
    assert isinstance(await answer(store, entry()), Unavailable)
    await store.aclose()


@pytest.fixture
def quiet() -> Fence:
    """A fence that has just looked at its server."""
    return fence()


@pytest.fixture
async def watched() -> Fence:
    """The same; its server reports changes, and the first two buckets were read."""
    made = fence()
    made.standing.watches = True
    Received(made, [write(0), write(1)], b"OK", b"OK", KNOWN, KNOWN)
    return made


def told(fence: Fence, item: PendingWrite) -> None:
    fence.standing.heed([b"invalidate", [BUCKETS.anchors[item.bucket]]])


async def test_an_anchor_whose_changes_are_reported_is_not_read_again(watched: Fence) -> None:
    one, new, used = write(0), write(2), write(0)
    Received(watched, [one, new, used], b"OK", b"OK", None, KNOWN, at=NOW + 0.5)
    assert [item.answer.result() for item in (one, new, used)] == [True, True, False]
    assert watched.sights.of[one.bucket].at == NOW + 0.5
    told(watched, one)
    Received(watched, [write(0)], b"OK", KNOWN)


async def test_with_each_report_the_anchors_are_read_again(watched: Fence) -> None:
    item = write(0)
    # The report, the write, the time and the anchor.
    assert Received(watched, [item], SAID, b"OK", KNOWN, at=NOW + 2).count == 4
    assert item.answer.result() is True


async def test_a_write_beside_which_the_anchor_changed_is_tried_again(watched: Fence) -> None:
    new, used = write(0), write(0)
    batch = Batch([new, used], Settings(), watched, PublishedRetentions(b"dpop", LivingRetentions()), True)
    assert batch.compose(now=NOW, at=NOW, timeout=1.0)[1] == 3
    told(watched, new)
    batch.receive([b"OK", None, SHOWN], now=NOW, at=NOW)
    assert batch.outcome == [(new, CHANGED)]
    assert new.unknown
    assert new.tries == -1
    assert not new.answer.done()
    assert used.answer.result() is False
    # This time the anchor is read.
    lost = Anchor.new(identity_of(INFO), NOW + 5, server_time=NOW).value
    Received(watched, [new], None, lost)
    assert isinstance(new.answer.result(), Unavailable)


async def test_a_server_that_does_not_answer_a_write_has_not_shown_its_anchor(watched: Fence) -> None:
    item, sent_on, unknown = write(0), write(1), write(2)
    replies = MOVED, ServerError("OOM no"), MOVED
    received = Received(watched, [item, sent_on, unknown], *replies, MOVED, at=NOW + 0.5)
    assert received.batch.outcome == [(item, MOVED), (unknown, MOVED)]
    assert not item.vouched
    assert watched.sights.of[item.bucket].at == NOW
    assert watched.sights.of[sent_on.bucket].at == NOW
    # A bucket that has moved may come back with other data.
    assert not watched.standing.stands(item.bucket)
    assert watched.standing.stands(sent_on.bucket)


async def test_a_bucket_that_moves_between_two_writes_is_followed(watched: Fence) -> None:
    before, after = write(0), write(0)
    received = Received(watched, [before, after], b"OK", MOVED)
    assert received.batch.outcome == [(before, MOVED), (after, MOVED)]
    assert before.unknown
    assert not after.unknown


async def test_a_write_redirected_while_the_slot_moves_knows_that_the_anchor_stands(watched: Fence) -> None:
    sent_on = write(0)
    received = Received(watched, [sent_on], ASK)
    assert received.batch.outcome == [(sent_on, ASK)]
    assert sent_on.vouched


async def test_a_user_who_may_no_longer_get_is_answered_in_the_same_batch(
    watched: Fence, caplog: pytest.LogCaptureFixture
) -> None:
    """Also beside an anchor that isn't read, since its changes were reported: nobody looks at it any more."""
    new, read = write(0), write(4)
    assert watched.standing.stands(new.bucket)
    watched.vitals.is_evicting = True
    received = Received(watched, [new, read], b"OK", b"OK", ServerError("NOPERM no"))
    assert received.batch.outcome == []
    assert (new.answer.result(), read.answer.result()) == (True, True)
    assert "may not GET" in caplog.text
    assert "evicts" not in caplog.text


@pytest.mark.parametrize(
    ("since", "seconds", "warning"),
    [
        (NOW + 5, 305, ""),
        (NOW - 10, 290, "are 300 s ahead (clock_skew), this one 60: proofs are refused for 240 s longer"),
    ],
    ids=["its own loss", "by another server's skew"],
)
def test_after_a_loss_a_client_is_told_when_proofs_are_judged_again(
    watched: Fence, since: float, seconds: int, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings()
    settings.living.ahead = {"n": 300.0}
    item = entry()._replace(namespace="n", iat=NOW, not_before=NOW, ahead=60.0, by_iat=True)
    refused = NewEntries(settings, watched, NOW).outcome(item, since)
    assert isinstance(refused, Unavailable)
    assert (refused.retry_after, refused.judges_from) == (seconds, since)
    *before, loss = caplog.messages
    assert "may have lost entries" in loss
    assert warning in caplog.text
    assert len(before) == bool(warning)


async def test_an_anchor_that_is_to_be_written_is_read_afterwards(watched: Fence) -> None:
    item = write(0)
    watched.standing.owe(item.bucket, KNOWN, KNOWN)
    Received(watched, [item], b"OK", b"OK", KNOWN)
    assert item.answer.result() is True


async def test_a_repeat_that_gave_the_replicas_nothing_to_confirm_is_not_confirmed(quiet: Fence) -> None:
    """Where its slot has moved, the write beside it is refused: `WAIT` counts from an earlier write."""
    settings = Settings(wait_replicas=1)
    for beside, confirmed in ((b"OK", True), (MOVED, False)):
        sent_on, stored = write(0), write(1)
        sent_on.unknown = stored.unknown = True
        stored.owner = b"of the first try"
        replies = MOVED, stored.owner, beside, 1, MOVED, KNOWN
        received = Received(quiet, [sent_on, stored], *replies, settings=settings)
        assert received.batch.outcome == [(sent_on, MOVED)]
        outcome = stored.answer.result()
        assert outcome is True if confirmed else isinstance(outcome, Unavailable)


async def test_a_repeat_where_its_slot_goes_is_confirmed_by_what_was_written_there(quiet: Fence) -> None:
    for beside, confirmed in ((b"OK", True), (MOVED, False)):
        repeat = write(0, asking=True)
        repeat.unknown = True
        replies = b"OK", None, b"OK", beside, 1, b"OK", KNOWN
        Received(quiet, [repeat], *replies, settings=Settings(wait_replicas=1))
        outcome = repeat.answer.result()
        assert outcome is True if confirmed else isinstance(outcome, Unavailable)


async def test_the_write_for_replicas_to_confirm_is_sent_with_the_repeat(quiet: Fence) -> None:
    settings, retentions = Settings(wait_replicas=1), PublishedRetentions(b"dpop", LivingRetentions())
    for asking in (False, True):
        new, repeat = write(0), write(1, asking=asking)
        repeat.unknown = True
        data, _ = Batch([new, repeat], settings, quiet, retentions, True).compose(now=NOW, at=NOW, timeout=1)
        before, touched, _ = data.partition(
            command(b"SET", BUCKETS.touched[repeat.bucket], b"1", b"PX", b"1000")
        )
        assert touched
        assert before.endswith(ASKING) is asking


async def test_a_user_without_scripts_replaces_anchors_without_a_comparison(
    quiet: Fence, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = BUCKETS.slots.index(SLOTS[0])
    quiet.standing.owe(bucket, b"old", b"new")
    refused = write(0)
    Received(quiet, [refused], ServerError("NOPERM no eval"), b"OK", anchor())
    assert not quiet.with_script
    assert refused.answer.result() is True
    assert "grant +eval" in caplog.text


async def test_a_report_that_a_busy_server_refused_is_ignored() -> None:
    for reply, told in ((ServerError("BUSY a script runs"), False), (SAID, True)):
        made, item = fence(), write(0)
        Received(made, [item], reply, b"OK", anchor(), at=NOW + 2)
        assert item.answer.result() is True
        assert made.vitals.has_told_since(NOW + 1) is told


async def test_a_report_that_the_user_may_not_see_any_more_ends_the_connection() -> None:
    """The next one is opened as for any user who may not ask: with a warning."""
    item = write(0)
    with pytest.raises(ServerError, match="NOPERM"):
        Received(fence(), [item], ServerError("NOPERM no"), b"OK", anchor(), at=NOW + 2)
    assert not item.answer.done()


@pytest.mark.parametrize("reply", [None, 1, [SAID]])
async def test_a_report_that_is_none_puts_the_connection_in_doubt(reply: object) -> None:
    item = write(0)
    with pytest.raises(InvalidResponse, match="INFO"):
        Received(fence(), [item], reply, b"OK", anchor(), at=NOW + 2)
    assert not item.answer.done()


async def test_a_loss_that_was_dated_far_ahead_is_an_error_that_names_both_clocks(
    quiet: Fence, caplog: pytest.LogCaptureFixture
) -> None:
    dated = Anchor.new(identity_of(INFO), NOW + 3600, server_time=NOW - 5000).value
    Received(quiet, [write(0)], b"OK", dated)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "3600 s ahead" in record.getMessage()
    assert f"shows {NOW:.0f}:" in record.getMessage()
