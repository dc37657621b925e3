"""The suite against servers that run, good ones and bad ones."""

import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import BROKEN_PROOFS, TestIssuer
from dpop_middleware.testing.suite import CASES
from tests.support.clients import running
from tests.support.command import Ran, process, run

RESOURCE = "https://api.example.test"
ISSUER = TestIssuer(audience=RESOURCE)
KEY = DPoPKey.generate()


async def notes(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"\x1b[2Jnotes"})


class Late:
    """Knows where it is served only when it is."""

    def __init__(self) -> None:
        self.app: Any = notes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


LATE = Late()


@pytest.fixture(scope="module")
def origin() -> Generator[str]:
    with running(LATE) as found:
        yield found


@pytest.fixture
def protected(origin: str) -> str:
    LATE.app = DPoPMiddleware(
        notes,
        ResourceServer(
            issuer=ISSUER.issuer,
            resource=RESOURCE,
            jwks=ISSUER.jwks(),
            public_url=origin,
            replay_store=MemoryReplayStore(),
        ),
    )
    return f"{origin}/notes"


@pytest.fixture
def open_to_all(origin: str) -> str:
    LATE.app = notes
    return f"{origin}/notes"


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    KEY.save(tmp_path / "client.jwk")
    return str(tmp_path / "client.jwk")


def driven(url: str, key_file: str, *options: str, token: str | None = None) -> Ran:
    given = ISSUER.token(jkt=KEY.jkt) if token is None else token
    return run("conformance", url, "--key", key_file, "--token", "-", *options, stdin=given)


def test_our_own_server_passes(protected: str, key_file: str) -> None:
    ran = driven(protected, key_file)
    assert (ran.status, ran.err) == (0, "")
    assert "✗" not in ran.out
    assert ran.out.startswith("✓  honest\n")
    for name in BROKEN_PROOFS:
        assert f"✓  {name}\n" in ran.out
    assert "?  unbound_token  skipped: it needs another token of the issuer" in ran.out
    assert "?  unknown_nonce  skipped: the server sends no nonces\n" in ran.out
    assert "?  htu_with_default_port  skipped: the URL already names a port\n" in ran.out
    passed, failed, skipped = (int(word.split()[0]) for word in ran.out.splitlines()[-1].split(", "))
    assert (passed + skipped, failed) == (len(CASES), 0)
    assert passed > 40


def test_the_suite_runs_as_a_process_of_its_own(protected: str, key_file: str) -> None:
    ran = process(
        "conformance", protected, "--key", key_file, "--token", "-", "--only", "replayed",
        stdin=ISSUER.token(jkt=KEY.jkt),
    )  # fmt: skip
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "✓  honest\n✓  replayed\n\n2 passed, 0 failed, 0 skipped\n"


def test_an_open_server_fails_and_cannot_steer_the_terminal(open_to_all: str, key_file: str) -> None:
    chosen = ("--only", "bad_signature", "--only", "expired", "--leave-out", "expired")
    ran = driven(open_to_all, key_file, *chosen)
    assert ran.status == 1
    assert "✗  bad_signature\n     expected  401, a DPoP challenge, invalid_dpop_proof, no-store\n" in ran.out
    assert "     actual    200, no challenge, no Cache-Control, \\x1b[2Jnotes\n" in ran.out
    assert "?  expired  skipped: the target leaves it out\n" in ran.out
    assert ran.out.endswith("\n1 passed, 1 failed, 1 skipped\n")


def test_json_lists_counts_and_cases(open_to_all: str, key_file: str) -> None:
    ran = driven(open_to_all, key_file, "--only", "bad_signature", "--json")
    assert ran.status == 1
    report = json.loads(ran.out)
    assert (report["passed"], report["failed"], report["skipped"]) == (1, 1, 0)
    assert [(case["case"], case["verdict"]) for case in report["cases"]] == [
        ("honest", "passed"),
        ("bad_signature", "failed"),
    ]


def test_a_token_that_opens_nothing_is_pointed_out_at_once(protected: str, key_file: str) -> None:
    ran = driven(protected, key_file, token=ISSUER.token(jkt=DPoPKey.generate().jkt))
    assert ran.status == 1
    assert ran.out.endswith("\n0 passed, 1 failed, 0 skipped\n")
    assert "the honest request was refused" in ran.err
    assert "is the token bound to this key" in ran.err


def test_a_server_without_an_answer_is_status_3(key_file: str, unused_port: int) -> None:
    ran = driven(f"http://127.0.0.1:{unused_port}/notes", key_file)
    assert (ran.status, ran.out) == (3, "")
    assert f"http://127.0.0.1:{unused_port}/notes gives no answer: " in ran.err
    assert ran.err.count("\n") == 1


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("/notes", (), "the URL can't be used: the URL must be absolute"),
        ("https://[::z]/", (), "the URL can't be used: "),
        ("https://api.example.test:99999/", (), "the URL can't be used: "),
        ("http://api.example.test/notes", (), "the token would be sent unencrypted: use https"),
        ("https://api.example.test/", ("--method", "G T"), "the method is not an HTTP method name"),
        ("https://api.example.test/", ("--only", "nothing"), "there is no case nothing: choose from "),
        ("https://api.example.test/", ("--leave-out", "\x1b"), "there is no case \\x1b: choose from "),
        ("https://api.example.test/", ("--token", "a b"), "--token is no access token"),
        ("https://api.example.test/", ("--key", "/nowhere"), "--key can't read /nowhere"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(
    key_file: str, url: str, options: tuple[str, ...], words: str
) -> None:
    ran = driven(url, key_file, *options)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_plain_http_to_another_machine_needs_an_option(key_file: str, unused_port: int) -> None:
    url = f"http://0.0.0.0:{unused_port}/notes"
    assert driven(url, key_file).status == 2
    assert driven(url, key_file, "--insecure-http").status == 3


def test_without_httpx2_the_command_says_how_to_install_it(
    key_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    monkeypatch.delitem(sys.modules, "dpop_middleware.cli.drive", raising=False)
    ran = driven("https://api.example.test/", key_file)
    assert ran.status == 2
    assert ran.err == (
        "dpop-middleware: this command needs httpx2: "
        "in a checkout of dpop_middleware, python -m pip install '.[client]'\n"
    )
