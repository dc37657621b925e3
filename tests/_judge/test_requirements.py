"""The requirements of a route for a valid token."""

import math
from dataclasses import replace
from typing import Any

import pytest

from dpop_middleware import AccessToken
from dpop_middleware._judge.requirements import Requirements, check_not_expired
from dpop_middleware.errors import (
    ConfigurationError,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidToken,
)

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
    assert Requirements() == Requirements(scopes=(), any_of=(), claims={}, acr_values=(), max_age=None)


def test_a_token_whose_expiry_is_no_number_has_expired() -> None:
    """Python reads NaN from JSON: a verifier of one's own may pass it on."""
    check_not_expired(replace(token(), expires_at=math.inf), NOW)
    with pytest.raises(InvalidToken, match="has expired"):
        check_not_expired(replace(token(), expires_at=math.nan), NOW)


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
def test_authentication_must_be_recent(auth_time: float) -> None:
    Requirements(max_age=60).check(token(auth_time=auth_time), now=NOW)
    with pytest.raises(InsufficientUserAuthentication):
        Requirements(max_age=60).check(token(auth_time=auth_time), now=NOW + 66)


@pytest.mark.parametrize(
    "auth_time",
    [NOW + 301, NOW * 1000, NOW - 60.5, NOW - 61, None, str(int(NOW)), True, math.nan, math.inf, [NOW]],
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


@pytest.mark.parametrize("name", ["scopes", "any_of", "acr_values"])
@pytest.mark.parametrize(
    "values",
    ["notes:read", None, 1, iter(("a",)), ("a b",), ('a"',), ("a\\",), ("",), ("é",), (1,), ("a\n",)],
)
def test_wrong_values_are_refused_at_construction(name: str, values: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Requirements(**{name: values})


def test_what_is_said_about_acr_values_has_an_example_of_them() -> None:
    with pytest.raises(ConfigurationError, match=r"acr_values takes .*such as \('gold',\), not 'urn"):
        Requirements(acr_values="urn:example:mfa")


@pytest.mark.parametrize("max_age", [-1, 1.5, True, "60", math.inf])
def test_max_age_is_a_whole_number_of_seconds(max_age: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_age"):
        Requirements(max_age=max_age)


def test_lists_become_tuples() -> None:
    required = Requirements(scopes=["a"], acr_values=["gold"])
    assert (required.scopes, required.acr_values) == (("a",), ("gold",))


def test_one_of_several_scopes_is_enough() -> None:
    required = Requirements(any_of=("read", "admin"))
    required.check(token("admin", "x"), now=NOW)
    required.check(token("read"), now=NOW)
    for granted in ((), ("x",), ("reads",)):
        with pytest.raises(InsufficientScope) as caught:
            required.check(token(*granted), now=NOW)
        assert (caught.value.scopes, caught.value.claim) == (("read",), None)


def test_all_scopes_are_needed_beside_one_of_several() -> None:
    required = Requirements(scopes=("a",), any_of=("b", "c"))
    required.check(token("a", "c"), now=NOW)
    for granted in (("a",), ("b", "c"), ("b",)):
        with pytest.raises(InsufficientScope) as caught:
            required.check(token(*granted), now=NOW)
        assert caught.value.scopes == ("a", "b")
    with pytest.raises(InsufficientScope) as caught:
        Requirements(scopes=("a",), any_of=("a",)).check(token(), now=NOW)
    assert caught.value.scopes == ("a",)


def is_admin(access: Any) -> bool:
    return "admin" in access["roles"]


def test_a_claim_is_judged_by_a_function_of_its_value() -> None:
    required = Requirements(scopes=("a",), claims={"realm_access": is_admin})
    required.check(token("a", realm_access={"roles": ["user", "admin"]}), now=NOW)
    with pytest.raises(InsufficientScope) as caught:
        required.check(token("a", realm_access={"roles": ["user"]}), now=NOW)
    error = caught.value
    assert (error.scopes, error.claim, error.expected) == (("a",), "realm_access", "realm_access")
    assert error.actual == "{'roles': ['user']}"
    assert error.description == "the access token lacks a claim that is required here"


def test_every_claim_must_pass() -> None:
    required = Requirements(claims={"a": lambda value: value == 1, "b": lambda value: value == 2})
    required.check(token(a=1, b=2), now=NOW)
    for claims in ({"a": 1}, {"b": 2}, {"a": 1, "b": 3}, {}):
        with pytest.raises(InsufficientScope):
            required.check(token(**claims), now=NOW)


def test_a_claim_that_is_missing_is_not_asked_about() -> None:
    asked: list[object] = []

    def remember(value: object) -> bool:
        asked.append(value)
        return True

    required = Requirements(claims={"role": remember})
    with pytest.raises(InsufficientScope) as caught:
        required.check(token(), now=NOW)
    assert (asked, caught.value.actual) == ([], None)
    required.check(token(role=None), now=NOW)
    assert asked == [None]


@pytest.mark.parametrize("value", [None, "admin", 1, [], {}, {"roles": None}, {"roles": 1}, {"other": []}])
def test_a_function_that_raises_refuses_the_request(value: object) -> None:
    with pytest.raises(InsufficientScope) as caught:
        Requirements(claims={"realm_access": is_admin}).check(token(realm_access=value), now=NOW)
    assert str(caught.value.actual).startswith(("TypeError for ", "KeyError for "))
    assert isinstance(caught.value.__cause__, (TypeError, KeyError))


@pytest.mark.parametrize("verdict", [None, 1, "yes", [1], object()])
def test_only_true_lets_the_request_pass(verdict: Any) -> None:
    with pytest.raises(InsufficientScope):
        Requirements(claims={"a": lambda _: verdict}).check(token(a=1), now=NOW)


def test_the_scope_comes_before_the_claim_and_the_claim_before_the_login() -> None:
    required = Requirements(scopes=("a",), claims={"b": lambda _: False}, max_age=0)
    with pytest.raises(InsufficientScope) as caught:
        required.check(token(b=1), now=NOW)
    assert caught.value.claim is None
    with pytest.raises(InsufficientScope) as caught:
        required.check(token("a", b=1), now=NOW)
    assert caught.value.claim == "b"


def test_scopes_are_replaced_in_a_copy() -> None:
    others: dict[str, Any] = {"any_of": ("b",), "claims": {"c": is_admin}, "acr_values": ("d",), "max_age": 1}
    required = Requirements(scopes=("a",), **others)
    changed = required.with_scopes(["x"])
    assert changed == Requirements(scopes=("x",), **others)
    assert required.scopes == ("a",)
    assert hash(changed) != hash(required)
    with pytest.raises(ConfigurationError, match="scopes takes"):
        required.with_scopes(["a b"])


async def asynchronous(value: object) -> bool:
    return True


class Asynchronous:
    async def __call__(self, value: object) -> bool:
        return True


@pytest.mark.parametrize(
    "claims", [None, "admin", ["admin"], {"a": None}, {"a": "admin"}, {1: is_admin}, {"": is_admin}]
)
def test_claims_are_functions_by_name(claims: Any) -> None:
    with pytest.raises(ConfigurationError, match="claims takes a mapping from names of claims to functions"):
        Requirements(claims=claims)


@pytest.mark.parametrize("function", [asynchronous, Asynchronous()])
def test_an_asynchronous_function_of_a_claim_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="claims takes synchronous functions"):
        Requirements(claims={"a": function})
