"""Nonces that would not reach the clients, and nonces that nobody asks for."""

import logging

import pytest

from dpop_middleware import DPoPPolicy, HMACNonceProvider
from dpop_middleware._judge.nonce_delivery import NonceDelivery
from dpop_middleware.errors import ConfigurationError
from tests.support.api import SECRET

OFF, REQUIRED = DPoPPolicy(), DPoPPolicy(nonce="required")
NONCES = HMACNonceProvider(SECRET)


def test_what_needs_a_middleware_can_only_be_opened_with_one() -> None:
    delivery = NonceDelivery()
    delivery.check(NONCES, [REQUIRED])
    delivery.needs_middleware = True
    with pytest.raises(
        ConfigurationError, match="a dependency can't put nonces on responses: add DPoPMiddleware"
    ):
        delivery.check(NONCES, [REQUIRED])
    delivery.has_middleware = True
    delivery.check(NONCES, [REQUIRED])


def test_nonces_that_nobody_asks_for_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    delivery = NonceDelivery()
    with caplog.at_level(logging.WARNING, "dpop_middleware"):
        delivery.check(None, [OFF])
        delivery.check(NONCES, [OFF, REQUIRED])
        assert caplog.messages == []
        delivery.check(NONCES, [OFF, OFF])
        delivery.check(NONCES, [OFF])
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "nonces= of ResourceServer has no effect"
    ]
