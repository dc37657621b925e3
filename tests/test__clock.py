"""Patched clocks reach every default: nothing is captured at import."""

import inspect
import time

import freezegun
import pytest
import time_machine

from dpop_middleware import JWTAccessTokenVerifier, ResourceServer
from dpop_middleware._clock import system_time
from dpop_middleware.authorization_server import TokenEndpoint
from dpop_middleware.client import DPoPAuth
from dpop_middleware.testing import TestIssuer


def test_a_frozen_clock_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with freezegun.freeze_time("2001-09-09 01:46:40"):
        assert system_time() == 1_000_000_000
    with time_machine.travel(1_000_000_000, tick=False):
        assert system_time() == 1_000_000_000
    monkeypatch.setattr(time, "time", lambda: 7.0)
    assert system_time() == 7


@pytest.mark.parametrize("of", [ResourceServer, JWTAccessTokenVerifier, TokenEndpoint, DPoPAuth, TestIssuer])
def test_the_default_clock_looks_up_the_time(of: type) -> None:
    assert inspect.signature(of).parameters["clock"].default is system_time
