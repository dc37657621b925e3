"""A server under trio: it does not start, and says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dpop_middleware

APPLICATION = """
from starlette.applications import Starlette
from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer

api = ResourceServer(issuer="https://auth.example.com", resource="https://api.example.com",
                     replay_store=MemoryReplayStore())
app = DPoPMiddleware(Starlette(), api)
"""
AT_A_GATEWAY = """
from dpop_middleware.forward_auth import ForwardAuth

app = ForwardAuth(api, private_listener=True)
"""


@pytest.mark.parametrize("application", [APPLICATION, APPLICATION + AT_A_GATEWAY])
def test_hypercorn_under_trio_ends_with_a_message_that_says_what_to_do(
    tmp_path: Path, application: str
) -> None:
    (tmp_path / "serving.py").write_text(application)
    command = ["-m", "hypercorn", "serving:app", "--bind", "127.0.0.1:0", "--worker-class", "trio"]
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(dpop_middleware.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "dpop_middleware runs under asyncio only" in ended.stderr
    assert "--worker-class asyncio" in ended.stderr
