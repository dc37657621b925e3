"""Protected resources by others, each through its public API, for `tests.benchmarks.comparison`.

They verify token and proof, and remember no proof: their users must add that.
"""

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from dataclasses import asdict
from multiprocessing import connection as pipes
from pathlib import Path
from typing import Any

import requests_oauth2client
from jwskate import Jwk, JwkSet, SignedJwt
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dpop_middleware.tokens.access_token import token_hash
from tests.benchmarks.flood_processes import application, serve_application
from tests.benchmarks.serving_processes import Setting

__all__ = ["Missing", "PythonPeer", "node_peer", "serve_python_peer"]

_HERE = Path(__file__).parent
_PACKAGES = _HERE.parent / "support" / "npm"
_ALGORITHMS = ("ES256",)


class Missing(Exception):
    """A peer can't be measured here; the text says why."""


class PythonPeer:
    """requests_oauth2client judges the proof; jwskate, on which it is built, the token."""

    def __init__(self, app: ASGIApp, setting: Setting) -> None:
        self._app = app
        self._issuer = setting.issuer
        self._resource = setting.resource
        self._keys: Any = {key["kid"]: key for key in JwkSet(setting.jwks).jwks}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and not self._is_authentic(scope):
            await JSONResponse({"error": "invalid_token"}, 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_authentic(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        text = headers["authorization"].removeprefix("DPoP ")
        url = self._resource + scope["path"]
        try:
            token: Any = SignedJwt(text)
            key = self._keys[token.kid]
            token.validate(key, algs=_ALGORITHMS, issuer=self._issuer, audience=self._resource)
            proof: Any = requests_oauth2client.validate_dpop_proof(
                headers["dpop"], htm=scope["method"], htu=url, ath=token_hash(text), algs=_ALGORITHMS
            )
        except (requests_oauth2client.InvalidDPoPProof, ValueError, KeyError):
            return False
        return bool(Jwk(proof.headers["jwk"]).thumbprint() == token.claims["cnf"]["jkt"])


def serve_python_peer(told: pipes.Connection, setting: Setting, lifetime: float) -> None:
    """Serve by requests_oauth2client under uvicorn, in a process of its own."""
    serve_application(PythonPeer(application, setting), told, lifetime)


@contextlib.contextmanager
def node_peer(setting: Setting) -> Generator[tuple[int, int]]:
    """Serve by oauth4webapi under Node.js; yield port and process id. Raises Missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("Node.js is not installed")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_PACKAGES / name, folder)
        install = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Missing(f"npm can't install it: {done.stderr[-200:]}")
        shutil.copy(_HERE / "peer.mjs", folder)
        told = {name: asdict(setting)[name] for name in ("issuer", "resource", "jwks")}
        with subprocess.Popen(
            [node, "peer.mjs", json.dumps(told)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield int(process.stdout.readline()), process.pid
            finally:
                process.stdin.close()
