"""examples/flow, running: its three origins, and its decisions from the header."""

import json
import select
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from examples.flow.decisions import HEADER

HOUSE = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "examples.flow"]


@dataclass(frozen=True)
class Flow:
    """The three origins of one running example."""

    page: str
    issuer: str
    resource: str


@contextmanager
def running_flow() -> Generator[Flow]:
    """Run the example as its users do, and stop it as they do: with Ctrl-C."""
    process = subprocess.Popen([*COMMAND, "--port", "0"], cwd=HOUSE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], 60)
        assert readable, "the example says nothing"
        lines: list[str] = []
        while not lines or not lines[-1].startswith("Open "):
            lines.append(process.stdout.readline())
        yield Flow(*(line.split()[-1] for line in lines[:3]))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


def decision_of(response: httpx2.Response) -> dict[str, Any]:
    """Return a server's description of its decision on one request."""
    return dict(json.loads(response.headers[HEADER]))
