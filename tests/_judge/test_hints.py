"""Guesses at a cause, for the log."""

import ast
import contextlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpop_middleware import MemoryReplayStore, ResourceServer
from dpop_middleware._judge import hints, misplaced
from dpop_middleware._judge.hints import hint_of
from dpop_middleware._judge.requirements import Requirements
from dpop_middleware._log import escaped
from dpop_middleware.checks import Check, Reason
from dpop_middleware.client import DPoPKey
from dpop_middleware.errors import (
    DPoPError,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidDPoPProof,
    InvalidRequest,
    InvalidToken,
    Refusal,
    Unavailable,
    UseDPoPNonce,
)
from dpop_middleware.events import AuthenticationEvent
from dpop_middleware.testing import ABSENT, BROKEN_PROOFS, TestIssuer, broken_proof
from tests.support.api import NOW, RESOURCE, Api, edited, request
from tests.support.readme import text_of

TARGET = "https://api.example.test/svc/notes"


def hint(check: Check, expected: object, actual: object) -> str:
    found = hint_of(InvalidDPoPProof("no", check=check, expected=expected, actual=actual))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (
            "http://api.example.test/svc/notes",
            "scheme differs (http, not https): TLS ends at a proxy? set public_url",
        ),
        (
            "https://other.example.test/svc/notes",
            "host differs: set public_url, if clients call other.example.test",
        ),
        ("https://api.example.test/svc/notes/", "trailing slash"),
        (
            "http://localhost:8000/svc/notes",
            "scheme and host differ: set public_url, if clients call http://localhost:8000",
        ),
        ("http://other.example.test/svc/notes/", "trailing slash, or scheme or host"),
        ("https://api.example.test/v1/svc/notes", "the path has a prefix that is missing here: "),
        (
            "https://api.example.test/notes",
            "the path lacks a prefix that is here: has public_url or the root path one too many?",
        ),
        ("the URI is not absolute", "the client must sign the absolute URL"),
    ],
)
def test_each_difference_of_an_htu_has_its_hint(actual: str, words: str) -> None:
    assert hint(Check.HTU, TARGET, actual).startswith(words)


def test_what_to_do_about_a_host_is_not_cut_off_in_the_log() -> None:
    for scheme, words in ("https", "host differs"), ("http", "scheme and host differ"):
        found = hint(Check.HTU, TARGET, f"{scheme}://{'a' * 300}/svc/notes")
        assert escaped(found).startswith(f"'{words}: set public_url, if clients call ")


def test_no_fixed_hint_is_cut_off_in_the_log() -> None:
    for fixed in set[str]().union(*(hints_of(module) for module in (hints, misplaced))):
        assert ascii(fixed.replace("…", "")) == escaped(fixed.replace("…", ""))


@pytest.mark.parametrize(
    ("sent", "signed", "words"),
    [
        ("/users/a@b.c", "/users/a%40b.c", "only percent-encoding differs"),
        ("/users/a%40b.c", "/users/a@b.c", "only percent-encoding differs"),
        ("/a!b;c/%2F", "/a%21b%3Bc/%2F", "only percent-encoding differs"),
        ("/a%2Fb", "/a/b", "only percent-encoding differs"),
        ("/a%2540b", "/a%40b", "one of the paths is percent-encoded twice"),
        ("/caf%C3%A9", "/caf%25C3%25A9", "one of the paths is percent-encoded twice"),
        ("/Notes", "/notes", "only upper and lower case differ"),
        ("/a%40B", "/A@b", "upper and lower case and percent-encoding differ: "),
        ("/notes", "/notes/", "trailing slash"),
        ("/u%CC%88", "/%C3%BC", None),
        ("/a%40b/x", "/a@b", None),
    ],
)
def test_two_paths_of_one_origin_have_their_hint(sent: str, signed: str, words: str | None) -> None:
    # RFC 3986 section 6.2.2: these are different URIs, however alike they look.
    error = InvalidDPoPProof(
        "no", check=Check.HTU, expected=f"https://a.example{sent}", actual=f"https://a.example{signed}"
    )
    found = hint_of(error)
    assert (found is None) if words is None else (found is not None and found.startswith(words))
    elsewhere = InvalidDPoPProof(
        "no", check=Check.HTU, expected=f"https://a.example{sent}", actual=f"http://b.example{signed}"
    )
    assert "percent" not in str(hint_of(elsewhere))


