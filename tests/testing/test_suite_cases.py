"""The cases of the conformance suite: which there are, what each sends, and what must come back."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest

from dpop_middleware import DPoPMiddleware, DPoPPolicy, MemoryReplayStore, ResourceServer
from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.jose import base64url
from dpop_middleware.testing import BROKEN_PROOFS, TestIssuer
from dpop_middleware.testing.suite import CASES, Case, CaseRun, run_case
from dpop_middleware.testing.target import Target
from tests.support.adapters import ORIGIN, World, reached
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


URL = f"{ORIGIN}/notes"


@pytest.fixture
def world() -> World:
    return World()


def target(world: World, *, url: str = URL, **changes: Any) -> Target:
    return Target.of(world.issuer, url=url, **changes)


def answering(*nonces: Sequence[str]) -> httpx2.MockTransport:
    """A server that sends these nonces, the next ones with each answer."""
    answers = iter(nonces)
    return httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers=[("DPoP-Nonce", nonce) for nonce in next(answers)])
    )


@pytest.fixture
async def run(world: World) -> AsyncIterator[CaseRun]:
    """A run whose server sends no nonce."""
    async with httpx2.AsyncClient(transport=answering(*[()] * 9)) as client:
        yield CaseRun(target(world), client)


def claims_of(proof: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64url.decode(proof.split(".")[1]))
    return claims


def test_a_case_is_named_once_and_refuses_as_the_rfcs_say() -> None:
    statuses = {
        "invalid_request": 400,
        "invalid_token": 401,
        "invalid_dpop_proof": 401,
        "use_dpop_nonce": 401,
        None: 401,
    }
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        if case.status is None:
            assert case.error is None
        else:
            assert case.status == statuses[case.error]


@pytest.mark.parametrize("defect", BROKEN_PROOFS.values(), ids=BROKEN_PROOFS)
def test_the_case_of_a_defect_asks_for_what_the_defect_does(defect: Any) -> None:
    case = NAMED[defect.name]
    assert (case.status, case.error) == (defect.status, defect.error)
    assert (case.presentations, case.by_time) == (defect.presentations, defect.by_time)


async def test_an_honest_proof_is_that_of_the_target(run: CaseRun, world: World) -> None:
    honest = run.honest()
    assert (honest.key, honest.method, honest.url) == (run.target.key, "GET", URL)
    assert (honest.access_token, honest.nonce) == (run.target.access_token, None)
    assert honest.now == world.clock()
    assert run.honest(access_token="another").access_token == "another"


async def test_credentials_are_the_token_and_each_of_the_proofs(run: CaseRun) -> None:
    token = run.target.access_token
    assert run.credentials() == [("Authorization", f"DPoP {token}")]
    assert run.credentials("a", "b", scheme="Bearer", access_token="x") == [
        ("Authorization", "Bearer x"),
        ("DPoP", "a"),
        ("DPoP", "b"),
    ]


async def test_the_last_nonce_of_the_server_is_in_the_next_proof(world: World) -> None:
    transport = answering(["first"], [], ["second"], ["one", "too many"])
    async with httpx2.AsyncClient(transport=transport) as client:
        run = CaseRun(target(world), client)
        learned = [((await run.send(run.credentials())).status_code, run.nonce) for _ in range(4)]
        assert learned == [(200, "first"), (200, "first"), (200, "second"), (200, "second")]
        assert claims_of(run.honest().encode())["nonce"] == "second"
        assert "second" not in repr(run)


async def test_a_request_is_sent_as_the_case_has_it(world: World) -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(204)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handler)) as client:
        run = CaseRun(target(world, method="PATCH", url=f"{URL}?page=1"), client)
        await run.send([("DPoP", "a"), ("DPoP", "b"), ("Authorization", "DPoP x")])
    (request,) = seen
    assert (request.method, str(request.url)) == ("PATCH", f"{URL}?page=1")
    assert request.headers.get_list("DPoP") == ["a", "b"]
    assert request.headers.get_list("Authorization") == ["DPoP x"]


NEEDS_TOKENS = {
    "unbound_token", "expired_token", "token_for_another_audience", "token_of_another_issuer",
    "token_signed_by_a_stranger", "token_without_signature",
}  # fmt: skip


async def test_a_target_that_makes_no_tokens_can_make_every_other_request(run: CaseRun) -> None:
    alone = Target(url=URL, key=run.target.key, access_token=run.target.access_token, clock=run.target.clock)
    without = CaseRun(alone, run.client, nonce="n")
    assert {case.name for case in CASES if case.request(without) is None} == NEEDS_TOKENS


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "ES384"])
async def test_a_stranger_signs_a_token_as_the_issuer_does(run: CaseRun, algorithm: str) -> None:
    issued = Target.of(TestIssuer(algorithm=algorithm), url=URL)
    fields = dict(NAMED["token_signed_by_a_stranger"].request(CaseRun(issued, run.client)) or ())
    token = fields["Authorization"].removeprefix("DPoP ").split(".")
    theirs = issued.access_token.split(".")
    assert token[0] == theirs[0]
    assert len(token[2]) == len(theirs[2]) > 0


async def test_only_a_server_that_sends_nonces_can_be_sent_an_unknown_one(run: CaseRun) -> None:
    assert {case.name for case in CASES if case.request(run) is None} == {"unknown_nonce"}
    run.nonce = "known"
    fields = dict(NAMED["unknown_nonce"].request(run) or ())
    assert claims_of(fields["DPoP"])["nonce"] not in (None, "known")


@pytest.mark.parametrize(
    ("url", "htu"),
    [
        ("https://api.example.test/a?b#c", "https://api.example.test:443/a"),
        ("http://api.example.test/a", "http://api.example.test:80/a"),
        ("https://api.example.test:443/a", None),
        ("https://api.example.test:8443/a", None),
    ],
)
async def test_a_default_port_is_named_where_the_url_names_none(
    run: CaseRun, world: World, url: str, htu: str | None
) -> None:
    fields = NAMED["htu_with_default_port"].request(CaseRun(target(world, url=url), run.client))
    assert (None if fields is None else claims_of(dict(fields)["DPoP"])["htu"]) == htu


@pytest.mark.parametrize("name", [case.name for case in CASES if case.status is None])
async def test_what_must_be_accepted_is_not_the_plain_request_but_for_one(run: CaseRun, name: str) -> None:
    """Each honest case says the same in another way, and only the first says it plainly."""
    fields = dict(NAMED[name].request(run) or ())
    authorization, proof = fields["Authorization"], fields["DPoP"]
    header = json.loads(base64url.decode(proof.split(".")[0]))
    claims = claims_of(proof)
    plain = (
        authorization.startswith("DPoP ")
        and set(header) == {"typ", "alg", "jwk"}
        and set(claims) == {"jti", "htm", "htu", "iat", "ath"}
        and claims["htu"] == URL
    )
    assert plain is (name == "honest")


CAUGHT_BY = {
    "no_credentials": Check.AUTHORIZATION,
    "another_scheme": Check.AUTHORIZATION,
    "no_token": Check.AUTHORIZATION,
    "two_authorizations": Check.AUTHORIZATION,
    "bound_token_as_bearer": Check.BINDING,
    "bound_token_as_bearer_without_proof": Check.BINDING,
    "altered_token": Check.TOKEN_SIGNATURE,
    "unbound_token": Check.BINDING,
    "expired_token": Check.TOKEN_TIME,
    "token_for_another_audience": Check.TOKEN_AUD,
    "token_of_another_issuer": Check.TOKEN_ISS,
    "token_signed_by_a_stranger": Check.TOKEN_SIGNATURE,
    "token_without_signature": Check.TOKEN_ALG,
    "unknown_nonce": Check.NONCE,
    **{name: defect.check for name, defect in BROKEN_PROOFS.items()},
}


@pytest.mark.parametrize("accept_bearer", [False, True])
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.status is not None], ids=lambda case: case.name
)
async def test_each_request_that_must_be_refused_has_one_fault(
    world: World, case: Case, accept_bearer: bool
) -> None:
    caught: list[Check | None] = []
    asks_for_nonces = case.name == "unknown_nonce"
    api = world.server(
        policy=DPoPPolicy(accept_bearer=accept_bearer, nonce="required" if asks_for_nonces else "off"),
        nonces=world.nonces() if asks_for_nonces else None,
        on_event=lambda event: caught.append(event.check),
    )
    outcome = await run_case(case, target(world, app=DPoPMiddleware(reached, api)))
    assert (outcome.verdict, caught[-1]) == ("passed", CAUGHT_BY[case.name])
