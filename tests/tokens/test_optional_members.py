"""What a verifier of the user's own says of itself is believed only in the form that the protocol has."""

from collections.abc import Callable
from typing import Any

import pytest

from dpop_middleware import (
    AccessToken,
    JWTOrOpaqueVerifier,
    MemoryReplayStore,
    MultiIssuerVerifier,
    ResourceServer,
)
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.tokens.optional_members import promises_final_expiry
from tests.support.api import RESOURCE, Tokens


class OfAnother(Tokens):
    issuers = ("https://another.example",)
    remote = True


async def nobody(_issuer: str) -> None:
    return None


async def asked_later(_token: str) -> bool:
    return False


STRINGS = "a sequence of non-empty strings"


def alone(odd: Any) -> ResourceServer:
    return ResourceServer(verifier=odd, resource=RESOURCE, replay_store=MemoryReplayStore())


@pytest.mark.parametrize(
    ("member", "value", "takes"),
    [
        ("remote", "yes", "True or False"),
        ("remote", None, "True or False"),
        ("remote", 1, "True or False"),
        ("is_remote", asked_later, "a synchronous function of a token"),
        ("is_remote", True, "a synchronous function of a token"),
        ("is_remote", "yes", "a synchronous function of a token"),
        ("clock_skew", 301, "a finite number of seconds, from 0 to 300"),
        ("audiences", "https://api.example", STRINGS),
        ("audiences", b"https://api.example", STRINGS),
        ("audiences", {"https://api.example": True}, STRINGS),
        ("audiences", [1], STRINGS),
        ("audiences", [""], STRINGS),
        ("audiences", None, STRINGS),
        ("audiences", 5, STRINGS),
        ("key_ages", (), "a synchronous method"),
        ("key_ages", asked_later, "a synchronous method"),
        ("issuers", "https://as.example", STRINGS),
        ("issuers", ["https://as.example", None], STRINGS),
        ("issuers", iter(["https://as.example"]), STRINGS),
        ("audiences", map(str, ["https://api.example"]), STRINGS),
    ],
)
@pytest.mark.parametrize(
    "whole",
    [
        alone,
        lambda odd: JWTOrOpaqueVerifier(jwt=odd, opaque=OfAnother()),
        lambda odd: JWTOrOpaqueVerifier(jwt=OfAnother(), opaque=odd),
        lambda odd: MultiIssuerVerifier([OfAnother(), odd]),
        lambda odd: MultiIssuerVerifier([odd], resolver=nobody),
    ],
    ids=["alone", "jwt", "opaque", "after another", "beside a resolver"],
)
def test_an_odd_member_is_refused_wherever_the_verifier_is_used(
    whole: Callable[[Any], object], member: str, value: Any, takes: str
) -> None:
    odd = Tokens()
    setattr(odd, member, value)
    with pytest.raises(ConfigurationError) as caught:
        whole(odd)
    assert str(caught.value) == f"the verifier's {member} takes {takes}, not {value!r}"


def test_what_a_list_names_is_told_as_a_tuple() -> None:
    several: Any = Tokens()
    several.issuers = [*Tokens.issuers]
    assert alone(several).issuers == Tokens.issuers


@pytest.mark.parametrize("several", [frozenset(Tokens.issuers), dict.fromkeys(Tokens.issuers).keys()])
async def test_issuers_that_have_no_order_are_enough_for_the_health_of_several_verifiers(
    several: Any,
) -> None:
    unordered: Any = Tokens()
    unordered.issuers = several
    state = await MultiIssuerVerifier([OfAnother(), unordered]).health()
    assert [issuer for issuer, _ in state.issuers] == [*OfAnother.issuers, *Tokens.issuers]


async def test_the_health_of_several_verifiers_is_by_the_issuers_that_they_named_at_the_start() -> None:
    changing: Any = Tokens()
    several = MultiIssuerVerifier([changing])
    changing.issuers = ()
    assert [issuer for issuer, _ in (await several.health()).issuers] == [*Tokens.issuers]


def test_a_verifier_that_has_none_instead_of_key_ages_knows_none() -> None:
    without: Any = Tokens()
    without.key_ages = None
    assert alone(without).issuers == Tokens.issuers
    assert JWTOrOpaqueVerifier(jwt=without, opaque=OfAnother()).key_ages() == ()


def test_several_verifiers_need_the_issuers_of_each() -> None:
    class Nameless:
        verify = Tokens.verify

    nameless: Any = Nameless()
    with pytest.raises(ConfigurationError, match="the verifier's issuers takes"):
        MultiIssuerVerifier([nameless])


class Promising(Tokens):
    expiry_is_final = True

    async def verify(self, token: str) -> AccessToken:
        return await super().verify(token)


class Inheriting(Promising):
    pass


class Overriding(Promising):
    async def verify(self, token: str) -> AccessToken:
        return await super().verify(token)


class Silent:
    async def verify(self, token: str) -> AccessToken:
        raise NotImplementedError


@pytest.mark.parametrize(("kind", "is_final"), [(Promising, True), (Inheriting, True), (Overriding, False)])
def test_who_verifies_in_another_way_has_not_inherited_the_promise(
    kind: type[Tokens], is_final: bool
) -> None:
    verifier = kind()
    # What an object itself promises comes before what its class does.
    assert promises_final_expiry(verifier) is verifier.expiry_is_final is False
    del verifier.expiry_is_final
    assert promises_final_expiry(verifier) is is_final


@pytest.mark.parametrize("said", ["yes", 1, None])
def test_only_true_is_a_promise(said: object) -> None:
    verifier = Silent()
    assert not promises_final_expiry(verifier)
    vars(verifier)["expiry_is_final"] = said
    assert not promises_final_expiry(verifier)
