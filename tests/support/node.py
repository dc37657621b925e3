"""Scripts that run under Node.js with third-party npm packages: a server, clients and a judge."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dpop_middleware.client import DPoPKey

__all__ = ["NodePeer", "OIDCProvider", "mcp_conformance", "node_peers", "oidc_provider", "signing_key"]

# The packages of all scripts, and the hash of each package: one installation serves them all.
_LISTED = ("package.json", "package-lock.json")
_OLDEST_NODE = 20
_OLDEST_NODE_OF_CONFORMANCE = 22
_SCRIPTS = Path(__file__).parent
_LISTS = _SCRIPTS / "npm"
# Seconds after which a silent script is killed, so that a test fails instead of waiting for ever.
_PATIENCE = 60


def _missing(reason: str) -> NoReturn:
    """Skip the test, or fail where the tests are run for it: in `tox -e node`, where CI is set."""
    if os.environ.get("CI") and os.environ.get("TOX_ENV_NAME") == "node":
        pytest.fail(reason)
    pytest.skip(reason)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        _missing(f"{name} is not installed, so the npm packages of others can't be met")
    return found


def _node(oldest: int = _OLDEST_NODE) -> str:
    node = _program("node")
    asked = subprocess.run([node, "--version"], check=True, capture_output=True, text=True, timeout=30)
    if int(asked.stdout.lstrip("v").partition(".")[0]) < oldest:
        _missing(f"Node.js {oldest} or later is not installed: the npm packages of others need it")
    return node


def _installed(config: pytest.Config) -> Path:
    """Return a directory that holds the packages; pytest's cache keeps it from one run to the next."""
    npm = _program("npm")
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None:
        _missing("pytest's cache, where the npm packages of others are kept, is switched off")
    parent = cache.mkdir("npm")
    lists = [(_LISTS / name).read_bytes() for name in _LISTED]
    place = parent / hashlib.sha256(b"".join(lists)).hexdigest()[:16]
    if place.exists():
        return place
    fresh = Path(tempfile.mkdtemp(dir=parent))
    try:
        for name in _LISTED:
            shutil.copy(_LISTS / name, fresh)
        install = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1"]
        done = subprocess.run(install, check=False, cwd=fresh, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            _missing(f"npm can't install the packages of others here: {done.stderr[-500:]}")
        # Another run may have been quicker: then its directory stays, and this one is removed.
        with suppress(OSError):
            fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


class _Script:
    """A running script that answers by lines."""

    def __init__(self, process: subprocess.Popen[str], complaints: Path) -> None:
        self._process = process
        self._complaints = complaints

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def read(self) -> str:
        assert self._process.stdout is not None
        watch = threading.Timer(_PATIENCE, self._process.kill)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        assert line, self._complaints.read_text()
        return line.strip()


@contextmanager
def _running(config: pytest.Config, script: str, *arguments: str) -> Generator[_Script]:
    node, packages = _node(), _installed(config)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        # Node looks for packages next to the script.
        (place / "node_modules").symlink_to(packages / "node_modules", target_is_directory=True)
        shutil.copy(_SCRIPTS / script, place)
        with (place / "complaints").open("w") as complaints:
            process = subprocess.Popen(
                [node, script, *arguments],
                cwd=place,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
        try:
            yield _Script(process, place / "complaints")
        finally:
            # A script ends when its input does, also where `node` is a wrapper that passes no signal on.
            try:
                process.communicate(timeout=30)
            finally:
                process.kill()


class OIDCProvider:
    """A third-party authorization server, whose signing keys can be changed while it serves."""

    def __init__(self, script: _Script, api_key: DPoPKey) -> None:
        self._script = script
        self.api_key = api_key
        self.issuer = script.read()
        assert self.issuer.startswith("http://127.0.0.1:")

    def sign_with(self, *keys: Mapping[str, Any]) -> None:
        """Publish `keys`, private JWKs, and sign with the first one from now on."""
        self._script.write(json.dumps({"keys": keys}))
        while (said := self._script.read()) != "serving":
            assert "NOTICE" in said


def signing_key(kid: str) -> dict[str, Any]:
    """Make a private JWK for an authorization server."""
    return DPoPKey.generate().private_jwk() | {"kid": kid, "use": "sig"}


@contextmanager
def oidc_provider(config: pytest.Config, *keys: Mapping[str, Any]) -> Generator[OIDCProvider]:
    """Run an authorization server, the npm package oidc-provider, that signs with the first of `keys`.

    Its tokens are for https://api.example.com, opaque ones where the resource
    https://api.example.com/opaque is asked for, and it demands nonces. The clients are `machine` (client
    credentials, secret `s3cret:/+`) and `app` (public, authorization code), and for introspection `api`
    (secret `of-the-api:/+`) and `signing-api` (`private_key_jwt` by `api_key`, signed answers).
    """
    api_key = DPoPKey.generate()
    signing, clients = {"keys": keys or (signing_key("1"),)}, {"keys": [api_key.public_jwk]}
    with _running(config, "oidc_provider.mjs", json.dumps(signing), json.dumps(clients)) as script:
        yield OIDCProvider(script, api_key)


class NodePeer:
    """Clients and a judge from npm, asked one thing at a time; node_peers.mjs says what they can do."""

    def __init__(self, script: _Script) -> None:
        self._script = script

    def ask(self, do: str, **arguments: Any) -> Any:
        """Return the answer to one question; raises AssertionError with the error of the script."""
        self._script.write(json.dumps({"do": do, **arguments}))
        answer = json.loads(self._script.read())
        assert "thrown" not in answer, answer["thrown"]
        return answer["returned"]


@contextmanager
def node_peers(config: pytest.Config) -> Generator[NodePeer]:
    """Run the npm clients and the judge until the block ends."""
    with _running(config, "node_peers.mjs") as script:
        yield NodePeer(script)


def mcp_conformance(config: pytest.Config, scenario: str, *, client: str, results: Path) -> str:
    """Let the public suite of the Model Context Protocol judge a client; return its result.

    `client` is a command that is given the URL of the suite's server; `results` is a folder for the details.
    """
    node, packages = _node(_OLDEST_NODE_OF_CONFORMANCE), _installed(config)
    suite = packages / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    arguments = ["client", "--command", client, "--scenario", scenario, "--output-dir", str(results)]
    done = subprocess.run(
        [node, str(suite), *arguments],
        check=False,
        cwd=_SCRIPTS.parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.stdout + done.stderr
