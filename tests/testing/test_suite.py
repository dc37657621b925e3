"""The suite itself: it fails an unsafe application, says why, and runs over the network too."""

import json
import re
from collections.abc import Generator
from typing import Any

import pytest

from dpop_middleware import (
    DPoPMiddleware,
    DPoPPolicy,
    HMACNonceProvider,
    MemoryReplayStore,
    ResourceServer,
)
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.conformance import test_dpop_conformance as conformance
from dpop_middleware.testing.suite import CASES, Case, run_case
from dpop_middleware.testing.target import Target
from tests.support.clients import running
from tests.support.endless import PARTS, Endless

ISSUER = TestIssuer()
NAMED = {case.name: case for case in CASES}
REFUSED = [case for case in CASES if case.status is not None]


def answering(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    return app


def target(app: Any, **changes: Any) -> Target:
    return Target.of(ISSUER, app=app, url="https://api.example.test/notes", **changes)


def protected(app: Any, policy: DPoPPolicy = DPoPPolicy()) -> DPoPMiddleware:
    api = ResourceServer(
        issuer=ISSUER.issuer,
        resource="https://api.example.test",
        jwks=ISSUER.jwks(),
        replay_store=MemoryReplayStore(),
        nonces=HMACNonceProvider(b"x" * 32),
        policy=policy,
    )
    return DPoPMiddleware(app, api)


def refusal(
    status: int = 401,
    challenge: str = 'DPoP error="invalid_dpop_proof"',
    body: object = None,
    cache: str = "no-store",
) -> Any:
    content = {"error": "invalid_dpop_proof"} if body is None else body
    headers = {"www-authenticate": challenge, "cache-control": cache}
    return answering(status, headers, content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
async def test_an_unprotected_app_fails(case: Case) -> None:
    outcome = await run_case(case, target(answering(200, body=b"everything")))
    if case.name == "unknown_nonce":
        assert outcome.verdict == "skipped"
    else:
        assert outcome.verdict == "failed"
        assert outcome.actual.startswith("200, no challenge")


async def test_an_app_that_refuses_everything_fails() -> None:
    for name in ("honest", "replayed"):
        outcome = await run_case(NAMED[name], target(refusal()))
        assert outcome.verdict == "failed"
        assert outcome.actual.startswith("401, ")


@pytest.mark.parametrize(
    "app",
    [
        refusal(400),
        refusal(403),
        refusal(500),
        refusal(challenge='Bearer error="invalid_dpop_proof"'),
        refusal(challenge="DPoP"),
        refusal(challenge='DPoP error="invalid_token"'),
        refusal(challenge='DPoP error="invalid_dpop_proof", Bearer error="invalid_token"'),
        refusal(challenge='DPoP_ error="invalid_dpop_proof"'),
        refusal(body={"error": "invalid_token"}),
        refusal(cache="max-age=60"),
    ],
)
async def test_a_sloppy_refusal_fails(app: Any) -> None:
    assert (await run_case(NAMED["bad_signature"], target(refusal()))).verdict == "passed"
    assert (await run_case(NAMED["bad_signature"], target(app))).verdict == "failed"


@pytest.mark.parametrize(
    "body", [{}, [], {"detail": "refused"}, b"", b"<html>", b"\xff", b"[" * 100_000, b"9" * 10_000]
)
async def test_a_body_of_the_frameworks_own_passes(body: object) -> None:
    assert (await run_case(NAMED["bad_signature"], target(refusal(body=body)))).verdict == "passed"


@pytest.mark.parametrize("charset", ["hex", "zlib", "rot13", "undefined", "idna", "utf-16", "none-such"])
async def test_an_answer_is_described_whatever_charset_it_names(charset: str) -> None:
    headers = {"content-type": f"text/plain; charset={charset}"}
    outcome = await run_case(NAMED["honest"], target(answering(500, headers, b"not \xff found")))
    assert outcome.actual == "500, no challenge, no Cache-Control, not \ufffd found"


async def test_a_refusal_without_credentials_has_no_error_code() -> None:
    bare = refusal(challenge="DPoP", body={"error_description": "an access token is required"})
    assert (await run_case(NAMED["no_credentials"], target(bare))).verdict == "passed"
    assert (await run_case(NAMED["no_credentials"], target(refusal()))).verdict == "failed"


async def test_a_nonce_challenge_carries_one_nonce() -> None:
    headers = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "cache-control": "no-store"}
    body = b'{"error": "use_dpop_nonce"}'
    with_nonce = answering(401, headers | {"dpop-nonce": "n"}, body)
    assert (await run_case(NAMED["unknown_nonce"], target(with_nonce))).verdict == "passed"
    assert (
        await run_case(NAMED["unknown_nonce"], target(answering(401, headers, body)))
    ).verdict == "skipped"


class TestSkips:
    async def test_a_case_that_the_target_leaves_out_is_skipped(self) -> None:
        outcome = await run_case(NAMED["honest"], target(None, leave_out=["honest"]))
        assert (outcome.verdict, outcome.actual) == ("skipped", "the target leaves it out")

    async def test_a_case_that_a_nonce_decides_is_skipped(self) -> None:
        app = protected(answering(200), DPoPPolicy(nonce="required"))
        verdicts = {
            name: (await run_case(NAMED[name], target(app))).verdict for name in ("expired", "unknown_nonce")
        }
        assert verdicts == {"expired": "skipped", "unknown_nonce": "passed"}

    async def test_a_case_that_needs_other_tokens_is_skipped(self) -> None:
        key = DPoPKey.generate()
        app = protected(answering(200))
        alone = Target(
            url="https://api.example.test/",
            key=key,
            access_token=ISSUER.token(jkt=key.jkt),
            app=app,
            clock=ISSUER.clock,
        )
        outcomes = [await run_case(case, alone) for case in CASES]
        assert {outcome.name for outcome in outcomes if outcome.verdict == "skipped"} == {
            "unbound_token", "expired_token", "token_for_another_audience", "token_of_another_issuer",
            "token_signed_by_a_stranger", "token_without_signature", "unknown_nonce",
        }  # fmt: skip
        assert {outcome.verdict for outcome in outcomes} == {"passed", "skipped"}

    async def test_the_default_port_is_skipped_for_a_url_with_another_port(self) -> None:
        outcome = await run_case(
            NAMED["htu_with_default_port"],
            Target.of(ISSUER, app=answering(200), url="https://api.example.test:8443/"),
        )
        assert outcome.verdict == "skipped"


class TestAsPytestTests:
    def test_a_failure_says_what_and_why(self) -> None:
        with pytest.raises(
            pytest.fail.Exception, match=re.escape("bad_signature: expected 401, a DPoP")
        ) as failed:
            conformance(NAMED["bad_signature"], target(answering(200)))
        assert "got 200, no challenge" in str(failed.value)
        assert "eyJ" not in str(failed.value)

    def test_a_skip_says_why(self) -> None:
        with pytest.raises(pytest.skip.Exception, match="leaves it out"):
            conformance(NAMED["honest"], target(None, leave_out=["honest"]))


@pytest.fixture(scope="module")
def origin() -> Generator[str]:
    """A protected app that listens on a real socket, and its origin."""
    app: list[Any] = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await app[0](scope, receive, send)

    with running(late) as found:
        api = ResourceServer(
            issuer=ISSUER.issuer,
            resource="https://api.example.test",
            public_url=found,
            jwks=ISSUER.jwks(),
            replay_store=MemoryReplayStore(),
        )
        app.append(DPoPMiddleware(answering(200), api))
        yield found


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_the_suite_runs_over_the_network(case: Case, origin: str) -> None:
    outcome = await run_case(case, Target.of(ISSUER, url=f"{origin}/notes"))
    skipped = {"unknown_nonce", "htu_with_default_port"}
    assert outcome.verdict == ("skipped" if case.name in skipped else "passed"), outcome


@pytest.mark.parametrize("name", ["honest", "replayed"])
async def test_of_an_answer_without_an_end_little_is_read(name: str) -> None:
    app = Endless()
    app.status = 200
    with running(app) as origin:
        outcome = await run_case(NAMED[name], Target.of(ISSUER, url=f"{origin}/notes"))
    assert (outcome.verdict, app.most < PARTS) == ("passed" if name == "honest" else "failed", True)


@pytest.mark.parametrize("case", ["honest", "wrong_htu", "no_proof", "replayed"])
async def test_the_application_may_be_mounted_at_a_root_path(case: str) -> None:
    seen: list[tuple[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["root_path"], scope["path"]))
        await answering(200)(scope, receive, send)

    server = ResourceServer(
        issuer=ISSUER.issuer,
        resource="https://api.example.test",
        jwks=ISSUER.jwks(),
        public_url="https://api.example.test/v1",
        replay_store=MemoryReplayStore(),
    )
    mounted = Target.of(
        ISSUER, app=DPoPMiddleware(app, server), url="https://api.example.test/v1/notes", root_path="/v1"
    )
    assert (await run_case(NAMED[case], mounted)).verdict == "passed"
    assert set(seen) == {("/v1", "/v1/notes")}


def test_a_root_path_with_which_the_url_does_not_begin_is_no_root_path() -> None:
    with pytest.raises(ConfigurationError, match="root_path takes what the path of the URL begins with"):
        target(answering(200), root_path="/v1")
