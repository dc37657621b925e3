"""Access tokens of every kind of issuer, judged by the options."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpop_middleware.client import DPoPKey
from dpop_middleware.profiles import KNOWN, Profile
from dpop_middleware.testing import ABSENT, TestIssuer
from tests.support.command import Ran, run
from tests.support.issuer_server import IssuerServer

NOW = 1_800_000_000
URL = "https://api.example.test/notes"
ISSUER = TestIssuer(clock=lambda: NOW)
KEY = DPoPKey.generate()


def explained(token: str, *options: str, **how: Any) -> Ran:
    proof = KEY.proof("GET", URL, access_token=token, now=NOW)
    return run(
        "explain", "--method", "GET", "--url", URL, "--proof", proof, "--token", token, "--now", str(NOW),
        *options, **how,
    )  # fmt: skip


@pytest.fixture
def jwks(tmp_path: Path) -> str:
    (tmp_path / "jwks.json").write_text(json.dumps(ISSUER.jwks()))
    return str(tmp_path / "jwks.json")


@pytest.mark.parametrize("prefix", ["", "@"])
def test_keys_are_read_from_a_file(jwks: str, prefix: str) -> None:
    ran = explained(ISSUER.token(jkt=KEY.jkt), "--jwks", f"{prefix}{jwks}", "--json")
    shown = ran.outcomes()
    assert ran.status == 0
    assert shown["token_signature"] == shown["token_key"] == "passed"
    assert shown["token_iss"] == shown["token_aud"] == "not judged"


def test_keys_are_read_from_standard_input() -> None:
    ran = explained(ISSUER.token(jkt=KEY.jkt), "--jwks", "-", "--json", stdin=json.dumps(ISSUER.jwks()))
    assert ran.outcomes()["token_signature"] == "passed"


@pytest.mark.parametrize("profile", KNOWN, ids=lambda profile: profile.name)
@pytest.mark.parametrize("with_keys", [False, True])
def test_a_profile_says_what_the_tokens_look_like(profile: Profile, with_keys: bool, tmp_path: Path) -> None:
    issuer = TestIssuer(clock=lambda: NOW, profile=profile)
    (tmp_path / "jwks.json").write_text(json.dumps(issuer.jwks()))
    keys = ["--jwks", str(tmp_path / "jwks.json")] if with_keys else []
    token = issuer.token(jkt=KEY.jkt, scopes=["notes:read"])
    options = [*keys, "--scope", "notes:read", "--json"]
    ran = explained(token, *options, "--profile", profile.name)
    assert (ran.status, ran.failed()) == (0, None)
    other = "AUTH0" if profile.name == "OKTA" else "OKTA"
    assert explained(token, *options, "--profile", other).failed() == "token_typ"


def test_a_token_signed_by_another_key_is_refused(jwks: str) -> None:
    token = ISSUER.token(jkt=KEY.jkt, key=DPoPKey.generate())
    assert explained(token, "--json").failed() is None
    assert explained(token, "--jwks", jwks, "--json").failed() == "token_signature"


def test_a_named_issuer_and_audience_are_checked(jwks: str) -> None:
    token = ISSUER.token(jkt=KEY.jkt)
    right = ("--issuer", ISSUER.issuer, "--audience", "x", "--audience", "https://api.example.test")
    shown = explained(token, "--jwks", jwks, "--json", *right).outcomes()
    assert shown["token_iss"] == shown["token_aud"] == "passed"
    other = explained(token, "--jwks", jwks, "--json", "--issuer", f"{ISSUER.issuer}/")
    assert other.failed() == "token_iss"
    assert "only a trailing slash differs" in other.out
    assert explained(token, "--jwks", jwks, "--json", "--audience", "x").failed() == "token_aud"
    assert explained(token, "--json", "--audience", "x").failed() == "token_aud"


def test_keys_are_found_by_the_issuers_metadata() -> None:
    with IssuerServer() as server:
        issuer = TestIssuer(server.origin, clock=lambda: NOW)
        server.publish(issuer.jwks())
        ran = explained(issuer.token(jkt=KEY.jkt), "--issuer", server.origin, "--json")
    assert ran.status == 0
    shown = ran.outcomes()
    assert shown["token_iss"] == shown["token_signature"] == "passed"


def test_a_person_waits_longer_for_the_issuers_keys_than_a_request_would() -> None:
    with IssuerServer() as server:
        issuer = TestIssuer(server.origin, clock=lambda: NOW)
        server.publish(issuer.jwks())
        keys = server.handlers["/jwks"]
        # Long after a request would have been answered 503.
        server.handlers["/jwks"] = lambda asked: [1.5, *keys(asked)]
        ran = explained(issuer.token(jkt=KEY.jkt), "--issuer", server.origin, "--json")
    assert ran.outcomes()["token_signature"] == "passed"


def test_a_plain_http_host_must_be_named() -> None:
    token = ISSUER.token(jkt=KEY.jkt, iss="http://auth.internal")
    ran = explained(token)
    assert ran.status == 2
    assert "the token's iss is not an https URL: name the issuer with --issuer" in ran.err
    assert explained(token, "--insecure-http-host", "auth.internal").status == 0


@pytest.mark.parametrize(
    ("token", "caught_by"),
    [
        ("opaque", "token_format"),
        ("a.b.c", "token_format"),
        ("a.b.c.d.e", "token_format"),
        (ISSUER.token(jkt=KEY.jkt, iss=ABSENT), "token_claims"),
        (ISSUER.token(jkt=KEY.jkt, aud=ABSENT), "token_claims"),
        (ISSUER.token(jkt=KEY.jkt, aud={"a": 1}), "token_claims"),
        (ISSUER.token(jkt=KEY.jkt, aud=["", 1]), "token_claims"),
        (ISSUER.token(jkt=KEY.jkt, aud=[]), "token_aud"),
        (ISSUER.token(jkt=KEY.jkt, header={"alg": "none"}, key=ABSENT), "token_alg"),
        (ISSUER.token(jkt=KEY.jkt, expires_in=-16), "token_time"),
        (ISSUER.token(), "binding"),
        (ISSUER.token(cnf={"x5t#S256": "x"}), "binding"),
    ],
)
def test_a_bad_token_fails_its_check_with_keys_or_without(jwks: str, token: str, caught_by: str) -> None:
    for options in ((), ("--jwks", jwks)):
        ran = explained(token, "--json", *options)
        assert ran.status == 1
        if caught_by == "token_aud":  # the token's own audiences are none, so the check is not made by name
            assert ran.outcomes()["token_aud"] == "failed"
        assert ran.failed() == caught_by


def test_options_for_differing_issuers_work_as_in_the_verifier(jwks: str) -> None:
    unlike: dict[str, Any] = {"client_id": ABSENT, "jti": ABSENT, "scp": ["notes:read"], "cid": "web"}
    token = ISSUER.token(jkt=KEY.jkt, header={"typ": ABSENT}, **unlike)
    for keys in ((), ("--jwks", jwks)):
        options = ["--json", *keys]
        assert explained(token, *options).failed() == "token_typ"
        options += ["--token-type", "JWT", "--token-type", "none"]
        assert explained(token, *options).failed() == "token_claims"
        options += ["--client-id-claim", "cid", "--required-claim", "sub", "--required-claim", "client_id"]
        assert explained(token, *options).failed() is None
        options += ["--scope", "notes:read"]
        assert explained(token, *options).failed() == "scope"
        assert explained(token, *options, "--scope-claim", "scp").failed() is None


def test_the_clock_skew_works_as_in_the_server() -> None:
    token = ISSUER.token(jkt=KEY.jkt, expires_in=-16)
    assert explained(token, "--token-clock-skew", "30").status == 0
    assert explained(token, "--json", "--clock-skew", "300").failed() == "token_time"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--jwks", "http://auth.internal/jwks"), "jwks takes an https URL"),
        (("--token-type", ""), "token_types takes the accepted values"),
        (("--insecure-http-host", "a/b"), "insecure_http_hosts takes hosts"),
        (
            ("--issuer", ISSUER.issuer, "--token-clock-skew", "900"),
            "clock_skew takes a finite number of seconds, from 0 to 300",
        ),
    ],
)
def test_usage_errors_are_one_line_and_status_2(options: tuple[str, ...], words: str) -> None:
    ran = explained(ISSUER.token(jkt=KEY.jkt), *options)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err


def test_an_unusable_key_set_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    ran = explained(ISSUER.token(jkt=KEY.jkt), "--jwks", str(tmp_path / "jwks.json"))
    assert ran.status == 2
    assert "jwks holds no usable key" in ran.err


def test_without_keys_the_verifier_names_the_tokens_own_issuer() -> None:
    from argparse import Namespace

    from dpop_middleware.cli.inputs import Inputs
    from dpop_middleware.cli.token_judge import token_judge

    names = ("jwks", "issuer", "audience", "scope", "profile", "token_type", "scope_claim", "client_id_claim",
             "required_claim", "introspection", "insecure_http_host")  # fmt: skip
    args = Namespace(**dict.fromkeys(names), token_clock_skew=15)
    judge = token_judge(args, Inputs(), ISSUER.token(), now=NOW)
    assert judge.verifier.issuers == (ISSUER.issuer,)
