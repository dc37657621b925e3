"""The verifiers of opaque tokens keep the contract of all verifiers."""

from collections.abc import Callable

import pytest

from dpop_middleware import JWTAccessTokenVerifier, JWTOrOpaqueVerifier
from dpop_middleware.introspection import IntrospectionVerifier
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.verifier_contract import AccessTokenVerifierContract
from dpop_middleware.tokens.access_token import AccessTokenVerifier
from tests.support.introspection_server import IssuerOfOpaqueTokens

JWTS = TestIssuer()


class TestIntrospectionVerifier(AccessTokenVerifierContract):
    @pytest.fixture
    def verifier(self, verifier: Callable[..., IntrospectionVerifier]) -> AccessTokenVerifier:
        return verifier()

    @pytest.fixture
    def token(self, issuer: IssuerOfOpaqueTokens) -> str:
        return issuer.issue()


class TestJWTOrOpaqueVerifier(AccessTokenVerifierContract):
    @pytest.fixture
    def verifier(self, verifier: Callable[..., IntrospectionVerifier]) -> AccessTokenVerifier:
        jwt = JWTAccessTokenVerifier(issuer=JWTS.issuer, audience=str(JWTS.audience), jwks=JWTS.jwks())
        return JWTOrOpaqueVerifier(jwt=jwt, opaque=verifier())

    @pytest.fixture(params=["jwt", "opaque"])
    def token(self, request: pytest.FixtureRequest, issuer: IssuerOfOpaqueTokens) -> str:
        return JWTS.token() if request.param == "jwt" else issuer.issue()
