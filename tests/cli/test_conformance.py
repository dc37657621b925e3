"""The suite against servers that run, good ones and bad ones."""

import json
import ssl
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dpop_middleware import DPoPMiddleware, MemoryReplayStore, ResourceServer
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import BROKEN_PROOFS, TestIssuer
from dpop_middleware.testing.suite import CASES
from tests.support.clients import running
from tests.support.command import Ran, process, run
from tests.support.egress_proxy import EgressProxy
from tests.support.issuer_server import IssuerServer, drip
from tests.support.ports import free_port
from tests.support.servers import Certificate, serving

RESOURCE = "https://api.example.test"
ISSUER = TestIssuer(audience=RESOURCE)
KEY = DPoPKey.generate()


async def notes(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"\x1b[2Jnotes"})


class Late:
    """Knows its address only once it is served."""

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


@pytest.fixture(autouse=True)
def _no_trust_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


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


def test_a_server_without_an_answer_is_status_3(key_file: str) -> None:
    url = f"http://127.0.0.1:{free_port()}/notes"
    ran = driven(url, key_file)
    assert (ran.status, ran.out) == (3, "")
    assert f"{url} gives no answer: " in ran.err
    assert ran.err.count("\n") == 1


def test_an_answer_without_an_end_is_none(key_file: str) -> None:
    with IssuerServer() as server:
        server.handlers["/notes"] = lambda _: drip(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000, pause=0.05)
        ran = driven(f"{server.origin}/notes", key_file, "--timeout", "0.2")
    assert (ran.status, ran.out) == (3, "")
    assert "/notes gives no answer: TimeoutError" in ran.err


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("/notes", (), "the URL can't be used: the URL must be absolute"),
        ("https://[::z]/", (), "the URL can't be used: "),
        ("https://api.example.test:99999/", (), "the URL can't be used: "),
        ("http://api.example.test/notes", (), "the token would be sent unencrypted: use https"),
        ("https://ann:secret@api.example.test/", (), "not 'https://...@api.example.test/'"),
        ("https://api.example.test/", ("--method", "G T"), "the method is not an HTTP method name"),
        ("https://api.example.test/", ("--only", "nothing"), "there is no case nothing: choose from "),
        (
            "https://api.example.test/",
            ("--timeout", "0"),
            "--timeout takes a finite number of seconds, from 0.1",
        ),
        ("https://api.example.test/", ("--leave-out", "\x1b"), "there is no case \\x1b: choose from "),
        ("https://api.example.test/", ("--token", "a b"), "--token is not an access token"),
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


def test_plain_http_to_another_machine_needs_an_option(key_file: str) -> None:
    url = f"http://0.0.0.0:{free_port()}/notes"
    assert driven(url, key_file).status == 2
    assert driven(url, key_file, "--insecure-http").status == 3


