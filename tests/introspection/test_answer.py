"""What an answer of the introspection endpoint must say of a token (RFC 7662 section 2.2)."""

from collections.abc import Callable
from typing import Any

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import InvalidToken
from dpop_middleware.introspection import ClientSecretBasic, IntrospectionVerifier
from tests.support.introspection_server import IssuerOfOpaqueTokens, refusal

JKT = DPoPKey.generate().jkt
US = ClientSecretBasic(client_id="api", client_secret="s3cret:/+")
Verifier = Callable[..., IntrospectionVerifier]


async def test_a_token_that_is_not_active(issuer: IssuerOfOpaqueTokens, verifier: Verifier) -> None:
    opaque = verifier()
    for _ in range(3):
        error = await refusal(opaque, "made-up")
        assert isinstance(error, InvalidToken)
        assert error.check is Check.TOKEN_ACTIVE
        assert "made-up" not in repr((error.args, error.expected, error.actual))
    assert issuer.asked_about("made-up") == 1


@pytest.mark.parametrize(
    ("claims", "check"),
    [
        ({"aud": "https://other.example"}, Check.TOKEN_AUD),
        ({"aud": None}, Check.TOKEN_AUD),
        ({"aud": 7}, Check.TOKEN_CLAIMS),
        ({"iss": "https://other.example"}, Check.TOKEN_ISS),
        ({"exp": 1000}, Check.TOKEN_TIME),
        ({"exp": None}, Check.TOKEN_CLAIMS),
        ({"exp": "tomorrow"}, Check.TOKEN_CLAIMS),
        ({"nbf": 4_000_000_000}, Check.TOKEN_TIME),
        ({"sub": None, "client_id": None}, Check.TOKEN_CLAIMS),
        ({"scope": {"notes": True}}, Check.TOKEN_CLAIMS),
        ({"token_type": None}, Check.TOKEN_CLAIMS),
        ({"token_type": "Bearer"}, Check.BINDING),
        ({"token_type": "refresh_token"}, Check.BINDING),
        ({"token_type": 1}, Check.BINDING),
        ({"cnf": {"x5t#S256": "x"}}, Check.BINDING),
        ({"cnf": {"jkt": JKT, "x5t#S256": "x"}}, Check.BINDING),
        ({"cnf": []}, Check.BINDING),
        ({"cnf": None}, Check.BINDING),
    ],
)
async def test_an_active_token_that_is_not_for_us_is_refused(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier, claims: dict[str, Any], check: Check
) -> None:
    opaque, token = verifier(), issuer.issue(JKT, **claims)
    for _ in range(2):
        error = await refusal(opaque, token)
        assert isinstance(error, InvalidToken)
        assert error.check is check
    assert len(issuer.asked) == 1, "the refusal is remembered too"


async def test_an_audience_may_be_missing_where_that_is_named(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(accept_missing_audience=True)
    verified = await opaque.verify(issuer.issue(JKT, aud=None, iss=None))
    assert verified.issuer == issuer.origin
    assert {"aud", "iss"}.isdisjoint(verified.claims)
    assert (await refusal(opaque, issuer.issue(JKT, aud="https://other.example"))).check is Check.TOKEN_AUD


async def test_what_an_issuer_leaves_out_can_be_named(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    opaque = verifier(required_claims=())
    verified = await opaque.verify(issuer.issue(JKT, exp=None, token_type=None))
    assert verified.expires_at == float("inf")
    assert (await refusal(verifier(required_claims=("acr",)), issuer.issue(JKT))).check is Check.TOKEN_CLAIMS


async def test_an_unbound_token_says_that_it_is_a_bearer_token(
    issuer: IssuerOfOpaqueTokens, verifier: Verifier
) -> None:
    assert (await verifier().verify(issuer.issue())).jkt is None
    assert (await refusal(verifier(), issuer.issue(token_type="DPoP"))).check is Check.BINDING
