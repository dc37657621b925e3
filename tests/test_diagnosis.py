"""Guesses at a cause, for the log."""

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.diagnosis import guess
from dpop_middleware.errors import DPoPError, InvalidDPoPProof, InvalidRequest, InvalidToken, UseDPoPNonce
from tests.support.api import NOW, Api, edited

TARGET = "https://api.example.test/svc/notes"


def hint(check: Check, expected: object, actual: object) -> str:
    found = guess(InvalidDPoPProof("no", check=check, expected=expected, actual=actual))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (
            "http://api.example.test/svc/notes",
            "scheme differs (http, not https): TLS ends at a proxy? set public_url",
        ),
        (
            "https://other.example.test/svc/notes",
            "host differs: clients call other.example.test? set public_url",
        ),
        ("https://api.example.test/svc/notes/", "trailing slash"),
        ("http://other.example.test/svc/notes", "trailing slash, or scheme or host"),
        ("https://api.example.test/v1/svc/notes", "has a prefix that is missing here"),
        ("https://api.example.test/notes", "lacks a prefix that is here"),
        ("the URI is not absolute", "the client must sign the absolute URL"),
    ],
)
def test_htu(actual: str, words: str) -> None:
    assert words in hint(Check.HTU, TARGET, actual)


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (NOW + 3600, "iat is 3585 s too late: does the client's clock run fast?"),
        (NOW - 3600, "iat is 3525 s too early: an old proof, or a slow clock?"),
        (NOW * 1000, "milliseconds"),
    ],
)
def test_iat(actual: float, words: str) -> None:
    assert words in hint(Check.IAT, (NOW - 75, NOW + 15), actual)


def test_htm_in_lower_case() -> None:
    assert "case-sensitive" in hint(Check.HTM, "POST", "post")


@pytest.mark.parametrize(
    ("check", "expected", "actual"),
    [
        (Check.HTU, TARGET, "https://api.example.test/other"),
        (Check.HTU, TARGET, None),
        (Check.HTU, (TARGET,), ("host",)),
        (Check.IAT, None, None),
        (Check.IAT, NOW, NOW - 1),
        (Check.IAT, (NOW, NOW), "text"),
        (Check.HTM, "POST", "GET"),
        (Check.HTM, "POST", None),
        (Check.JTI, None, None),
        (None, None, None),
    ],
)
def test_no_guess_is_better_than_a_wrong_one(check: Check | None, expected: object, actual: object) -> None:
    assert guess(InvalidDPoPProof("no", check=check, expected=expected, actual=actual)) is None


async def test_a_client_that_counts_milliseconds_is_found_out() -> None:
    api = Api()
    with pytest.raises(DPoPError):
        await api.server.authenticate(api.request(edited(api.key, api.proof(), iat=int(NOW * 1000))))
    assert api.events[0].hint == "iat is in milliseconds? it must be in seconds"


PROOF, TOKEN = InvalidDPoPProof, InvalidToken
USED_BEFORE = "the DPoP proof was used before"


@pytest.mark.parametrize(
    ("kind", "check", "expected", "actual", "words"),
    [
        (PROOF, Check.ONE_HEADER, 1, 0, "sent no DPoP field"),
        (PROOF, Check.ONE_HEADER, 1, 2, "added a field instead of replacing it"),
        (PROOF, Check.ONE_HEADER, 8192, 9000, None),
        (PROOF, Check.TYP, "dpop+jwt", "JWT", "default of a JWT library"),
        (PROOF, Check.ALG, ("EdDSA",), "ES256", "not among the algorithms"),
        (PROOF, Check.ALG, ("EdDSA",), "none", "never with a shared secret"),
        (PROOF, Check.ALG, ("EdDSA",), "HS256", "never with a shared secret"),
        (PROOF, Check.ALG, ("EdDSA",), "ES256K", None),
        (PROOF, Check.ALG, ("EdDSA",), ["ES256"], None),
        (PROOF, Check.JWK, None, "the JWK holds private or symmetric key material", "make a new one"),
        (PROOF, Check.JWK, None, "the JWK is not for signatures", None),
        (PROOF, Check.JWK, None, None, None),
        (PROOF, Check.FORMAT, None, None, "is it whole"),
        (PROOF, Check.ATH, None, None, "a proof for another token"),
        (PROOF, Check.SIGNATURE, None, None, "another key than the one in jwk"),
        (PROOF, Check.NONCE, None, None, None),
        (TOKEN, Check.TOKEN_FORMAT, None, None, "opaque or an encrypted token"),
        (TOKEN, Check.TOKEN_TYP, None, None, "token_types"),
        (TOKEN, Check.TOKEN_KEY, None, None, "another issuer"),
        (TOKEN, Check.TOKEN_SIGNATURE, None, None, "altered or cut short"),
        (TOKEN, Check.TOKEN_AUD, None, None, "another API"),
        (TOKEN, Check.JKT, None, None, "a token belongs to one key"),
        (TOKEN, Check.TOKEN_TIME, NOW, NOW - 60, "it expired 60 s ago"),
        (TOKEN, Check.TOKEN_TIME, NOW, NOW + 60, "valid in 60 s"),
        (TOKEN, Check.TOKEN_TIME, NOW, NOW * 1000, "milliseconds"),
        (TOKEN, Check.TOKEN_TIME, NOW, None, None),
        (TOKEN, Check.TOKEN_TIME, None, NOW, None),
        (TOKEN, Check.TOKEN_CLAIMS, "client_id", None, "leaves out client_id? name the others"),
        (TOKEN, Check.TOKEN_CLAIMS, "sub", "7", None),
        (
            TOKEN,
            Check.TOKEN_ISS,
            "https://a.example",
            "'https://a.example/'",
            "only a trailing slash differs",
        ),
        (TOKEN, Check.TOKEN_ISS, "https://a.example", "'https://b.example'", None),
        (TOKEN, Check.TOKEN_ISS, "https://a.example", None, None),
        (TOKEN, Check.BINDING, None, None, None),
        (TOKEN, None, None, None, None),
        (PROOF, None, None, None, None),
        (InvalidRequest, Check.AUTHORIZATION, None, None, None),
    ],
)
def test_guesses_for_every_check(
    kind: type[DPoPError], check: Check | None, expected: object, actual: object, words: str | None
) -> None:
    found = guess(kind("no", check=check, expected=expected, actual=actual))
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert words in found


def test_guesses_by_what_happened() -> None:
    assert "sent twice" in str(guess(InvalidDPoPProof(USED_BEFORE, check=Check.JTI)))
    assert (
        guess(InvalidDPoPProof("the jti of the DPoP proof is missing or malformed", check=Check.JTI)) is None
    )
    assert "put it into a new proof" in str(guess(UseDPoPNonce("no", nonce="n")))
    unbound = InvalidToken("no", check=Check.BINDING)
    unbound.scheme = "DPoP"
    assert "did the token request carry a DPoP proof" in str(guess(unbound))


async def test_the_guess_about_a_replay_knows_the_replays_description() -> None:
    api = Api()
    asked = api.request()
    await api.server.authenticate(asked)
    with pytest.raises(InvalidDPoPProof, match=USED_BEFORE):
        await api.server.authenticate(asked)
    assert "sent twice" in str(api.events[-1].hint)
