"""One connection is authenticated once; a verdict for one server or request doesn't hold for another."""

import asyncio
import gc
import logging
from collections.abc import Collection, Iterator
from typing import Any

import pytest
from starlette.types import Message, Scope

from dpop_middleware import (
    ReplayEntry,
    ResourceRequest,
    ResourceServer,
    VerifiedRequest,
    WebSocketTickets,
)
from dpop_middleware._adapter.connection import Connection
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware.checks import Check
from dpop_middleware.errors import (
    DPoPError,
    InsufficientScope,
    InvalidDPoPProof,
    InvalidToken,
    Unavailable,
    UseDPoPNonce,
)
from tests.support.api import NOW, Api, request


async def judged(
    server: ResourceServer,
    asked: ResourceRequest,
    *,
    scopes: Collection[str] = (),
    connection: Connection,
) -> VerifiedRequest:
    """A framework adapter's handling of one request of one connection."""
    return await connection.authenticate(server, scope_for(asked), Requirements(scopes=scopes))


def scope_for(asked: ResourceRequest) -> Scope:
    """The scope of a request that is routed on /notes."""
    fields = [("host", host) for host in asked.hosts]
    fields += [("authorization", value) for value in asked.authorization]
    fields += [("dpop", value) for value in asked.dpop]
    return {
        "type": "http",
        "method": asked.method,
        "path": "/notes",
        "raw_path": asked.raw_path.encode(),
        "root_path": asked.root_path,
        "headers": [(name.encode(), value.encode()) for name, value in fields],
    }


async def refused(server: ResourceServer, asked: ResourceRequest, **options: Any) -> DPoPError:
    with pytest.raises(DPoPError) as caught:
        await judged(server, asked, **options)
    return caught.value


def says(error: DPoPError) -> tuple[object, ...]:
    return type(error), vars(error), error.__cause__


async def test_success_is_remembered() -> None:
    api, connection = Api(), Connection()
    asked = api.request()
    first = await judged(api.server, asked, connection=connection)
    second = await judged(api.server, api.request(asked.dpop[0]), connection=connection)
    assert first == second
    assert len(api.store.entries) == len(api.tokens.asked) == len(api.events) == 1


async def test_failure_is_remembered_and_told_once() -> None:
    api, connection = Api(), Connection()
    asked = api.request(method="POST")
    first = await refused(api.server, asked, connection=connection)
    assert says(await refused(api.server, asked, connection=connection)) == says(first)
    assert len(api.tokens.asked) == len(api.events) == 1


async def test_without_a_connection_the_second_call_is_a_replay() -> None:
    api = Api()
    asked = api.request()
    await api.server.authenticate(asked)
    with pytest.raises(InvalidDPoPProof) as caught:
        await api.server.authenticate(asked)
    error = caught.value
    assert isinstance(error, InvalidDPoPProof)
    assert error.check is Check.JTI


async def test_scopes_are_judged_at_every_call() -> None:
    api, connection = Api(), Connection()
    asked = api.request()
    await judged(api.server, asked, connection=connection)
    error = await refused(api.server, asked, scopes=["notes:write"], connection=connection)
    assert isinstance(error, InsufficientScope)
    assert error.scheme == "DPoP"
    await judged(api.server, asked, scopes=["notes:read"], connection=connection)
    assert [event.outcome for event in api.events] == ["accepted", "refused"]


async def test_a_missing_scope_is_not_remembered_as_a_failure() -> None:
    api, connection = Api(), Connection()
    asked = api.request()
    await refused(api.server, asked, scopes=["notes:write"], connection=connection)
    verified = await judged(api.server, asked, connection=connection)
    assert verified.access_token.scopes == {"notes:read"}
    assert len(api.store.entries) == 1


@pytest.mark.parametrize(
    "changes",
    [{"method": "POST"}, {"raw_path": "/other"}, {"hosts": ("other.example.test",)}],
)
async def test_a_rewritten_request_never_reuses_a_verdict(changes: dict[str, Any]) -> None:
    api, connection = Api(), Connection()
    asked = api.request()
    await judged(api.server, asked, connection=connection)
    await refused(api.server, api.request(asked.dpop[0], **changes), connection=connection)
    assert len(api.tokens.asked) == 2


async def test_another_token_or_proof_never_reuses_a_verdict() -> None:
    api, connection = Api(), Connection()
    asked = api.request()
    await judged(api.server, asked, connection=connection)
    await refused(api.server, request("another", asked.dpop[0]), connection=connection)
    await refused(api.server, request(api.token), connection=connection)
    await refused(api.server, request(api.token, asked.dpop[0], scheme="Bearer"), connection=connection)
    await refused(api.server, request(), connection=connection)
    assert [event.outcome for event in api.events] == ["accepted", *["refused"] * 4]


