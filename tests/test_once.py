"""One connection is authenticated once; nothing found out for one server or request counts for another."""

import asyncio
from typing import Any

import pytest

from dpop_middleware import ReplayEntry
from dpop_middleware.checks import Check
from dpop_middleware.errors import DPoPError, InsufficientScope, InvalidDPoPProof, InvalidToken, UseDPoPNonce
from dpop_middleware.once import RequestMemory
from tests.support.api import NOW, Api, request


async def refused(server: Any, *args: Any, **kwargs: Any) -> DPoPError:
    with pytest.raises(DPoPError) as caught:
        await server.authenticate(*args, **kwargs)
    return caught.value


async def test_success_is_remembered() -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request()
    first = await api.server.authenticate(asked, memory=memory)
    second = await api.server.authenticate(api.request(asked.dpop[0]), memory=memory)
    assert first == second
    assert len(api.store.entries) == len(api.tokens.asked) == len(api.events) == 1


async def test_failure_is_remembered_and_told_once() -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request(method="POST")
    first = await refused(api.server, asked, memory=memory)
    assert await refused(api.server, asked, memory=memory) is first
    assert len(api.tokens.asked) == len(api.events) == 1


async def test_without_a_memory_the_second_call_is_a_replay() -> None:
    api = Api()
    asked = api.request()
    await api.server.authenticate(asked)
    error = await refused(api.server, asked)
    assert isinstance(error, InvalidDPoPProof)
    assert error.check is Check.JTI


async def test_scopes_are_judged_at_every_call() -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request()
    await api.server.authenticate(asked, memory=memory)
    error = await refused(api.server, asked, scopes=["notes:write"], memory=memory)
    assert isinstance(error, InsufficientScope)
    assert error.scheme == "DPoP"
    await api.server.authenticate(asked, scopes=["notes:read"], memory=memory)
    assert [event.outcome for event in api.events] == ["accepted", "refused"]


async def test_a_missing_scope_is_not_remembered_as_a_failure() -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request()
    await refused(api.server, asked, scopes=["notes:write"], memory=memory)
    await api.server.authenticate(asked, memory=memory)


@pytest.mark.parametrize(
    "changes",
    [{"method": "POST"}, {"raw_path": "/other"}, {"hosts": ("other.example.test",)}, {"root_path": "/x"}],
)
async def test_a_rewritten_request_never_reuses_a_verdict(changes: dict[str, Any]) -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request()
    await api.server.authenticate(asked, memory=memory)
    await refused(api.server, api.request(asked.dpop[0], **changes), memory=memory)
    assert len(api.tokens.asked) == 2


async def test_another_token_or_proof_never_reuses_a_verdict() -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request()
    await api.server.authenticate(asked, memory=memory)
    await refused(api.server, request("another", asked.dpop[0]), memory=memory)
    await refused(api.server, request(api.token), memory=memory)
    await refused(api.server, request(api.token, asked.dpop[0], scheme="Bearer"), memory=memory)
    await refused(api.server, request(), memory=memory)


async def test_a_sibling_reuses_the_verdict_without_asking_the_store() -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request()
    await api.server.authenticate(asked, memory=memory)
    verified = await api.server.with_policy(proof_lifetime=30).authenticate(asked, memory=memory)
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
    api, memory = Api(), RequestMemory()
    asked = api.request(api.proof(at=-10))
    strict = api.server.with_policy(**policy)
    await api.server.authenticate(asked, memory=memory)
    for _ in range(2):
        error = await refused(strict, asked, memory=memory)
        assert (error.check, error.scheme) == (check, "DPoP")
    await api.server.authenticate(asked, memory=memory)
    assert len(api.store.entries) == 1
    assert [event.check for event in api.events] == [None, check, check]


async def test_the_nonce_of_a_proof_is_kept_for_a_sibling_that_asks_for_it() -> None:
    api, memory = Api(), RequestMemory()
    required = api.server.with_policy(nonce="required")
    for nonce, accepted in ((api.server_nonces.issue(NOW), True), ("unknown", False), (None, False)):
        asked = api.request(api.proof(nonce=nonce))
        await api.server.authenticate(asked, memory=memory)
        if accepted:
            await required.authenticate(asked, memory=memory)
        else:
            assert isinstance(await refused(required, asked, memory=memory), UseDPoPNonce)


async def test_the_evidence_is_judged_as_of_the_time_it_was_taken() -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request()
    await api.server.authenticate(asked, memory=memory)
    api.clock.now += 3600
    await api.server.with_policy(clock_skew=1).authenticate(asked, memory=memory)


