"""The content of a token: its subject, its authorization details, and its actors."""

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpop_middleware import AccessToken, MemoryReplayStore, ResourceRequest, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.testing import TestIssuer
from dpop_middleware.tokens import Actor, AuthorizationDetail
from tests.support.adapters import World, scope_of
from tests.support.api import Api

PREFIXES = st.sampled_from(["", "client:", "subject:", "client", "subject:client:", "Client:"])
NAMES = st.builds("{}{}".format, PREFIXES, st.text("ab:", max_size=3))
PAYMENT = {
    "type": "payment_initiation",
    "locations": ["https://api.example.com/payments"],
    "actions": ["initiate", "status"],
    "datatypes": ["amounts"],
    "privileges": ["admin"],
    "identifier": "a-1",
    "instructedAmount": {"currency": "EUR", "amount": "123.50"},
}


def token(subject: str | None, client_id: str) -> AccessToken:
    return AccessToken(
        claims={},
        issuer="https://as.example.com",
        subject=subject,
        client_id=client_id,
        scopes=frozenset(),
        expires_at=math.inf,
        jkt=None,
    )


@pytest.mark.parametrize(
    ("subject", "client_id", "identity"),
    [
        ("ann", "app", "ann"),
        ("ann", "", "ann"),
        # RFC 9068 section 2.2: a client that acts on its own behalf, with its own name as subject.
        ("app", "app", "app"),
        (None, "app", "client:app"),
        ("", "app", "client:app"),
        (None, "client:app", "client:client:app"),
        (None, "subject:app", "client:subject:app"),
        ("client:app", "app", "subject:client:app"),
        ("subject:client:app", "app", "subject:subject:client:app"),
        ("subject:ann", "app", "subject:subject:ann"),
        ("CLIENT:app", "app", "CLIENT:app"),
        ("clientapp", "app", "clientapp"),
    ],
)
def test_identity_names_the_subject_or_the_client(subject: str | None, client_id: str, identity: str) -> None:
    assert token(subject, client_id).identity == identity


@given(NAMES.filter(bool) | st.none(), NAMES.filter(bool), NAMES.filter(bool) | st.none(), NAMES.filter(bool))
def test_a_client_never_passes_as_a_user_rfc_9700_4_15(
    subject: str | None, client: str, other_subject: str | None, other_client: str
) -> None:
    one, other = token(subject, client), token(other_subject, other_client)
    same = subject == other_subject and (subject is not None or client == other_client)
    assert (one.identity == other.identity) is same


@pytest.mark.parametrize(
    "copied",
    [
        lambda token: pickle.loads(pickle.dumps(token)),
        copy.copy,
        copy.deepcopy,
        dataclasses.replace,
    ],
)  # fmt: skip
async def test_a_copy_of_a_used_token_has_its_claims_and_nothing_of_its_client(
    copied: Callable[[AccessToken], AccessToken],
) -> None:
    world = World()
    request = ResourceRequest.from_scope(scope_of("/notes", world.fields("/notes")))
    used = (await world.server().authenticate(request)).access_token
    assert used.client_memo is not None
    again = copied(used)
    assert again == used
    assert dict(again.claims) == dict(used.claims)
    assert again.client_memo is None


async def test_a_token_is_logged_without_the_header_of_its_proof() -> None:
    api = Api()
    used = (await api.server.authenticate(api.request())).access_token
    assert used.client_memo is not None
    written = json.dumps(dataclasses.asdict(used), default=sorted)
    assert "user123" in written
    assert api.proof().partition(".")[0] not in written
    assert {field.name for field in dataclasses.fields(used)} == set(json.loads(written))


def issued(
    **claims: Any,
) -> tuple[ResourceServer, Callable[[], ResourceRequest], list[AuthenticationEvent]]:
    """A server, a function that makes requests with one token of its issuer, and the events."""
    issuer, key = TestIssuer(audience="https://api.example.test"), DPoPKey.generate()
    events: list[AuthenticationEvent] = []
    server = ResourceServer(
        issuer=issuer.issuer,
        resource="https://api.example.test",
        jwks=issuer.jwks(),
        replay_store=MemoryReplayStore(),
        on_event=events.append,
    )
    presented = issuer.token(jkt=key.jkt, **claims)

    def request() -> ResourceRequest:
        proof = key.proof("GET", "https://api.example.test/notes", access_token=presented)
        return ResourceRequest("GET", "/notes", (), (f"DPoP {presented}",), (proof,))

    return server, request, events


