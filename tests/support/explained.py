"""Requests that are explained, with one issuer, one client and one time."""

from typing import Any

from dpop_middleware import (
    HMACNonceProvider,
    JWTAccessTokenVerifier,
)
from dpop_middleware.authorization_server import CHECKS
from dpop_middleware.checks import CHECKS_OF_A_JWT, Check
from dpop_middleware.cli.console import FindingState
from dpop_middleware.cli.explanation import explain
from dpop_middleware.cli.findings import Explanation, Finding
from dpop_middleware.cli.token_judge import TokenJudge
from dpop_middleware.client import DPoPKey
from dpop_middleware.profiles import RFC9068
from dpop_middleware.testing import TestIssuer
from dpop_middleware.tokens.claims import ClaimRules

NOW = 1_800_000_000.0
URL = "https://api.example.test/notes"
ISSUER = TestIssuer(clock=lambda: NOW)
KEY = DPoPKey.generate()
TOKEN = ISSUER.token(jkt=KEY.jkt, scopes=["notes:read"])
RULES = ClaimRules(
    issuer=ISSUER.issuer,
    audiences=frozenset({str(ISSUER.audience)}),
    required=RFC9068.required_claims,
    scope_claims=RFC9068.scope_claims,
    client_id_claims=RFC9068.client_id_claims,
    clock_skew=15,
)
NONCES = HMACNonceProvider(bytes(range(32))).for_server(purpose="resource server", server="")


def verifier(issuer: TestIssuer = ISSUER) -> JWTAccessTokenVerifier:
    return JWTAccessTokenVerifier(
        issuer=issuer.issuer, audience=issuer.audience, jwks=issuer.jwks(), clock=lambda: NOW
    )


def proof(**changes: Any) -> str:
    arguments: dict[str, Any] = {"access_token": TOKEN, "now": NOW, **changes}
    return KEY.proof("GET", URL, **arguments)


async def explained(*proofs: str, **changes: Any) -> Explanation:
    judge: dict[str, Any] = {"verifier": verifier(), "rules": RULES}
    judge |= {name: changes.pop(name) for name in TokenJudge.__dataclass_fields__ if name in changes}
    arguments: dict[str, Any] = {
        "method": "GET",
        "url": URL,
        "access_token": TOKEN,
        "judge": TokenJudge(**judge),
        "now": NOW,
        **changes,
    }
    token = arguments.pop("access_token")
    arguments.setdefault("authorization", None if token is None else (f"DPoP {token}",))
    return await explain(proofs=proofs, **arguments)


def found(explanation: Explanation) -> dict[Check, Finding]:
    return {finding.check: finding for finding in explanation.findings}


def outcomes(explanation: Explanation) -> dict[Check, FindingState]:
    """The server's own findings: a check that it doesn't reach counts as not reached."""
    return {
        finding.check: FindingState.NOT_REACHED if finding.after_failure else finding.outcome
        for finding in explanation.findings
    }


def assert_is_told_in_order(explanation: Explanation, checks: tuple[Check, ...] = CHECKS_OF_A_JWT) -> None:
    """One row for each check, in order; one failure, if any; after it no check counts as judged."""
    assert [finding.check for finding in explanation.findings] == list(checks)
    told = outcomes(explanation)
    failed = [check for check, outcome in told.items() if outcome is FindingState.FAILED]
    error = explanation.error
    if error is None:
        assert failed == []
        assert FindingState.NOT_REACHED not in told.values()
        assert explanation.status is None
        return
    assert failed == [error.check]
    assert explanation.status == (400 if checks == CHECKS else error.status)
    unreached = [check for check, outcome in told.items() if outcome is FindingState.NOT_REACHED]
    order = list(checks)
    assert {FindingState.PASSED, FindingState.NOT_JUDGED}.isdisjoint(
        told[check] for check in order[order.index(unreached[0]) :] if unreached
    )


def later(explanation: Explanation) -> dict[Check, FindingState]:
    """The findings of checks that the server doesn't reach."""
    return {finding.check: finding.outcome for finding in explanation.findings if finding.after_failure}