async def test_a_bearer_token_under_a_sibling_without_bearer() -> None:
    api, memory = Api(accept_bearer=True), RequestMemory()
    asked = request(api.tokens.issue(name="unbound"), scheme="Bearer")
    await api.server.authenticate(asked, memory=memory)
    await api.server.with_policy(clock_skew=1).authenticate(asked, memory=memory)
    error = await refused(api.server.with_policy(accept_bearer=False), asked, memory=memory)
    assert isinstance(error, InvalidToken)
    assert (error.check, error.scheme) == (Check.BINDING, "Bearer")


async def test_what_one_policy_refuses_another_may_accept_as_nothing_was_written() -> None:
    api, memory = Api(), RequestMemory()
    strict = api.server.with_policy(nonce="required")
    asked = api.request()
    assert isinstance(await refused(strict, asked, memory=memory), UseDPoPNonce)
    assert not api.store.entries
    await api.server.authenticate(asked, memory=memory)
    assert isinstance(await refused(strict, asked, memory=memory), UseDPoPNonce)
    assert len(api.store.entries) == 1


@pytest.mark.parametrize("answer", [False, ConnectionError("gone")])
async def test_once_the_store_was_asked_no_sibling_asks_it_again(answer: Any) -> None:
    api, memory = Api(), RequestMemory()
    asked = api.request()
    api.store.answer = answer
    first = await refused(api.server, asked, memory=memory)
    api.store.answer = None
    assert await refused(api.server.with_policy(clock_skew=1), asked, memory=memory) is first
    assert len(api.store.entries) == len(api.events) == 1


async def test_a_store_that_says_unavailable_itself_is_not_asked_again_either() -> None:
    from dpop_middleware.errors import Unavailable

    api, memory = Api(), RequestMemory()
    asked = api.request()
    api.store.answer = Unavailable("the store is full")
    first = await refused(api.server, asked, memory=memory)
    assert first.check is Check.JTI
    assert await refused(api.server.with_policy(clock_skew=1), asked, memory=memory) is first
    assert len(api.store.entries) == 1


async def test_another_server_verifies_afresh_under_its_own_prefix() -> None:
    api, other = Api(), Api()
    other.tokens, other.store = api.tokens, api.store
    from dpop_middleware import DPoPPolicy, ResourceServer

    second = ResourceServer(
        verifier=api.tokens,
        resource="https://second.example.test",
        public_url="https://api.example.test",
        replay_store=api.store,
        policy=DPoPPolicy(),
        clock=api.clock,
    )
    memory = RequestMemory()
    asked = api.request()
    await api.server.authenticate(asked, memory=memory)
    await second.authenticate(asked, memory=memory)
    assert len(api.tokens.asked) == 2
    keys = [entry.key for entry in api.store.entries]
    assert len(set(keys)) == 2
    await api.server.authenticate(asked, memory=memory)
    assert len(api.tokens.asked) == 2


async def test_another_servers_failure_is_not_lent_either() -> None:
    api, other = Api(), Api()
    memory = RequestMemory()
    asked = api.request()
    assert (await refused(other.server, asked, memory=memory)).check is Check.JKT
    await api.server.authenticate(asked, memory=memory)


@pytest.mark.parametrize("policies", [({}, {}), ({}, {"clock_skew": 1})])
async def test_faces_that_run_at_the_same_time_present_the_proof_once(policies: Any) -> None:
    api, memory = Api(), RequestMemory()
    entered = asyncio.Event()
    add = api.store.add

    async def slow(entry: ReplayEntry) -> bool:
        entered.set()
        await asyncio.sleep(0.01)
        return await add(entry)

    api.store.add = slow  # type: ignore[method-assign]
    asked = api.request()
    servers = [api.server.with_policy(**policy) for policy in policies]
    results = await asyncio.gather(*(server.authenticate(asked, memory=memory) for server in servers * 5))
    assert len(results) == 10
    assert len(api.store.entries) == 1


async def test_two_connections_with_one_proof_have_one_winner() -> None:
    api = Api()
    asked = api.request()
    results = await asyncio.gather(
        *(api.server.authenticate(asked, memory=RequestMemory()) for _ in range(10)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1


async def test_a_face_that_is_cancelled_leaves_the_memory_usable() -> None:
    api, memory = Api(), RequestMemory()
    add = api.store.add

    async def never(entry: ReplayEntry) -> bool:
        await asyncio.Event().wait()
        raise AssertionError

    api.store.add = never  # type: ignore[method-assign]
    asked = api.request()
    task = asyncio.create_task(api.server.authenticate(asked, memory=memory))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    api.store.add = add  # type: ignore[method-assign]
    await api.server.authenticate(asked, memory=memory)
