"""Authorization details and actors: typed, and never more than what the issuer wrote."""

from typing import Any

import pytest

from dpop_middleware import AccessToken
from dpop_middleware.tokens import Actor, AuthorizationDetail

PAYMENT = {
    "type": "payment_initiation",
    "locations": ["https://api.example.com/payments"],
    "actions": ["initiate", "status"],
    "datatypes": ["amounts"],
    "privileges": ["admin"],
    "identifier": "a-1",
    "instructedAmount": {"currency": "EUR", "amount": "123.50"},
}


def token(**claims: Any) -> AccessToken:
    return AccessToken(
        claims=claims,
        issuer="https://auth.example.com",
        subject="ann",
        client_id="app",
        scopes=frozenset(),
        expires_at=0,
        jkt=None,
    )


def test_authorization_details_are_typed() -> None:
    payment, files = token(authorization_details=[PAYMENT, {"type": "files"}]).authorization_details
    assert (payment.type, payment.identifier) == ("payment_initiation", "a-1")
    assert payment.locations == ("https://api.example.com/payments",)
    assert (payment.actions, payment.datatypes) == (("initiate", "status"), ("amounts",))
    assert payment.privileges == ("admin",)
    assert payment.members["instructedAmount"]["amount"] == "123.50"
    assert files == AuthorizationDetail(type="files", members={"type": "files"})
    assert (files.actions, files.identifier) == ((), None)


def test_the_members_are_read_only_and_stay_out_of_the_log() -> None:
    (payment,) = token(authorization_details=[PAYMENT]).authorization_details
    assert not hasattr(payment.members, "__setitem__")
    assert "EUR" not in repr(payment)


@pytest.mark.parametrize(
    "element",
    [
        None, "payment", 1, [], {}, {"type": ""}, {"type": 1}, {"type": None},
        {"type": "a", "actions": "read"}, {"type": "a", "actions": [1]}, {"type": "a", "locations": None},
        {"type": "a", "datatypes": {}}, {"type": "a", "privileges": [["x"]]}, {"type": "a", "identifier": 1},
    ],
)  # fmt: skip
def test_a_malformed_element_allows_nothing(element: object) -> None:
    assert token(authorization_details=[element]).authorization_details == ()
    (kept,) = token(authorization_details=[element, {"type": "files"}]).authorization_details
    assert kept.type == "files"


@pytest.mark.parametrize("value", [None, {}, PAYMENT, "[]", 1, []])
def test_what_is_no_array_allows_nothing(value: object) -> None:
    assert token(authorization_details=value).authorization_details == ()
    assert token().authorization_details == ()


def test_the_actor_and_those_before_are_told() -> None:
    act = {"sub": "service16", "iss": "https://b.example.com", "act": {"client_id": "service77"}}
    actor = token(act=act).actor
    assert actor == Actor(
        subject="service16",
        client_id=None,
        issuer="https://b.example.com",
        actor=Actor(subject=None, client_id="service77", issuer=None),
    )
    assert actor is not None
    assert actor.identity == "https://b.example.com service16"
    assert actor.actor is not None
    assert actor.actor.identity == "client:service77"


@pytest.mark.parametrize(
    "act", [None, "x", 1, [], {}, {"sub": ""}, {"sub": 1}, {"iss": "a"}, {"act": {"sub": "b"}}]
)
def test_an_actor_who_is_not_named_is_nobody(act: object) -> None:
    assert token(act=act).actor is None
    assert token().actor is None


def test_what_stands_below_an_actor_and_names_nobody_is_left_out() -> None:
    actor = token(act={"sub": "a", "act": {"act": {"sub": "c"}}}).actor
    assert actor == Actor(subject="a", client_id=None, issuer=None)


def test_a_long_chain_is_cut() -> None:
    act: dict[str, Any] = {"sub": "the first"}
    for number in range(5000):
        act = {"sub": str(number), "act": act}
    actor = token(act=act).actor
    told: list[str] = []
    while actor is not None:
        told.append(actor.identity)
        actor = actor.actor
    assert told == ["4999", "4998", "4997", "4996", "4995", "4994", "4993", "4992"]
