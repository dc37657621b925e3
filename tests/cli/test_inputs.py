"""What the command reads, and that secrets don't come back out."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpop_middleware.cli.console import CommandError
from dpop_middleware.cli.inputs import Inputs, checked_method, checked_token, parse_time
from dpop_middleware.client import DPoPKey
from tests.support.command import run

URL = "https://api.example.test/notes"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1800000000", 1_800_000_000),
        ("1800000000.5", 1_800_000_000.5),
        ("0", 0),
        ("2027-01-15T08:00:00Z", 1_800_000_000),
        ("2027-01-15T08:00:00", 1_800_000_000),
        ("2027-01-15T10:00:00+02:00", 1_800_000_000),
        ("2027-01-15", 1_799_971_200),
    ],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "nan", "inf", "-1", "1e300", "9" * 400, "0001-01-01", "1969-01-01"]
)
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match=r"^--now takes seconds since the epoch or a time such as "):
        parse_time(text)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_a_usage_error(text: str) -> None:
    try:
        assert 0 <= parse_time(text) <= 253_402_300_799
    except CommandError as error:
        assert "--now" in str(error)


@pytest.mark.parametrize("method", ["GET", "get", "M-SEARCH"])
def test_method_names_are_accepted(method: str) -> None:
    assert checked_method(method) == method


@pytest.mark.parametrize("method", ["", "GET ", "G\nT", "GÉT", "GET\n"])
def test_text_that_is_no_method_name_is_refused(method: str) -> None:
    with pytest.raises(CommandError, match="not an HTTP method name"):
        checked_method(method)


@pytest.mark.parametrize("token", ["", "a b", "é", "x\n", "a" * 20_000])
def test_text_that_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(CommandError, match=r"^--token is no access token: the ") as caught:
        checked_token("--token", token)
    assert token not in str(caught.value) or not token


def test_text_is_read_from_the_option_a_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_bytes(b" abc.def\r\n")
    assert Inputs().text("--token", f"@{tmp_path / 'token'}") == "abc.def"
    assert Inputs().text("--token", "abc.def") == "abc.def"
    assert Inputs().secret("--password", f"@{tmp_path / 'token'}") == "abc.def"
    assert Inputs().secret("--password", None) is None
    with (tmp_path / "token").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert Inputs().text("--token", "-") == "abc.def"


def test_a_secret_is_not_taken_from_the_command_line() -> None:
    with pytest.raises(CommandError, match=r"--password takes - for standard input or @FILE") as caught:
        Inputs().secret("--password", "hunter2")
    assert "hunter2" not in str(caught.value)


def test_standard_input_serves_one_option() -> None:
    ran = run("proof", "GET", URL, "--key", "-", "--token", "-", stdin="{}")
    assert ran.status == 2
    assert "--key names no usable private key" in ran.err
    key = DPoPKey.generate().to_pem()
    ran = run("proof", "GET", URL, "--key", "-", "--token", "-", stdin=key)
    assert ran.err == ("dpop-middleware: standard input is already read for --key: name a file for --token\n")


def test_standard_input_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CommandError, match=r"standard input is closed: name a file for --token"):
        Inputs().text("--token", "-")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/nowhere/key.jwk", "can't read /nowhere/key.jwk: No such file or directory"),
        ("/", "can't read /: Is a directory"),
        ("a\0b", "can't read a\\x00b: not a file name"),
        ("\x1b[2J", "can't read \\x1b[2J: No such file"),
        ('{"kty": "EC", "d": "secret"}', "takes the name of a file, or - for standard input"),
        ("  -----BEGIN PRIVATE KEY-----secret", "takes the name of a file, or - for standard input"),
        ("eyJ" + "secret" * 30, "takes the name of a file, or - for standard input"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_usage_error(name: str, words: str) -> None:
    ran = run("proof", "GET", URL, "--key", name)
    assert ran.status == 2
    assert words in ran.err
    assert "secret" not in ran.err


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (512 * 1024 + 1))
    with pytest.raises(CommandError, match="FILE is larger than 512 KiB"):
        Inputs().octets("FILE", str(tmp_path / "large"))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"a":1,"a":2}', b"\xff", b"[" * 100_000])
def test_json_must_be_an_object(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CommandError, match=r"^--jwks is not a JSON object: "):
        Inputs().json_object("--jwks", str(tmp_path / "file"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing",
        b"[]",
        b"{",
        b"eyJ9.eyJ9.e",
        b"\xff\xfe",
        b"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    ],
)
def test_a_file_without_a_key_is_a_usage_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    ran = run("proof", "GET", URL, "--key", str(tmp_path / "file"))
    assert ran.err == f"dpop-middleware: --key: {tmp_path}/file is neither a JWK nor a PEM private key\n"
    ran = run("proof", "GET", URL, "--key", "-", stdin=data)
    assert ran.err == "dpop-middleware: --key: standard input is neither a JWK nor a PEM private key\n"


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"kty": []}',
        b'{"kty": "EC", "crv": "P-256", "d": 1, "x": 2, "y": 3}',
        b'{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}',
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_an_unusable_key_is_a_usage_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CommandError, match=r"^--key names no usable private key: "):
        Inputs().key("--key", str(tmp_path / "file"))


def test_keys_are_read_in_every_form(tmp_path: Path) -> None:
    key = DPoPKey.generate("ES384")
    key.save(tmp_path / "key.jwk")
    key.save(tmp_path / "key.pem", password=b"open sesame")
    assert Inputs().key("--key", f"@{tmp_path / 'key.jwk'}").jkt == key.jkt
    assert Inputs().key("--key", str(tmp_path / "key.pem"), password="open sesame").jkt == key.jkt
    with pytest.raises(CommandError, match="wrong format, type or password"):
        Inputs().key("--key", str(tmp_path / "key.pem"))
