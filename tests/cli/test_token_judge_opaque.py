"""`explain` judges a request with an opaque token, by a saved answer or by the endpoint's own."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpop_middleware.checks import CHECKS_OF_A_JWT, CHECKS_OF_AN_OPAQUE_TOKEN
from dpop_middleware.client import DPoPKey
from dpop_middleware.testing import TestIssuer
from tests.support.command import Ran, run
from tests.support.introspection_server import API, IssuerOfOpaqueTokens, Question, issuing

URL = f"{API}/notes"
KEY = DPoPKey.generate()


@pytest.fixture
def issuer() -> Iterator[IssuerOfOpaqueTokens]:
    with issuing() as issuer:
        yield issuer


def explained(token: str, *options: str, key: DPoPKey = KEY, **how: Any) -> Ran:
    proof = key.proof("GET", URL, access_token=token)
    return run(
        "explain",
        "--method",
        "GET",
        "--url",
        URL,
        "--proof",
        proof,
        "--token",
        token,
        "--json",
        *options,
        **how,
    )


def said(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "active": True,
        "iss": "https://auth.example.test",
        "aud": API,
        "sub": "ann",
        "exp": time.time() + 60,
        "token_type": "DPoP",
        "cnf": {"jkt": KEY.jkt},
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(**changes: Any) -> tuple[str, str]:
        (tmp_path / "answer.json").write_text(json.dumps(said(**changes)))
        return ("--introspection", str(tmp_path / "answer.json"))

    return save


def test_a_saved_answer_is_judged(saved: Any) -> None:
    ran = explained("opaque", *saved())
    assert (ran.status, ran.err) == (0, "")
    told = ran.outcomes()
    assert list(told) == list(CHECKS_OF_AN_OPAQUE_TOKEN)
    assert told["token_active"] == told["signature"] == told["jkt"] == "passed"
    assert told["token_iss"] == told["token_aud"] == told["jti"] == "not judged"


def test_an_answer_may_come_on_standard_input() -> None:
    named = ("--issuer", "https://auth.example.test", "--audience", API)
    ran = explained("opaque", "--introspection", "-", *named, stdin=json.dumps(said()))
    assert ran.status == 0
    assert ran.outcomes()["token_iss"] == ran.outcomes()["token_aud"] == "passed"


@pytest.mark.parametrize(
    ("changes", "options", "check"),
    [
        ({"active": False}, (), "token_active"),
        ({"active": "yes"}, (), "token_active"),
        ({"exp": 1000}, (), "token_time"),
        ({"exp": None}, (), "token_claims"),
        ({"aud": 7}, (), "token_claims"),
        ({"iss": 7}, (), "token_iss"),
        ({"token_type": "Bearer"}, (), "binding"),
        ({"cnf": {"jkt": DPoPKey.generate().jkt}}, (), "jkt"),
        ({}, ("--issuer", "https://other.example"), "token_iss"),
        ({}, ("--audience", "https://other.example"), "token_aud"),
        ({"aud": None}, ("--audience", API), "token_aud"),
        ({}, ("--required-claim", "acr"), "token_claims"),
        ({"exp": None, "token_type": None}, ("--required-claim", "sub"), None),
        ({"aud": None, "iss": None}, (), None),
        ({"aud": [API, "x"]}, (), None),
    ],
)
def test_an_answer_is_judged_as_a_server_judges_it(
    saved: Any, changes: dict[str, Any], options: tuple[str, ...], check: str | None
) -> None:
    ran = explained("opaque", *saved(**changes), *options)
    assert ran.failed() == check
    assert ran.status == (0 if check is None else 3 if changes.get("active") == "yes" else 1)


def test_the_proof_comes_first(saved: Any) -> None:
    ran = run(
        "explain", "--method", "GET", "--url", URL, "--proof", KEY.proof("POST", URL, access_token="opaque"),
        "--token", "opaque", "--json", *saved(active=False),
    )  # fmt: skip
    assert ran.failed() == "htm"
    told = {check["check"]: check for check in json.loads(ran.out)["checks"]}
    assert (told["token_active"]["outcome"], told["token_active"]["after_failure"]) == ("failed", True)


@pytest.fixture
def secret(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "secret").write_text("s3cret\n")
    return ("--audience", API, "--client-id", "api", "--client-secret", f"@{tmp_path / 'secret'}")


@pytest.mark.parametrize("post", [(), ("--client-secret-post",)])
@pytest.mark.parametrize("discovered", [True, False])
def test_the_endpoint_is_asked(
    issuer: IssuerOfOpaqueTokens, secret: tuple[str, ...], post: tuple[str, ...], discovered: bool
) -> None:
    token = issuer.issue(KEY.jkt)
    where = ("--issuer", issuer.origin, "--introspection", "issuer" if discovered else issuer.endpoint)
    ran = explained(token, *where, *secret, *post)
    assert (ran.status, ran.err) == (0, "")
    assert ran.outcomes()["token_active"] == "passed"
    (question,) = issuer.asked
    assert ("client_secret" in question.form) is bool(post)
    assert explained("made-up", *where, *secret, *post).failed() == "token_active"


def test_a_person_waits_longer_for_the_endpoint_than_a_request_would(
    issuer: IssuerOfOpaqueTokens, secret: tuple[str, ...]
) -> None:
    async def slow(_: Question) -> None:
        await asyncio.sleep(2.5)

    issuer.behaves = slow
    where = ("--issuer", issuer.origin, "--introspection", issuer.endpoint)
    assert explained(issuer.issue(KEY.jkt), *where, *secret).outcomes()["token_active"] == "passed"


def test_an_endpoint_that_can_not_be_asked_is_reported(
    issuer: IssuerOfOpaqueTokens, secret: tuple[str, ...]
) -> None:
    where = ("--issuer", issuer.origin, "--introspection", f"{issuer.origin}/none")
    ran = explained("opaque", *where, *secret)
    assert ran.status == 3
    assert "the status is 404" in ran.out


def test_a_jwt_is_judged_as_one(saved: Any) -> None:
    ran = explained(TestIssuer().token(jkt=KEY.jkt), *saved())
    assert ran.status == 0
    assert list(ran.outcomes()) == list(CHECKS_OF_A_JWT)


ASKING = ("--introspection", "issuer", "--issuer", "https://a.example", "--audience", API)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--introspection", "issuer"), "name --issuer, --audience"),
        (("--introspection", "https://a.example/i"), "name --issuer, --audience"),
        ((*ASKING, "--client-id", "x"), "--client-secret takes"),
        (
            (*ASKING, "--client-id", "x", "--client-secret", "on-the-line"),
            "--client-secret takes - for standard input or @FILE",
        ),
        (("--introspection", "no-such-file"), "can't read no-such-file"),
    ],
)
def test_missing_options_are_named(options: tuple[str, ...], says: str) -> None:
    ran = explained("opaque", *options)
    assert ran.status == 2
    assert says in ran.err
    assert "on-the-line" not in ran.err


def test_without_httpx2_it_says_what_to_install(
    secret: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("verifier", "_endpoint", "_questions", "_transport"):
        monkeypatch.delitem(sys.modules, f"dpop_middleware.introspection.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    ran = explained("opaque", "--introspection", "issuer", "--issuer", "https://a.example", *secret)
    assert ran.status == 2
    assert "python -m pip install '.[introspection]'" in ran.err