async def test_a_path_that_is_encoded_in_another_way_is_refused_with_a_hint() -> None:
    for sent, signed in (("/users/a@b.c", "/users/a%40b.c"), ("/users/a%40b.c", "/users/a@b.c")):
        api = Api()
        with pytest.raises(InvalidDPoPProof):
            await api.server.authenticate(api.request(api.proof(url=RESOURCE + signed), raw_path=sent))
        assert "only percent-encoding differs" in str(api.events[0].hint)
        await api.server.authenticate(api.request(api.proof(url=RESOURCE + sent), raw_path=sent))


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (NOW + 3600, "iat is 3570 s too late: does the client's clock run fast?"),
        (NOW - 3600, "iat is 3510 s too early: an old proof, or a slow clock?"),
    ],
)
def test_an_iat_outside_the_window_has_a_hint(actual: float, words: str) -> None:
    assert words in hint(Check.IAT, (NOW - 90, NOW + 30), actual)


def test_an_htm_in_lower_case_has_a_hint() -> None:
    assert "case-sensitive" in hint(Check.HTM, "POST", "post")


@pytest.mark.parametrize(
    ("check", "expected", "actual"),
    [
        (Check.HTU, TARGET, "https://api.example.test/other"),
        (Check.HTU, TARGET, None),
        (Check.HTU, ("a.example", "b.example"), ("a.example", "b.example")),
        (Check.HTU, ("a.example", "b.example"), ()),
        (Check.IAT, None, None),
        (Check.IAT, NOW, NOW - 1),
        (Check.IAT, (NOW, NOW), "text"),
        (Check.HTM, "POST", "GET"),
        (Check.HTM, "POST", None),
        (None, None, None),
    ],
)
def test_no_guess_is_better_than_a_wrong_one(check: Check | None, expected: object, actual: object) -> None:
    assert hint_of(InvalidDPoPProof("no", check=check, expected=expected, actual=actual)) is None


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
def test_a_time_in_milliseconds_has_a_hint(name: str) -> None:
    assert hint(Check.CLAIMS, name, NOW * 1000) == f"{name} is in milliseconds? it must be in seconds"


async def test_a_client_that_counts_milliseconds_is_found_out() -> None:
    api = Api()
    with pytest.raises(DPoPError):
        await api.server.authenticate(api.request(edited(api.key, api.proof(), iat=int(NOW * 1000))))
    assert api.events[0].hint == "iat is in milliseconds? it must be in seconds"


PROOF, TOKEN = InvalidDPoPProof, InvalidToken
USED_BEFORE = "the DPoP proof was used before"


