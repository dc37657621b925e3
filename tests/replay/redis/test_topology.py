"""A server may report anything of its cluster: a malformed report is no answer, and causes nothing else."""

import asyncio
import math
from typing import Any, cast

import pytest
from redis.exceptions import InvalidResponse, RedisError

from dpop_middleware.errors import Unavailable
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN
from dpop_middleware.replay import RedisReplayStore
from dpop_middleware.replay.redis.clocks import Moments
from dpop_middleware.replay.redis.fence import Fence
from dpop_middleware.replay.redis.topology import (
    MOST_HELD,
    Inquiry,
    Topology,
    fetch_topology,
    identities_among,
)
from dpop_middleware.replay.redis.vitals import identity_of, parse_info
from dpop_middleware.replay.redis.writes import PendingWrite
from tests.support.batches import (
    NOW,
    OTHER,
    anchor,
    fence,
    write,
)
from tests.support.replay import cluster_nodes
from tests.support.scripted import ScriptedServer, bulk
from tests.support.sleep import Sleep
from tests.support.valkey import HOST
from tests.support.virtual_time import let_time_be_virtual

NODE = b"*2\r\n$9\r\n127.0.0.1\r\n:7001\r\n"


def slots(first: bytes, last: bytes, *nodes: bytes) -> bytes:
    """The reply to `CLUSTER SLOTS` of a cluster that has one range of them."""
    return b"*1\r\n*%d\r\n%b%b%b" % (2 + len(nodes), first, last, b"".join(nodes))


async def told(reply: bytes) -> Topology:
    """The topology that is read from a server's `reply` to `CLUSTER SLOTS`."""
    async with ScriptedServer(lambda words: reply if words[0] == b"CLUSTER" else None) as server:
        nodes = cluster_nodes(server.url.replace("redis://", "redis+cluster://"))
        return await fetch_topology(nodes, nodes.addresses, 1.0)


async def test_the_owner_of_a_range_comes_first_and_its_replicas_after_it() -> None:
    replica = b"*2\r\n$9\r\n127.0.0.1\r\n:7002\r\n"
    topology = await told(slots(b":0\r\n", b":1\r\n", NODE, replica))
    assert topology.owners[:3] == ((HOST, 7001), (HOST, 7001), None)
    assert topology.masters == ((HOST, 7001),)
    assert topology.nodes == ((HOST, 7001), (HOST, 7002))


@pytest.mark.parametrize("host", [b"$0\r\n\r\n", b"$-1\r\n"], ids=["empty", "null"])
async def test_a_node_without_an_address_is_the_one_that_was_asked(host: bytes) -> None:
    topology = await told(slots(b":0\r\n", b":0\r\n", b"*2\r\n" + host + b":7001\r\n"))
    assert topology.nodes == ((HOST, 7001),)


IP = b"$2\r\nip\r\n$9\r\n127.0.0.2\r\n"
NAME = b"$8\r\nhostname\r\n$0\r\n\r\n"


@pytest.mark.parametrize(
    ("more", "host"),
    [
        ((b"$2\r\nid\r\n", b"*2\r\n" + IP), "127.0.0.2"),
        ((b"$2\r\nid\r\n", b"*4\r\n" + NAME + IP), "127.0.0.2"),
        ((b"$2\r\nid\r\n", b"%2\r\n" + NAME + IP), "127.0.0.2"),
        ((b"$2\r\nid\r\n", b"*2\r\n" + NAME), "?"),
        ((b"$2\r\nid\r\n", b"*2\r\n$2\r\nip\r\n:1\r\n"), "?"),
        ((b"$2\r\nid\r\n", b"*2\r\n$2\r\nip\r\n$0\r\n\r\n"), "?"),
        ((b"$2\r\nid\r\n", b"*1\r\n$2\r\nip\r\n"), "?"),
        ((b"$2\r\nid\r\n", b"*0\r\n"), "?"),
        ((b"$2\r\nid\r\n", b":1\r\n"), "?"),
        ((b"$2\r\nid\r\n",), "?"),
        ((), "?"),
    ],
)
async def test_a_node_whose_name_is_not_known_is_at_its_ip_address(
    more: tuple[bytes, ...], host: str
) -> None:
    node = b"*%d\r\n$1\r\n?\r\n:7001\r\n" % (2 + len(more)) + b"".join(more)
    assert (await told(slots(b":0\r\n", b":0\r\n", node))).nodes == ((host, 7001),)