async def test_a_sibling_reuses_the_verdict_without_asking_the_store() -> None:
    api, connection = Api(), Connection()
    asked = api.request()
    await judged(api.server, asked, connection=connection)
    verified = await judged(api.server.with_policy(proof_lifetime=30), asked, connection=connection)
    assert verified.access_token.subject == "user123"
    assert len(api.store.entries) == 1


@pytest.mark.parametrize(
    ("policy", "check"),
    [
        ({"algorithms": ("EdDSA",)}, Check.ALG),
        ({"proof_lifetime": 5, "clock_skew": 0}, Check.IAT),
        ({"nonce": "required"}, Check.NONCE),
    ],
)
async def test_a_stricter_sibling_judges_again(policy: dict[str, Any], check: Check) -> None:
    api, connection = Api(), Connection()
    asked = api.request(api.proof(at=-10))
    strict = api.server.with_policy(**policy)
    await judged(api.server, asked, connection=connection)
    for _ in range(2):
        error = await refused(strict, asked, connection=connection)
        assert (error.check, error.scheme) == (check, "DPoP")
    await judged(api.server, asked, connection=connection)
    assert len(api.store.entries) == 1
    assert [event.check for event in api.events] == [None, check, check]


async def test_the_nonce_of_a_proof_is_kept_for_a_sibling_that_asks_for_it() -> None:
    api, connection = Api(), Connection()
    required = api.server.with_policy(nonce="required")
    for nonce, accepted in ((api.server_nonces.issue(NOW), True), ("unknown", False), (None, False)):
        asked = api.request(api.proof(nonce=nonce))
        await judged(api.server, asked, connection=connection)
        if accepted:
            await judged(required, asked, connection=connection)
        else:
            assert isinstance(await refused(required, asked, connection=connection), UseDPoPNonce)


async def test_the_evidence_is_judged_as_of_the_time_it_was_taken() -> None:
    api, connection = Api(), Connection()
    asked = api.request()
    await judged(api.server, asked, connection=connection)
    api.clock.now += 3600
    verified = await judged(api.server.with_policy(clock_skew=1), asked, connection=connection)
    assert verified.proof is not None
    assert verified.proof.iat == NOW


async def test_a_bearer_token_is_refused_by_a_sibling_that_accepts_none() -> None:
    api, connection = Api(accept_bearer=True), Connection()
    asked = request(api.tokens.issue(name="unbound"), scheme="Bearer")
    await judged(api.server, asked, connection=connection)
    await judged(api.server.with_policy(clock_skew=1), asked, connection=connection)
    error = await refused(api.server.with_policy(accept_bearer=False), asked, connection=connection)
    assert isinstance(error, InvalidToken)
    assert (error.check, error.scheme) == (Check.BINDING, "Bearer")


async def test_a_request_that_one_policy_refuses_may_pass_another_as_nothing_was_written() -> None:
    api, connection = Api(), Connection()
    strict = api.server.with_policy(nonce="required")
    asked = api.request()
    assert isinstance(await refused(strict, asked, connection=connection), UseDPoPNonce)
    assert not api.store.entries
    await judged(api.server, asked, connection=connection)
    assert isinstance(await refused(strict, asked, connection=connection), UseDPoPNonce)
    assert len(api.store.entries) == 1


@pytest.mark.parametrize("answer", [False, ConnectionError("gone")])
async def test_once_the_store_was_asked_no_sibling_asks_it_again(answer: Any) -> None:
    api, connection = Api(), Connection()
    asked = api.request()
    api.store.answer = answer
    first = await refused(api.server, asked, connection=connection)
    api.store.answer = None
    second = await refused(api.server.with_policy(clock_skew=1), asked, connection=connection)
    assert says(second) == says(first)
    assert len(api.store.entries) == len(api.events) == 1


async def test_a_store_that_says_unavailable_itself_is_not_asked_again_either() -> None:
    from dpop_middleware.errors import Unavailable

    api, connection = Api(), Connection()
    asked = api.request()
    api.store.answer = Unavailable("the store is full")
    first = await refused(api.server, asked, connection=connection)
    assert first.check is Check.JTI
    second = await refused(api.server.with_policy(clock_skew=1), asked, connection=connection)
    assert says(second) == says(first)
    assert len(api.store.entries) == 1


