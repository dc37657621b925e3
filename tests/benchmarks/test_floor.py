"""The floor is a floor only while it makes the checks that it is compared with."""

import pytest

from dpop_middleware import MemoryReplayStore
from tests.benchmarks.floor import Refused, straight
from tests.benchmarks.workload import Workload


async def test_it_lets_in_what_is_right_once() -> None:
    workload = Workload()
    api = workload.server(MemoryReplayStore())
    for scope in (*workload.unknown(2), *workload.known(3)):
        verified = await straight(api, scope)
        assert verified.proof is not None
        assert verified.access_token.jkt == verified.proof.jkt
        with pytest.raises(Refused):
            await straight(api, scope)


@pytest.mark.parametrize(
    "fault",
    ["missing_proof", "wrong_htm", "wrong_htu", "wrong_ath", "wrong_typ", "old_iat", "bad_signature"],
)
@pytest.mark.parametrize("known", [True, False])
async def test_it_refuses_what_the_judge_is_given_to_refuse(fault: str, known: bool) -> None:
    workload = Workload()
    api = workload.server(MemoryReplayStore())
    if known:
        for scope in workload.known(2):
            await straight(api, scope)
    for scope in getattr(workload, fault)(2):
        with pytest.raises(Refused):
            await straight(api, scope)
