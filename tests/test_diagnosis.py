"""Guesses at a cause, for the log."""

import pytest

from dpop_middleware.checks import Check
from dpop_middleware.diagnosis import guess
from dpop_middleware.errors import DPoPError, InvalidDPoPProof
from tests.support.api import NOW, Api, edited

TARGET = "https://api.example.test/svc/notes"


def hint(check: Check, expected: object, actual: object) -> str:
    found = guess(InvalidDPoPProof("no", check=check, expected=expected, actual=actual))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        ("http://api.example.test/svc/notes", "scheme differs (http, not https): TLS ends at a proxy? set public_url"),
        ("https://other.example.test/svc/notes", "host differs: clients call other.example.test? set public_url"),
        ("https://api.example.test/svc/notes/", "trailing slash"),
        ("http://other.example.test/svc/notes", "trailing slash, or scheme or host"),
        ("https://api.example.test/v1/svc/notes", "has a prefix that is missing here"),
        ("https://api.example.test/notes", "lacks a prefix that is here"),
        ("the URI is not absolute", "the client must sign the absolute URL"),
    ],
)  # fmt: skip
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
