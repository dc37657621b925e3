"""The hint that names the right profile where another one is set."""

import pytest

from dpop_middleware import errors
from dpop_middleware._judge.other_profile import fitting_profile
from dpop_middleware.checks import Check
from dpop_middleware.errors import InvalidToken
from dpop_middleware.events import AuthenticationEvent
from tests.support.issuer_shapes import PROFILES, TOKENS, answered, server, signed

# The first profile that accepts the token; where an issuer follows RFC 9068, that is the default.
RIGHT = {
    "Keycloak": "KEYCLOAK",
    "Keycloak, a client for itself": "RFC9068",
    "Okta": "OKTA",
    "Auth0": "AUTH0",
    "Duende": "RFC9068",
    "HelseID, a client for itself": "DUENDE",
    "oidc-provider": "RFC9068",
    "Better Auth": "RFC9068",
}


@pytest.mark.parametrize("name", TOKENS)
async def test_the_refusal_names_the_profile_that_accepts_the_token(name: str) -> None:
    _, issuer, header, claims = TOKENS[name]
    token = signed(issuer, header, claims)
    refused: dict[str, object] = {}
    for set_profile in (None, *PROFILES.values()):
        events: list[AuthenticationEvent] = []
        api = server(issuer, profile=set_profile, on_event=events.append)
        try:
            await answered(api, token)
        except errors.InvalidToken:
            refused[str(set_profile)] = events[0].hint
    hint = f"a token of this shape is accepted with profile=profiles.{RIGHT[name]}"
    assert set(refused.values()) == {hint}
    await answered(server(issuer, profile=PROFILES[RIGHT[name]]), token)


@pytest.mark.parametrize(
    ("error", "header", "payload"),
    [
        (InvalidToken("", check=Check.TOKEN_AUD, expected="a"), b'{"typ":"jwt"}', b'"iss"'),
        (InvalidToken("", check=Check.TOKEN_CLAIMS, expected="exp", actual="soon"), b'{"typ":"jwt"}', b""),
        (InvalidToken("", check=Check.TOKEN_CLAIMS), b'{"typ":"jwt"}', b""),
        (InvalidToken("", check=Check.TOKEN_TYP), b'{"typ":"jwt"}', b'"iss" "exp" "aud" "sub" "iat"'),
        (InvalidToken("", check=Check.TOKEN_TYP), b'{"typ":"\xff"}', b"\xff"),
        (InvalidToken("", check=Check.TOKEN_TYP), b"", b""),
    ],
)
def test_nothing_is_named_where_no_profile_fits(error: InvalidToken, header: bytes, payload: bytes) -> None:
    assert fitting_profile(error, header, payload) is None
