"""What a route asks of a valid token."""

import math
from typing import Any

import pytest

from dpop_middleware import AccessToken
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware.errors import ConfigurationError, InsufficientScope, InsufficientUserAuthentication

NOW = 1_800_000_000.0


def token(*scopes: str, **claims: Any) -> AccessToken:
    return AccessToken(
        claims=claims,
        issuer="https://auth.example.test",
        subject="user123",
        client_id="my_client",
        scopes=frozenset(scopes),
        expires_at=NOW + 60,
        jkt=None,
    )


def test_nothing_is_required_by_default() -> None:
    Requirements().check(token(), now=NOW)


def test_every_scope_must_be_granted() -> None:
    required = Requirements(scopes=("a", "b"))
    required.check(token("c", "b", "a"), now=NOW)
    with pytest.raises(InsufficientScope) as caught:
        required.check(token("c", "a"), now=NOW)
    assert caught.value.scopes == ("a", "b")
    assert caught.value.actual == ("a", "c")


def test_scopes_are_whole_words_in_their_case() -> None:
    for granted in ("notes", "NOTES:READ", "notes:read2"):
        with pytest.raises(InsufficientScope):
            Requirements(scopes=("notes:read",)).check(token(granted), now=NOW)


def test_one_of_the_acr_values_is_enough() -> None:
    required = Requirements(acr_values=("gold", "silver"))
    required.check(token(acr="silver"), now=NOW)
    for acr in ("bronze", None, ["gold"], {"gold": 1}, 1):
        with pytest.raises(InsufficientUserAuthentication) as caught:
            required.check(token(acr=acr), now=NOW)
        assert (caught.value.acr_values, caught.value.max_age) == (("gold", "silver"), None)
        assert caught.value.actual == acr
    with pytest.raises(InsufficientUserAuthentication):
        required.check(token(), now=NOW)


@pytest.mark.parametrize("auth_time", [NOW, NOW - 60, int(NOW), NOW + 5])
def test_recent_authentication(auth_time: float) -> None:
    Requirements(max_age=60).check(token(auth_time=auth_time), now=NOW)


@pytest.mark.parametrize(
    "auth_time", [NOW - 60.5, NOW - 61, None, str(int(NOW)), True, math.nan, math.inf, [NOW]]
)
def test_authentication_that_is_not_recent_or_not_said(auth_time: object) -> None:
    with pytest.raises(InsufficientUserAuthentication) as caught:
        Requirements(max_age=60).check(token(auth_time=auth_time), now=NOW)
    assert (caught.value.acr_values, caught.value.max_age) == ((), 60)
    with pytest.raises(InsufficientUserAuthentication):
        Requirements(max_age=0).check(token(), now=NOW)


def test_the_scope_comes_first() -> None:
    with pytest.raises(InsufficientScope):
        Requirements(scopes=("a",), acr_values=("gold",), max_age=0).check(token(), now=NOW)


@pytest.mark.parametrize("name", ["scopes", "acr_values"])
@pytest.mark.parametrize(
    "values",
    ["notes:read", None, 1, iter(("a",)), ("a b",), ('a"',), ("a\\",), ("",), ("é",), (1,), ("a\n",)],
)
def test_wrong_values_are_refused_at_construction(name: str, values: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Requirements(**{name: values})


@pytest.mark.parametrize("max_age", [-1, 1.5, True, "60", math.inf])
def test_max_age_is_a_whole_number_of_seconds(max_age: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_age"):
        Requirements(max_age=max_age)


def test_lists_become_tuples() -> None:
    required = Requirements(scopes=["a"], acr_values=["gold"])
    assert (required.scopes, required.acr_values) == (("a",), ("gold",))