def test_without_httpx2_the_command_says_how_to_install_it(
    key_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    ran = driven("https://api.example.test/", key_file)
    assert ran.status == 2
    assert ran.err == (
        "dpop-middleware: this command needs httpx2: "
        "in a checkout of dpop_middleware, python -m pip install '.[client]'\n"
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for part in issued.cert_chain_pems:
        part.write_to_path(folder / "chain.pem", append=True)
    trust = ssl.create_default_context(cafile=folder / "ca.pem")
    return Certificate(folder / "chain.pem", folder / "key.pem", trust)


@pytest.fixture(scope="module")
def by_tls(certificate: Certificate) -> Generator[str]:
    def app(origin: str) -> Any:
        server = ResourceServer(
            issuer=ISSUER.issuer,
            resource=RESOURCE,
            jwks=ISSUER.jwks(),
            public_url=origin,
            replay_store=MemoryReplayStore(),
        )
        return DPoPMiddleware(
            Starlette(routes=[Route("/notes", lambda _: PlainTextResponse("notes"))]), server
        )

    with serving("uvicorn-h11", app, certificate=certificate) as origin:
        yield f"{origin}/notes"


def test_a_server_of_a_private_ca_is_judged_where_that_is_trusted(
    by_tls: str, certificate: Certificate, key_file: str
) -> None:
    ca = str(certificate.chain.parent / "ca.pem")
    one = ("--only", "no_proof")
    assert driven(by_tls, key_file, *one).status == 3
    assert driven(by_tls, key_file, *one, "--ca", ca).status == 0
    token = ISSUER.token(jkt=KEY.jkt)
    by_environment = process(
        "conformance", by_tls, "--key", key_file, "--token", "-", *one,
        stdin=token, SSL_CERT_FILE=ca,
    )  # fmt: skip
    assert (by_environment.status, by_environment.err) == (0, "")


def test_no_command_uses_the_proxy_that_the_environment_names(
    by_tls: str, certificate: Certificate, key_file: str
) -> None:
    """As the chapter says; keys come from where they came before a variable was set."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.chain, certificate.key)
    token = ISSUER.token(jkt=KEY.jkt)
    with IssuerServer(tls=tls) as issuer, EgressProxy(issuer.port) as proxy:
        issuer.publish(ISSUER.jwks())
        variables = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY")
        environ = dict.fromkeys(variables, f"http://127.0.0.1:{proxy.port}")
        environ |= {"SSL_CERT_FILE": str(certificate.chain.parent / "ca.pem"), "NO_PROXY": "", "no_proxy": ""}
        judged = process(
            "conformance", by_tls, "--key", key_file, "--token", "-", "--only", "no_proof",
            stdin=token, **environ,
        )  # fmt: skip
        explained = process(
            "explain", "--method", "GET", "--url", f"{RESOURCE}/notes", "--token", "-",
            "--proof", KEY.proof("GET", f"{RESOURCE}/notes", access_token=token),
            "--jwks", f"{issuer.origin}/jwks",
            stdin=token, **environ,
        )  # fmt: skip
        assert (judged.status, explained.status, proxy.asked, issuer.targets) == (0, 0, [], ["/jwks"])


def test_the_trust_of_a_directory_is_left_to_the_environment(
    by_tls: str, key_file: str, tmp_path: Path
) -> None:
    given = ISSUER.token(jkt=KEY.jkt)
    command = ("conformance", by_tls, "--key", key_file, "--token", "-", "--only", "no_proof")
    assert run(*command, stdin=given, environ={"SSL_CERT_DIR": str(tmp_path)}).status == 3


@pytest.mark.parametrize(("option", "environ"), [("--ca", {}), ("SSL_CERT_FILE", {"SSL_CERT_FILE": "FILE"})])
def test_a_file_of_cas_that_cannot_be_read_is_a_usage_error(
    by_tls: str, key_file: str, tmp_path: Path, option: str, environ: dict[str, str]
) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in (tmp_path / "empty.pem", tmp_path / "missing.pem"):
        named = () if environ else ("--ca", str(name))
        ran = run(
            "conformance", by_tls, "--key", key_file, "--token", "-", *named,
            stdin=ISSUER.token(jkt=KEY.jkt), environ={each: str(name) for each in environ},
        )  # fmt: skip
        assert (ran.status, ran.out) == (2, "")
        assert f"{option} names no readable file of certificates" in ran.err


def test_progress_is_shown_on_a_terminal_only(protected: str, key_file: str) -> None:
    given = ISSUER.token(jkt=KEY.jkt)
    command = ("conformance", protected, "--key", key_file, "--token", "-", "--only", "no_proof", "--json")
    seen = run(*command, stdin=given, terminal=True)
    assert seen.err == "\r\x1b[K1 of 2: honest\r\x1b[K\r\x1b[K2 of 2: no_proof\r\x1b[K"
    assert json.loads(seen.out)["passed"] == 2
    assert run(*command, stdin=given).err == ""
    assert run(*command, stdin=given, terminal=True, environ={"TERM": "dumb"}).err == ""