@pytest.mark.parametrize(
    ("kind", "check", "expected", "actual", "words"),
    [
        (PROOF, Check.ONE_HEADER, 1, 0, "sent no DPoP field"),
        (PROOF, Check.ONE_HEADER, 1, 2, "added a field instead of replacing it"),
        (PROOF, Check.ONE_HEADER, 8192, 9000, None),
        (PROOF, Check.TYP, "dpop+jwt", "JWT", "default of a JWT library"),
        (PROOF, Check.ALG, ("EdDSA",), "ES256", "not among the algorithms"),
        (PROOF, Check.ALG, ("EdDSA",), "none", "never with a shared secret"),
        (PROOF, Check.ALG, ("EdDSA",), "HS256", "never with a shared secret"),
        (PROOF, Check.ALG, ("EdDSA",), "ES256K", None),
        (PROOF, Check.ALG, ("EdDSA",), ["ES256"], None),
        (PROOF, Check.JWK, None, "the JWK is not for signatures", None),
        (PROOF, Check.JWK, None, None, None),
        (PROOF, Check.FORMAT, None, None, "is it whole"),
        (PROOF, Check.ATH, None, None, "a proof for another token"),
        (PROOF, Check.SIGNATURE, None, None, "another key than the one in jwk"),
        (PROOF, Check.NONCE, None, None, None),
        (
            PROOF,
            Check.HTU,
            ("https://a.example/v1", "https://a.example/v2"),
            "/x",
            "a proxy strips the prefix",
        ),
        (PROOF, Check.HTU, ("a.example", "b.example"), ("10.0.0.1",), "a proxy that doesn't pass Host on?"),
        (PROOF, Check.HTU, None, "the path has too many characters that are percent-encoded", None),
        (TOKEN, Check.TOKEN_FORMAT, None, None, "opaque or an encrypted token"),
        (TOKEN, Check.TOKEN_TYP, None, None, "token_types"),
        (TOKEN, Check.TOKEN_TYP, None, "'dpop+jwt'", "this is a proof: it belongs in the DPoP field"),
        (TOKEN, Check.TOKEN_TYP, None, "'application/DPoP+JWT'", "this is a proof"),
        (TOKEN, Check.TOKEN_ALG, None, "'HS256'", "a refresh token?"),
        (TOKEN, Check.TOKEN_ALG, None, "'ES256K'", None),
        (TOKEN, Check.TOKEN_CLAIMS, ("sub", "client_id"), None, "name it in client_id_claims"),
        (TOKEN, Check.TOKEN_KEY, None, None, "another issuer"),
        (TOKEN, Check.TOKEN_SIGNATURE, None, None, "altered or cut short, or made by another issuer"),
        (TOKEN, Check.TOKEN_SIGNATURE, None, None, "a new key under an old kid?"),
        (TOKEN, Check.TOKEN_AUD, None, None, "another API"),
        (TOKEN, Check.TOKEN_AUD, ["https://a.example"], "'https://b.example/'", "another API"),
        (TOKEN, Check.TOKEN_AUD, ["https://a.example"], "'https://a.example/'", "only a trailing slash"),
        (TOKEN, Check.TOKEN_AUD, ["b", "https://a.example/"], "['c', 'https://a.example']", "trailing slash"),
        (
            TOKEN,
            Check.TOKEN_AUD,
            ["https://a.example/Api"],
            "'https://A.example/api'",
            "only upper and lower case differ: set audience to what the token says",
        ),
        (TOKEN, Check.JKT, None, None, "a token belongs to one key"),
        (TOKEN, Check.TOKEN_TIME, NOW, NOW - 60, "it expired 60 s ago"),
        (TOKEN, Check.TOKEN_TIME, NOW, NOW + 60, "valid in 60 s"),
        (TOKEN, Check.TOKEN_CLAIMS, "exp", str(NOW * 1000), "exp is in milliseconds? it must be in seconds"),
        (TOKEN, Check.TOKEN_TIME, NOW, None, None),
        (TOKEN, Check.TOKEN_TIME, None, NOW, None),
        (TOKEN, Check.TOKEN_CLAIMS, "client_id", None, "leaves out client_id? name the others"),
        (TOKEN, Check.TOKEN_CLAIMS, "sub", "7", None),
        (
            TOKEN,
            Check.TOKEN_ISS,
            "https://a.example",
            "'https://a.example/'",
            "only a trailing slash differs",
        ),
        (
            TOKEN,
            Check.TOKEN_ISS,
            "https://a.example",
            "'https://A.example/'",
            "a trailing slash and upper and lower case differ: name the issuer as it names itself",
        ),
        (
            TOKEN,
            Check.TOKEN_ISS,
            ("https://b.example", "https://a.example/t"),
            "'https://a.example/T'",
            "case",
        ),
        (TOKEN, Check.TOKEN_ISS, "https://a.example", "'https://b.example'", None),
        (TOKEN, Check.TOKEN_ISS, "https://a.example", None, None),
        (TOKEN, Check.BINDING, None, None, None),
        (TOKEN, None, None, None, None),
        (PROOF, None, None, None, None),
        (InvalidRequest, Check.AUTHORIZATION, None, None, None),
    ],
)
def test_every_check_has_its_hints(
    kind: type[DPoPError], check: Check | None, expected: object, actual: object, words: str | None
) -> None:
    found = hint_of(kind("no", check=check, expected=expected, actual=actual))
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert words in found


@pytest.mark.parametrize(
    ("check", "reason", "words"),
    [
        (Check.JWK, Reason.PRIVATE_KEY, "make a new one"),
        (Check.JWK, None, None),
        (Check.FORMAT, Reason.NOT_BASE64URL, "is it whole"),
        (Check.FORMAT, None, "is it whole"),
        (Check.CLAIMS, Reason.NOT_JSON, None),
        (Check.SIGNATURE, Reason.NOT_BASE64URL, "is it whole"),
        (Check.SIGNATURE, None, "in DER form"),
    ],
)
def test_hints_go_by_the_reason_not_by_words(check: Check, reason: Reason | None, words: str | None) -> None:
    error = InvalidDPoPProof("no", check=check, actual="private JSON", refusal=Refusal(reason=reason))
    assert (words or "None") in str(hint_of(error))


