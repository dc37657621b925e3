"""Whom a token speaks for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpop_middleware import AccessToken

PREFIXES = st.sampled_from(["", "client:", "subject:", "client", "subject:client:", "Client:"])
NAMES = st.builds("{}{}".format, PREFIXES, st.text("ab:", max_size=3))


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
        # RFC 9068 section 2.2: a client that acts for itself, by its own name.
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
def test_identity(subject: str | None, client_id: str, identity: str) -> None:
    assert token(subject, client_id).identity == identity


@given(NAMES.filter(bool) | st.none(), NAMES.filter(bool), NAMES.filter(bool) | st.none(), NAMES.filter(bool))
def test_a_client_never_passes_for_a_user_rfc_9700_4_15(
    subject: str | None, client: str, other_subject: str | None, other_client: str
) -> None:
    one, other = token(subject, client), token(other_subject, other_client)
    same = subject == other_subject and (subject is not None or client == other_client)
    assert (one.identity == other.identity) is same
