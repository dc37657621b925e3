"""Which key signed a token that names none."""

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.policy import SUPPORTED_ALGORITHMS
from dpop_middleware.tokens.jwks import VerificationKey, parse_key_set
from dpop_middleware.tokens.signed_token import SignedToken, parse_signed_token
from dpop_middleware.tokens.signing_keys import SigningKeys
from tests.support.issuer_tokens import IssuerKey, issuer_key, key_set

ONE, TWO, THREE, STRANGER = (issuer_key("ES256", number=number, kid=None) for number in (1, 2, 3, 4))
KEYS = parse_key_set(key_set(ONE, TWO, THREE)).keys


def signed(key: IssuerKey) -> SignedToken:
    return parse_signed_token(key.token(), token_types=("at+jwt",), algorithms=SUPPORTED_ALGORITHMS)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[VerificationKey]:
    """The keys that signatures were compared with."""
    seen: list[VerificationKey] = []
    verify = SignedToken.is_signed_by

    def counting(self: SignedToken, key: VerificationKey) -> bool:
        seen.append(key)
        return verify(self, key)

    monkeypatch.setattr(SignedToken, "is_signed_by", counting)
    return seen


def test_two_keys_are_tried_and_no_third(tried: list[VerificationKey]) -> None:
    keys = SigningKeys()
    assert keys.signer(signed(TWO), KEYS) is KEYS[1]
    tried.clear()
    assert SigningKeys().signer(signed(THREE), KEYS) is None
    assert tried == list(KEYS[:2])


def test_the_last_key_that_signed_is_tried_first(tried: list[VerificationKey]) -> None:
    keys = SigningKeys()
    keys.signer(signed(TWO), KEYS)
    tried.clear()
    assert keys.signer(signed(TWO), KEYS) is KEYS[1]
    assert tried == [KEYS[1]]


def test_ten_forgeries_a_second_are_tried_twice_and_more_of_them_once(tried: list[VerificationKey]) -> None:
    now = 5.0
    keys = SigningKeys(monotonic=lambda: now)
    forged = signed(STRANGER)
    for _ in range(10):
        assert keys.signer(forged, KEYS) is None
    assert len(tried) == 20
    for _ in range(5):
        with pytest.raises(InvalidToken) as caught:
            keys.signer(forged, KEYS)
        assert (caught.value.check, caught.value.expected) == (Check.TOKEN_KEY, "kid")
    assert len(tried) == 25
    now = 6.0
    assert keys.signer(signed(TWO), KEYS) is KEYS[1]


def test_a_flood_of_forgeries_locks_out_no_key_of_the_issuer(tried: list[VerificationKey]) -> None:
    keys = SigningKeys(monotonic=lambda: 5.0)
    keys.signer(signed(ONE), KEYS)
    for _ in range(10):
        keys.signer(signed(STRANGER), KEYS)
    tried.clear()
    for honest, key in ((ONE, KEYS[0]), (TWO, KEYS[1])):
        found = []
        for _ in range(4):
            try:
                found.append(keys.signer(signed(honest), KEYS))
            except InvalidToken:
                found.append(None)
        assert found.count(key) >= 2, "each key has its turn"
    assert len(tried) == 8, "and a token costs one verification"


def test_tries_that_find_the_key_are_not_counted() -> None:
    keys = SigningKeys(monotonic=lambda: 5.0)
    for _ in range(20):
        assert keys.signer(signed(TWO), KEYS) is KEYS[1]
        assert keys.signer(signed(ONE), KEYS) is KEYS[0]


def test_a_key_that_comes_later_counts_among_the_tries_of_its_token() -> None:
    keys = SigningKeys(monotonic=lambda: 5.0)
    for _ in range(10):
        assert keys.signer(signed(STRANGER), KEYS[:1], tried=1) is None
    with pytest.raises(InvalidToken):
        keys.signer(signed(ONE), KEYS[:1], tried=1)