async def test_another_server_verifies_afresh_in_its_own_namespace() -> None:
    api, other = Api(), Api()
    other.tokens, other.store = api.tokens, api.store
    from dpop_middleware import DPoPPolicy, ResourceServer

    second = ResourceServer(
        verifier=api.tokens,
        resource="https://second.example.test",
        public_url="https://api.example.test",
        replay_store=api.store,
        replay_namespace="second",
        policy=DPoPPolicy(),
        clock=api.clock,
    )
    connection = Connection()
    asked = api.request()
    await judged(api.server, asked, connection=connection)
    await judged(second, asked, connection=connection)
    assert len(api.tokens.asked) == 2
    keys = [entry.key for entry in api.store.entries]
    assert len(set(keys)) == 2
    await judged(api.server, asked, connection=connection)
    assert len(api.tokens.asked) == 2


async def test_another_servers_failure_is_not_lent_either() -> None:
    api, other = Api(), Api()
    connection = Connection()
    asked = api.request()
    assert (await refused(other.server, asked, connection=connection)).check is Check.JKT
    await judged(api.server, asked, connection=connection)


@pytest.mark.parametrize("policies", [({}, {}), ({}, {"clock_skew": 1})])
async def test_adapters_that_run_at_the_same_time_present_the_proof_once(policies: Any) -> None:
    api, connection = Api(), Connection()
    entered = asyncio.Event()
    add = api.store.add

    async def slow(entry: ReplayEntry) -> bool:
        entered.set()
        await asyncio.sleep(0.01)
        return await add(entry)

    api.store.add = slow  # type: ignore[method-assign]
    asked = api.request()
    servers = [api.server.with_policy(**policy) for policy in policies]
    results = await asyncio.gather(*(judged(server, asked, connection=connection) for server in servers * 5))
    assert len(results) == 10
    assert len(api.store.entries) == 1


async def test_two_connections_with_one_proof_have_one_winner() -> None:
    api = Api()
    asked = api.request()
    results = await asyncio.gather(
        *(judged(api.server, asked, connection=Connection()) for _ in range(10)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1


async def test_an_adapter_that_is_cancelled_leaves_the_memory_usable() -> None:
    api, connection = Api(), Connection()
    add = api.store.add

    async def never(entry: ReplayEntry) -> bool:
        await asyncio.Event().wait()
        raise AssertionError

    api.store.add = never  # type: ignore[method-assign]
    asked = api.request()
    task = asyncio.create_task(judged(api.server, asked, connection=connection))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    api.store.add = add  # type: ignore[method-assign]
    await judged(api.server, asked, connection=connection)


def alive(kind: type) -> int:
    # Not by isinstance: a lazy object, such as Django's settings, would be created by it.
    return sum(type(one) is kind for one in gc.get_objects())


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("fault", ["token", "store"])
async def test_no_error_of_the_judge_waits_for_a_collection(fault: str) -> None:
    api = Api()
    if fault == "token":
        api.tokens.known.clear()
    else:
        api.store.answer = OSError("the store is down")
    kind, name = (InvalidToken, "unknown") if fault == "token" else (Unavailable, "store")
    before = alive(kind)
    for _ in range(3):
        with pytest.raises(kind, match=name):
            await api.server.authenticate(api.request())
    assert alive(kind) <= before


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("fault", ["ticket", "store"])
async def test_no_refused_ticket_waits_for_a_collection(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest keeps the records of the log, and so the traceback of the store's error.
    monkeypatch.setattr(logging.getLogger("dpop_middleware"), "disabled", True)
    api = Api()
    tickets = WebSocketTickets(api.server, bytes(32))
    offered = "dpop.ticket.forged"
    if fault == "store":
        asked = scope_for(api.request())
        await Connection.of(asked).authenticate(api.server, asked, Requirements())
        offered = f"dpop.ticket.{tickets.issue(asked, path='/notes')}"
        del asked

        async def fail(entry: object) -> bool:
            # A new one each time: an error that is raised again keeps the traceback of each time.
            raise OSError("the store is down")

        # A store that breaks in the middle of a test.
        api.store.add = fail  # type: ignore[method-assign]
    before = alive(Connection)
    sent = list[Message]()

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    for _ in range(3):
        scope = dict(scope_for(request()), type="websocket", subprotocols=[offered])
        scope["headers"].append((b"origin", b"https://api.example.test"))
        await tickets.middleware(asgi_never)(scope, receive, send)
        del scope
    assert alive(Connection) <= before
    assert api.events[-1].status == (401 if fault == "ticket" else 503)
    assert [message["type"] for message in sent] == ["websocket.close"] * 3


async def asgi_never(*_: object) -> None:
    raise AssertionError