@pytest.mark.parametrize(
    "reply",
    [
        b"*1\r\n:1\r\n",
        b"*1\r\n*2\r\n:0\r\n:1\r\n",
        slots(b"$1\r\n0\r\n", b":1\r\n", NODE),
        slots(b":0\r\n", b"$1\r\n1\r\n", NODE),
        slots(b":-1\r\n", b":1\r\n", NODE),
        slots(b":2\r\n", b":1\r\n", NODE),
        slots(b":0\r\n", b":16384\r\n", NODE),
        slots(b":0\r\n", b":1\r\n", b":1\r\n"),
        slots(b":0\r\n", b":1\r\n", b"*1\r\n$9\r\n127.0.0.1\r\n"),
        slots(b":0\r\n", b":1\r\n", b"*2\r\n:1\r\n:7001\r\n"),
        slots(b":0\r\n", b":1\r\n", b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n7001\r\n"),
        slots(b":0\r\n", b":1\r\n", NODE, b"*0\r\n"),
        slots(b":0\r\n", b":1\r\n", b"*2\r\n$4\r\nh\x1b[2\r\n:7001\r\n"),
        slots(b":0\r\n", b":1\r\n", b"*2\r\n$3\r\na\nb\r\n:7001\r\n"),
        slots(b":0\r\n", b":1\r\n", b"*2\r\n$1\r\n\xff\r\n:7001\r\n"),
        b"*1\r\n$x\r\n",
    ],
    ids=str,
)
async def test_a_malformed_reply_about_slots_is_refused(reply: bytes) -> None:
    with pytest.raises(InvalidResponse):
        await told(reply)


@pytest.mark.parametrize("reply", [b"*0\r\n", b"$-1\r\n", b"+OK\r\n"], ids=str)
async def test_an_empty_reply_about_slots_is_no_answer(reply: bytes) -> None:
    with pytest.raises(RedisError, match="no server gave an answer"):
        await told(reply)


@pytest.mark.parametrize(
    ("scheme", "path", "reply", "error"),
    [
        ("redis", "", b"$x\r\n", "InvalidResponse"),
        ("redis+cluster", "", b"*1\r\n*2\r\n:0\r\n:1\r\n", "InvalidResponse"),
        ("redis+sentinel", "/proofs", b"*1\r\n$9\r\n127.0.0.1\r\n", "RedisError"),
        ("redis+sentinel", "/proofs", b"*2\r\n$9\r\n127.0.0.1\r\n$1\r\nx\r\n", "RedisError"),
    ],
)
async def test_the_health_of_a_server_with_malformed_replies_is_reported(
    scheme: str, path: str, reply: bytes, error: str
) -> None:
    asked = (b"INFO", b"CLUSTER", b"SENTINEL")
    async with ScriptedServer(lambda words: reply if words[0] in asked else None) as server:
        store = RedisReplayStore.from_url(f"{scheme}://{HOST}:{server.port}{path}?protocol=2")
        health = await store.health()
    assert not health.ok
    assert [node.error for node in health.nodes] == [error]


async def test_an_identity_that_was_found_is_not_asked_for_elsewhere() -> None:
    text = b"role:master\r\nrun_id:" + b"a" * 40 + b"\r\nmaster_replid:" + b"b" * 40 + b"\r\n"
    wanted = frozenset({identity_of(parse_info(text))})

    def tell(words: tuple[bytes, ...]) -> bytes | None:
        return b"$%d\r\n%b\r\n" % (len(text), text) if words[0] == b"INFO" else None

    async with ScriptedServer(tell) as server, ScriptedServer() as silent:
        silent.hold(b"INFO")
        cluster = cluster_nodes(server.url.replace("redis://", "redis+cluster://"))
        nodes = [(HOST, server.port), (HOST, silent.port)]
        found = await asyncio.wait_for(identities_among(cluster, nodes, wanted, 60.0, ahead=-math.inf), 30)
    assert found == wanted


@pytest.mark.parametrize(
    ("text", "ahead", "has"),
    [
        (b"server_time_usec:2000000000\r\n", -math.inf, True),
        (b"server_time_usec:2000000000\r\n", math.inf, False),
        (b"", math.inf, True),
    ],
)
async def test_a_server_whose_clock_is_behind_moves_no_data_without_a_loss(
    text: bytes, ahead: float, has: bool
) -> None:
    text += b"role:master\r\nrun_id:" + b"a" * 40 + b"\r\n"
    wanted = frozenset({identity_of(parse_info(text))})
    async with ScriptedServer(lambda words: bulk(text) if words[0] == b"INFO" else None) as server:
        cluster = cluster_nodes(server.url.replace("redis://", "redis+cluster://"))
        found = await identities_among(cluster, [(HOST, server.port)], wanted, 60.0, ahead=ahead)
    assert found == (wanted if has else frozenset())


@pytest.fixture
def quiet() -> Fence:
    """A fence that has just looked at its server."""
    return fence()


class Silent:
    """A cluster that doesn't answer until the test allows it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[frozenset[bytes]] = asyncio.get_running_loop().create_future()
        self.resubmitted: list[PendingWrite] = []
        self.asked = 0

    def resubmit(self, write: PendingWrite) -> None:
        self.resubmitted.append(write)

    async def present(
        self, identities: frozenset[bytes], *, patient: bool, ahead: float
    ) -> frozenset[bytes] | None:
        self.asked += 1
        return await self.answer


class Busy(Silent):
    """A cluster with a master that doesn't report for a time."""

    def __init__(self) -> None:
        super().__init__()
        self.patient: list[bool] = []

    async def present(
        self, identities: frozenset[bytes], *, patient: bool, ahead: float
    ) -> frozenset[bytes] | None:
        self.patient.append(patient)
        await asyncio.sleep(0.01)
        return None if patient else frozenset()


async def test_a_master_that_does_not_report_is_asked_again_and_then_assumed_lost(
    quiet: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_time_be_virtual(monkeypatch)
    around: Any = Busy()
    inquiry = Inquiry(quiet, around, lambda: None, Moments(), patience=0.05)
    item = write(0)
    quiet.observe(item.bucket, anchor(OTHER), NOW, NOW)
    inquiry.hold([item])
    inquiry.look()
    async with asyncio.timeout(60):
        while inquiry.is_running:
            await asyncio.sleep(0.005)
    assert around.patient == [True] * (len(around.patient) - 1) + [False]
    assert len(around.patient) > 1
    assert quiet.sights.since[item.bucket] > -math.inf
    assert around.resubmitted == [item]
    await inquiry.aclose()


async def test_a_loss_that_is_assumed_after_a_sleep_happened_by_now(
    quiet: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments, around, item = Moments(), cast(Any, Busy()), write(0)
    quiet.sights.offset = 0.0
    quiet.observe(item.bucket, anchor(OTHER), NOW, NOW)
    Sleep(monkeypatch)(600)
    inquiry = Inquiry(quiet, around, lambda: None, moments, patience=0.0)
    inquiry.look()
    async with asyncio.timeout(60):
        while inquiry.is_running:
            await asyncio.sleep(0.005)
    late = asyncio.get_running_loop().time() + 600 + WORKER_CLOCK_MARGIN - quiet.sights.since[item.bucket]
    assert 0 <= late < 10
    await inquiry.aclose()


async def test_a_write_waits_for_the_answer_and_is_tried_again(quiet: Fence) -> None:
    around: Any = Silent()
    inquiry = Inquiry(quiet, around, lambda: None, Moments())
    one, other = write(0), write(1)
    quiet.observe(one.bucket, anchor(OTHER), NOW, NOW)
    inquiry.hold([one])
    inquiry.look()
    inquiry.look()
    await asyncio.sleep(0)
    assert inquiry.is_running
    # A write that came while others were asked waits for the next answer.
    quiet.observe(other.bucket, anchor(OTHER), NOW, NOW)
    inquiry.hold([other])
    around.answer.set_result(frozenset({identity_of(OTHER)}))
    await asyncio.sleep(0.01)
    assert around.resubmitted == [one, other]
    assert around.asked == 2
    assert not inquiry.is_running
    await inquiry.aclose()


async def test_a_write_is_not_held_for_ever(quiet: Fence) -> None:
    around: Any = Silent()
    inquiry = Inquiry(quiet, around, lambda: None, Moments())
    late, restless, waiting = write(0), write(0), write(0)
    late.deadline = asyncio.get_running_loop().time()
    inquiry.hold([late])
    for _ in range(MOST_HELD + 1):
        inquiry.hold([restless])
    await asyncio.sleep(0.01)
    for one in (late, restless):
        assert isinstance(one.answer.result(), Unavailable)
    quiet.observe(waiting.bucket, anchor(OTHER), NOW, NOW)
    inquiry.hold([waiting])
    inquiry.look()
    await asyncio.sleep(0)
    await inquiry.aclose()
    assert isinstance(waiting.answer.result(), Unavailable)
