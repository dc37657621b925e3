"""The inputs of the command, captured requests included; and that secrets are never printed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpop_middleware.cli.console import CommandError
from dpop_middleware.cli.inputs import (
    CapturedRequest,
    Inputs,
    checked_method,
    checked_token,
    parse_captured,
    parse_time,
)
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.support.command import Ran, run

URL = "https://api.example.test/notes"
NOW = 1_800_000_000
ISSUER = TestIssuer(clock=lambda: NOW)
KEY = DPoPKey.generate()
TOKEN = ISSUER.token(jkt=KEY.jkt)
RAW = "GET /notes?a=1 HTTP/1.1\r\nHost: api.example.test\r\nAuthorization: DPoP t\r\ndpop:  p \r\n\r\n"
CURL = """\
* Host api.example.test:443 was resolved.
> GET /first HTTP/2
> Host: api.example.test
> Authorization: DPoP old
>
< HTTP/2 401
< dpop-nonce: n
<
* Issue another request to this URL
> GET /notes?a=1 HTTP/2
> Host: api.example.test
> User-Agent: curl/8.5.0
> Authorization: DPoP t
> DPoP: p
>
{ [5 bytes data]
< HTTP/2 200
"""


# PowerShell writes UTF-16 with `>`; editors and `Out-File -Encoding utf8` put a byte order mark first.
WRITTEN = ("utf-8", "utf-8-sig", "utf-16")

METER = "\r  0     0    0     0    0     0      0      0 --:--:-- --:--:-- --:--:--     0"


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
    with pytest.raises(CommandError, match=r"^--token is not an access token: the ") as caught:
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


@pytest.mark.parametrize("encoding", WRITTEN)
def test_files_are_read_as_windows_writes_them(encoding: str, tmp_path: Path) -> None:
    token, keys, key, pem = (str(tmp_path / name) for name in ("t.txt", "jwks.json", "key.jwk", "key.pem"))
    for file, text in (
        (token, f"{TOKEN}\r\n"),
        (keys, json.dumps(ISSUER.jwks())),
        (key, json.dumps(KEY.private_jwk())),
        (pem, KEY.to_pem().decode().replace("\n", "\r\n")),
    ):
        Path(file).write_bytes(text.encode(encoding))
    inputs = Inputs()
    assert inputs.text("--token", f"@{token}") == TOKEN
    assert inputs.json_object("--jwks", keys) == ISSUER.jwks()
    assert inputs.key("--key", key).jkt == inputs.key("--key", pem).jkt == KEY.jkt


def test_the_name_of_a_file_is_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("token.txt").write_text(TOKEN)
    with pytest.raises(CommandError, match=r"^--token names a file: write @token.txt for the text in it$"):
        Inputs().text("--token", "token.txt")
    for text in ("other.txt", "", "a\0b", "ü" * 255, "x" * 10_000):
        assert Inputs().text("--token", text) == text


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


@pytest.mark.parametrize(
    "text",
    [
        RAW,
        "\n" + RAW.replace("\r", ""),
        RAW.strip(),
        CURL,
        CURL.replace("\n", "\r\n"),
        CURL.replace("> GET", f"{METER}> GET").replace("* Host", f"{METER}* Host"),
    ],
)
def test_raw_http_and_the_output_of_curl_say_the_same(text: str) -> None:
    captured = parse_captured(text)
    assert captured == CapturedRequest(
        method="GET",
        target="/notes?a=1",
        host="api.example.test",
        authorization=("DPoP t",),
        dpop=("p",),
        is_token_request=False,
    )
    assert captured.url() == "https://api.example.test/notes?a=1"
    assert "DPoP t" not in repr(captured)


BROWSER = """:authority: api.example.test
:method: GET
:path: /notes?a=1
:scheme: https
accept: */*
authorization: DPoP t
dpop: p
"""


@pytest.mark.parametrize("encoding", WRITTEN)
@pytest.mark.parametrize("text", [BROWSER, RAW], ids=["browser", "raw"])
def test_the_capture_of_a_browser_or_powershell_is_read_alike(
    text: str, encoding: str, tmp_path: Path
) -> None:
    file = tmp_path / "captured.txt"
    file.write_bytes(text.encode(encoding))
    captured = parse_captured(Inputs().octets("--request", str(file)).decode("latin-1"))
    assert (captured.method, captured.url()) == ("GET", "https://api.example.test/notes?a=1")
    assert (captured.authorization, captured.dpop) == (("DPoP t",), ("p",))


@pytest.mark.parametrize(
    "text", [":method: GET\n:scheme: https\n", ":path: /notes\n", ":method: G E T\n:path: /\n", ":\n"]
)
def test_pseudo_header_fields_without_method_or_path_are_no_request(text: str) -> None:
    with pytest.raises(CommandError, match="no request line"):
        parse_captured(text)


def test_without_an_authority_the_url_must_be_named() -> None:
    with pytest.raises(CommandError, match="no Host"):
        parse_captured(":method: GET\n:path: /notes\n").url()


def test_every_field_of_a_name_is_kept_in_order() -> None:
    captured = parse_captured(RAW.replace("\r\n\r\n", "\r\nDPoP: q\r\nauthorization: Bearer u\r\n\r\n"))
    assert (captured.dpop, captured.authorization) == (("p", "q"), ("DPoP t", "Bearer u"))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost:8000", "http://localhost:8000/"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000/"),
        ("api.example.test:8443", "https://api.example.test:8443/"),
    ],
)
def test_a_request_to_this_machine_came_by_http(host: str, url: str) -> None:
    assert parse_captured(f"GET / HTTP/1.1\nHost: {host}\n").url() == url


def test_a_target_in_absolute_form_is_the_url() -> None:
    assert parse_captured(f"GET {URL} HTTP/1.1\nHost: other\n").url() == URL


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no request line"),
        ("\n\n", "no request line"),
        ("HTTP/1.1 200 OK\n", "no request line"),
        ("> nothing\n", "no request line"),
        ("GET / HTTP/1.1\nHost: a\nno field\n", "line 3 of the request is not a header field"),
        ("GET / HTTP/1.1\nHost: a\n folded\n", "line 3 of the request is not a header field"),
    ],
)
def test_a_file_without_a_request_is_reported_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        parse_captured(text)


@pytest.mark.parametrize(
    ("fields", "words"), [("", "no Host"), ("Host: a b\n", "Host of the request is malformed")]
)
def test_without_a_host_the_url_must_be_named(fields: str, words: str) -> None:
    captured = parse_captured(f"GET / HTTP/1.1\n{fields}")
    with pytest.raises(CommandError, match=words):
        captured.url()


@given(st.text())
def test_nothing_makes_it_raise_anything_else(text: str) -> None:
    for captured in (text, f"GET / HTTP/1.1\n{text}", f"> GET / HTTP/1.1\n> {text}", f":path: /\n:{text}"):
        try:
            found = parse_captured(captured)
        except CommandError:
            continue
        assert found.method


def judged(text: str, *options: str) -> Ran:
    return run("explain", "--request", "-", "--now", str(NOW), "--json", *options, stdin=text)


def explained(text: str, *options: str) -> dict[str, Any]:
    ran = judged(text, *options)
    assert ran.err == ""
    told: dict[str, Any] = json.loads(ran.out)
    return told


def sent(
    authorization: str = f"DPoP {TOKEN}", *, method: str = "GET", proof_for: str = "GET", end: str = ""
) -> str:
    proof = KEY.proof(proof_for, URL, access_token=TOKEN, now=NOW)
    fields = f"Host: api.example.test\nAuthorization: {authorization}\nDPoP: {proof}\n"
    return f"{method} /notes HTTP/1.1\n{fields}{end}"


def test_a_captured_request_is_judged_as_a_whole(tmp_path: Path) -> None:
    assert explained(sent())["verdict"] == "accepted"
    assert explained(sent(method="POST"))["check"] == "htm"
    (tmp_path / "request").write_text(sent())
    for name in (str(tmp_path / "request"), f"@{tmp_path / 'request'}"):
        assert run("explain", "--request", name, "--now", str(NOW)).status == 0


def test_the_url_that_clients_call_may_differ_from_the_captured_one() -> None:
    behind = sent().replace("api.example.test", "backend:8000")
    assert explained(behind)["check"] == "htu"
    assert explained(behind, "--url", URL)["verdict"] == "accepted"


def test_a_captured_bearer_request_is_judged_as_one() -> None:
    unbound = f"Bearer {ISSUER.token()}"
    refused = explained(sent(unbound))
    assert (refused["check"], refused["status"]) == ("binding", 401)
    order = [row["check"] for row in refused["checks"]]
    assert order.index("binding") < order.index("token_format")
    assert "htm" not in order
    assert explained(sent(unbound), "--accept-bearer")["verdict"] == "accepted"
    bound = explained(sent(f"Bearer {TOKEN}"), "--accept-bearer")
    assert (bound["check"], bound["error"]) == ("binding", "invalid_token")
    (hint,) = [row["hint"] for row in bound["checks"] if row["check"] == "binding"]
    assert hint == "the token is bound to a key: send it with the scheme DPoP, not Bearer"


@pytest.mark.parametrize(
    ("authorization", "end"), [("Basic YTpi", ""), ("DPoP t", "\ngrant_type=authorization_code&code=c")]
)
def test_a_request_for_a_token_is_judged_as_a_token_endpoint_does(authorization: str, end: str) -> None:
    ran = judged(sent(authorization, method="POST", proof_for="POST", end=end))
    assert "judged as a token request" in ran.err
    told = json.loads(ran.out)
    assert told["verdict"] == "accepted"
    assert "token_format" not in [row["check"] for row in told["checks"]]


@pytest.mark.parametrize("end", ["", "\ngrant_type=authorization_code&code=c"])
def test_nobody_asks_for_a_token_by_get(end: str) -> None:
    told = explained(sent("Basic YTpi", end=end))
    assert (told["check"], told["status"]) == ("authorization", 401)


def test_a_request_without_credentials_is_told_so() -> None:
    told = explained(f"GET /notes HTTP/1.1\nHost: api.example.test\nDPoP: {KEY.proof('GET', URL, now=NOW)}\n")
    assert (told["check"], told["error"]) == ("authorization", None)
    assert told["checks"][0]["hint"] == "a proof without its token: did a proxy drop Authorization?"


def usage_error(*options: str) -> Ran:
    ran = run("explain", *options, stdin=sent())
    assert (ran.status, ran.out) == (2, "")
    return ran


def test_a_request_is_described_once() -> None:
    for option in ("--method", "--proof", "--token"):
        assert f"--request includes {option}" in usage_error("--request", "-", option, "x").err
    assert "name the request by --request, or by --method, --proof" in usage_error("--url", URL).err
