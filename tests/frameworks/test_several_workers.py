"""Real servers: several workers with a store of one process cause a warning, and one worker never does."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import dpop_middleware

APPLICATION = """
import sys
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.testing import TestIssuer

issuer = TestIssuer("https://auth.example.com", audience="https://api.example.com")
api = ResourceServer(issuer=issuer.issuer, resource="https://api.example.com", jwks=issuer.jwks(),
                     replay_store=MemoryReplayStore())

@asynccontextmanager
async def lifespan(app):
    async with api:
        print("opened", file=sys.stderr, flush=True)
        yield

app = DPoPMiddleware(Starlette(lifespan=lifespan), api)
"""
PROGRAM = """
import sys, uvicorn
if __name__ == "__main__":
    uvicorn.run("serving:app", port=0, {options})
"""
UVICORN = ("-m", "uvicorn", "serving:app", "--port", "0")
HYPERCORN = ("-m", "hypercorn", "serving:app", "--bind", "127.0.0.1:0")
GRANIAN = ("-m", "granian", "--interface", "asgi", "--uds", "granian.sock", "serving:app")


def said(where: Path, command: Sequence[str], *, workers: int, **environ: str) -> list[str]:
    """Serve until `workers` processes have opened the resource server; return the warnings."""
    (where / "serving.py").write_text(APPLICATION)
    server = subprocess.Popen(
        [sys.executable, *command],
        cwd=where,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": os.pathsep.join((str(where), str(Path(dpop_middleware.__path__[0]).parent))),
        }
        | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    # A server that never comes up must not keep the tests waiting.
    watch = threading.Timer(300, server.kill)
    watch.start()
    lines: list[str] = []
    try:
        assert server.stdout is not None
        for line in server.stdout:
            lines.append(line)
            if sum("opened" in seen for seen in lines) == workers:
                break
        else:
            pytest.fail(f"it ended before {workers} were open: {''.join(lines)}")
    finally:
        watch.cancel()
        server.send_signal(signal.SIGINT)
        try:
            rest, _ = server.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            # The group is ours alone: a session of its own.
            os.killpg(server.pid, signal.SIGKILL)
            rest, _ = server.communicate()
    return [line for line in (*lines, *rest.splitlines()) if "seems to be one of several" in line]


@pytest.mark.parametrize(
    "command",
    [(*UVICORN, "--workers", "2"), (*HYPERCORN, "--workers", "2"), (*GRANIAN, "--workers", "2")],
    ids=["uvicorn", "hypercorn", "granian"],
)
def test_two_workers_are_warned_of(tmp_path: Path, command: Sequence[str]) -> None:
    # The first worker of granian doesn't know of the second, which does know of the first.
    assert len(said(tmp_path, command, workers=2)) == (1 if "granian" in command else 2)


def test_a_number_of_workers_from_the_environment_is_seen(tmp_path: Path) -> None:
    assert len(said(tmp_path, UVICORN, workers=2, WEB_CONCURRENCY="2")) == 2


@pytest.mark.parametrize(
    "command",
    [UVICORN, (*UVICORN, "--reload"), HYPERCORN, GRANIAN],
    ids=["uvicorn", "uvicorn-reload", "hypercorn", "granian"],
)
def test_one_worker_is_not_warned_of_though_it_may_be_a_child_process(
    tmp_path: Path, command: Sequence[str]
) -> None:
    assert said(tmp_path, command, workers=1) == []


@pytest.mark.parametrize(("options", "workers", "warned"), [("reload=True", 1, 0), ("workers=2", 2, 2)])
def test_a_program_that_starts_uvicorn_has_no_options_to_read(
    tmp_path: Path, options: str, workers: int, warned: int
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.format(options=options))
    assert len(said(tmp_path, ["program.py"], workers=workers)) == warned
