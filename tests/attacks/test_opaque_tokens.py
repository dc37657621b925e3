"""Attacks on an API whose tokens are opaque, through the middleware; the issuer answers over HTTP."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from starlette.responses import RedirectResponse, Response

from dpop_middleware import (
    DPoPMiddleware,
    DPoPPolicy,
    JWTAccessTokenVerifier,
    JWTOrOpaqueVerifier,
    MemoryReplayStore,
    ResourceServer,
)
from dpop_middleware.client import DPoPAuth, DPoPKey
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from dpop_middleware.testing import TestIssuer
from tests.support.clients import NO_AUTHORITIES
from tests.support.introspection_server import API, PATIENT, IssuerOfOpaqueTokens, Question, issuing
from tests.support.reader import readers_app

KEY, THIEF = DPoPKey.generate(), DPoPKey.generate()
URL = f"{API}/notes"


@pytest.fixture
def issuer() -> Iterator[IssuerOfOpaqueTokens]:
    with issuing() as issuer:
        yield issuer


class Api:
    """The protected application, and a client that calls it."""

    def __init__(self, issuer: IssuerOfOpaqueTokens, **options: Any) -> None:
        self.jwts = TestIssuer(audience=API)
        more: dict[str, Any] = {**PATIENT, "ssl_context": NO_AUTHORITIES, **options}
        self.verifier = IntrospectionVerifier(
            issuer=issuer.origin,
            audience=API,
            client_authentication=ClientSecretBasic(client_id="api", client_secret="s3cret"),
            **more,
        )
        self.server = ResourceServer(
            verifier=JWTOrOpaqueVerifier(
                jwt=JWTAccessTokenVerifier(issuer=self.jwts.issuer, audience=API, jwks=self.jwts.jwks()),
                opaque=self.verifier,
            ),
            resource=API,
            replay_store=MemoryReplayStore(),
            policy=DPoPPolicy(proof_lifetime=600),
        )
        transport = httpx2.ASGITransport(DPoPMiddleware(readers_app(), self.server))
        self.client = httpx2.AsyncClient(transport=transport)

    async def get(self, token: str, proof: str) -> httpx2.Response:
        fields = {"Authorization": f"DPoP {token}", "DPoP": proof}
        return await self.client.get(URL, headers=fields)

    async def honest(self, token: str, key: DPoPKey = KEY) -> int:
        return (await self.client.get(URL, auth=DPoPAuth(key, token))).status_code


@pytest.fixture
async def api(issuer: IssuerOfOpaqueTokens) -> AsyncIterator[Api]:
    api = Api(issuer)
    async with api.server:
        yield api


async def test_both_kinds_of_token_are_accepted(api: Api, issuer: IssuerOfOpaqueTokens) -> None:
    answer = await api.client.get(URL, auth=DPoPAuth(KEY, issuer.issue(KEY.jkt)))
    assert answer.json()["subject"] == "ann"
    assert await api.honest(api.jwts.token(jkt=KEY.jkt)) == 200
    assert len(issuer.asked) == 1


async def test_a_stolen_token_is_worth_nothing(api: Api, issuer: IssuerOfOpaqueTokens) -> None:
    token = issuer.issue(KEY.jkt)
    proof = KEY.proof("GET", URL, access_token=token)
    assert await api.honest(token, THIEF) == 401
    assert (await api.get(token, proof)).status_code == 200
    replayed = await api.get(token, proof)
    assert (replayed.status_code, replayed.json()["error"]) == (401, "invalid_dpop_proof")
    bearer = await api.client.get(URL, headers={"Authorization": f"Bearer {token}"})
    assert bearer.status_code == 401


async def test_a_refresh_token_is_no_access_token(api: Api, issuer: IssuerOfOpaqueTokens) -> None:
    """An endpoint calls it active, bound to the same key, and says no token_type."""
    assert await api.honest(issuer.issue(KEY.jkt, token_type=None)) == 401


async def test_a_jwt_is_never_asked_about(api: Api, issuer: IssuerOfOpaqueTokens) -> None:
    forged = api.jwts.token(jkt=KEY.jkt, key=THIEF)
    issuer.tokens[forged] = issuer.tokens[issuer.issue(KEY.jkt)]
    assert await api.honest(forged) == 401
    assert issuer.asked == []


async def test_bad_proofs_cause_no_question(api: Api, issuer: IssuerOfOpaqueTokens) -> None:
    token = issuer.issue(KEY.jkt)
    old = KEY.proof("GET", URL, access_token=token, now=time.time() - 3600)
    bad = [
        old,
        KEY.proof("POST", URL, access_token=token),
        KEY.proof("GET", f"{URL}/1", access_token=token),
        KEY.proof("GET", URL, access_token="another"),
        KEY.proof("GET", URL),
        KEY.proof("GET", URL, access_token=token)[:-8] + "AAAAAAAA",
        "no-proof",
        "",
    ]
    for number in range(2000):
        answer = await api.get(token, bad[number % len(bad)])
        assert answer.status_code == 401
    assert issuer.asked == []


async def test_good_proofs_over_made_up_tokens_cost_little_and_stop_nobody(
    api: Api, issuer: IssuerOfOpaqueTokens
) -> None:
    known = issuer.issue(KEY.jkt)
    assert await api.honest(known) == 200
    began = time.monotonic()
    for batch in range(4):
        tokens = [f"made-up-{batch}-{number % 150}" for number in range(300)]
        statuses = await asyncio.gather(*(api.honest(token, THIEF) for token in tokens), api.honest(known))
        assert statuses[-1] == 200
        assert set(statuses[:-1]) <= {401, 503}
    seconds = time.monotonic() - began
    made_up = Counter(question.form["token"] for question in issuer.asked)
    assert sum(made_up.values()) <= 50 + 50 * seconds + 10
    assert max(made_up.values()) == 1, "what was made up is remembered"


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_made_up_tokens_on_which_the_endpoint_fails_stop_nobody(
    issuer: IssuerOfOpaqueTokens, status: int
) -> None:
    api, known = Api(issuer, active_lifetime=0), issuer.issue(KEY.jkt)

    async def behave(question: Question) -> Response | None:
        return None if question.form["token"] == known else Response(status_code=status)

    issuer.behaves = behave
    async with api.server:
        assert await api.honest(known) == 200
        for number in range(30):
            assert await api.honest(f"made-up-{number}", THIEF) == 503
            assert await api.honest(known) == 200


@pytest.mark.parametrize(
    "blocked",
    [
        Response(status_code=403),
        Response("<p>The request was rejected", media_type="text/html"),
        Response("rejected", headers={"Content-Encoding": "br"}),
        RedirectResponse("/blocked"),
    ],
    ids=["403", "a page", "a coding", "a redirect"],
)
async def test_made_up_tokens_that_a_filter_before_the_endpoint_blocks_keep_no_new_client_out(
    issuer: IssuerOfOpaqueTokens, blocked: Response
) -> None:
    api = Api(issuer)

    async def behave(question: Question) -> Response | None:
        return blocked if question.form["token"].startswith("/etc/") else None

    issuer.behaves = behave
    began = time.monotonic()
    async with api.server:
        for number in range(20):
            if number % 4 == 0:
                assert await api.honest(issuer.issue(KEY.jkt)) == 200
            assert await api.honest(f"/etc/passwd{number}", THIEF) == 503
        assert await api.honest(issuer.issue(KEY.jkt)) == 200
    assert len(issuer.requests) <= 2 + time.monotonic() - began, "the metadata aren't read for each of them"


async def test_an_answer_that_changes_its_exp_brings_no_proof_back(issuer: IssuerOfOpaqueTokens) -> None:
    api = Api(issuer, active_lifetime=0)
    token = issuer.issue(KEY.jkt, exp=int(time.time()) + 60)
    proof = KEY.proof("GET", URL, access_token=token)
    async with api.server:
        assert (await api.get(token, proof)).status_code == 200
        for later in (120, 1200, 12_000):
            issuer.tokens[token]["exp"] = int(time.time()) + later
            answer = await api.get(token, proof)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_dpop_proof")


async def test_no_token_and_no_secret_is_logged(
    issuer: IssuerOfOpaqueTokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    api, token = Api(issuer), issuer.issue(KEY.jkt)
    async with api.server:
        assert await api.honest(token) == 200
        assert await api.honest("made-up-token-of-a-thief") == 401

        async def behave(_question: Question) -> Response:
            return Response("made-up-token-of-a-thief", 503)

        issuer.behaves = behave
        assert await api.honest("another-made-up-token") == 503
    for secret in (token, "made-up-token", "s3cret", "YXBpOnMzY3JldA"):
        assert secret not in caplog.text
