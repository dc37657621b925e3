"""The cases of the conformance suite: which there are, what each sends, and what must come back."""

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import BROKEN_PROOFS
from dpop_middleware.testing.cases import CASES
from dpop_middleware.testing.suite import run_case
from dpop_middleware.testing.target import Target
from tests.support.adapters import reached
from tests.support.api import RESOURCE, Tokens
from tests.support.clock import Clock

NAMED = {case.name: case for case in CASES}


def test_the_suite_has_a_case_for_every_defect() -> None:
    assert set(BROKEN_PROOFS) <= set(NAMED)
    assert len(NAMED) == len(CASES) >= 50


class OpaqueTokens(Tokens):
    """Tokens about which another server is asked: the proof is judged before."""

    remote = True


async def test_no_case_fails_a_server_that_judges_the_proof_before_it_asks_about_the_token() -> None:
    tokens, key = OpaqueTokens(), DPoPKey.generate()
    api = ResourceServer(verifier=tokens, resource=RESOURCE, replay_store=MemoryReplayStore(), clock=Clock())
    target = Target(
        url=f"{RESOURCE}/notes",
        key=key,
        access_token=tokens.issue(key.jkt),
        app=DPoPMiddleware(reached, api),
        clock=Clock(),
    )
    outcomes = [await run_case(case, target) for case in CASES]
    assert [outcome for outcome in outcomes if outcome.verdict == "failed"] == []
    passed = {outcome.name for outcome in outcomes if outcome.verdict == "passed"}
    assert {"honest", "altered_token", "other_key", *BROKEN_PROOFS} <= passed
