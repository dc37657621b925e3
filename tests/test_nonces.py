"""Nonces without state: an issued nonce is recognised, and no other."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpop_middleware import HMACNonceProvider, Nonce
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.jose import base64url
from dpop_middleware.nonces import WORKER_CLOCK_MARGIN, nonces_for
from tests.support.api import NOW

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
STEP = 60
START = NOW // STEP * STEP


def provider_of(secret: bytes | Sequence[bytes], **times: float) -> HMACNonceProvider:
    """The provider of one server, whose nonces are valid."""
    return HMACNonceProvider(secret, **times).for_server(purpose="resource server", server="")


def test_a_nonce_is_good_for_its_lifetime_from_the_beginning_of_its_step() -> None:
    provider = provider_of(OLD)
    nonce = provider.issue(START + 59.9)
    assert provider.check(nonce, START) == Nonce(issued_at=START, expires_at=START + 300, current=True)
    assert provider.check(nonce, START + 299.9) is not None
    assert provider.check(nonce, START + 300) is None


def test_a_nonce_is_current_until_the_next_step() -> None:
    provider = provider_of(OLD)
    nonce = provider.issue(START)
    assert provider.issue(START + 59.999) == nonce
    assert provider.issue(START + 60) != nonce
    moments = (START, START + 59.999, START + 60, START + 299)
    assert [provider.check(nonce, now).current for now in moments] == [True, True, False, False]  # type: ignore[union-attr]


def test_a_worker_whose_clock_is_ahead_has_issued_the_next_one() -> None:
    provider = provider_of(OLD)
    nonce = provider.issue(START)
    ahead = provider.check(nonce, START - WORKER_CLOCK_MARGIN)
    assert ahead is not None
    assert ahead.current
    assert provider.check(nonce, START - WORKER_CLOCK_MARGIN - 0.001) is None


def test_nonces_are_of_nqchar() -> None:
    provider = provider_of(OLD, step=1, lifetime=3)
    for second in range(500):
        assert re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", provider.issue(NOW + second))


def test_all_workers_with_the_secret_know_each_others_nonces() -> None:
    assert provider_of(OLD).issue(NOW) == provider_of([OLD]).issue(NOW)
    assert provider_of(OLD).issue(NOW) == provider_of(bytearray(OLD)).issue(NOW)  # type: ignore[arg-type]
    assert provider_of(NEW).check(provider_of(OLD).issue(NOW), NOW) is None


def test_a_new_secret_in_three_steps_refuses_no_client() -> None:
    before, both = provider_of(OLD), provider_of((NEW, OLD))
    spreading = provider_of([OLD, NEW])
    old_nonce, new_nonce = before.issue(NOW), both.issue(NOW)
    assert spreading.issue(NOW) == old_nonce
    assert spreading.check(new_nonce, NOW) is not None
    known = both.check(old_nonce, NOW)
    assert known is not None
    assert not known.current, "the client is given a nonce of the new secret"
    assert both.check(new_nonce, NOW).current  # type: ignore[union-attr]
    assert provider_of(NEW).check(old_nonce, NOW) is None


def test_workers_with_other_steps_and_lifetimes_know_each_others_nonces() -> None:
    before, after = provider_of(OLD), provider_of(OLD, step=45, lifetime=600)
    for now in (START + second for second in range(0, 180, 7)):
        for issuing, checking, step, lifetime in ((before, after, 60, 600), (after, before, 45, 300)):
            known = checking.check(issuing.issue(now), now)
            assert known is not None
            assert known.issued_at == now // step * step
            assert known.expires_at == known.issued_at + lifetime


def test_a_step_with_a_fraction_has_nonces_that_are_good_from_its_beginning() -> None:
    provider = provider_of(OLD, step=1.3, lifetime=3.9)
    for tenth in range(200):
        now = START + tenth / 10
        nonce = provider.issue(now)
        known = provider.check(nonce, now)
        assert known is not None
        assert now - 2.3 < known.issued_at <= now
        assert provider.issue(now) == nonce


@pytest.mark.parametrize(
    ("purpose", "server"),
    [
        ("authorization server", "https://api.example.test"),
        ("resource server", "https://other.example.test"),
        ("resource server\0https", "//api.example.test"),
    ],
)
def test_nonces_of_another_purpose_or_server_do_not_count(purpose: str, server: str) -> None:
    provider = HMACNonceProvider((NEW, OLD))
    ours = provider.for_server(purpose="resource server", server="https://api.example.test")
    theirs = provider.for_server(purpose=purpose, server=server)
    assert ours.check(ours.issue(NOW), NOW) is not None
    assert ours.check(theirs.issue(NOW), NOW) is None
    assert theirs.check(ours.issue(NOW), NOW) is None


def test_a_servers_nonces_have_the_same_times_and_rotate_too() -> None:
    provider = HMACNonceProvider(OLD, lifetime=30, step=10).for_server(purpose="p", server="s")
    rotated = HMACNonceProvider((NEW, OLD), lifetime=30, step=10).for_server(purpose="p", server="s")
    known = rotated.check(provider.issue(NOW), NOW)
    assert known is not None
    assert known.expires_at - known.issued_at == 30
    assert not known.current


@given(st.text() | st.text("ABCDEFGabcdefg0123456789-_", min_size=28, max_size=32))
def test_no_other_text_counts_as_a_nonce_or_raises(text: str) -> None:
    assert provider_of(OLD).check(text, NOW) is None


@given(st.integers(0, 21), st.integers(1, 255))
def test_no_octet_can_be_changed(position: int, flip: int) -> None:
    provider = provider_of(OLD)
    octets = bytearray(base64url.decode(provider.issue(NOW)))
    octets[position] ^= flip
    assert provider.check(base64url.encode(bytes(octets)), NOW) is None


def test_a_nonce_has_one_spelling() -> None:
    provider = provider_of(OLD)
    nonce = provider.issue(NOW)
    for other in (
        nonce + "=",
        nonce + "==",
        f" {nonce}",
        nonce[:-1] + chr(ord(nonce[-1]) + 1),
        nonce + "AAAA",
    ):
        assert provider.check(other, NOW) is None


@pytest.mark.parametrize(
    "secret", [b"", b"x" * 31, "x" * 32, [], [b"x" * 32, b"short"], [b"x" * 32, None], None, 32, object()]
)
def test_a_secret_has_32_bytes(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="at least 32 random bytes"):
        HMACNonceProvider(secret)


@pytest.mark.parametrize(
    ("times", "takes"),
    [
        ({"step": 0.5}, "step takes a finite number of seconds, at least 1, not 0.5"),
        ({"step": 101}, "step takes at most a third of lifetime, which is 300 s, not 101"),
        ({"lifetime": 150}, "step takes at most a third of lifetime, which is 150 s, not 60"),
        ({"lifetime": 2.9, "step": 1}, "lifetime takes a finite number of seconds, from 3 to 86400, not 2.9"),
        ({"lifetime": 86_401}, "lifetime takes a finite number of seconds, from 3 to 86400, not 86401"),
        ({"lifetime": "300"}, "lifetime takes a finite number of seconds, from 3 to 86400, not '300'"),
    ],
)
def test_times_that_make_no_sense_are_refused(times: Any, takes: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HMACNonceProvider(OLD, **times)
    assert str(caught.value) == takes


def test_the_secret_shows_nowhere() -> None:
    secret = b"this secret must not be printed!"
    assert "secret" not in repr(HMACNonceProvider(secret)) + str(vars(HMACNonceProvider(secret)).keys())


@pytest.mark.parametrize("half", ["issue", "check"])
def test_a_provider_issues_and_checks(half: str) -> None:
    provider: Any = type("Half", (), {half: HMACNonceProvider.issue})()
    with pytest.raises(ConfigurationError, match="nonces takes a NonceProvider"):
        nonces_for(provider, purpose="p", namespace="s")
    assert nonces_for(None, purpose="p", namespace="s") is None


def test_a_dated_nonce_says_the_second_of_its_issue() -> None:
    provider = provider_of(OLD)
    nonce = provider.issue_dated(START + 17.9)
    assert nonce != provider.issue(START + 17.9)
    assert provider.check(nonce, START + 18) == Nonce(
        issued_at=START + 17, expires_at=START + 317, current=True
    )
    assert provider.check(nonce, START + 17 - WORKER_CLOCK_MARGIN) is not None
    assert provider.check(nonce, START + 16.9 - WORKER_CLOCK_MARGIN) is None
    for later, current in ((59.9, True), (60, False), (316.9, False)):
        known = provider.check(nonce, START + later)
        assert known is not None
        assert known.current is current
    assert provider.check(nonce, START + 317) is None
    assert provider_of(NEW).check(nonce, START + 18) is None


@pytest.mark.parametrize("mistake", ["issue", "issue_dated"])
def test_a_nonce_of_no_server_cannot_be_issued_by_mistake(mistake: str) -> None:
    provider = HMACNonceProvider(OLD)
    with pytest.raises(ConfigurationError, match=r"ResourceServer\.nonce_headers\(\)"):
        getattr(provider, mistake)(NOW)
    with pytest.raises(ConfigurationError, match="valid at one server only"):
        provider.check(provider_of(OLD).issue(NOW), NOW)