async def test_neither_a_token_nor_an_object_that_holds_it_shows_its_claims() -> None:
    server, request, events = issued(email="ann@example.com")
    authentication = await server.verify(request())
    verified = server.authorize(authentication)
    secret = verified.access_token.claims["email"]
    assert secret == "ann@example.com"
    assert len(events) == 1
    # A verifier of the user's own may put a plain dictionary there.
    assert "ann@" not in repr(dataclasses.replace(token("ann", "app"), claims={"email": secret}))
    for value in (verified.access_token, verified, authentication, events):
        assert secret not in repr(value)
        assert secret not in str(value)


def test_no_part_of_a_token_can_be_set() -> None:
    one = token("ann", "app")
    for field in dataclasses.fields(one):
        with pytest.raises((AttributeError, TypeError)):
            setattr(one, field.name, None)
        with pytest.raises((AttributeError, TypeError)):
            delattr(one, field.name)
    assert isinstance(one.scopes, frozenset)


async def test_a_change_of_claims_by_an_application_reaches_no_other_request() -> None:
    server, request, _ = issued()
    first = (await server.authenticate(request())).access_token
    with pytest.raises(TypeError):
        first.claims["sub"] = "mallory"  # type: ignore[index] # pyright: ignore[reportIndexIssue]
    first.claims["cnf"]["jkt"] = "another"
    second = (await server.authenticate(request())).access_token
    assert second.subject == first.subject
    assert second.claims["cnf"]["jkt"] == second.jkt


def saying(**claims: Any) -> AccessToken:
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
    payment, files = saying(authorization_details=[PAYMENT, {"type": "files"}]).authorization_details
    assert (payment.type, payment.identifier) == ("payment_initiation", "a-1")
    assert payment.locations == ("https://api.example.com/payments",)
    assert (payment.actions, payment.datatypes) == (("initiate", "status"), ("amounts",))
    assert payment.privileges == ("admin",)
    assert payment.members["instructedAmount"]["amount"] == "123.50"
    assert files == AuthorizationDetail(type="files", members={"type": "files"})
    assert (files.actions, files.identifier) == ((), None)


def test_the_members_are_read_only_and_stay_out_of_the_log() -> None:
    (payment,) = saying(authorization_details=[PAYMENT]).authorization_details
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
    assert saying(authorization_details=[element]).authorization_details == ()
    (kept,) = saying(authorization_details=[element, {"type": "files"}]).authorization_details
    assert kept.type == "files"


@pytest.mark.parametrize("value", [None, {}, PAYMENT, "[]", 1, []])
def test_authorization_details_that_are_no_array_allow_nothing(value: object) -> None:
    assert saying(authorization_details=value).authorization_details == ()
    assert saying().authorization_details == ()


def test_the_actor_and_the_previous_actors_are_returned() -> None:
    act = {"sub": "service16", "iss": "https://b.example.com", "act": {"client_id": "service77"}}
    actor = saying(act=act).actor
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
def test_an_actor_who_is_not_named_is_none(act: object) -> None:
    assert saying(act=act).actor is None
    assert saying().actor is None


def test_a_previous_actor_who_is_not_named_is_left_out() -> None:
    actor = saying(act={"sub": "a", "act": {"act": {"sub": "c"}}}).actor
    assert actor == Actor(subject="a", client_id=None, issuer=None)


def test_a_long_chain_of_actors_is_cut() -> None:
    act: dict[str, Any] = {"sub": "the first"}
    for number in range(5000):
        act = {"sub": str(number), "act": act}
    actor = saying(act=act).actor
    told: list[str] = []
    while actor is not None:
        told.append(actor.identity)
        actor = actor.actor
    assert told == ["4999", "4998", "4997", "4996", "4995", "4994", "4993", "4992"]
