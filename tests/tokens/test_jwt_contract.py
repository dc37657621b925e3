import pytest

from dpop_middleware import AccessTokenVerifier, JWTAccessTokenVerifier
from dpop_middleware.testing import TestIssuer
from dpop_middleware.testing.verifier_contract import AccessTokenVerifierContract

ISSUER = TestIssuer("https://auth.example.com", audience="https://api.example.com")


class TestJWTAccessTokenVerifier(AccessTokenVerifierContract):
    @pytest.fixture
    def verifier(self) -> AccessTokenVerifier:
        return JWTAccessTokenVerifier(
            issuer=ISSUER.issuer, audience="https://api.example.com", jwks=ISSUER.jwks()
        )

    @pytest.fixture
    def token(self) -> str:
        return ISSUER.token(sub="ann", scopes=["notes:read"])
