"""The conformance suite: the answers that every DPoP resource server must give, in any framework.

`run_case` runs one of `CASES` against a `Target` through httpx2, in this process or over the network.
`dpop_middleware.testing.conformance` makes a pytest test of each.
"""

import json
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import httpx2

from dpop_middleware.testing.cases import CASES, Case, CaseRun
from dpop_middleware.testing.target import Target, lifespan

__all__ = ["CASES", "Case", "Outcome", "Verdict", "run_case"]

Verdict = Literal["passed", "failed", "skipped"]

# Why a case is skipped.
_NO_TOKENS: Final = "it needs another token of the issuer: in your tests, Target.of makes it"
_LACKING: Final = MappingProxyType(
    {
        "htu_with_default_port": "the URL already names a port",
        "unknown_nonce": "the server sends no nonces",
    }
)
_ERROR: Final = re.compile(r'\berror="([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a case. `expected` and `actual` are sentences without tokens and proofs."""

    name: str
    verdict: Verdict
    expected: str
    actual: str


async def run_case(case: Case, target: Target) -> Outcome:
    """Run one case against `target` and judge the answer.

    Raises the exceptions of httpx2 when the target can't be reached, and those of the application.
    """
    if case.name in target.leave_out:
        return _skipped(case, "the target leaves it out")
    async with AsyncExitStack() as stack:
        transport: httpx2.AsyncBaseTransport | None = None
        if target.transport is not None:
            transport = target.transport()
        elif target.app is not None:
            app = await stack.enter_async_context(lifespan(target.app))
            transport = httpx2.ASGITransport(app=app, root_path=target.root_path)
        client = await stack.enter_async_context(
            httpx2.AsyncClient(
                transport=transport,
                trust_env=False,
                follow_redirects=False,
            )
        )
        run = CaseRun(target, client)
        await _learn_nonce(run)
        if case.by_time and run.nonce is not None:
            return _skipped(case, "the server checks the nonce, not iat")
        headers = case.request(run)
        if headers is None:
            return _skipped(case, _LACKING.get(case.name, _NO_TOKENS))
        for _ in range(case.presentations - 1):
            first = await run.send(headers)
            if first.status_code >= 400:
                return _judged(case, "the first presentation is accepted", _described(first), passed=False)
        return _judgement(case, await run.send(headers))


async def _learn_nonce(run: CaseRun) -> None:
    """Send one honest request: a server that uses nonces sends one in its answer."""
    await run.send(run.credentials(run.honest().encode()))


def _judgement(case: Case, response: httpx2.Response) -> Outcome:
    if case.status is None:
        return _judged(case, "accepted", _described(response), passed=response.status_code < 400)
    expected = f"{case.status}, a DPoP challenge, {case.error or 'no error code'}, no-store"
    challenges = response.headers.get_list("WWW-Authenticate")
    errors = {error for challenge in challenges for error in _ERROR.findall(challenge)}
    passed = (
        response.status_code == case.status
        and any(challenge.split(" ")[0] == "DPoP" for challenge in challenges)
        and errors == ({case.error} if case.error else set())
        and _error_in_body(response) in (case.error, None)
        and "no-store" in response.headers.get("Cache-Control", "")
        and (case.error != "use_dpop_nonce" or len(response.headers.get_list("DPoP-Nonce")) == 1)
    )
    return _judged(case, expected, _described(response), passed=passed)


def _error_in_body(response: httpx2.Response) -> object:
    """The error code that the body names; None without one: frameworks may write their own bodies."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):  # not JSON, or nested too deep for Python
        return None
    return body.get("error") if isinstance(body, dict) else None


def _described(response: httpx2.Response) -> str:
    challenges = "; ".join(response.headers.get_list("WWW-Authenticate")) or "no challenge"
    stored = response.headers.get("Cache-Control", "no Cache-Control")
    # As UTF-8, whatever charset the answer names: some are codecs of Python's that are no charset.
    text = response.content.decode("utf-8", "replace")[:200]
    return f"{response.status_code}, {challenges}, {stored}, {text}"


def _judged(case: Case, expected: str, actual: str, *, passed: bool) -> Outcome:
    return Outcome(name=case.name, verdict="passed" if passed else "failed", expected=expected, actual=actual)


def _skipped(case: Case, reason: str) -> Outcome:
    return Outcome(name=case.name, verdict="skipped", expected="", actual=reason)
