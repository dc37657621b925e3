"""Profiles: each accepts the tokens of its issuer as it writes them, and nothing that it should not."""

from typing import Any

import pytest

from dpop_middleware import JWTAccessTokenVerifier, MemoryReplayStore, ResourceServer, errors, profiles
from dpop_middleware.checks import Check
from dpop_middleware.profiles import Profile
from dpop_middleware.testing import ABSENT, TestIssuer
from tests.support.issuer_shapes import API, KEY, PROFILES, TOKENS, answered, server, signed


def profile(**changes: Any) -> Profile:
    arguments: dict[str, Any] = {"name": "MINE", **changes}
    return Profile(**arguments)


@pytest.mark.parametrize("name", TOKENS)
async def test_the_profile_accepts_a_token_as_the_issuer_writes_it(name: str) -> None:
    profile, issuer, header, claims = TOKENS[name]
    token = (await answered(server(issuer, profile=profile), signed(issuer, header, claims))).access_token
    assert (token.client_id, token.jkt, token.subject) == ("app", KEY.jkt, claims.get("sub"))
    assert "notes:read" in token.scopes


@pytest.mark.parametrize("changes", [{"token_types": ("JWT",)}, {"required_claims": ("iss", "exp", "aud")}])
def test_options_given_with_a_profile_take_precedence(changes: dict[str, Any]) -> None:
    verifier = profiles.OKTA.verifier(issuer="https://auth.example.com", audience=API, **changes)
    assert isinstance(verifier, JWTAccessTokenVerifier)
    api = ResourceServer(verifier=verifier, resource=API, replay_store=MemoryReplayStore())
    shape = TestIssuer.of(api).profile
    assert shape.client_id_claims == ("cid",)
    assert all(getattr(shape, name) == tuple(map(str.lower, value)) for name, value in changes.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name takes"),
        ({"token_types": ()}, "token_types takes"),
        ({"token_types": "JWT"}, "token_types takes"),
        ({"scope_claims": ()}, "scope_claims takes"),
        ({"client_id_claims": ("",)}, "client_id_claims takes"),
        ({"required_claims": ("iss",)}, "required_claims takes names with"),
        ({"scopes_as_list": 1}, "scopes_as_list takes True or False"),
    ],
)
def test_a_profile_of_the_users_own_is_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        profile(**changes)


def test_a_profile_of_the_users_own_is_a_value() -> None:
    lists = profile(token_types=["JWT"], scope_claims=["scp"], client_id_claims=["app"])
    tuples = profile(token_types=("JWT",), scope_claims=("scp",), client_id_claims=("app",))
    assert lists == tuples
    assert hash(lists) == hash(tuples)


def test_the_option_takes_a_profile_only() -> None:
    wrong: Any = "KEYCLOAK"
    with pytest.raises(errors.ConfigurationError, match="profile takes a Profile, such as profiles.KEYCLOAK"):
        server("https://auth.example.com", profile=wrong)


def test_a_profile_does_not_go_with_a_verifier() -> None:
    verifier = profiles.OKTA.verifier(issuer="https://auth.example.com", audience=API)
    other: Any = {"profile": profiles.OKTA}
    with pytest.raises(errors.ConfigurationError, match="profile, token_clock_skew, .* make a verifier"):
        ResourceServer(verifier=verifier, resource=API, replay_store=MemoryReplayStore(), **other)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
async def test_no_profile_lets_an_id_token_pass_with_a_proof(profile: Profile) -> None:
    issuer = TestIssuer("https://auth.example.com", audience=API, profile=profile)
    api = issuer.resource_server(server("https://auth.example.com", profile=profile))
    with pytest.raises(errors.InvalidToken) as caught:
        await answered(api, issuer.token(scopes=["notes:read"], nonce="n", at_hash="h"))
    assert caught.value.check is Check.BINDING


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("claim", ["iss", "exp", "aud", "iat", "cnf"])
async def test_every_profile_refuses_a_token_that_lacks_what_counts(profile: Profile, claim: str) -> None:
    issuer = TestIssuer("https://auth.example.com", audience=API, profile=profile)
    api = issuer.resource_server(server("https://auth.example.com", profile=profile))
    changes: dict[str, Any] = {"jkt": KEY.jkt, "scopes": ["notes:read"], claim: ABSENT}
    token = issuer.token(**changes)
    with pytest.raises(errors.InvalidToken):
        await answered(api, token)


def test_the_names_of_the_profiles_are_those_under_which_they_are_imported() -> None:
    assert all(profile.name == name for name, profile in PROFILES.items())
    assert set(profiles.KNOWN) <= set(PROFILES.values())
    assert len({repr(profile.options) for profile in profiles.KNOWN}) == len(profiles.KNOWN)
