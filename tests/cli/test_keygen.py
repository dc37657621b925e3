"""New keys: where they go, who may read them, and what is said of them."""

import json
import stat
from pathlib import Path

import pytest

from dpop_middleware.client import DPoPKey
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS, SUPPORTED_ALGORITHMS
from tests.support.command import process, run


@pytest.mark.parametrize("algorithm", [*SUPPORTED_ALGORITHMS, *POST_QUANTUM_ALGORITHMS])
def test_keygen_makes_a_key_of_every_algorithm(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "key.jwk"
    ran = run("keygen", str(file), "--algorithm", algorithm, "--json")
    assert (ran.status, ran.err) == (0, "")
    key = DPoPKey.load(file)
    assert key.algorithm == algorithm
    assert json.loads(ran.out) == {
        "file": str(file),
        "algorithm": algorithm,
        "jkt": key.jkt,
        "public_jwk": key.public_jwk,
    }


@pytest.mark.parametrize("name", ["key.jwk", "key.pem", "key"])
def test_only_the_owner_may_read_it_and_nothing_private_is_said(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    ran = process("keygen", str(file))
    assert ran.status == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = DPoPKey.load(file)
    assert ran.out == f"wrote {file}, readable by its owner only\nalgorithm  ES256\njkt        {key.jkt}\n"
    assert ran.err == ""


def test_a_dash_prints_the_key_and_says_so_beside_it() -> None:
    ran = run("keygen", "-", "--algorithm", "EdDSA")
    key = DPoPKey.from_jwk(json.loads(ran.out))
    assert ran.status == 0
    assert ran.err == f"a private key of EdDSA with jkt {key.jkt} follows: keep it secret\n"


def test_an_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    file = tmp_path / "key.jwk"
    file.write_text("precious")
    ran = run("keygen", str(file))
    assert ran.status == 2
    assert ran.err == f"dpop-middleware: {file} exists: choose another name, or add --overwrite\n"
    assert file.read_text() == "precious"
    assert run("keygen", str(file), "--overwrite").status == 0
    assert DPoPKey.load(file).algorithm == "ES256"


def test_a_password_encrypts_the_key(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    assert run("keygen", str(file), "--password", "-", stdin="open sesame\n").status == 0
    assert b"ENCRYPTED" in file.read_bytes()
    ran = run("thumbprint", str(file), "--password", "-", stdin="open sesame")
    assert ran.out.strip() == DPoPKey.load(file, password=b"open sesame").jkt


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("key.jwk", "--password", "-"), "no key was made: a JWK file is not encrypted"),
        (("-", "--password", "-"), "a JWK is not encrypted: name a file that ends in .pem"),
        (("key.pem", "--password", "hunter2"), "--password takes - for standard input or @FILE"),
        (
            ("key.jwk", "--algorithm", "RS256", "--rsa-bits", "1024"),
            "an RSA key for DPoP has 2048 to 4096 bits",
        ),
        (("nowhere/key.jwk",), "can't write nowhere/key.jwk: No such file or directory"),
        (("a\0b",), "no key was made: "),
        (("",), "exists: choose another name"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("keygen", *argv, stdin="open sesame")
    assert ran.status == 2
    assert words in ran.err
    assert (ran.out, list(tmp_path.iterdir())) == ("", [])
    assert "hunter2" not in ran.err
