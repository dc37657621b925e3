"""The health of a resource server, for readiness probes, with any verifier and store."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ReplayEntry, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import Unavailable
from dpop_middleware.health import IssuerKeysHealth, PartHealth, ServerHealth
from dpop_middleware.replay.memory import MemoryStoreHealth
from dpop_middleware.replay.redis.health import NodeHealth, StoreHealth
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.target import lifespan
from tests.support.api import RESOURCE, Tokens, request
from tests.support.issuer_server import OPENID, IssuerServer, answer, json_answer
from tests.support.issuer_tokens import issuer_key, key_set
from tests.support.loop_clock import LoopClock

ROOM = MemoryStoreHealth(ok=True, entries=0, max_entries=200_000)


class Part(Tokens):
    """A user's own verifier or store; `says` is its health, or the error that it raises."""

    def __init__(self, says: object = True) -> None:
        super().__init__()
        self.says = says
        self.asked_how = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def add(self, entry: ReplayEntry) -> bool:
        raise NotImplementedError

    async def health(self) -> object:
        self.asked_how += 1
        await self.gate.wait()
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says


class SilentStore:
    async def add(self, entry: ReplayEntry) -> bool:
        raise NotImplementedError


def server(verifier: Any = None, store: Any = None) -> ResourceServer:
    return ResourceServer(
        verifier=Tokens() if verifier is None else verifier,
        resource=RESOURCE,
        replay_store=MemoryReplayStore() if store is None else store,
    )


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as issuer:
        issuer.publish(key_set(issuer_key()))
        yield issuer


def server_of(issuer: IssuerServer) -> ResourceServer:
    return ResourceServer(issuer=issuer.origin, resource=RESOURCE, replay_store=MemoryReplayStore())


