"""New keys, proofs and curl commands, and the jkt of keys in every form."""

import json
import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, x25519

from dpop_middleware.client import DPoPKey
from dpop_middleware.policy import POST_QUANTUM_ALGORITHMS, SUPPORTED_ALGORITHMS
from tests.support.clients import decoded
from tests.support.command import process, run

URL = "https://api.example.test/notes?page=2"
# RFC 7638 section 3.1
RSA_JWK = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJE"
        "CPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Q"
        "vzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6"
        "WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rsa-bits", "4096"), "--rsa-bits is for an RSA key: add --algorithm RS256, not ES256"),
        (("--rsa-bits", "0", "--algorithm", "RS256"), "an RSA key for DPoP has 2048 to 4096 bits, not 0"),
    ],
)
def test_the_size_of_an_rsa_key_is_not_ignored(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    ran = run("keygen", str(tmp_path / "key.jwk"), *options)
    assert ran.status == 2
    assert words in ran.err
    assert list(tmp_path.iterdir()) == []


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
def test_usage_errors_of_keygen_are_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("keygen", *argv, stdin="open sesame")
    assert ran.status == 2
    assert words in ran.err
    assert (ran.out, list(tmp_path.iterdir())) == ("", [])
    assert "hunter2" not in ran.err


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    DPoPKey.generate().save(tmp_path / "client.jwk")
    return str(tmp_path / "client.jwk")


def test_a_proof_for_a_token_request_has_no_ath(key_file: str) -> None:
    ran = process(
        "proof", "POST", "https://auth.example.test/token", "--key", key_file, "--now", "1800000000"
    )
    assert (ran.status, ran.err) == (0, "")
    header, claims = decoded(ran.out.strip())
    assert header == {"typ": "dpop+jwt", "alg": "ES256", "jwk": DPoPKey.load(key_file).public_jwk}
    assert claims.keys() == {"jti", "htm", "htu", "iat"}
    assert (claims["htm"], claims["htu"], claims["iat"]) == (
        "POST",
        "https://auth.example.test/token",
        1_800_000_000,
    )


def test_a_proof_names_token_and_nonce(key_file: str) -> None:
    ran = run("proof", "GET", URL, "--key", key_file, "--token", "-", "--nonce", "n-1", stdin="the-token\n")
    assert ran.status == 0
    _, claims = decoded(ran.out)
    assert claims["htu"] == "https://api.example.test/notes"
    assert claims["nonce"] == "n-1"
    assert "the-token" not in ran.out
    expected = DPoPKey.generate().proof("GET", URL, access_token="the-token")
    assert claims["ath"] == decoded(expected)[1]["ath"]


def test_an_encrypted_key_signs_by_the_chosen_algorithm(tmp_path: Path) -> None:
    key = DPoPKey.generate("RS256")
    key.save(tmp_path / "client.pem", password=b"open sesame")
    (tmp_path / "password").write_text("open sesame\n")
    ran = run(
        "proof", "GET", URL, "--key", str(tmp_path / "client.pem"), "--password", f"@{tmp_path / 'password'}",
        "--algorithm", "PS384",
    )  # fmt: skip
    assert ran.status == 0
    assert decoded(ran.out)[0]["alg"] == "PS384"


def words(ran: str) -> list[str]:
    return shlex.split(ran)


def test_a_curl_command_has_the_token_and_the_proof(key_file: str) -> None:
    url = "https://api.example.test/it's/$HOME?a=[1-9]&b=`x`"
    ran = run("proof", "DELETE", url, "--key", key_file, "--token", "abc", "--curl")
    line = words(ran.out)
    assert line[:6] == ["curl", "--globoff", "--request", "DELETE", "--header", "Authorization: DPoP abc"]
    assert line[6] == "--header"
    name, _, proof = line[7].partition(": ")
    assert name == "DPoP"
    assert decoded(proof)[1]["htm"] == "DELETE"
    assert line[8:] == [url]


def test_a_curl_command_for_head_uses_head(key_file: str) -> None:
    line = words(run("proof", "HEAD", URL, "--key", key_file, "--curl").out)
    assert line[:4] == ["curl", "--globoff", "--head", "--header"]
    assert len(line) == 6
    assert line[4].startswith("DPoP: ")


def test_a_curl_command_is_quoted_for_the_shell(key_file: str, tmp_path: Path) -> None:
    fake = tmp_path / "curl"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    line = run("proof", "GET", "https://a.example/x;y'$(id)", "--key", key_file, "--token", "t", "--curl").out
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shell = subprocess.run(["sh", "-c", line], capture_output=True, check=True, text=True, env=environ)
    assert shell.stdout.splitlines() == words(line)[1:]


@pytest.mark.parametrize("url", ["http://api.example.test/notes", "ws://api.example.test/notes"])
def test_no_curl_command_sends_a_token_unencrypted_to_another_machine(key_file: str, url: str) -> None:
    given = ("proof", "GET", url, "--key", key_file, "--token", "abc")
    ran = run(*given, "--curl")
    assert (ran.status, ran.out) == (2, "")
    assert "the token would be sent unencrypted: use https, or add --insecure-http" in ran.err
    assert words(run(*given, "--curl", "--insecure-http").out)[-1] == url
    assert run(*given).status == 0, "a proof alone is sent nowhere"


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_a_curl_command_may_stay_on_this_machine_unencrypted(key_file: str, host: str) -> None:
    url = f"http://{host}/notes"
    assert words(run("proof", "GET", url, "--key", key_file, "--token", "abc", "--curl").out)[-1] == url


def test_a_method_in_lower_case_is_pointed_out(key_file: str) -> None:
    ran = run("proof", "get", URL, "--key", key_file)
    assert ran.status == 0
    assert ran.err == "note: methods are case-sensitive: get is not GET\n"
    assert decoded(ran.out)[1]["htm"] == "get"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "/notes"}, "no proof can be made: the URL must be absolute"),
        ({"url": "https://api.example.test/\n"}, "no proof can be made: the URL must be absolute"),
        ({"method": "G T"}, "the method is not an HTTP method name"),
        ({"token": "a b"}, "--token is not an access token: the access token has illegal characters"),
        ({"token": ""}, "--token is not an access token: the Authorization field has no access token"),
        ({"token": "@/nowhere"}, "--token can't read /nowhere"),
        ({"now": "later"}, "--now takes seconds since the epoch"),
        ({"algorithm": "EdDSA"}, "--key names no usable private key"),
    ],
)
def test_usage_errors_of_proof_are_one_line_and_status_2(
    key_file: str, changes: dict[str, str], message: str
) -> None:
    given = {"method": "GET", "url": URL, "token": "abc", "now": "0", "algorithm": "ES256", **changes}
    options = [word for name in ("token", "now", "algorithm") for word in (f"--{name}", given[name])]
    ran = run("proof", given["method"], given["url"], "--key", key_file, *options)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err


