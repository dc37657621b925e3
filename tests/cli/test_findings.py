"""What each check found of one request, row by row."""

from dpop_middleware.checks import Check
from dpop_middleware.cli.findings import Finding, FindingState
from dpop_middleware.errors import InvalidToken
from dpop_middleware.tokens.access_token import AccessToken
from tests.support.explained import KEY, NOW, TOKEN, URL, explained, found, outcomes, proof


async def test_a_failed_check_has_expected_actual_and_a_guess() -> None:
    told = found(await explained(KEY.proof("GET", URL.replace("https", "http"), access_token=TOKEN, now=NOW)))
    failed = told[Check.HTU]
    assert (failed.expected, failed.actual) == (URL, URL.replace("https", "http"))
    assert failed.hint == "scheme differs (http, not https): TLS ends at a proxy? set public_url"
    assert told[Check.HTM] == Finding(check=Check.HTM, outcome=FindingState.PASSED, actual="GET")
    assert told[Check.ATH].after_failure
    assert told[Check.JTI].outcome is FindingState.NOT_REACHED


async def test_a_check_that_the_verifier_cannot_make_is_not_judged() -> None:
    told = found(await explained(proof(), unknown={Check.TOKEN_KEY: "no keys"}))
    assert told[Check.TOKEN_KEY] == Finding(
        check=Check.TOKEN_KEY, outcome=FindingState.NOT_JUDGED, hint="no keys"
    )


async def test_an_error_without_a_check_fails_the_authorization_check() -> None:
    class Opaque:
        issuers = ()

        async def verify(self, token: str) -> AccessToken:
            raise InvalidToken("unknown")

    told = outcomes(await explained(proof(), verifier=Opaque()))
    assert told[Check.AUTHORIZATION] is FindingState.FAILED
    assert told[Check.TARGET] is FindingState.NOT_REACHED
