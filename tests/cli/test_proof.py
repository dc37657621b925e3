"""Proofs and curl commands."""

import json
import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dpop_middleware.client import DPoPKey
from dpop_middleware.jose import base64url
from tests.support.command import process, run

URL = "https://api.example.test/notes?page=2"


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    DPoPKey.generate().save(tmp_path / "client.jwk")
    return str(tmp_path / "client.jwk")


def decoded(proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = proof.split(".")
    return json.loads(base64url.decode(header)), json.loads(base64url.decode(claims))


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
        ({"token": "a b"}, "--token is no access token: the access token has illegal characters"),
        ({"token": ""}, "--token is no access token: the Authorization field has no access token"),
        ({"token": "@/nowhere"}, "--token can't read /nowhere"),
        ({"now": "later"}, "--now takes seconds since the epoch"),
        ({"algorithm": "EdDSA"}, "--key names no usable private key"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(key_file: str, changes: dict[str, str], message: str) -> None:
    given = {"method": "GET", "url": URL, "token": "abc", "now": "0", "algorithm": "ES256", **changes}
    options = [word for name in ("token", "now", "algorithm") for word in (f"--{name}", given[name])]
    ran = run("proof", given["method"], given["url"], "--key", key_file, *options)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
