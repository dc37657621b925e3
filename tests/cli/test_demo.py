"""The demo in one process."""

import re

import pytest

from dpop_middleware.cli import demo
from tests.support.command import process, run


def test_every_verdict_is_right() -> None:
    ran = process("demo", NO_COLOR="1")
    assert ran.status == 0
    assert ran.err == ""
    caught_by = re.findall(r"^✓ .* (\S+|let in)$", ran.out, re.MULTILINE)
    assert caught_by == [
        "in", "jti", "binding", "one_header", "jkt", "signature", "alg", "htm", "htu", "ath", "iat", "in"
    ]  # fmt: skip
    assert "✗" not in ran.out


def test_a_wrong_verdict_is_told_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lets_everybody_in(app: object, step: object) -> int:
        await status(app, step)  # type: ignore[arg-type]
        return 200

    status = demo._status
    monkeypatch.setattr(demo, "_status", lets_everybody_in)
    ran = run("demo")
    assert ran.status == 1
    assert ran.out.count("✗") == 10
    assert "a verdict is not the one that RFC 9449 asks for" in ran.out
