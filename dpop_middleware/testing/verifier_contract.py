"""The contract of every access token verifier, for tokens of any kind (RFC 9449 section 7.1).

To test your own verifier, make a subclass with the fixtures; the tests are async, for
pytest-asyncio's mode `auto`:

    from dpop_middleware.testing.verifier_contract import AccessTokenVerifierContract

    class TestMyVerifier(AccessTokenVerifierContract):
        @pytest.fixture
        def verifier(self) -> AccessTokenVerifier:
            return MyVerifier()

        @pytest.fixture
        def token(self) -> str:
            return "a token that is valid now"
"""

import asyncio
from collections.abc import Mapping

import pytest

from dpop_middleware.errors import InvalidToken, Unavailable
from dpop_middleware.tokens.access_token import AccessToken, AccessTokenVerifier

__all__ = ["AccessTokenVerifierContract"]

_JKT_LENGTH = 43


class AccessTokenVerifierContract:
    """The contract; a subclass defines the fixtures `verifier` and `token`, a valid token."""

    def test_the_verifier_names_its_issuers(self, verifier: AccessTokenVerifier) -> None:
        assert isinstance(verifier.issuers, tuple)
        assert verifier.issuers
        assert all(isinstance(issuer, str) for issuer in verifier.issuers)

    async def test_a_good_token_is_an_access_token(self, verifier: AccessTokenVerifier, token: str) -> None:
        verified = await verifier.verify(token)
        assert isinstance(verified, AccessToken)
        assert verified.issuer in verifier.issuers
        assert isinstance(verified.scopes, frozenset)
        assert verified.expires_at > 0  # False for NaN; infinite where the issuer gives no end
        assert verified.jkt is None or len(verified.jkt) == _JKT_LENGTH
        assert verified.subject is None or isinstance(verified.subject, str)
        assert isinstance(verified.client_id, str)
        assert verified.subject or verified.client_id

    async def test_the_claims_are_read_only(self, verifier: AccessTokenVerifier, token: str) -> None:
        claims = (await verifier.verify(token)).claims
        assert isinstance(claims, Mapping)
        assert not hasattr(claims, "__setitem__")

    async def test_a_token_can_be_verified_twice(self, verifier: AccessTokenVerifier, token: str) -> None:
        first, second = await asyncio.gather(verifier.verify(token), verifier.verify(token))
        assert (first.subject, first.jkt) == (second.subject, second.jkt)
        assert (await verifier.verify(token)).subject == first.subject

    @pytest.mark.parametrize(
        "garbage",
        ["", ".", "..", "a.b.c", "....", "é", "\0", "\ud800", "a" * 20_000, "e30.e30.e30"],
        ids=ascii,
    )
    async def test_garbage_is_no_token(self, verifier: AccessTokenVerifier, garbage: str) -> None:
        with pytest.raises((InvalidToken, Unavailable)):
            await verifier.verify(garbage)

    async def test_an_altered_token_is_no_token(self, verifier: AccessTokenVerifier, token: str) -> None:
        middle = len(token) // 2
        other = "A" if token[middle] != "A" else "B"
        for altered in (token[:-1], token + "A", token[:middle] + other + token[middle + 1 :], token[::-1]):
            with pytest.raises((InvalidToken, Unavailable)):
                await verifier.verify(altered)
