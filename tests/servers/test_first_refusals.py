"""Under a server in its default configuration, the console shows why requests are refused."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx2

import dpop_middleware

APPLICATION = """
from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.testing import TestIssuer

issuer = TestIssuer("https://auth.example.com", audience="https://api.example.com")
api = ResourceServer(issuer=issuer.issuer, resource="https://api.example.com", jwks=issuer.jwks(),
                     replay_store=MemoryReplayStore())

async def notes(scope, receive, send):
    raise AssertionError("nobody is let in here")

app = DPoPMiddleware(notes, api)
"""


def test_ten_refused_requests_are_one_line_that_says_how_to_see_the_others(tmp_path: Path) -> None:
    (tmp_path / "serving.py").write_text(APPLICATION)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "serving:app", f"--fd={listener.fileno()}"],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{tmp_path}:{Path(dpop_middleware.__path__[0]).parent}", "PATH": ""},
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            with httpx2.Client(base_url=origin, timeout=30) as client:
                for _ in range(10):
                    refused = client.get("/notes", headers={"Authorization": "DPoP a.b.c"})
                    assert refused.status_code == 401
                    assert client.get("/notes").status_code == 401
        finally:
            server.terminate()
            _, seen = server.communicate(timeout=30)
    lines = [line for line in seen.splitlines() if "refused: " in line]
    assert len(lines) == 1
    assert "check=one_header" in lines[0]
    assert "the client sent no DPoP field" in lines[0]
    assert "give the logger 'dpop_middleware' a handler and the level INFO" in lines[0]