def test_hints_go_by_what_happened() -> None:
    assert "sent twice" in str(hint_of(InvalidDPoPProof(USED_BEFORE, check=Check.JTI)))
    malformed = InvalidDPoPProof("the jti of the DPoP proof is malformed", check=Check.CLAIMS, expected="jti")
    assert hint_of(malformed) is None
    assert "put it into a new proof" in str(hint_of(UseDPoPNonce("no", nonce="n")))
    unbound = InvalidToken("no", check=Check.BINDING, refusal=Refusal(scheme="DPoP"))
    assert "did the token request carry a DPoP proof" in str(hint_of(unbound))


async def test_the_guess_about_a_replay_knows_the_replays_description() -> None:
    api = Api()
    asked = api.request()
    await api.server.authenticate(asked)
    with pytest.raises(InvalidDPoPProof, match=USED_BEFORE):
        await api.server.authenticate(asked)
    assert "sent twice" in str(api.events[-1].hint)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_proof", "the client sent no DPoP field, or a proxy dropped it?"),
        ("two_headers", "a retry that added a field"),
        ("joined_by_a_comma", "a proxy that joined two?"),
        ("oversized", None),
        ("empty", None),
        ("no_jwt", "three base64url parts"),
        ("padded", "no padding"),
        ("duplicate_member", None),
        ("no_typ", "set typ to dpop+jwt"),
        ("typ_jwt", "is it the default of a JWT library?"),
        ("crit", None),
        ("alg_none", "never with a shared secret"),
        ("hs256", "never with a shared secret"),
        ("no_alg", None),
        ("no_jwk", None),
        ("private_jwk", "this key is not secret any more"),
        ("other_key", "did the client make a new key after it got the token?"),
        ("no_jti", None),
        ("no_htm", None),
        ("wrong_htm", None),
        ("htm_in_lower_case", "case-sensitive"),
        ("no_ath", "made as for a token request?"),
        ("wrong_ath", "a proof for another token"),
        ("bad_signature", "signed by another key"),
        ("replayed", "sent twice, by a retry, a proxy or a thief?"),
    ],
)
async def test_each_defect_has_the_documented_hint(name: str, words: str | None) -> None:
    api = Api()
    lines = broken_proof(
        name, key=api.key, method="GET", url=f"{RESOURCE}/notes", access_token=api.token, now=NOW
    )
    asked = request(api.token, *(value for _, value in lines))
    for _ in range(BROKEN_PROOFS[name].presentations):
        with contextlib.suppress(DPoPError):
            await api.server.authenticate(asked)
    found = api.events[-1].hint
    assert (found is None) if words is None else (found is not None and words in found)


@pytest.mark.parametrize("end", ["==", "\u0020x", "+"])
async def test_a_proof_that_isn_t_base64url_at_its_end_is_not_taken_for_one_by_another_key(end: str) -> None:
    api = Api()
    with pytest.raises(InvalidDPoPProof):
        await api.server.authenticate(api.request(api.proof() + end))
    assert "no padding, no line break" in str(api.events[0].hint)


@pytest.mark.parametrize(
    ("scopes", "words"),
    [
        (tuple("notes:read"), 'are these the letters of one scope? write scopes=["…"], a list'),
        (("notes:read",), None),
        (("r", "w"), None),
        (("a", "b", "cd"), None),
    ],
)
def test_the_letters_of_one_scope_have_a_hint(scopes: tuple[str, ...], words: str | None) -> None:
    """`Security(dpop, scopes="notes:read")` of FastAPI takes the text for a list."""
    assert hints.hint_of(InsufficientScope("it lacks a scope", scopes=scopes)) == words


