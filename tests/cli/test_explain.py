"""The explanation of one request: for people, and for scripts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dpop_middleware.authorization_server import CHECKS
from dpop_middleware.checks import CHECKS_OF_A_JWT, Check
from dpop_middleware.cli.findings import MEANING
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import BROKEN_PROOFS, TestIssuer, broken_proof, encode_jws
from tests.support.command import Ran, process, run
from tests.support.ports import free_port

NOW = 1_800_000_000
URL = "https://api.example.test/notes"
ISSUER = TestIssuer(clock=lambda: NOW)
KEY = DPoPKey.generate()
TOKEN = ISSUER.token(jkt=KEY.jkt, scopes=["notes:read"])


def proof(**changes: Any) -> str:
    arguments: dict[str, Any] = {"access_token": TOKEN, "now": NOW, **changes}
    return KEY.proof("GET", URL, **arguments)


@pytest.fixture
def jwks(tmp_path: Path) -> str:
    (tmp_path / "jwks.json").write_text(json.dumps(ISSUER.jwks()))
    return str(tmp_path / "jwks.json")


def explained(*options: str, method: str = "GET", url: str = URL, now: int | None = NOW, **how: Any) -> Ran:
    at = () if now is None else ("--now", str(now))
    return run("explain", "--method", method, "--url", url, *at, *options, **how)


def full(jwks: str) -> tuple[str, ...]:
    audience = "https://api.example.test"
    return ("--jwks", jwks, "--issuer", ISSUER.issuer, "--audience", audience, "--token", TOKEN)


def rows(out: str) -> dict[str, str]:
    """The mark of each check."""
    return {check: mark for mark, check in re.findall(r"^(\S) +([a-z_]+) ", out, re.MULTILINE)}


def test_every_check_has_a_description_and_a_row(jwks: str) -> None:
    assert set(MEANING) == set(Check)
    ran = explained("--proof", proof(), *full(jwks), "--scope", "notes:read")
    assert (ran.status, ran.err) == (0, "")
    shown = rows(ran.out)
    assert list(shown) == list(CHECKS_OF_A_JWT)
    assert {check for check, mark in shown.items() if mark != "✓"} == {"nonce", "jti", "authentication"}
    assert ran.out.endswith("\naccepted, as far as it can be judged here\n")
    assert "1800000000 (2027-01-15 08:00:00 UTC, now)" in ran.out
    assert "1800000300 (2027-01-15 08:05:00 UTC, in 300 s)" in ran.out
    assert TOKEN not in ran.out


def test_a_refusal_shows_expected_actual_and_a_guess(jwks: str) -> None:
    ran = explained("--proof", proof(), *full(jwks), url=URL.replace("https", "http"))
    assert ran.status == 1
    shown = rows(ran.out)
    assert shown["htm"] == "✓"
    assert shown["htu"] == "✗"
    assert {shown[check] for check in ("nonce", "jti", "scope")} == {"·"}
    assert {shown[check] for check in ("ath", "signature", "iat")} == {"✓"}
    after = [line.split()[1] for line in ran.out.splitlines() if "(after the failure)" in line]
    assert after == ["ath", "signature", "iat"]
    assert "after the failure: what the server would find if it got that far" in ran.out
    assert (
        "     reason    the htu of the DPoP proof is not the URI of the request\n"
        "     expected  'http://api.example.test/notes'\n"
        "     actual    'https://api.example.test/notes'\n"
        "     hint      scheme differs (https, not http): TLS ends at a proxy? set public_url\n"
    ) in ran.out
    assert ran.out.endswith("\nrefused: 401 invalid_dpop_proof, caught by htu\n")


def test_an_old_capture_can_be_judged_at_its_own_time() -> None:
    old = proof(access_token=None, now=NOW - 600)
    ran = explained("--proof", old)
    assert ran.status == 1
    assert "actual    1799999400 (2027-01-15 07:50:00 UTC, 600 s ago)" in ran.out
    assert "expected  1799999910 (2027-01-15 07:58:30 UTC, 90 s ago) to 1800000030 " in ran.out
    advice = re.search(r"add (--now) (\d+)$", ran.out, re.MULTILINE)
    assert advice is not None
    assert explained("--proof", old, *advice.groups(), now=None).status == 0
    assert explained("--proof", old, "--proof-lifetime", "600").status == 0


def test_an_iat_limit_is_judged_beside_the_nonce() -> None:
    late = proof(access_token=None, now=NOW - 303, nonce="n")
    assert explained("--proof", late, "--nonce", "n").status == 0
    ran = explained("--proof", late, "--nonce", "n", "--iat-limit-with-nonce", "300")
    assert ran.status == 1
    assert "iat is 3 s too early" in ran.out
    good = explained(
        "--proof", proof(access_token=None, nonce="n"), "--nonce", "n", "--iat-limit-with-nonce", "300"
    )
    assert good.status == 0
    assert "the nonce decides" not in good.out


def test_the_clock_of_this_machine_is_the_default() -> None:
    assert explained("--proof", proof(now=None), now=None).status == 0


def test_json_holds_the_verdict_and_every_check() -> None:
    ran = explained("--proof", proof(now=NOW - 600), "--token", TOKEN, "--json")
    assert ran.status == 1
    shown = json.loads(ran.out)
    assert {name: shown[name] for name in ("verdict", "status", "error", "check", "now")} == {
        "verdict": "refused",
        "status": 401,
        "error": "invalid_dpop_proof",
        "check": "iat",
        "now": NOW,
    }
    assert [row["check"] for row in shown["checks"]] == list(CHECKS_OF_A_JWT)
    failed = next(row for row in shown["checks"] if row["check"] == "iat")
    assert failed["outcome"] == "failed"
    assert failed["expected"] == [NOW - 90, NOW + 30]
    assert failed["actual"] == NOW - 600
    assert "iat is 510 s too early" in failed["hint"]
    accepted = json.loads(explained("--proof", proof(), "--token", TOKEN, "--json").out)
    assert {name: accepted[name] for name in ("verdict", "status", "error", "description", "check")} == {
        "verdict": "accepted",
        "status": None,
        "error": None,
        "description": None,
        "check": None,
    }


def dated_ten_days_ahead(token: str) -> tuple[str, ...]:
    signed = proof(access_token=token, nonce="n-1", now=NOW + 10 * 86_400)
    return ("--proof", signed, "--token", token, "--nonce", "n-1")


@pytest.mark.parametrize("with_keys", [False, True])
def test_a_proof_that_is_useless_before_its_date_is_accepted_as_by_a_server(
    with_keys: bool, jwks: str
) -> None:
    keys = ("--jwks", jwks) if with_keys else ()
    assert explained(*dated_ten_days_ahead(TOKEN), *keys).status == 0


def test_a_window_without_a_beginning_is_null_in_json_and_minus_infinity_for_people() -> None:
    far = dated_ten_days_ahead(ISSUER.token(jkt=KEY.jkt, expires_in=11 * 86_400))
    assert "     expected  -inf to 1800086400 (" in explained(*far).out
    told = json.loads(explained(*far, "--json").out, parse_constant=pytest.fail)
    (row,) = [row for row in told["checks"] if row["check"] == "iat"]
    assert (row["outcome"], row["expected"]) == ("failed", [None, NOW + 86_400])


def test_without_a_token_it_is_judged_as_a_token_request() -> None:
    url = "https://auth.example.test/token"
    ran = explained("--proof", "-", url=url, method="POST", stdin=KEY.proof("POST", url, now=NOW) + "\n")
    assert ran.status == 0
    assert list(rows(ran.out)) == list(CHECKS)
    refused = explained("--proof", KEY.proof("GET", url, now=NOW), url=url, method="POST")
    assert refused.status == 1
    assert list(rows(refused.out)) == list(CHECKS)
    assert refused.out.endswith("\nrefused: 400 invalid_dpop_proof, caught by htm\n")
    shown = json.loads(explained("--proof", proof(), "--json", url=url, method="POST").out)
    assert (shown["status"], shown["error"], shown["check"]) == (400, "invalid_dpop_proof", "htm")
    assert [row["check"] for row in shown["checks"]] == list(CHECKS)


def test_without_keys_the_rest_of_the_token_is_judged_all_the_same() -> None:
    ran = explained("--proof", proof(), "--token", TOKEN)
    assert ran.status == 0
    shown = rows(ran.out)
    assert {shown[check] for check in ("token_key", "token_signature", "token_iss", "token_aud")} == {"?"}
    assert {shown[check] for check in ("token_claims", "token_time", "binding", "jkt", "ath")} == {"✓"}
    assert "not judged: no keys are given: add --jwks or --issuer" in ran.out
    other = ISSUER.token(jkt=DPoPKey.generate().jkt)
    assert explained("--proof", proof(access_token=other), "--token", other).out.endswith("caught by jkt\n")


def test_without_keys_a_token_of_another_type_is_judged_as_far_as_it_can_be() -> None:
    token = ISSUER.token(jkt=DPoPKey.generate().jkt, header={"typ": "JWT"})
    ran = explained("--proof", proof(access_token=token), "--token", token)
    shown = rows(ran.out)
    assert (shown["token_typ"], shown["token_alg"], shown["token_key"], shown["jkt"]) == ("✗", "✓", "·", "✗")
    assert ran.out.endswith("caught by token_typ\n")


def test_a_given_nonce_is_checked() -> None:
    assert explained("--proof", proof(nonce="n-1", now=5), "--nonce", "n-1").status == 0
    ran = explained("--proof", proof(nonce="n-0"), "--nonce", "n-1")
    assert ran.status == 1
    assert ran.out.endswith("refused: 400 use_dpop_nonce, caught by nonce\n")


def test_two_proofs_are_two_fields() -> None:
    ran = explained("--proof", proof(), "--proof", proof())
    assert ran.out.endswith("refused: 400 invalid_dpop_proof, caught by one_header\n")


def test_a_websocket_handshake_is_judged_at_its_http_url() -> None:
    assert explained("--proof", proof(), url="wss://api.example.test/notes").status == 0


@pytest.mark.parametrize("name", [name for name in BROKEN_PROOFS if name not in ("replayed", "no_proof")])
def test_every_defect_is_caught_by_its_check(name: str) -> None:
    lines = broken_proof(name, key=KEY, method="GET", url=URL, access_token=TOKEN, now=NOW)
    options = [word for _, value in lines for word in ("--proof", value)]
    ran = explained(*options, "--token", TOKEN)
    assert ran.status == 1
    assert rows(ran.out)[BROKEN_PROOFS[name].check] == "✗"
    assert KEY.private_jwk()["d"] not in ran.out


def test_keys_that_cannot_be_fetched_are_status_3() -> None:
    jwks = f"http://127.0.0.1:{free_port()}/jwks"
    ran = explained(
        "--proof", proof(), "--token", TOKEN, "--jwks", jwks,
        "--issuer", ISSUER.issuer,
    )  # fmt: skip
    assert ran.status == 3
    assert "unknown: 503, caught by token_key" in ran.out
    alone = process(
        "explain", "--method", "GET", "--url", URL, "--proof", "x", "--token", TOKEN,
        "--jwks", jwks,
    )  # fmt: skip
    assert (alone.status, alone.err) == (3, "")
    assert json.loads(
        explained(
            "--proof", proof(), "--token", TOKEN, "--jwks", jwks, "--json"
        ).out
    )["verdict"] == "unknown"  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--url", "/notes"), "the URL can't be used: the URL must be absolute"),
        (("--url", "https://a b/"), "the URL can't be used: "),
        (("--url", "https://[::z]/"), "the URL can't be used: "),
        (("--method", ""), "the method is not an HTTP method name"),
        (("--now", "then"), "--now takes seconds since the epoch"),
        (("--proof-lifetime", "0"), "proof_lifetime takes a finite number of seconds, from 1 to 86400"),
        (("--proof-lifetime", "nan"), "proof_lifetime takes a finite number"),
        (("--clock-skew", "x"), "invalid float value: 'x'"),
        (("--scope", "a b"), "scopes takes strings without spaces"),
        (("--token", "@/nowhere"), "--token can't read /nowhere"),
        (("--token", TOKEN, "--jwks", "/nowhere"), "--jwks can't read /nowhere"),
        (("--token", TOKEN, "--issuer", "nobody"), "issuer takes an https URL"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(options: tuple[str, ...], words: str) -> None:
    ran = explained("--proof", "x", *options)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J\x1b]0;x\x07",
        "é.ü.ö",
        "\udcff\udc00",
        "a" * 20_000,
        "..",
        "eyJ9.eyJ9.e",
        "\0",
        "{}.{}.{}",
        "," * 50,
    ],
)
def test_hostile_values_are_a_refusal_and_stay_what_they_are(hostile: str, jwks: str) -> None:
    for options in (("--proof", hostile), ("--proof", proof(), "--token", hostile)):
        for how in ((), ("--json",)):
            ran = explained(*options, *how)
            assert ran.status == 1
            assert "\x1b" not in ran.out + ran.err
            assert hostile not in ran.out or len(hostile) < 3


def test_hostile_claims_are_escaped_and_cut(tmp_path: Path) -> None:
    evil = "https://evil.example/" + "\x1b[31m\u202e" + "A" * 5000
    lines = {"htm": "\x1b]8;;x\x07", "htu": evil, "jti": "\x9b31m", "nonce": "\x1b[2J"}
    for name, value in lines.items():
        claims = {"jti": "1", "htm": "GET", "htu": URL, "iat": NOW, name: value}
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.public_jwk}
        (tmp_path / "proof").write_text(encode_jws(header, claims, key=KEY))
        ran = explained("--proof", f"@{tmp_path / 'proof'}")
        printable = set(map(chr, range(0x20, 0x7F))) | set("✓✗·\n")
        assert set(ran.out) <= printable
        assert max(map(len, ran.out.splitlines())) < 400


def test_huge_times_are_refused_and_milliseconds_are_pointed_out() -> None:
    ran = explained("--proof", proof(now=10**300))
    assert ran.status == 1
    assert "caught by claims" in ran.out
    milliseconds = explained("--proof", proof(now=NOW * 1000))
    assert "iat is in milliseconds? it must be in seconds" in milliseconds.out


def test_explain_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    ran = process(
        "explain", "--method", "GET", "--url", URL, "--proof", "-", "--token", f"@{tmp_path / 'token'}",
        "--now", "2027-01-15T08:00:00Z", stdin=proof(),
    )  # fmt: skip
    assert (ran.status, ran.err) == (0, "")
    assert "\x1b" not in ran.out