def public_pem(key: DPoPKey) -> bytes:
    private = serialization.load_pem_private_key(key.to_pem(), None)
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def pem_of(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return] # of whichever type
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_the_example_of_rfc_7638_has_its_thumbprint() -> None:
    ran = run("thumbprint", "-", stdin=json.dumps(RSA_JWK))
    assert (ran.status, ran.out) == (0, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\n")


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "EdDSA", "RS256", *POST_QUANTUM_ALGORITHMS])
def test_a_key_has_one_thumbprint_in_every_form(tmp_path: Path, algorithm: str) -> None:
    key = DPoPKey.generate(algorithm)
    forms = (
        json.dumps(key.private_jwk()).encode(),
        json.dumps(key.public_jwk).encode(),
        key.to_pem(),
        public_pem(key),
        key.proof("GET", "https://api.example.test/").encode() + b"\n",
    )
    for form in forms:
        (tmp_path / "key").write_bytes(form)
        ran = run("thumbprint", str(tmp_path / "key"))
        assert (ran.status, ran.out, ran.err) == (0, f"{key.jkt}\n", "")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the DPoP proof is not a signed JWT"),
        (b"\xff\xfe\x00", "the DPoP proof is not a signed JWT"),
        (b"a.b.c", "the header of the DPoP proof is not a JSON object"),
        (b"{}", "it is not on P-256, P-384 or P-521, nor RSA, nor Ed25519"),
        (b'{"kty": "oct", "k": "AAAA"}', "it is not on P-256"),
        (b'{"kty": ["EC"], "crv": {}}', "it is not on P-256"),
        (b'{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}', "a coordinate of the JWK has the wrong"),
        (b'{"kty": "RSA", "n": "AQAB", "e": "AQAB"}', "the RSA modulus must be odd"),
        (b'{"kty": "RSA", "n": "AQAB", "e": "AQAB", "p": "AA"}', "the JWK holds private"),
        (b'{"kty": "EC", "d": "AA"}', "the key is not of a supported type"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "a DPoP server doesn't accept"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "wrong format, type or password"),
        (pem_of(ec.generate_private_key(ec.SECP256K1()).public_key()), "it is not on P-256"),
        (pem_of(x25519.X25519PrivateKey.generate().public_key()), "it is not on P-256"),
        (pem_of(dsa.generate_private_key(1024).public_key()), "it is not on P-256"),
    ],
)  # fmt: skip
def test_a_key_that_no_server_accepts_is_a_usage_error(data: bytes, words: str) -> None:
    ran = run("thumbprint", "-", stdin=data)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_a_key_type_that_the_system_lacks_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    def unsupported(_data: bytes) -> object:
        raise UnsupportedAlgorithm("no")

    monkeypatch.setattr("dpop_middleware.cli.keys.load_pem_public_key", unsupported)
    ran = run("thumbprint", "-", stdin=public_pem(DPoPKey.generate()))
    assert ran.status == 2
    assert "its type is not supported" in ran.err


@pytest.mark.parametrize("token", ["-jxY_Fy", "-h"])
def test_a_token_may_begin_with_a_hyphen(key_file: str, token: str) -> None:
    ran = run("proof", "GET", "https://api.example.com/x", "--key", key_file, "--token", token, "--curl")
    assert f"Authorization: DPoP {token}" in ran.out


def test_a_nonce_may_begin_with_a_hyphen(key_file: str) -> None:
    ran = run("proof", "GET", "https://api.example.com/x", "--key", key_file, "--nonce", "-jxY_Fy")
    assert decoded(ran.out)[1]["nonce"] == "-jxY_Fy"


def test_a_value_that_begins_with_two_hyphens_follows_an_equals_sign(key_file: str) -> None:
    argv = ("proof", "GET", "https://api.example.com/x", "--key", key_file, "--curl")
    ran = run(*argv, "--token", "--curl")
    assert ran.err == (
        "dpop-middleware: argument --token: expected one argument, and --token=VALUE for one that "
        "begins with a hyphen: see dpop-middleware proof --help\n"
    )
    assert run(*argv, "--token").err == ran.err
    assert "Authorization: DPoP --secret" in run(*argv, "--token=--secret").out
