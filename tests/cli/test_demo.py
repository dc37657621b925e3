"""The demo in one process."""

import re
from typing import Any

import pytest

from dpop_middleware import DPoPMiddleware
from dpop_middleware.cli import demo
from tests.support.command import process, run


def test_every_verdict_is_right() -> None:
    ran = process("demo", NO_COLOR="1")
    assert ran.status == 0
    assert ran.err == ""
    caught_by = re.findall(r"^✓ .* (\S+)$", ran.out, re.MULTILINE)
    assert caught_by == [
        "accepted", "jti", "binding", "one_header", "jkt", "signature", "alg", "htm", "htu", "ath", "iat",
        "accepted",
    ]  # fmt: skip
    assert "✗" not in ran.out


def test_a_wrong_verdict_is_shown_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class LetsEverybodyIn(DPoPMiddleware):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def accepting(message: Any) -> None:
                await send({**message, "status": 200})

            await super().__call__(scope, receive, accepting)

    monkeypatch.setattr(demo, "DPoPMiddleware", LetsEverybodyIn)
    ran = run("demo")
    assert ran.status == 1
    assert ran.out.count("✗") == 10
    assert "a verdict is not the one that RFC 9449 requires" in ran.out