@pytest.mark.parametrize(
    ("required", "claims", "words"),
    [
        ({"max_age": 60}, {}, "does the issuer write acr and auth_time into access tokens?"),
        ({"max_age": 60}, {"auth_time": None}, "does the issuer write acr and auth_time into access tokens?"),
        ({"acr_values": ["gold"]}, {}, "does the issuer write acr and auth_time into access tokens?"),
        ({"max_age": 60}, {"auth_time": int(NOW * 1000)}, "auth_time is in milliseconds? it must be in"),
        ({"max_age": 60}, {"auth_time": NOW - 61}, None),
        ({"max_age": 60}, {"auth_time": "today"}, None),
        ({"acr_values": ["gold"]}, {"acr": "bronze"}, None),
        ({"acr_values": ["gold"]}, {"acr": "123456789012"}, None),
    ],
)
def test_a_login_that_no_token_tells_of_has_a_hint(
    required: dict[str, Any], claims: dict[str, Any], words: str | None
) -> None:
    """Without it a client would send its user to log in again and again."""
    token = TestIssuer(audience=RESOURCE, clock=lambda: NOW).access_token(**claims)
    with pytest.raises(InsufficientUserAuthentication) as caught:
        Requirements(**required).check(token, now=NOW)
    found = hint_of(caught.value)
    assert (found is None) if words is None else (found is not None and words in found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"header": {"typ": "JWT"}}, "with profile=profiles.KEYCLOAK"),
        ({"key": DPoPKey.generate()}, "was the token altered or cut short"),
        ({"header": {"kid": "unknown"}, "key": DPoPKey.generate()}, "a new key that is not yet published?"),
        ({"client_id": ABSENT}, "the issuer leaves out client_id? name the others in required_claims"),
        ({"scope": 1}, None),
        ({"iss": "https://auth.example.test/"}, "only a trailing slash differs"),
        ({"iss": "https://other.example.test"}, None),
        ({"audience": "https://other.example.test"}, "set audience to what it says"),
        ({"expires_in": -3600}, "it expired 3600 s ago"),
        ({"nbf": NOW + 3600}, "valid in 3600 s: does the issuer's clock run fast?"),
        ({"nbf": NOW * 1000}, "nbf is in milliseconds? it must be in seconds"),
        ({"exp": NOW * 1000}, "exp is in milliseconds? it must be in seconds"),
        ({"iat": NOW * 1000}, "iat is in milliseconds? it must be in seconds"),
        ({"exp": -1}, None),
        ({"sub": int(NOW * 1000)}, None),
        ({"jkt": None}, "did the token request carry a DPoP proof"),
        ({"cnf": {"x5t#S256": "x"}}, None),
    ],
)
async def test_each_wrong_token_has_the_documented_hint(changes: dict[str, Any], words: str | None) -> None:
    issuer, key = TestIssuer(audience=RESOURCE, clock=lambda: NOW), DPoPKey.generate()
    claims: dict[str, Any] = {"jkt": key.jkt, **changes}
    token = issuer.token(**claims)
    events: list[AuthenticationEvent] = []
    server = ResourceServer(
        issuer=issuer.issuer,
        resource=RESOURCE,
        jwks=issuer.jwks(),
        replay_store=MemoryReplayStore(),
        clock=lambda: NOW,
        on_event=events.append,
    )
    with pytest.raises(InvalidToken):
        await server.authenticate(request(token, key.proof("GET", RESOURCE, access_token=token, now=NOW)))
    found = events[0].hint
    assert (found is None) if words is None else (found is not None and words in found)


@pytest.mark.parametrize("check", [Check.TOKEN_KEY, Check.JTI])
def test_a_503_has_no_hint(check: Check) -> None:
    assert hint_of(Unavailable("no", check=check)) is None


def hints_of(module: ModuleType) -> set[str]:
    """Every sentence that a module of hints can give, with … for what comes from the request."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.add(
                "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (told | parts)
        ):
            found.add(node.value)
    # Words, names and formats of numbers are not sentences.
    return {text for text in found if " " in text.strip()}


def test_the_chapter_says_of_every_hint_what_to_do_and_of_no_other() -> None:
    there = set[str]().union(*(hints_of(module) for module in (hints, misplaced)))
    assert len(there) > 50
    chapter = text_of("examples/refusals/README.md").partition("## Without a hint")[0]
    rows = [line.strip("| ").split(" | ") for line in chapter.splitlines() if line.startswith("| ")]
    assert [row for row in rows if len(row) != 3] == []
    told = [row[0].replace("`", "") for row in rows if row[0] != "hint"]
    assert len(told) == len(set(told))
    assert set(told) == there