async def test_parts_that_report_nothing_keep_the_server_ready() -> None:
    health = await server(Tokens(), SilentStore()).health()
    assert health == ServerHealth(
        ready=True, issuer_keys=PartHealth(ok=True), replay_store=PartHealth(ok=True)
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        health.ready = False  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


async def test_given_keys_and_the_memory_store_are_ready() -> None:
    api = ResourceServer(
        issuer="https://as.example.com",
        jwks=key_set(issuer_key()),
        resource=RESOURCE,
        replay_store=MemoryReplayStore(),
    )
    health = await api.health()
    assert health == ServerHealth(
        ready=True,
        issuer_keys=PartHealth(ok=True, details=IssuerKeysHealth(ok=True, keys=1)),
        replay_store=PartHealth(ok=True, details=ROOM),
    )
    assert json.loads(json.dumps(dataclasses.asdict(health)))["replay_store"]["details"]["entries"] == 0


async def test_the_keys_are_there_when_a_probe_asks_first(issuer: IssuerServer) -> None:
    health = await server_of(issuer).health()
    assert health.ready
    assert health.issuer_keys.error is None


async def test_a_server_without_keys_is_not_ready(issuer: IssuerServer) -> None:
    issuer.handlers["/jwks"] = lambda _: answer(b"", status=500)
    health = await server_of(issuer).health()
    assert (health.ready, health.issuer_keys.ok, health.replay_store.ok) == (False, False, True)
    assert "the status is 500, not 200" in str(health.issuer_keys.error)


async def test_an_open_server_has_looked_at_its_issuer(
    issuer: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.publish(key_set(issuer_key()), issuer=f"{issuer.origin}/")
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        async with lifespan(DPoPMiddleware(lifespan_only, server_of(issuer))):
            pass
    (message,) = caplog.messages
    assert f"it says '{issuer.origin}/', not the configured '{issuer.origin}'" in message
    assert "only a trailing slash differs" in message


async def test_what_to_do_about_an_issuer_is_not_cut_off_in_the_line_of_a_request(
    issuer: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    path = "/realms/" + "x" * 200
    named, keys = f"{issuer.origin}{path}", f"{issuer.origin}/jwks"
    issuer.handlers[f"{path}{OPENID}"] = lambda _: json_answer({"issuer": f"{named}/", "jwks_uri": keys})
    server = ResourceServer(issuer=named, resource=RESOURCE, replay_store=MemoryReplayStore())
    token = TestIssuer(named, audience=RESOURCE).token()
    with caplog.at_level(logging.WARNING, "dpop_middleware"), pytest.raises(Unavailable):
        await server.authenticate(request(token, DPoPKey.generate().proof("GET", RESOURCE)))
    (line,) = (message for message in caplog.messages if message.startswith("unavailable: "))
    assert "actual=\"only a trailing slash differs, so set issuer='http://127.0.0.1:" in line


async def lifespan_only(scope: Any, receive: Any, send: Any) -> None:
    for step in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{step}"
        await send({"type": f"lifespan.{step}.complete"})


@pytest.mark.parametrize(
    ("says", "ok", "error"),
    [
        (True, True, None),
        (None, True, None),
        ({"status": "fine"}, True, None),
        ({"ok": True, "error": "slow"}, True, "slow"),
        ({"ok": False, "error": "the disk is full"}, False, "the disk is full"),
        ({"ok": None}, False, None),
        (False, False, None),
        (IssuerKeysHealth(ok=False, keys=0, error="down"), False, "down"),
        (
            StoreHealth(ok=False, nodes=(NodeHealth(address="a:1", error="OOM"), NodeHealth(address="b:1"))),
            False,
            "a:1: OOM",
        ),
        (StoreHealth(ok=True, nodes=(NodeHealth(address="a:1"),)), True, None),
        (OSError("gone"), False, "OSError: gone"),
        (ZeroDivisionError(), False, "ZeroDivisionError"),
        (TimeoutError(), False, "TimeoutError: no answer in time"),
        # Something that the part awaits was cancelled, its own background task for instance.
        (asyncio.CancelledError(), False, "CancelledError"),
    ],
)
async def test_parts_of_the_users_own_may_report_their_health(
    says: object, ok: bool, error: str | None
) -> None:
    details = None if isinstance(says, BaseException) else says
    expected = PartHealth(ok=ok, error=error, details=details)
    health = await server(Part(says)).health()
    assert (health.ready, health.issuer_keys) == (ok, expected)
    health = await server(None, Part(says)).health()
    assert (health.ready, health.replay_store) == (ok, expected)


async def test_nodes_of_another_kind_cause_no_error() -> None:
    @dataclasses.dataclass
    class Odd:
        ok: bool = True
        nodes: int = 3

    assert (await server(Part(Odd())).health()).ready


async def test_a_part_that_never_answers_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    part, clock = Part(), LoopClock(monkeypatch)
    part.gate.clear()
    probe = asyncio.create_task(server(part).health())
    await clock.until(lambda: part.asked_how == 1)
    await clock.until_after(2.0, probe.done)
    assert probe.result().issuer_keys == PartHealth(ok=False, error="TimeoutError: no answer in time")
    assert not probe.result().ready


async def test_many_probes_share_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    part, clock = Part(), LoopClock(monkeypatch)
    part.gate.clear()
    api = server(part)
    siblings = [api, api.with_policy(accept_bearer=True)]
    probes = [asyncio.create_task(siblings[number % 2].health()) for number in range(200)]
    while not part.asked_how:
        await asyncio.sleep(0)
    # If one probe is cancelled, the others still get the answer.
    for probe in probes[:50]:
        probe.cancel()
    part.gate.set()
    assert all(health.ready for health in await asyncio.gather(*probes[50:]))
    assert part.asked_how == 1
    part.says = False
    clock.now += 0.9
    assert (await api.health()).ready
    assert part.asked_how == 1
    clock.now += 0.2
    assert not (await api.health()).ready
    assert part.asked_how == 2


@pytest.mark.parametrize("which", ["all", "looks"])
async def test_a_look_that_was_cancelled_is_not_the_answer(which: str) -> None:
    part = Part()
    part.gate.clear()
    api = server(part)
    probe = asyncio.create_task(api.health())
    while not part.asked_how:
        await asyncio.sleep(0)
    spared = {asyncio.current_task()} | ({probe} if which == "looks" else set())
    for task in asyncio.all_tasks() - spared:
        task.cancel()
    part.gate.set()
    assert (await api.health()).ready
    (outcome,) = await asyncio.gather(probe, return_exceptions=True)
    assert isinstance(outcome, ServerHealth if which == "looks" else asyncio.CancelledError)
    assert (await api.health()).ready


async def test_a_part_that_was_cancelled_inside_is_not_ready() -> None:
    class Cancelled(Part):
        async def health(self) -> Any:
            shared = asyncio.create_task(asyncio.sleep(60))
            shared.cancel()
            await shared

    async with asyncio.timeout(60):
        health = await server(Cancelled()).health()
    assert not health.ready
    assert "CancelledError" in str(health)


def test_each_event_loop_looks_for_itself() -> None:
    part = Part()
    api = server(part)
    for count in (1, 2):
        assert asyncio.run(api.health()).ready
        assert part.asked_how == count
