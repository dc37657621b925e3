"""Sealed tickets: nobody else can read, make or change one, and a secret can be replaced."""

import pytest

from dpop_middleware._adapter.ticket import MAX_TICKET_SIZE, Seal, Ticket, take_tickets
from dpop_middleware._proof.proof import DPoPProof
from dpop_middleware._request.request import MAX_FIELDS
from dpop_middleware.jose import base64url
from dpop_middleware.nonces import Nonce

OLD, NEW = b"o" * 32, b"n" * 32
UNIQUE = bytes(range(12))
PROOF = DPoPProof("j", "POST", "https://api.example.test/ticket", 1.0, "a", None, "jkt", "ES256")
TICKET = Ticket(
    "s3cr3t-token", "https://api.example.test/ws", "https://app.example", 1.0, 31.0, 0.5, PROOF, None
)


def seal(*secrets: bytes, namespace: str = "") -> Seal:
    return Seal(secrets or (NEW,), namespace=namespace)


@pytest.mark.parametrize(
    "ticket",
    [
        TICKET,
        TICKET._replace(origin=None),
        TICKET._replace(proof=None),
        TICKET._replace(nonce=Nonce(issued_at=0.0, expires_at=300.0, current=True)),
    ],
)
def test_a_sealed_ticket_is_read_again_with_its_name(ticket: Ticket) -> None:
    opened = seal().open(seal().seal(ticket, unique=UNIQUE))
    assert opened == ticket._replace(name=base64url.encode(UNIQUE))


def test_a_sealed_ticket_says_nothing_and_is_a_token_of_http() -> None:
    text = seal().seal(TICKET, unique=UNIQUE)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    sealed = base64url.decode(text)
    assert b"s3cr3t" not in sealed
    assert b"api.example.test" not in sealed
    assert "s3cr3t" not in repr(TICKET)


def test_a_secret_is_replaced_without_losing_tickets() -> None:
    old, new = seal(OLD).seal(TICKET, unique=UNIQUE), seal(NEW, OLD).seal(TICKET, unique=UNIQUE)
    assert seal(NEW, OLD).open(old) is not None
    assert seal(NEW).open(new) is not None
    assert seal(NEW).open(old) is None
    assert seal(OLD).open(new) is None


def test_another_server_with_the_same_secret_knows_none_of_ours() -> None:
    assert seal(namespace="a").open(seal(namespace="b").seal(TICKET, unique=UNIQUE)) is None


def test_no_changed_cut_or_longer_ticket_is_ours() -> None:
    text = seal().seal(TICKET, unique=UNIQUE)
    sealed = base64url.decode(text)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert seal().open(base64url.encode(bytes(changed))) is None
    for end in range(len(text)):
        assert seal().open(text[:end]) is None
    for wrong in ("", "x", f"{text}A", f"{text}=", f" {text}", text[::-1], text.swapcase(), "é" * 40):
        assert seal().open(wrong) is None


def test_a_segment_that_is_too_long_is_not_decoded() -> None:
    large = TICKET._replace(access_token="t" * MAX_TICKET_SIZE)
    text = seal().seal(large, unique=UNIQUE)
    assert len(text) > MAX_TICKET_SIZE
    assert seal().open(text) is None


@pytest.mark.parametrize(("fields", "taken"), [(MAX_FIELDS, ()), (MAX_FIELDS + 1, ("sealed",))])
def test_a_ticket_is_taken_from_the_url_of_a_request_with_too_many_fields(
    fields: int, taken: tuple[str, ...]
) -> None:
    """It will be refused, and its URL may be logged."""
    scope = {
        "type": "http",
        "method": "GET",
        "query_string": b"t=sealed",
        "headers": [(b"x", b"y")] * fields,
    }
    assert take_tickets(scope, "t").tickets == taken
    assert scope["query_string"] == (b"" if taken else b"t=sealed")
