"""The floor is a floor only while it makes the checks that it is compared with."""

import pytest

from dpop_middleware import MemoryReplayStore, ResourceServer
from dpop_middleware.jose import JOSEError
from tests.benchmarks.driving import reached
from tests.benchmarks.floor import Refused, Straight
from tests.benchmarks.workload import Scope, Workload


async def judged(api: ResourceServer, *scopes: Scope) -> int:
    return await reached(Straight, api, list(scopes))


async def test_the_floor_lets_in_what_is_right_once() -> None:
    workload = Workload()
    api = workload.server(MemoryReplayStore())
    for scope in (*workload.unknown(2), *workload.known(3)):
        assert await judged(api, scope) == 1
        with pytest.raises(Refused):
            await judged(api, scope)


@pytest.mark.parametrize(
    "fault",
    ["missing_proof", "wrong_htm", "wrong_htu", "wrong_ath", "wrong_typ", "old_iat", "bad_signature"],
)
@pytest.mark.parametrize("known", [True, False])
async def test_the_floor_refuses_what_the_judge_is_given_to_refuse(fault: str, known: bool) -> None:
    workload = Workload()
    api = workload.server(MemoryReplayStore())
    if known:
        assert await judged(api, *workload.known(2)) == 2
    for scope in getattr(workload, fault)(2):
        with pytest.raises(Refused):
            await judged(api, scope)


@pytest.mark.parametrize("known", [True, False])
async def test_the_floor_refuses_a_thief_a_changed_token_and_an_ambiguous_request(known: bool) -> None:
    workload = Workload()
    api = workload.server(MemoryReplayStore())
    if known:
        assert await judged(api, *workload.known(2)) == 2
    owner, thief = workload.clients[:2]
    stolen = owner.scope(
        thief.key.proof("GET", "https://api.example.test/v1/notes/4711", access_token=owner.token)
    )
    changed = workload.known(1)[0]
    twice = workload.known(1)[0]
    dotted = workload.known(1)[0] | {"raw_path": b"/v1/notes/%2e/4711"}
    middle = len(owner.token) // 2
    token = owner.token[:middle] + ("A" if owner.token[middle] != "A" else "B") + owner.token[middle + 1 :]
    changed["headers"] = [
        (name, f"DPoP {token}".encode() if name == b"authorization" else value)
        for name, value in changed["headers"]
    ]
    twice["headers"] = [*twice["headers"], twice["headers"][-1]]
    for scope in (stolen, changed, twice, dotted):
        with pytest.raises((Refused, JOSEError)):
            await judged(api, scope)
